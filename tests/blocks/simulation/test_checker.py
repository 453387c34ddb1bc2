"""The checker finds what was planted: fifty contradictions of each kind."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from wgtorch.blocks.simulation.checker import KINDS, Passage, contradictions
from wgtorch.blocks.simulation.lives import live as passages
from wgtorch.blocks.simulation.telling.words import WHEN

Plant = Callable[[Passage, random.Random], Passage | None]


@cache
def lives() -> tuple[Passage, ...]:
    return tuple(passage for seed in range(4) for passage in list(passages(seed, 100))[20:])


def _events(passage: Passage, change: Callable[[list[dict[str, Any]]], bool]) -> Passage | None:
    events = copy.deepcopy(list(passage.events))
    return replace(passage, events=events) if change(events) else None


def _mentioned(passage: Passage, part: str) -> list[str]:
    sentences = passage.outcome.split(". ", 1)[-1]
    return [name for name in passage.after[part] if f" {name}" in sentences]


def _swapped(passage: Passage, part: str, rng: random.Random) -> Passage | None:
    """One name in the telling becomes another."""
    named = _mentioned(passage, part)
    others = [name for name in passage.after[part] if name not in named and passage.after[part][name].get("known", True)]
    if not named or not others:
        return None
    name = rng.choice(named)
    return replace(passage, outcome=passage.outcome.replace(f" {name}", f" {rng.choice(others)}", 1))


def wrong_place_told(passage: Passage, rng: random.Random) -> Passage | None:
    return _swapped(passage, "places", rng)


def wrong_person_told(passage: Passage, rng: random.Random) -> Passage | None:
    return _swapped(passage, "characters", rng)


def wrong_object_told(passage: Passage, rng: random.Random) -> Passage | None:
    named = [event["target"] for event in passage.events if event["target"] in passage.after["objects"]]
    named = [name for name in named if f"the {name}" in passage.outcome]
    if not named:
        return None
    other = rng.choice(["silver crown", "glass slipper", *[name for name in passage.after["objects"] if " " in name and name not in named]])
    if other not in passage.after["objects"]:
        return None
    return replace(passage, outcome=passage.outcome.replace(f"the {named[0]}", f"the {other}", 1))


def wrong_hour_told(passage: Passage, rng: random.Random) -> Passage | None:
    first = passage.outcome.split(". ")[0]
    for time, phrases in WHEN.items():
        for phrase in sorted(phrases, key=len, reverse=True):
            for spelled in (phrase, phrase[0].lower() + phrase[1:]):
                if spelled in first:
                    other = rng.choice(WHEN[rng.choice([hour for hour in WHEN if hour != time])])
                    return replace(passage, outcome=passage.outcome.replace(spelled, other, 1))
    return None


def too_far(passage: Passage, rng: random.Random) -> Passage | None:
    def change(events: list[dict[str, Any]]) -> bool:
        for event in events:
            for effect in event["effects"]:
                if effect["path"][0] == "characters" and effect["path"][-1] == "place":
                    x, y = passage.after["places"][effect["before"]]["at"]
                    away = [n for n, p in passage.after["places"].items() if abs(p["at"][0] - x) + abs(p["at"][1] - y) > 3]
                    effect["after"] = event["where"] = rng.choice(away or ["Nowhere"])
                    return True
        return False

    return _events(passage, change)


def elsewhere(passage: Passage, rng: random.Random) -> Passage | None:
    def change(events: list[dict[str, Any]]) -> bool:
        found = [event for event in events if event["where"] and event["actor"] in passage.after["characters"]]
        if found:
            found[0]["where"] = rng.choice([name for name in passage.after["places"] if name != found[0]["where"]])
        return bool(found)

    return _events(passage, change)


def nobody(passage: Passage, rng: random.Random) -> Passage | None:
    def change(events: list[dict[str, Any]]) -> bool:
        events[0]["actor"] = rng.choice(["Ghost", "Nobody", "Xaver"])
        return True

    return _events(passage, change)


def met_from_afar(passage: Passage, rng: random.Random) -> Passage | None:
    def change(events: list[dict[str, Any]]) -> bool:
        for event in events:
            if event["verb"] in ("talk", "greet", "befriend", "help") and event["status"] == "done":
                away = [n for n, c in passage.before["characters"].items() if c["place"] != event["where"]]
                event["target"] = rng.choice(away)
                return True
        return False

    return _events(passage, change)


def two_bearers(passage: Passage, rng: random.Random) -> Passage | None:
    content = copy.deepcopy(dict(passage.after))
    name = rng.choice(list(content["objects"]))
    content["objects"][name]["bearer"] = rng.choice(list(content["characters"]))
    if content["objects"][name] == passage.after["objects"][name]:
        return None
    return replace(passage, after=content)


def out_of_nothing(passage: Passage, rng: random.Random) -> Passage | None:
    content = copy.deepcopy(dict(passage.after))
    who = rng.choice(list(content["characters"]))
    content["objects"]["glass slipper"] = {"kind": "ring", "colour": None, "place": None, "bearer": who, "state": "whole", "fixed": False}
    return replace(passage, after=content)


def backwards(passage: Passage, rng: random.Random) -> Passage | None:
    def change(events: list[dict[str, Any]]) -> bool:
        events[-1]["when"] = {
            "day": max(1, events[-1]["when"]["day"] - rng.choice((0, 1, 2))),
            "hour": (events[-1]["when"]["hour"] - rng.randint(1, 23)) % 24,
        }
        return True

    return _events(passage, change)


def caused_by_the_future(passage: Passage, rng: random.Random) -> Passage | None:
    def change(events: list[dict[str, Any]]) -> bool:
        events[0]["caused_by"] = [events[0]["id"] + rng.randint(0, 5)]
        return True

    return _events(passage, change)


PLANTED: dict[str, tuple[Plant, ...]] = {
    "place": (wrong_place_told, too_far, elsewhere),
    "person": (wrong_person_told, nobody, met_from_afar),
    "object": (wrong_object_told, two_bearers, out_of_nothing),
    "time": (wrong_hour_told, backwards, caused_by_the_future),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_fifty_planted_contradictions_the_checker_finds_95_in_a_hundred(kind: str) -> None:
    rng, planted, found, missed = random.Random(kind), 0, 0, []
    while planted < 50:
        plant, passage = PLANTED[kind][planted % 3], rng.choice(lives())
        wrong = plant(passage, rng)
        if wrong is None:
            continue
        planted += 1
        if contradictions([wrong]):
            found += 1
        else:
            missed.append((plant.__name__, wrong.outcome))
    assert found >= 0.95 * planted, missed


def test_nothing_is_found_where_nothing_was_planted() -> None:
    assert contradictions(lives()[::7]) == []
