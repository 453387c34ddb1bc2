"""Many worlds at once: each is what it would be alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world_blocks import assert_same, default_world, record_of, tiny_world
from wgtorch import Block, Event, Graph, Pipeline, Stage, State, World, WorldBatch
from wgtorch.core.errors import PortError, PortTypeError, StateError, StructureError


def alone(world: World, seed: int, **options: Any) -> World:
    fork = world.fork()
    fork.run(seed=seed, **options)
    return fork


def test_each_is_what_it_would_be_alone() -> None:
    world = tiny_world()
    worlds = WorldBatch(world, seeds=[3, 8, 5])
    states = worlds.run(num_steps=3, action=["go north", None, ["wait", "sing", None]])
    for index, action in enumerate(["go north", None, ["wait", "sing", None]]):
        other = alone(world, worlds.seeds[index], num_steps=3, action=action)
        assert states[index] == other.state == worlds[index].state
        assert_same(record_of(worlds[index]), record_of(other))
    assert world.life.is_new and len(worlds) == 3 and not worlds.errors


def test_they_go_on_where_they_are_and_may_be_let_go_of_one_by_one() -> None:
    worlds = WorldBatch(tiny_world(), seeds=range(2))
    worlds.run(num_steps=2)
    worlds[0].run(num_steps=1, action="alone for once")
    worlds.run(num_steps=1)
    assert [world.life.passes for world in worlds] == [4, 3]
    assert_same(record_of(worlds[1]), record_of(alone(tiny_world(), 1, num_steps=3)))


def test_a_world_lives_several_futures_and_stays_where_it_is() -> None:
    world = tiny_world()
    world.run(num_steps=2, seed=1)
    before = record_of(world)
    actions = ["go north", None, "sing"]
    begun = State(intent="a storm")
    found = world.batch([None, None, begun], seed=[1, 4, 1], action=actions, num_steps=2)
    for item, (state, seed, action) in enumerate(zip([None, None, begun], [1, 4, 1], actions, strict=True)):
        assert found[item] == world.fork().run(state, seed=seed, action=action, num_steps=2)
    assert_same(record_of(world), before)
    assert world.batch([]) == []
    with pytest.raises(PortTypeError, match="2 actions for 1 worlds"):
        world.batch([None], action=["a", "b"])
    with pytest.raises(PortError, match="2 seeds for a batch of 1"):
        world.batch([None], seed=[1, 2])
    with pytest.raises(TypeError, match="no option 'dry_run'"):
        world.batch([None], dry_run=True)
    failed, lived = world.batch([State(schema=("other",), other=3), None])
    assert isinstance(failed, StateError) and lived == world.fork().run()


def test_they_begin_where_the_world_stands() -> None:
    world = tiny_world()
    world.run(num_steps=2, seed=1)
    worlds = WorldBatch(world, seeds=[1, 2])
    worlds.run(num_steps=1)
    world.run(num_steps=1)
    assert worlds[0].state == world.state and worlds[1].state != world.state
    assert worlds[0].content["episodes"] == worlds[1].content["episodes"] == world.content["episodes"]


class Rows(Block):
    """Counts its calls, and the rows of each."""

    outputs = {"image": "image"}
    rows_are_samples = True
    uses_global_rng = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.rows: list[int] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(image))
        return self.layer(image)


def painting_world(block: Block, source: Block) -> World:
    """A world whose only stage paints from the action."""
    graph = Graph("paint")
    graph.add_node(source, "source")
    graph.add_node(block, "paint", auto_connect=False)
    graph.add_edge("source.image", "paint.image")
    graph.expose_input("source", "size")
    graph.expose_output("paint", "image")
    pipeline = Pipeline("paint")
    pipeline.add_graph(graph, "paint")
    pipeline.expose_input("paint", "size")
    pipeline.expose_output("paint", "image")
    stage = Stage("paint", role="creator")
    stage.add_pipeline(pipeline, "paint")
    stage.set_state_contract([], ["image"], {"paint.size": "action"}, {"image": "paint.image"})
    world = World("painting")
    world.set_state_schema(["image"])
    world.add_stage(stage, "paint")
    world.set_cycle(["paint"])
    return world


class Source(Block):
    """A row of noise; fails where it is told to."""

    outputs = {"image": "image"}

    def forward(self, size: Any = None, rng: Any = None) -> torch.Tensor:
        if size == "fail":
            raise RuntimeError("no paint")
        return rng.normal((1, 4))


def test_models_that_take_several_samples_see_batches() -> None:
    rows = Rows()
    world = painting_world(rows, Source())
    worlds = WorldBatch(world, seeds=range(8))
    states = worlds.run(num_steps=2)
    assert rows.rows == [8, 8]
    exact = WorldBatch(world, seeds=range(8), exact=True)
    rows.rows.clear()
    for state, own in zip(exact.run(num_steps=2), states, strict=True):
        torch.testing.assert_close(state.image, own.image, rtol=0, atol=1e-6)
    assert rows.rows == [1] * 16
    for index in range(8):
        torch.testing.assert_close(exact[index].state.image, alone(world, index, num_steps=2).state.image, rtol=0, atol=0)


def test_one_that_fails_stops_alone_and_goes_on_later() -> None:
    rows = Rows()
    worlds = WorldBatch(painting_world(rows, Source()), seeds=range(3))
    states = worlds.run(num_steps=1, action=[None, "fail", None])
    assert isinstance(states[1], RuntimeError) and list(worlds.errors) == [1]
    assert rows.rows == [2] and [world.life.passes for world in worlds] == [1, 0, 1]
    assert "1 failed" in repr(worlds)
    worlds.run(num_steps=1)
    assert not worlds.errors and [world.life.passes for world in worlds] == [2, 1, 2]


def test_calls_that_wait_overlap() -> None:
    started = threading.Barrier(4, timeout=60)

    class Waits(Block):
        outputs = {"image": "image"}
        is_async = True

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            started.wait()  # goes on once all four are here
            return image

    worlds = WorldBatch(painting_world(Waits(), Source()), seeds=range(4))
    worlds.run(num_steps=1)
    assert not worlds.errors


def test_each_has_a_folder(tmp_path: Path) -> None:
    worlds = WorldBatch(tiny_world(), seeds=[4, 9], state_dir=tmp_path / "all")
    worlds.run(num_steps=2)
    again = tiny_world()
    again.set_storage({"state_dir": str(tmp_path / "all" / "0001")})
    again.resume()
    assert again.life.seed == 9 and again.life.passes == 2
    assert_same(again.content, worlds[1].content)


def test_callbacks_are_told_whose_event_it_is() -> None:
    told: list[Event] = []
    WorldBatch(tiny_world(), seeds=[1, 2]).run(num_steps=1, callbacks=told.append)
    assert {event.item for event in told} == {0, 1}


def test_mistakes_are_told() -> None:
    world = tiny_world()
    with pytest.raises(StructureError, match="expected a World"):
        WorldBatch(Graph("g"), seeds=[1])  # type: ignore[arg-type]
    with pytest.raises(PortTypeError, match=r"range\(64\)"):
        WorldBatch(world, seeds=64)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="2 seeds, 1 different"):
        WorldBatch(world, seeds=[1, 1])
    with pytest.raises(StateError, match="0 seeds"):
        WorldBatch(world, seeds=[])
    with pytest.raises(PortTypeError, match="seed is"):
        WorldBatch(world, seeds=["a"])  # type: ignore[list-item]
    with pytest.raises(PortTypeError, match="3 actions for 2 worlds"):
        WorldBatch(world, seeds=[1, 2]).run(action=["a", "b", "c"])
    assert world.life.is_new


@pytest.mark.slow
def test_many_default_worlds_are_what_they_are_alone() -> None:
    world = default_world()
    worlds = WorldBatch(world, seeds=range(8))
    worlds.run(num_steps=5)
    for index in range(8):
        other = alone(world, index, num_steps=5)
        assert worlds[index].content == other.content
        for mine, theirs in zip(worlds[index].state.artifacts, other.state.artifacts, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
