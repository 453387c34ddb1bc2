"""What somebody remembers: their own view of the ledger, and what of it comes to mind.

Events are weighed as in Park et al. 2023 (Generative Agents, https://arxiv.org/abs/2304.03442): recency, importance, and how near
they are to what one thinks of.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from wgtorch.blocks.memory.meaning import likeness
from wgtorch.blocks.simulation.facts import Content, Event

DULL = frozenset(
    (
        "go",
        "wander",
        "talk",
        "rest",
        "stay",
        "wait",
        "ask",
        "look",
        "remark",
        "sleep",
        "weather",
        "want",
        "avoid",
        "refrain",
        "unknown",
        "greet",
    )
)
"""Verbs that nobody tells of."""
IMPORTANCE = {
    "burn": 1.0, "destroy": 1.0, "damage": 0.9, "steal": 0.9, "court": 0.9, "quarrel": 0.7, "reconcile": 0.7, "build": 0.7, "arrive": 0.6,
    "depart": 0.7, "discover": 0.7, "finish": 0.6, "give": 0.5, "repair": 0.5, "give_up": 0.5, "plant": 0.4, "teach": 0.4, "trade": 0.3,
}  # fmt: skip
_DECAY = 0.995  # per event


def knows(event: Event, who: str) -> bool:
    """True where somebody did it, was its target, saw it, or was told of it."""
    details = event["details"]
    return who in (event["actor"], event["target"], details.get("to"), details.get("victim"), details.get("giver")) or who in details.get(
        "seen_by", ()
    )


def _named(event: Event) -> set[str]:
    return {event["actor"], event["target"], event["where"], event["verb"], *map(str, event["details"].values())}


def memories(content: Content, who: str, about: Collection[str] | str = (), *, count: int = 5, last: int = 400) -> list[Event]:
    """The events that come to somebody's mind, foremost first.

    Args:
        content: the world's content.
        who: whose memory.
        about: what one thinks of: names, verbs, kinds; or a thought in words, whose meaning is compared by installed vectors
            (:func:`~wgtorch.blocks.memory.meaning.likeness`).
        count: how many.
        last: how far back one remembers, in events of the ledger.
    """
    events: Sequence[Any] = content.get("events", ())
    heard = {
        event["details"].get("news") for event in events[-last:] if event["verb"] == "talk" and who in (event["actor"], event["target"])
    }
    known = [
        event
        for event in events[-last:]
        if event["status"] in ("done", "partly") and (knows(event, who) or event["id"] in heard) and event["verb"] not in DULL
    ]
    if isinstance(about, str):
        meanings = likeness(about, [f"{e['actor']} {e['verb'].replace('_', ' ')} {e['target'] or ''} {e['where'] or ''}" for e in known])
    else:
        meanings = [len(set(about) & _named(event)) / max(1, len(about)) for event in known]
    found = []
    for event, meaning in zip(known, meanings, strict=True):
        recency = _DECAY ** (len(events) - event["id"])
        found.append((recency + IMPORTANCE.get(event["verb"], 0.2) + 2 * meaning, event["id"], event))
    return [event for _, _, event in sorted(found, key=lambda entry: (-entry[0], -entry[1]))[:count]]
