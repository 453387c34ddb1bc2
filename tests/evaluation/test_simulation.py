"""Measures of simulated worlds, each shown to find the fault that it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import wgtorch
from scripts.typed_actions import TYPED_ACTIONS, understood
from tests.world_blocks import default_world
from wgtorch.blocks.simulation.checker import Passage, contradictions
from wgtorch.blocks.simulation.readers import RuleActionReader
from wgtorch.cli.main import main
from wgtorch.evaluation import EvaluatorRegistry, Past
from wgtorch.evaluation.simulation import _passages, distinct
from wgtorch.storage.base import History
from wgtorch.storage.memory import MemoryStorage
from wgtorch.world import World


@pytest.fixture(scope="module")
def world() -> World:
    world = default_world()
    world.run(num_steps=6, seed=5)
    return world


def test_a_world_of_its_own_making_does_not_contradict_itself(world: World) -> None:
    found = wgtorch.evaluate(world, ["contradictions", "caused", "new_facts", "distinct_4"])
    numbers = {name: dict(found[name]) for name in found}
    assert set(numbers["contradictions"].values()) == {0.0}
    assert numbers["caused"]["share"] > 0
    assert numbers["new_facts"]["threads"] > 0
    assert numbers["distinct_4"]["share"] > 0.6


def test_a_folder_of_a_world_that_was_given_a_name_begins_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World.from_template("default", traveller="Anna", steps=1, larger=False)
    world.set_storage({"state_dir": tmp_path / "log"})
    world.run(num_steps=3, seed=5)
    assert main(["evaluate", str(tmp_path / "log"), "--only", "contradictions"]) == 0
    assert wgtorch.evaluate(tmp_path / "log", ["contradictions"]) == wgtorch.evaluate(world, ["contradictions"])
    known = Past(world.history, initial={"traveller": "Anna"})
    shown = MemoryStorage()  # where nothing says how it began, that is not guessed
    for episode in known.episodes:
        shown.store(episode.step, episode.state, episode.after)
    assert len(_passages(known)) == len(_passages(Past(History(shown)))) + 1
    capsys.readouterr()


def test_what_appears_in_a_fact_without_an_event_is_a_contradiction(world: World) -> None:
    last = _passages(Past.of(world))[-1]
    name = next(iter(last.after["places"]))
    after = {**last.after, "places": {**last.after["places"], name: {**last.after["places"][name], "new": None}}}
    found = contradictions([Passage(last.before, after, last.events)])
    assert [entry.what for entry in found] == [f"places.{name}: ['new'] changed without an event"]


def test_an_evaluator_that_fails_takes_no_other_row_away(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(past: Past) -> dict[str, float]:
        return {"x": past.episodes[99].step}

    monkeypatch.setitem(EvaluatorRegistry._entries, "caused", fails)
    world.fork(state_dir=tmp_path / "world")
    asked = ["evaluate", str(tmp_path / "world"), "--only", "caused", "--only", "new_facts"]
    assert main(asked) == 1
    said = capsys.readouterr()
    assert "failed" in said.out and "IndexError: list index out of range" in said.out and "threads" in said.out
    assert "past.episodes[99]" in said.err
    assert main([*asked, "--json"]) == 1
    measures = json.loads(capsys.readouterr().out)["measures"]
    assert measures["caused"]["failed"].startswith("IndexError") and measures["new_facts"]["values"]


def test_what_repeats_itself_is_seen_and_names_make_no_difference(world: World) -> None:
    content = world.content
    one, other = list(content["places"])[:2]
    assert distinct([f"we came to {one} in the rain 1", f"we came to {other} in the rain 22"], content) == 0.5
    assert distinct(["every word of this line differs from others"], content) == 1.0


def test_a_world_without_facts_is_not_measured() -> None:
    world = World.from_template("scenes", steps=1, larger=False)
    world.run(num_steps=2, seed=1)
    assert "the template 'default' makes such" in str(wgtorch.evaluate(world, ["contradictions"]))


def test_typed_actions_are_read_by_rules_but_for_the_misspelled() -> None:
    found = understood(RuleActionReader())
    assert found["turned_round"] == 0
    assert round((1 - found["right"]) * len(TYPED_ACTIONS)) <= 6
