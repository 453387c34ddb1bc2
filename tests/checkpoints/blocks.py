"""Blocks with every sort of weight, and levels of them, for the tests of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tests.blocks_for_tests import Affine, as_stage, chain
from wgtorch.core.block import Block, register_block
from wgtorch.graph import Graph
from wgtorch.world import World


@register_block("test/rich")
class Rich(Block):
    """Tied weights, a persistent and a computed buffer, an integer, a scalar, an empty tensor and bfloat16."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(width)
        self.small = nn.Parameter(torch.randn(width).bfloat16())
        self.nothing = nn.Parameter(torch.empty(0, width))
        self.register_buffer("frequencies", 1 / (10 ** (torch.arange(width) / width)), persistent=False)
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.table = torch.arange(width).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embed(x)) * self.frequencies + self.table) + self.small.float()


@register_block("test/needs_values")
class NeedsValues(Block):
    """Its constructor looks at numbers, so it cannot be run on the meta device."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.scale = float(torch.linspace(0, 1, 5)[1].item())

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


def rich_graph(name: str = "rich") -> Graph:
    """``Rich -> Affine -> NeedsValues -> the same Affine``, with weights that no constructor would give."""
    shared = Affine(seed=3)
    graph = chain(Rich(), shared, NeedsValues(), shared, name=name)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for tensor in graph.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        graph.nodes["n0"].norm.running_mean.copy_(torch.randn(4, generator=generator))
        graph.nodes["n0"].norm.num_batches_tracked.fill_(7)
    return graph


def small_world() -> World:
    """Two stages that share one graph, and a life behind them."""
    graph = rich_graph("inner").eval()
    world = World("small")
    world.add_stage(as_stage(graph, "one"), "one")
    world.add_stage(as_stage(graph, "two"), "two")
    world.set_cycle(["one", "two"])
    world.set_initial_content({"story": "x"})
    return world


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """Names, values, dtypes and ties, bit for bit."""
    mine, theirs = found.state_dict(), expected.state_dict()
    assert list(mine) == list(theirs)
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype, name
        assert torch.equal(mine[name], theirs[name]), name
    assert [name for name, _ in found.named_parameters()] == [name for name, _ in expected.named_parameters()]
