"""Blocks for tests of serving: small, and each with something that an endpoint could get wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph


@register_block("serving_test/scale")
class Scale(Block):
    """Multiplies by a weight."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, *, factor: float = 2.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = x * self.weight
        return y if bias is None else y + bias


@register_block("serving_test/noise")
class Noise(Block):
    """Adds noise of its own generator."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        return x + rng.normal(x.shape)


@register_block("serving_test/global_noise")
class GlobalNoise(Block):
    """Adds noise of PyTorch's generator."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape)


@register_block("serving_test/everything")
class Everything(Block):
    """Gives back what it is given, of every kind."""

    inputs: ClassVar[Mapping[str, Any]] = {"image": Port(dtype="image", optional=True)}
    outputs: ClassVar[Mapping[str, Any]] = {
        name: Port(dtype=kind, optional=True)
        for name, kind in (("text", "text"), ("image", "image"), ("number", "number"), ("data", "dict"), ("items", "list"))
    }

    def forward(
        self, text: str = "", image: Any = None, number: float = 0.0, data: dict | None = None, items: list | None = None
    ) -> dict[str, Any]:
        given = {"text": text, "image": image, "number": number, "data": data, "items": items}
        return {name: value for name, value in given.items() if value is not None}


class Fails(Block):
    """Raises."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("the lens is cracked")


class Counts(Block):
    """Counts its calls, how many are inside at once, and the rows of each; each call waits for ``meeting`` or a moment."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}
    uses_global_rng = False
    rows_are_samples = True

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0
        self.rows: list[int] = []
        self.meeting: threading.Barrier | None = None
        self.pause = 0.0

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.rows.append(len(x))
        try:
            if self.meeting is not None:
                self.meeting.wait(timeout=60)
            time.sleep(self.pause)
            return x + 1
        finally:
            with self.lock:
                self.inside -= 1


def graph_of(block: Block | str, name: str = "g", **config: Any) -> Graph:
    """A graph of one node, called as its block is, with all ports of the block."""
    graph = Graph(name)
    graph.add_node(block, "node", config=config)
    for port in graph.nodes["node"].get_input_spec():
        graph.expose_input("node", port)
    for port in graph.nodes["node"].get_output_spec():
        graph.expose_output("node", port)
    return graph
