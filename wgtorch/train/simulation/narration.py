"""Data of the narrator: episodes of simulated lives as plain statements, and prose that tells them, composed and checked."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import lru_cache

from wgtorch.blocks.simulation.facts import Content, Event
from wgtorch.blocks.simulation.lexicon import with_article
from wgtorch.blocks.simulation.lives import live
from wgtorch.blocks.simulation.telling import sentences, words
from wgtorch.blocks.simulation.telling.narration import SYSTEM, Account, account_of, checked, kind_of, news_of, plain_words, told_cause
from wgtorch.blocks.simulation.telling.teller import chosen, fields_of
from wgtorch.train.data.base import AtLeastOne
from wgtorch.train.data.made import MadeData, MadeItems
from wgtorch.train.registries import register_data
from wgtorch.train.simulation import prose

PASSES = 40
"""Passes of a life that are told."""
_TRIES = 12
_DONE = (
    "sing a song|rest|wait one night|look around|light a fire|gather wood|dig a hole|plant a tree|build a house|take a nap|search the place|make a kite|climb the tower|eat the apple|"
    "write a letter|pray|dance|stay here|cook soup|go north|go east|go south|go west|build a tower|plant a flower|greet everybody|swim|give the lamp away|drop the lamp|sleep until morning"
).split("|")


@register_data("narrations")
class Narrations(MadeData):
    """Episodes for a narrator: `system` and `prompt`, which say what happened, and `answer`, which tells it as prose.

    Every answer agrees with its facts by the check that a narrator's own words have to pass. Lives of training and of validation
    have seeds of their own.

    Args:
        count: episodes of an epoch.
        validation: episodes that are held out.
        batch_size: episodes of a batch.
        workers: processes that make them.
        seed: of the lives.
    """

    def __init__(
        self, *, count: AtLeastOne = 20_000, validation: AtLeastOne = 64, batch_size: int = 8, workers: int = 0, seed: int = 0
    ) -> None:
        narrated, held_out = Narrated(count, 10_000_000 * (seed + 1)), Narrated(validation, 1_000_000)
        super().__init__(narrated, held_out, batch_size=batch_size, workers=workers)


class Narrated(MadeItems):
    """Episodes by number, of lives by number."""

    def __init__(self, count: int, first: int) -> None:
        super().__init__(count, seed=first)
        self.first = first

    def __getitem__(self, index: int) -> dict[str, str]:
        life, number = divmod(index, PASSES)
        rng = self.rng(index)
        order = random.Random(f"{self.first}/{life}").sample(range(PASSES), PASSES)
        account, prose_ = _life(self.first + life)[order[number]]
        return {"system": SYSTEM, "prompt": account.prompt, "answer": composed(account, *prose_, rng)}


@lru_cache(maxsize=4)
def _life(seed: int) -> list[tuple[Account, tuple[Content, Content, dict[int, Event]]]]:
    """Episodes of a life that have something to tell of; after a while, so that there is a past."""
    rng, found = random.Random(f"{seed}/narrated"), []
    start = rng.choice((0, 20, 60))
    actions = {number: rng.choice(_DONE) for number in range(start, start + 200) if rng.random() < 0.2}
    for number, passage in enumerate(live(seed, start + 4 * PASSES, actions, told=False)):
        account = account_of(passage.before, passage.after, passage.events)
        if number >= start and account.statements:
            found.append((account, (passage.before, passage.after, {event["id"]: event for event in passage.events})))
        if len(found) == PASSES:
            return found
    return [*found, *found][:PASSES] if len(found) < PASSES else found


def composed(account: Account, before: Content, after: Content, events: Mapping[int, Event], rng: random.Random) -> str:
    """Prose of an account: each statement in a sentence that passes the check, by patterns and by the grammar's own."""
    for _ in range(_TRIES):
        opening = scene_told(account, after, rng)
        if checked(opening, account).opening == opening:
            break
    told = []
    for index, statement in enumerate(account.statements):
        event = events[statement.event]
        for attempt in range(2 * _TRIES):
            text = _sentence(before, after, event, rng, beside=index > 0 and event["actor"] != after["traveller"], simple=attempt > _TRIES)
            if checked(f"{opening} {text}", account).told[index] == text:
                break
        else:
            text = f"{statement.text}."
        told.append(text)
    return " ".join([opening, *told])


def scene_told(account: Account, after: Content, rng: random.Random) -> str:
    """The hour, the sky and the land, in one sentence or two."""
    place = after["places"][account.place]
    hours, hour = (choice.split("|") for choice in prose.HOURS[account.time])
    sky = rng.choice(prose.SKIES[account.weather].split("|"))
    nouns = rng.sample(words.LAND[account.terrain], 2)
    things = [f"the {noun}" for noun in nouns]
    ground = rng.choice(prose.GROUND[account.weather].split("|"))
    if rng.random() < 0.5:
        ground = f"{rng.choice(words.VERBS)} {rng.choice(words.SPOTS)}"
    if rng.random() < 0.4:
        land = f"{things[0]} and {things[1]} {ground}"
    else:
        land = f"{things[0]} {ground if nouns[0].endswith('s') and not nouns[0].endswith('ss') else _singular(ground)}"
    if place["landmark"] is not None and rng.random() < 0.6:
        noun = f"{place['colour']} {place['landmark']}" if place["colour"] else place["landmark"]
        subject = (
            f"a ring of {noun}" if place["landmark"] == "stones" else with_article(noun) if place["state"] == "whole" else f"the {noun}"
        )
        land = chosen([prose.MARKS[place["state"]].format(X=subject)], rng)
    pattern, _, rest = rng.choice(prose.SCENES).partition("|")
    t = rng.choice(hours)
    fields = {
        "P": account.place, "t": t, "T": _cap(t), "t2": rng.choice(hour), "w": sky, "W": _cap(sky), "n": land, "N": _cap(land),
        "at": rng.choice(("at", "in", "over")), "in": rng.choice(("there", "quiet", "still")),
    }  # fmt: skip
    text = pattern.format(**fields)
    return f"{text} {_cap(land)}." if rest and rng.random() < 0.7 else text


def _sentence(before: Content, after: Content, event: Event, rng: random.Random, *, beside: bool, simple: bool) -> str:
    kind = kind_of(event)
    own = prose.PROSE.get(kind, ())
    patterns = own if own and (simple or rng.random() < 0.85) else (sentences.TOLD.get(kind) or own)
    fields = fields_of(after, event, rng)
    fields["X"] = with_article(fields["G"]) if fields["G"] else "something"
    if fields["D"]:
        fields["D"] = fields["D"].removesuffix("ward") if rng.random() < 0.5 else fields["D"]
    text = re.sub(r"\s+([,.;:])", r"\1", " ".join(chosen(patterns, rng).format(**fields).split()))
    cause = told_cause(before, event)
    if cause is not None and rng.random() < 0.75 and (found := sentences.RECALLED.get(cause["verb"], ())):
        text = f"{text}, {chosen(found, rng).format(**fields_of(before, cause, rng))}"
    because = past(event["because"]) if event["because"] else ""
    if event["status"] == "partly" and kind == "go":
        goal, count = event["details"].get("goal", ""), re.search(r"\d+", because)
        if goal and count and goal != fields["P"]:
            many = f"{count[0]} place{'s' if count[0] != '1' else ''}"
            ends = (f", but {because}", f"; {because}", f", with {goal} still {many} away", f". {goal} was still {many} further on", f". There were still {many} to go before {goal}", f", on the way to {goal}, still {many} off")  # fmt: skip
            text += rng.choice(ends) if rng.random() < 0.85 else ""
    elif because:
        text += rng.choice((f", but {because}", f". But {because}", f"; but {because}")) if event["status"] == "partly" else rng.choice((f", for {because}", f"; {because}", f", since {because}"))  # fmt: skip
    if (news := news_of(after, event)) is not None and rng.random() < 0.85:
        told = plain_words(after, news)
        text += rng.choice((f". {fields['O']} had news: {told}", f"; {fields['O']} knew that {told}", f", and {fields['O']} told how {told}", f". So it came out that {told}"))  # fmt: skip
    if beside:
        lead = rng.choice(prose.BESIDE).rstrip("|")
        if lead and not re.match(r"(At|From|After|With|In) ", text):
            first = text.split(" ", 1)[0].strip(",")
            named = first in after["characters"] or first in after["places"]
            text = f"{lead}{text if named else text[:1].lower() + text[1:]}"
    return f"{_cap(text)}."


_TENSES = {"is": "was", "are": "were", "needs": "needed", "asks": "asked", "cannot": "could not", "has": "had", "carries": "carried", "knows": "knew", "wants": "wanted", "comes": "came", "does": "did"}  # fmt: skip


def past(clause: str) -> str:
    """A clause of the present told in the past: its first verb."""
    tokens = clause.split(" ")
    for index, token in enumerate(tokens):
        if token in _TENSES:
            return " ".join([*tokens[:index], _TENSES[token], *tokens[index + 1 :]])
    return clause


def _singular(said: str) -> str:
    return said.replace("were ", "was ")


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]
