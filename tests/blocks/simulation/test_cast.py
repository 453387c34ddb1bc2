"""The cast: own memories, goals, and who acts when."""

from __future__ import annotations

import random
from typing import Any

import pytest

from wgtorch.blocks.simulation.drama import Schedules
from wgtorch.blocks.simulation.episode import after, develop
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lives import live, world_of
from wgtorch.blocks.simulation.memory import knows, memories
from wgtorch.blocks.simulation.readers import RuleActionReader
from wgtorch.blocks.simulation.threads import ThreadKinds, thread_kind


def lived(seed: int = 1, passes: int = 60) -> dict[str, Any]:
    return dict(list(live(seed, passes, told=False))[-1].after)


def test_everybody_has_a_look_and_a_trade_of_their_own() -> None:
    cast = world_of(4, characters=10)["characters"]
    looks = [(who["look"]["coat"], who["look"]["hat"]) for who in cast.values() if who["kind"] == "person"]
    assert len(set(looks)) == len(looks)
    assert all(who["place"] and who["role"] for who in cast.values())


def test_looks_and_roles_never_change() -> None:
    before, now = world_of(2)["characters"], lived(2)["characters"]
    assert all((now[name]["look"], now[name]["role"]) == (who["look"], who["role"]) for name, who in before.items())


def test_somebody_remembers_what_they_did_saw_or_heard_and_nothing_else() -> None:
    content = lived()
    for name in content["characters"]:
        heard = {e["details"].get("news") for e in content["events"] if e["verb"] == "talk" and name in (e["actor"], e["target"])}
        for event in memories(content, name, count=20):
            assert knows(event, name) or event["id"] in heard


def test_what_one_thinks_of_comes_to_mind_first() -> None:
    content = lived()
    who = content["traveller"]
    everything = memories(content, who, count=400)
    about = everything[-1]["where"]
    first = memories(content, who, {about}, count=1)[0]
    assert about in (first["where"], first["target"], *first["details"].values())
    older, newer = (event for event in sorted(everything, key=lambda e: e["id"])[:: len(everything) - 1])
    assert older["id"] < newer["id"]


def test_news_pass_from_mouth_to_mouth() -> None:
    talks = [e for e in lived(3, 200)["events"] if e["verb"] == "talk" and e["details"].get("news")]
    assert talks
    content = lived(3, 200)
    for talk in talks:
        assert knows(content["events"][talk["details"]["news"] - 1], talk["target"])


@pytest.mark.parametrize(("name", "most"), [("turns", 1), ("initiative", 2), ("all", 99)])
def test_who_acts_in_a_pass(name: str, most: int) -> None:
    content = lived()
    draft = Draft(content, random.Random(0))
    others = [who for who in content["characters"] if who != content["traveller"]]
    chosen = Schedules.get(name)(draft, others)
    assert 1 <= len(chosen) <= most and set(chosen) <= set(others) and len(set(chosen)) == len(chosen)
    assert name != "all" or chosen == others


def test_a_kind_of_thread_is_added_in_a_few_lines() -> None:
    from wgtorch.blocks.simulation.action import Action

    @thread_kind("test/rest_once")
    def rest_once(draft: Draft, who: str, what: dict[str, Any]) -> Any:
        return Action("rest") if draft.characters[who]["mood"] != "calm" else "done"

    content = lived()
    hero = content["traveller"]
    thread = {"who": hero, "kind": "test/rest_once", "what": {"words": "rest"}, "why": [], "status": "open", "opened": 1, "closed": None}
    hers = {**content["characters"][hero], "goal": "t0", "mood": "weary"}
    content = {**content, "threads": {**content["threads"], "t0": thread}, "characters": {**content["characters"], hero: hers}}
    verbs = []
    for index in range(2):
        events = develop(content, {}, random.Random(index))
        verbs += [event["verb"] for event in events if event["actor"] == hero]
        content = after(content, events)
    assert verbs[0] == "rest" and "finish" in verbs
    assert content["threads"]["t0"]["status"] == "done" and "test/rest_once" in ThreadKinds


def test_somebody_who_is_wronged_remembers_it() -> None:
    content = lived()
    hero = content["traveller"]
    other = next(name for name, who in content["characters"].items() if name != hero and who["kind"] == "person" and who["present"])
    beside = {**content["characters"][hero], "place": content["characters"][other]["place"]}
    content = {**content, "characters": {**content["characters"], hero: beside}}
    events = develop(content, {"": RuleActionReader().read(f"insult {other}")}, random.Random(0))
    now = after(content, events)
    feeling = [facts["characters"][other]["remembers"].get(hero, {"feeling": 0})["feeling"] for facts in (content, now)]
    assert events[0]["verb"] == "quarrel" and feeling[1] < feeling[0]
    assert now["characters"][other]["mood"] == "angry"
