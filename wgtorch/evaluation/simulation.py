"""Measures of simulated worlds: whether they contradict themselves, go on, hang together, and are told without repeating."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wgtorch.blocks.simulation.blocks import events_of, text_of
from wgtorch.blocks.simulation.checker import KINDS, Passage, contradictions, is_caused
from wgtorch.blocks.simulation.genesis import facts_of, is_begun
from wgtorch.evaluation.past import Past
from wgtorch.evaluation.registry import NotMeasured, register_evaluator

_PARTS = ("places", "characters", "objects", "threads")


@register_evaluator("contradictions")
def contradiction_rate(past: Past) -> dict[str, float]:
    """Contradictions per 100 passes of a simulated world, by kind: within the ledger, with the facts, and in what is told."""
    passages = _passages(past)
    found = Counter(entry.kind for entry in contradictions(passages))
    return {kind: 100 * found[kind] / len(passages) for kind in KINDS}


@register_evaluator("caused")
def caused(past: Past) -> dict[str, float]:
    """Share of events that an earlier one caused: it changed, or made, a fact that the event reads."""
    events = _last(past)["events"]
    if not events:
        raise NotMeasured("nothing has happened yet; run the world for some passes")
    strict = [any(is_caused(event, events[cause - 1]) for cause in event["caused_by"]) for event in events]
    return {"share": sum(strict) / len(events), "events": len(events)}


@register_evaluator("new_facts")
def new_facts(past: Past, *, passes: int = 50) -> dict[str, float]:
    """Places, people, objects and threads that the last passes brought, in as many passes.

    Args:
        past: the history.
        passes: how many of the last passes are looked at; of a shorter history all.
    """
    episodes = [episode for episode in past.episodes if is_begun(episode.after)]
    if len(episodes) < 2:
        raise NotMeasured("the world holds no facts of a simulation over two episodes; run it for some passes")
    before, after = episodes[-min(passes + 1, len(episodes))].after, episodes[-1].after
    return {part: len(set(after[part]) - set(before[part])) for part in _PARTS}


@register_evaluator("distinct_4")
def distinct_4(past: Past, *, episodes: int = 200) -> dict[str, float]:
    """Share of different runs of four words in what was told, names and numbers masked.

    Args:
        past: the history.
        episodes: how many of the last ones.
    """
    content = _last(past)
    told = [text_of(episode.state["outcome"]) for episode in past.episodes][-episodes:]
    return {"share": distinct(told, content), "words": sum(len(text.split()) for text in told) / len(told)}


def distinct(texts: list[str], content: Mapping[str, Any], *, size: int = 4) -> float:
    """Share of different runs of words in texts, with the names of a content's places and people, and all numbers, masked."""
    names = sorted((name for part in ("places", "characters") for name in content[part]), key=len, reverse=True)
    masked = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names), re.IGNORECASE)
    runs: list[tuple[str, ...]] = []
    for text in texts:
        found = re.findall(r"[^\W\d_]+(?:['-][^\W\d_]+)*", re.sub(r"\d+", "number", masked.sub("name", text)).lower())
        runs += [tuple(found[at : at + size]) for at in range(len(found) - size + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0


@register_evaluator("narration")
def narration(past: Past) -> dict[str, float]:
    """Of what a language model told: the share of parts that the grammar told instead, and sentences left out per 100 passes."""
    told = [outcome for episode in past.episodes if isinstance(outcome := episode.state["outcome"], Mapping) and "narrated" in outcome]
    if not told:
        raise NotMeasured("no outcome was told by a language model; World.from_template('default', narrator=...) has one")
    parts = sum(outcome["narrated"] + outcome["grammar"] for outcome in told)
    return {
        "by_grammar": sum(outcome["grammar"] for outcome in told) / parts,
        "strays_per_100": 100 * sum(len(outcome["strays"]) for outcome in told) / len(told),
        "passes": len(told),
    }


def _passages(past: Past) -> list[Passage]:
    found = []
    for episode in past.episodes:
        before = facts_of(episode.before, episode.state["intent"])
        is_known = past.knows_beginning or is_begun(episode.before)  # else its genesis may lack what it was given
        if before is not None and is_known and is_begun(episode.after):
            found.append(Passage(before, episode.after, events_of(episode.state["intent"]), text_of(episode.state["outcome"])))
    if not found:
        raise NotMeasured("no episode holds the facts of a simulated world; the template 'default' makes such")
    return found


def _last(past: Past) -> Mapping[str, Any]:
    content = past.episodes[-1].after
    if not is_begun(content):
        raise NotMeasured("the content holds no facts of a simulated world; the template 'default' makes such")
    return content
