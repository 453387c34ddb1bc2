"""The small world of scenes: no facts, a grammar that reads its own pictures back."""

from __future__ import annotations

from wgtorch.blocks.scenes.scene import parse
from wgtorch.world import World


def test_the_world_of_scenes_lives() -> None:
    world = World.from_template("scenes", steps=1, larger=False, traveller="Anna")
    state = world.run(num_steps=2, seed=2)
    assert state.filled == ("intent", "recipe", "artifacts") and world.content["episodes"] == 1
    state = world.run(action="Go to the desert at night.")
    assert {"terrain": "desert", "time": "night"}.items() <= state.recipe["scene"].items()
    assert 'means to "Go to the desert at night".' in state.intent
    assert parse(world.history[0].description[0])


def test_its_config_builds_its_equal() -> None:
    world = World.from_template("scenes", pictures=2)
    assert World.from_config(world.to_config()).to_config() == world.to_config()
