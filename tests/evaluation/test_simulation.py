"""Measures of simulated worlds, each shown to find the fault that it is for."""

from __future__ import annotations

import pytest

import wgtorch
from tests.world_blocks import default_world
from wgtorch.blocks.simulation.readers import RuleActionReader
from wgtorch.evaluation.simulation import distinct
from wgtorch.evaluation.typed_actions import TYPED_ACTIONS, understood
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
