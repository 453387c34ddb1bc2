"""A simulated world lives on: always something new, never a contradiction, and things follow from each other."""

from __future__ import annotations

import json
import random
import re

import pytest

from wgtorch.blocks.simulation.checker import contradictions, is_caused
from wgtorch.blocks.simulation.facts import OPPOSITE, check_content
from wgtorch.blocks.simulation.lives import live as passages
from wgtorch.blocks.simulation.lives import world_of
from wgtorch.blocks.simulation.scene_plan import TERRAINS

SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_without_contradictions_in_which_things_follow_from_each_other(seed: int) -> None:
    episodes = list(passages(seed, 200))
    assert contradictions(episodes[:80]) == []
    content = episodes[-1].after
    check_content(content)
    events = content["events"]
    caused = [event for event in events if any(is_caused(event, events[cause - 1]) for cause in event["caused_by"])]
    assert len(caused) >= 0.3 * len(events)
    assert all(is_caused(event, events[cause - 1]) or event["verb"] == "give_up" for event in events for cause in event["caused_by"])


@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_fifty_passes_there_is_what_was_not_there_before(seed: int) -> None:
    parts = ("places", "characters", "objects", "threads")
    known = [{(part, name) for part in parts for name in episode.after[part]} for episode in passages(seed, 400, told=False)]
    for start in range(0, 350, 10):
        fresh = known[start + 50] - set().union(*known[: start + 1])
        assert len(fresh) >= 5
    for start in range(0, 250, 10):
        fresh = known[start + 100] - set().union(*known[: start + 1])
        assert len({part for part, _ in fresh}) >= 2


def test_outcomes_do_not_repeat_themselves() -> None:
    episodes = list(passages(11, 200))
    names = sorted({name for part in ("places", "characters") for name in episodes[-1].after[part]}, key=len, reverse=True)
    masked = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names), re.IGNORECASE)
    grams = []
    for episode in episodes:
        words = re.findall(r"[\w'-]+", re.sub(r"\d+", "N", masked.sub("NAME", episode.outcome)).lower())
        grams += [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    assert len(set(grams)) > 0.5 * len(grams)


def test_the_same_draws_give_the_same_life_and_others_another() -> None:
    one, again, other = ([(p.events, p.outcome) for p in passages(seed, 20)] for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_map_holds_every_land_and_its_ways_lead_back() -> None:
    content = world_of(3, places=36, characters=10)
    assert len(content["places"]) == 36 and len(content["characters"]) == 10
    assert {place["terrain"] for place in content["places"].values()} == set(TERRAINS)
    for name, place in content["places"].items():
        assert place["neighbours"]
        assert all(content["places"][other]["neighbours"][OPPOSITE[way]] == name for way, other in place["neighbours"].items())
    assert [name for name, place in content["places"].items() if place["known"]] == [content["start"]]


def test_walking_reveals_the_map() -> None:
    episodes = list(passages(0, 120, told=False))
    known = [sum(place["known"] for place in episode.after["places"].values()) for episode in episodes]
    assert known[0] <= 3 < known[-1] and known == sorted(known)


def test_the_content_is_plain_data() -> None:
    content = list(passages(5, 30, told=False))[-1].after
    assert json.loads(json.dumps(content)) == content


def test_a_world_that_was_given_keeps_what_it_was_given() -> None:
    from wgtorch.blocks.simulation.genesis import begun

    given = world_of(1)
    content = begun({"traveller": "Storm", "places": given["places"], "weather": "fog"}, random.Random(9))
    assert content["weather"] == "fog" and set(content["places"]) == set(given["places"])


def test_what_one_did_is_told_from_what_came_about() -> None:
    first, *_ = passages(11, 1, {0: "what did I do so far?"})
    assert first.events[0]["because"] == "the traveller has done nothing yet that was asked for"
    *_, last = passages(11, 6, {1: "go to the forest", 3: "fly to the moon", 4: "build a hut", 5: "what have I done?"})
    told = last.events[0]["because"]
    assert told.index("“build a hut”") < told.index("“go to the forest”")
    assert "moon" not in told
