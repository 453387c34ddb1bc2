"""Gradient checkpointing of loops: the same gradients, from turns that are computed again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.blocks_for_tests import as_pipeline, counter
from wgtorch.core.block import Block
from wgtorch.core.errors import StructureError
from wgtorch.core.run import recomputed_draws
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.graph import Graph

WIDTH = 6


class Mix(Block):
    """Two layers with dropout between."""

    outputs = {"y": "tensor"}

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first, self.second, self.drop = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(p)
        self.calls = 0
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.second(self.drop(torch.tanh(self.first(x))))


class Jitter(Block):
    """Adds noise from the run's own generator."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return x + 0.1 * torch.tanh(x) * (rng or GLOBAL_RNG).normal(x.shape)


def loop(steps: int = 4, p: float = 0.0, trainable: bool = True) -> Graph:
    graph = Graph("loop", metadata={"num_loop_steps": steps})
    graph.add_node(Mix(p), "mix", trainable=trainable)
    graph.add_node(Jitter(), "jitter")
    graph.add_edge("mix.y", "jitter.x")
    graph.add_edge("jitter.y", "mix.x")
    graph.expose_input("mix", "x")
    graph.expose_output("jitter", "y")
    return graph


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5)).requires_grad_()


def gradients(graph: Graph, x: Tensor, **options: Any) -> list[Tensor]:
    graph.zero_grad()
    x.grad = None
    found = graph.run({"x": x}, training=True, **options)["y"]
    found.square().sum().backward()
    return [found.detach(), *(p.grad for p in (x, *graph.parameters()) if p.grad is not None)]  # type: ignore[misc]


def test_the_same_gradients_with_the_seeds_of_the_run(x: Tensor) -> None:
    graph = loop(p=0.4)
    expected = gradients(graph, x, seed=3)
    calls, graph.nodes["mix"].calls = graph.nodes["mix"].calls, 0
    found = gradients(graph.gradient_checkpointing(), x, seed=3)
    assert (calls, graph.nodes["mix"].calls) == (4, 8), "each turn is computed twice"
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_draws_from_the_global_generator_are_repeated(x: Tensor) -> None:
    found = []
    for on in (False, True):
        torch.manual_seed(11)
        found.append(gradients(loop(p=0.4).gradient_checkpointing(on), x))
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


def test_backward_computes_in_the_modes_of_the_run(x: Tensor) -> None:
    graph = loop(p=0.4).gradient_checkpointing()
    graph.eval()
    found = graph.run({"x": x}, training=True, seed=3)["y"]
    assert not graph.nodes["mix"].training
    found.square().sum().backward()
    assert not graph.nodes["mix"].training
    mine = x.grad
    for theirs, ours in zip(gradients(loop(p=0.4), x, seed=3)[1:2], [mine], strict=True):
        assert torch.equal(ours, theirs)  # type: ignore[arg-type]


def test_a_frozen_place_stays_frozen(x: Tensor) -> None:
    expected = gradients(loop(trainable=False), x, seed=3)
    graph = loop(trainable=False).gradient_checkpointing()
    found = gradients(graph, x, seed=3)
    assert len(found) == len(expected) == 2, "no weight has a gradient"
    assert torch.equal(found[1], expected[1])


def kept(graph: Graph, x: Tensor) -> int:
    """Numbers that autograd keeps for backward."""
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph.run({"x": x}, training=True, seed=1)
    return total


def test_a_turn_keeps_what_it_was_given_and_nothing_else(x: Tensor) -> None:
    plain, recomputed = [[kept(loop(steps).gradient_checkpointing(on), x) for steps in (4, 20)] for on in (False, True)]
    assert recomputed[1] - recomputed[0] == 16 * x.numel()
    assert plain[1] - plain[0] > 10 * 16 * x.numel(), "without it each turn keeps its activations"


def test_without_gradients_nothing_is_computed_twice(x: Tensor) -> None:
    graph = loop().gradient_checkpointing()
    with torch.no_grad():
        graph(x=x)
    graph.run({"x": x})
    assert graph.nodes["mix"].calls == 8


def test_callbacks_hear_of_each_turn_once(x: Tensor) -> None:
    events: list[str] = []
    found = loop().gradient_checkpointing().run({"x": x}, training=True, callbacks=[lambda event: events.append(event.kind)])["y"]
    before = len(events)
    found.sum().backward()
    assert len(events) == before
    assert events.count("loop") == 4


def test_it_is_part_of_the_config() -> None:
    graph = Graph.from_config(counter(3).gradient_checkpointing().to_config())
    assert graph.metadata["gradient_checkpointing"] is True
    pipeline = as_pipeline(loop())
    pipeline.gradient_checkpointing()
    inner = pipeline.nodes["only"]
    assert inner.metadata["gradient_checkpointing"] is True
    pipeline.gradient_checkpointing(False)
    assert "gradient_checkpointing" not in inner.metadata


def again(f: Any, x: Tensor) -> Tensor:
    return checkpoint(f, x, use_reentrant=False)  # type: ignore[no-any-return]


def unhooked(f: Any, x: Tensor) -> Tensor:
    def inside(x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            return f(x)  # type: ignore[no-any-return]

    return again(inside, x)


def reentrant(f: Any, x: Tensor) -> Tensor:
    return checkpoint(f, x, use_reentrant=True)  # type: ignore[no-any-return]


REGIONS = {
    "one": lambda c, f, x: c(f, x),
    "draws around it": lambda c, f, x: nn.functional.dropout(c(f, nn.functional.dropout(x)), 0.5),
    "one after another": lambda c, f, x: c(f, c(f, x)),
    "in each other": lambda c, f, x: c(lambda h: f(c(f, h)), x),
    "drawing before the inner one": lambda c, f, x: c(lambda h: c(f, nn.functional.dropout(h)), x),
}


class InRegions(Block):
    """Layers with dropout whose activations PyTorch computes again."""

    outputs = {"y": "tensor"}

    def __init__(self, how: str) -> None:
        super().__init__()
        self.mix, self.how, self.compute = Mix(0.5), how, again

    def forward(self, x: Tensor) -> Tensor:
        return REGIONS[self.how](self.compute, self.mix, x)  # type: ignore[no-untyped-call, no-any-return]


@pytest.mark.parametrize("how", REGIONS)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # inside of another region with use_reentrant=True
@pytest.mark.parametrize("compute", [again, unhooked, reentrant])
def test_regions_that_a_block_has_computed_again_draw_what_they_drew(how: str, compute: Any, x: Tensor) -> None:
    graph = Graph("g")
    graph.add_node(InRegions(how), "n")
    graph.infer_exposed_ports()
    found = []
    for graph.nodes["n"].compute in (lambda f, x: f(x), compute):
        y = graph.run({"x": x}, seed=3, training=True)["y"]
        torch.randn(2)  # draws of others in between
        graph.zero_grad()
        x.grad = None
        y.pow(2).sum().backward()
        found.append((y.detach(), *[leaf.grad for leaf in (x, *graph.parameters())]))
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)
    assert recomputed_draws.hooks_here() is None


def test_without_a_look_at_hooks_draws_of_such_regions_are_refused(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PyTorch 2.6."""
    monkeypatch.setattr(recomputed_draws, "_top", None)
    graph = Graph("g")
    graph.add_node(InRegions("one"), "n")
    graph.infer_exposed_ports()
    graph.nodes["n"].compute = lambda f, x: f(x)
    graph.run({"x": x}, seed=3, training=True)
    graph.nodes["n"].compute = reentrant
    graph.run({"x": x}, seed=3, training=True)
    graph.nodes["n"].compute = again
    with pytest.raises(StructureError, match="wants PyTorch 2.7"):
        graph.run({"x": x}, seed=3, training=True)


class Counted(Block):
    """A layer behind a BatchNorm, and how often it was called in training."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls = self.calls + 1
        return self.layer(self.norm(x))


def test_buffers_are_moved_by_the_first_time_alone() -> None:
    states = []
    for again in (False, True):
        torch.manual_seed(0)
        graph = Graph("loop", metadata={"num_loop_steps": 3})
        graph.add_node(Counted(), "a", auto_connect=False)
        graph.add_node(Mix(), "b", auto_connect=False)
        graph.add_edge("a.y", "b.x")
        graph.add_edge("b.y", "a.x")
        graph.expose_input("a", "x")
        graph.expose_output("b", "y")
        graph.gradient_checkpointing(again)
        graph.train()
        graph(x=torch.randn(5, WIDTH))["y"].square().mean().backward()
        assert graph.find("b").calls == (6 if again else 3)  # type: ignore[union-attr]
        states.append({**graph.state_dict(), **{name: value.grad for name, value in graph.named_parameters()}})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0)
    assert states[1]["nodes.a.calls"] == 3
