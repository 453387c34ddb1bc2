"""Small registered blocks, and graphs of them, that the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage

# --- values -----------------------------------------------------------------------------------------------------------


@register_block("test/scale")
class Scale(Block):
    """``y = factor * x + bias``."""

    outputs = {"y": "tensor"}

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
        y = x * self.factor
        return {"y": y if bias is None else y + bias}


@register_block("test/add")
class Add(Block):
    """``y = a + b``."""

    outputs = {"y": "tensor"}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@register_block("test/split")
class Split(Block):
    """Two outputs of one input: ``double = 2 x`` and ``square = x * x``."""

    outputs = {"double": "tensor", "square": "tensor"}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"double": 2 * x, "square": x * x}


@register_block("test/gather")
class Gather(Block):
    """Hands on what several sources brought to ``x``, combined as ``how`` says."""

    outputs = {"y": "any"}

    def __init__(self, how: str = "list") -> None:
        super().__init__()
        self.inputs = {"x": Port(dtype="any", aggregation=how)}  # type: ignore[arg-type]

    def forward(self, x: Any) -> dict[str, Any]:
        return {"y": x}


@register_block("test/affine")
class Affine(Block):
    """``nn.Linear`` of [B, width] with weights that depend on ``seed`` alone."""

    outputs = {"y": "tensor"}

    def __init__(self, width: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(width, width)
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@register_block("test/relu")
class Relu(Block):
    """``y = max(x, 0)``."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


@register_block("test/dropout")
class Dropout(Block):
    """``nn.Dropout``: what it gives tells train from eval."""

    outputs = {"y": "tensor"}

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)


# --- text -------------------------------------------------------------------------------------------------------------


@register_block("test/shout")
class Shout(Block):
    """Text in capitals."""

    outputs = {"text": "text"}

    def __init__(self, end: str = "!") -> None:
        super().__init__()
        self.end = end

    def forward(self, text: str) -> dict[str, str]:
        return {"text": text.upper() + self.end}


@register_block("test/length")
class Length(Block):
    """Text to a tensor [1]: its length."""

    outputs = {"y": "tensor"}

    def forward(self, text: str) -> Tensor:
        return torch.tensor([float(len(text))])


@register_block("test/secret")
class Secret(Block):
    """Holds a value that comes from the environment."""

    outputs = {"text": "text"}

    def __init__(self, key: str = "", depth: dict[str, str] | None = None) -> None:
        super().__init__()
        self.key = key
        self.depth = depth or {}

    def forward(self, text: str) -> str:
        return text + self.key


# --- random draws -----------------------------------------------------------------------------------------------------


@register_block("test/keyed_noise")
class KeyedNoise(Block):
    """Adds normal noise from the generator that the engine hands over."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        return x + rng.normal(x.shape)


@register_block("test/global_noise")
class GlobalNoise(Block):
    """Adds normal noise from PyTorch's global generator."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


# --- loops ------------------------------------------------------------------------------------------------------------


@register_block("test/countdown")
class Countdown(Block):
    """Takes one away; ``done`` when nothing is left."""

    outputs = {"y": "tensor", "done": "any"}

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": x - 1, "done": bool((x - 1 <= 0).all())}


@register_block("test/multistep")
class Multistep(Block):
    """A two-step method (Adams-Bashforth): the last slope comes back at an optional port of its own."""

    outputs = {"next": "tensor", "slope": "tensor"}
    num_loop_steps = 3

    def forward(self, x: Tensor, pred: Tensor, last: Tensor | None = None) -> dict[str, Tensor]:
        slope = pred if last is None else 1.5 * pred - 0.5 * last
        return {"next": x + 0.1 * slope, "slope": pred}


@register_block("test/maybe")
class Maybe(Block):
    """Gives ``y`` only for positive sums."""

    outputs = {"y": Port(dtype="tensor", optional=True)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x} if x.sum() > 0 else {}


# --- waiting ----------------------------------------------------------------------------------------------------------


@register_block("test/pause")
class Pause(Block):
    """Waits as a call over a network does, in a coroutine."""

    outputs = {"y": "any"}

    def __init__(self, seconds: float = 0.1) -> None:
        super().__init__()
        self.seconds = seconds

    async def forward(self, x: Any) -> dict[str, Any]:
        await asyncio.sleep(self.seconds)
        return {"y": x}


def block_of(function: Callable[..., Any], *, is_async: bool = False, **outputs: str | Port) -> Block:
    """A block around a function; outputs are named with their kinds, ``y="any"`` by default."""
    return Block.wrap(function, outputs=outputs or {"y": "any"}, is_async=is_async)


def probe(seen: list[Any]) -> Block:
    """Hands ``x`` on and notes it in ``seen``."""

    def note(x: Any) -> dict[str, Any]:
        seen.append(x)
        return {"y": x}

    return block_of(note)


# --- graphs -----------------------------------------------------------------------------------------------------------


def chain(*children: Block, name: str = "chain", ports: tuple[str, str] = ("x", "y")) -> Graph:
    """A graph of blocks in a row, ``n0``, ``n1``, ..., with one input and one output."""
    graph = Graph(name)
    enter, leave = ports
    for index, child in enumerate(children):
        graph.add_node(child, f"n{index}")
        if index:
            graph.add_edge(f"n{index - 1}.{leave}", f"n{index}.{enter}")
    graph.expose_input("n0", enter)
    graph.expose_output(f"n{len(children) - 1}", leave)
    return graph


def counter(steps: int | None = None, *, name: str = "counter") -> Graph:
    """A loop of one node that doubles ``x`` each turn."""
    graph = Graph(name, metadata={} if steps is None else {"num_loop_steps": steps})
    graph.add_node(Scale(2.0), "double")
    graph.add_edge("double.y", "double.x")
    graph.expose_input("double", "x")
    graph.expose_output("double", "y")
    return graph


def as_pipeline(graph: Graph, node_id: str = "only", name: str = "pipeline") -> Pipeline:
    """A pipeline of one graph."""
    pipeline = Pipeline(name)
    pipeline.add_graph(graph, node_id)
    pipeline.infer_exposed_ports()
    return pipeline


def as_stage(graph: Graph, name: str = "stage") -> Stage:
    """A stage around a graph ``x -> y`` that reads ``recipe`` and writes ``artifacts``."""
    stage = Stage(name)
    stage.add_pipeline(as_pipeline(graph), "work")
    stage.set_state_contract(["recipe"], ["artifacts"], {"work.x": "recipe"}, {"artifacts": "work.y"})
    return stage
