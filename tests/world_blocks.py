"""A small deterministic world for tests that look at the cycle and not at models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.events import Event
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.cycle import WorldStep
from wgtorch.world_runtime.state import State

CYCLE = ("philosopher", "author", "environment", "architect", "creator")
FULL: Mapping[str, Any] = {
    "intent": "the given intent",
    "recipe": {"count": 1, "level": 0.25},
    "artifacts": [torch.full((3, 4, 4), 0.5)],
    "description": "the given description",
    "outcome": "the given outcome",
}
"""A value for each of the five slots."""


# --- blocks -----------------------------------------------------------------------------------------------------------


@register_block("world_test/look")
class Look(Block):
    """Describes pictures by their number and mean."""

    outputs: ClassVar[Mapping[str, Any]] = {"description": "text"}

    def forward(self, artifacts: list) -> str:
        return f"{len(artifacts)} pictures of mean {float(torch.stack(list(artifacts)).mean()):.6f}"


@register_block("world_test/tell")
class Tell(Block):
    """Tells what happened, and how many episodes the world it was told of has had."""

    outputs: ClassVar[Mapping[str, Any]] = {"outcome": "text"}

    def forward(self, intent: str, description: str, content: dict) -> str:
        return f"[{intent}] was [{description}] after {content.get('episodes', 0)}"


@register_block("world_test/update")
class Update(Block):
    """Adds an episode to the content: its outcome and its first picture."""

    outputs: ClassVar[Mapping[str, Any]] = {"content": "dict"}

    def forward(self, outcome: str, artifacts: list, content: dict) -> dict[str, Any]:
        episodes = content.get("episodes", 0) + 1
        return {"content": {**content, "episodes": episodes, "log": [*content.get("log", []), outcome], "last": artifacts[0]}}


@register_block("world_test/develop")
class Develop(Block):
    """The next intent, from the content, the action and a random number."""

    inputs: ClassVar[Mapping[str, Any]] = {"content": Port(dtype="dict", aggregation="first"), "action": "any"}
    outputs: ClassVar[Mapping[str, Any]] = {"intent": "text"}

    def forward(self, content: dict, action: Any = None, rng: Rng | None = None) -> str:
        assert rng is not None
        return f"episode {content.get('episodes', 0)}, road {rng.python().randrange(10**6)}, action {action}"


@register_block("world_test/plan")
class Plan(Block):
    """A recipe for ``count`` pictures; it says how many episodes the world has had."""

    outputs: ClassVar[Mapping[str, Any]] = {"recipe": "dict"}

    def __init__(self, *, count: int = 2) -> None:
        super().__init__()
        self.count = count

    def forward(self, intent: str, content: dict) -> dict[str, Any]:
        return {"recipe": {"count": self.count, "level": len(intent) / 100, "known": content.get("episodes", 0)}}


@register_block("world_test/make")
class Make(Block):
    """Pictures [3, 4, 4] in [0, 1] of noise around the recipe's level."""

    outputs: ClassVar[Mapping[str, Any]] = {"artifacts": "list"}

    def __init__(self, *, strength: float = 0.5) -> None:
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(strength))

    def forward(self, recipe: dict, rng: Rng) -> dict[str, Any]:
        noise = rng.uniform((recipe["count"], 3, 4, 4))
        return {"artifacts": list((recipe["level"] + self.strength * noise).clamp(0, 1))}


# --- levels -----------------------------------------------------------------------------------------------------------


def around(block: Block | str, name: str, **config: Any) -> Pipeline:
    """A pipeline of one graph of one block, with all ports of the block."""
    graph = Graph(name)
    graph.add_node(block, name, config=config)
    pipeline = Pipeline(name)
    pipeline.add_graph(graph, name)
    for level in (graph, pipeline):
        for port in level.nodes[name].get_input_spec():
            level.expose_input(name, port)
        for port in level.nodes[name].get_output_spec():
            level.expose_output(name, port)
    return pipeline


def stage_of(name: str, block: Block | str, inputs: Sequence[str], outputs: Sequence[str], condition: Any = None, **config: Any) -> Stage:
    """A stage of one block whose ports are named as the slots."""
    stage = Stage(name, role=name)
    stage.add_pipeline(around(block, "work", **config), "work")
    stage.set_state_contract(inputs, outputs)
    stage.set_execution_condition(condition)
    return stage


def environment_stage() -> Stage:
    """Applies complete states, and writes the next intent."""
    stage = Stage("environment", role="environment")
    stage.add_pipeline(around("world_test/update", "world_update"), "world_update", condition="complete")
    stage.add_pipeline(around("world_test/develop", "development"), "development")
    stage.add_edge("world_update.content", "development.content")
    stage.set_state_contract(
        [],
        ["intent"],
        {
            "world_update.content": "content",
            "world_update.outcome": "outcome",
            "world_update.artifacts": "artifacts",
            "development.content": "content",
            "development.action": "action",
        },
        {"content": "world_update.content", "intent": "development.intent"},
        new_state=True,
    )
    return stage


def tiny_world(name: str = "tiny") -> World:
    """The canonical cycle of the blocks above: about a millisecond a pass."""
    world = World(name)
    world.add_stage(stage_of("philosopher", "world_test/look", ["artifacts"], ["description"], "philosopher"))
    world.add_stage(stage_of("author", "world_test/tell", ["intent", "description"], ["outcome"], "author"))
    world.add_stage(environment_stage())
    world.add_stage(stage_of("architect", "world_test/plan", ["intent"], ["recipe"], "architect"))
    world.add_stage(stage_of("creator", "world_test/make", ["recipe"], ["artifacts"], "creator"))
    world.set_canonical_cycle()
    world.set_initial_content({"story": "It began.", "episodes": 0})
    return world


def default_world(**options: Any) -> World:
    """The default world with one solver step to a picture, which is enough where only determinism matters."""
    return World.from_template("default", **{"steps": 1, **options})


# --- looking ----------------------------------------------------------------------------------------------------------


class Recorder:
    """A callback that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def paths(self, kind: str, level: str | None = None) -> list[str]:
        """Paths of the events of a kind."""
        return [event.path for event in self.events if event.kind == kind and level in (None, event.level)]


def difference(first: Any, second: Any, path: str = "value") -> str | None:
    """Where two values differ, bit for bit and type for type; None where they do not."""
    if isinstance(first, State) and isinstance(second, State):
        if first.schema != second.schema:
            return f"{path}: schema {first.schema} and {second.schema}"
        return difference(dict(first), dict(second), path)
    if type(first) is not type(second):
        return f"{path}: {type(first).__name__} and {type(second).__name__}"
    if isinstance(first, Tensor):
        same = first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
        return None if same else f"{path}: {first} and {second}"
    if isinstance(first, dict):
        if list(first) != list(second):
            return f"{path}: keys {list(first)} and {list(second)}"
        return next((found for key in first if (found := difference(first[key], second[key], f"{path}.{key}"))), None)
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return f"{path}: {len(first)} and {len(second)} items"
        pairs = enumerate(zip(first, second, strict=True))
        return next((found for index, pair in pairs if (found := difference(*pair, f"{path}.{index}"))), None)
    return None if first == second else f"{path}: {first!r} and {second!r}"


def assert_same(first: Any, second: Any) -> None:
    """Fails unless two values are the same bit for bit."""
    found = difference(first, second)
    assert found is None, found


def record_of(world: World) -> dict[str, Any]:
    """All that a world has become: content, State in flight, passes, and every stored step with its content."""
    history = world.history
    stored = {step: (dict(history[index]), history.content(index)) for index, step in enumerate(history.steps)}
    return {"content": dict(world.content), "state": world.state, "passes": world.life.passes, "stored": stored}


def stop_after(world: World, stages: int, **options: Any) -> list[WorldStep]:
    """Lives until so many stages are through, in as many passes as that takes, and leaves the stream there."""
    steps: list[WorldStep] = []
    passes = -(-stages // len(world.cycle))
    for step in world.stream(num_steps=passes, **options):
        steps.append(step)
        if sum(step.kind == "stage" for step in steps) == stages:
            break
    return steps


@contextmanager
def failing_once(block_class: type[Block], error: Exception) -> Iterator[None]:
    """The first call of a block inside raises ``error``; later ones work."""
    forward: Callable[..., Any] = block_class.forward
    left = [error]

    @wraps(forward)  # its ports are those of the signature, which may be read meanwhile
    def broken(self: Block, *args: Any, **values: Any) -> Any:
        if left:
            raise left.pop()
        return forward(self, *args, **values)

    block_class.forward = broken  # type: ignore[method-assign]
    try:
        yield
    finally:
        block_class.forward = forward  # type: ignore[method-assign]


def is_increasing(numbers: Sequence[float]) -> bool:
    """True when each number is larger than the one before."""
    return all(before < after for before, after in pairwise(numbers))
