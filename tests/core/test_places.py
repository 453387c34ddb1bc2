"""Two uses of one block in one backward pass, compared with the same sum written by hand in PyTorch."""

from __future__ import annotations

import copy
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.blocks_for_tests import Affine, Scale, as_pipeline, chain
from wgtorch.core.block import Block
from wgtorch.core.run.detached_twin import call_detached
from wgtorch.graph import Graph

WAYS = list(itertools.product([True, False], repeat=2))


class Body(Block):
    """Two layers with something nonlinear between, computed again in backward when asked."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.seen = 0

    def body(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False) if self.checkpointed else self.body(x)


def twice(block: Block, first: bool, second: bool, *, between: Block | None = None) -> Graph:
    """A trained layer, then the block at two places with another layer between them."""
    graph = chain(Affine(seed=1), block, between or Affine(seed=2), block)
    graph.set_trainable("n1", first)
    graph.set_trainable("n3", second)
    return graph


def by_hand(graph: Graph, x: Tensor, first: bool, second: bool) -> dict[str, Tensor | None]:
    """The gradients that the formula gives: detached weights where a use is frozen."""
    inner = {name: weight.detach().clone().requires_grad_() for name, weight in graph.nodes["n1"].named_parameters()}
    before = {name: weight.detach().clone().requires_grad_() for name, weight in graph.nodes["n0"].named_parameters()}
    between = {name: weight.detach().clone().requires_grad_() for name, weight in graph.nodes["n2"].named_parameters()}

    def use(x: Tensor, trains: bool) -> Tensor:
        w = {name: weight if trains else weight.detach() for name, weight in inner.items()}
        hidden = torch.tanh(x @ w["first.weight"].T + w["first.bias"])
        return hidden @ w["second.weight"].T + w["second.bias"]

    y = use(x @ before["linear.weight"].T + before["linear.bias"], first)
    y = use(y @ between["linear.weight"].T + between["linear.bias"], second)
    y.square().sum().backward()
    named = {"n0": before, "n1": inner, "n2": between}
    return {f"{node}.{name}": weight.grad for node, weights in named.items() for name, weight in weights.items()}


def gradients(graph: Graph) -> dict[str, Tensor | None]:
    nodes = ("n0", "n1", "n2")
    return {f"{node}.{name}": weight.grad for node in nodes for name, weight in graph.nodes[node].named_parameters()}


@pytest.mark.parametrize(("first", "second"), WAYS)
@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_two_uses_in_one_backward_pass(first: bool, second: bool, checkpointed: bool) -> None:
    graph = twice(Body(checkpointed), first, second)
    x = torch.randn(3, 4)

    graph(x=x)["y"].square().sum().backward()

    torch.testing.assert_close(gradients(graph), by_hand(graph, x, first, second))
    assert (graph.nodes["n1"].first.weight.grad is None) is (not first and not second)
    assert graph.nodes["n0"].linear.weight.grad is not None, "gradients pass through a frozen use to what came before"
    assert all(weight.requires_grad for weight in graph.parameters())


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_the_whole_graph_computed_again_in_backward(first: bool, second: bool) -> None:
    graph = twice(Body(), first, second)
    x = torch.randn(3, 4)

    y = checkpoint(lambda x: graph(x=x)["y"], x, use_reentrant=False)
    y.square().sum().backward()

    torch.testing.assert_close(gradients(graph), by_hand(graph, x, first, second))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own import
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("first", "second"), WAYS)
def test_under_compile_without_a_graph_break(first: bool, second: bool, backend: str) -> None:
    torch._dynamo.reset()
    graph = twice(Body(), first, second)
    x = torch.randn(3, 4)

    torch.compile(graph, fullgraph=True, backend=backend)(x=x)["y"].square().sum().backward()

    torch.testing.assert_close(gradients(graph), by_hand(graph, x, first, second))


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_places_of_graphs_in_a_pipeline(first: bool, second: bool) -> None:
    body = Body()
    inner = chain(body)
    graph = Graph("outer")
    for node_id, child in (("n0", Affine(seed=1)), ("n1", inner), ("n2", Affine(seed=2)), ("n3", inner)):
        graph.add_node(child, node_id)
    for source, target in (("n0", "n1"), ("n1", "n2"), ("n2", "n3")):
        graph.add_edge(f"{source}.y", f"{target}.x")
    graph.expose_input("n0", "x")
    graph.expose_output("n3", "y")
    graph.set_trainable("n1", first)
    graph.set_trainable("n3", second)
    x = torch.randn(3, 4)

    as_pipeline(graph)(x=x)["y"].square().sum().backward()

    expected = twice(copy.deepcopy(body).requires_grad_(), first, second)
    wanted = by_hand(expected, x, first, second)
    found = {f"n1.{name}": weight.grad for name, weight in body.named_parameters()}
    torch.testing.assert_close(found, {name: grad for name, grad in wanted.items() if name.startswith("n1.")})


def test_training_in_another_thread_meanwhile_keeps_its_gradients() -> None:
    body = Body()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Block):
        outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            assert go_on.wait(60)
            return self.body(x)

    frozen = threading.Thread(target=lambda: call_detached(Slow(), (), {"x": torch.randn(2, 4)}))
    frozen.start()
    assert inside.wait(60)
    body(torch.randn(2, 4)).sum().backward()  # while the frozen use is inside the same module
    go_on.set()
    frozen.join()
    assert body.first.weight.grad is not None and body.first.weight.grad.abs().sum() > 0


def test_a_frozen_use_follows_what_the_module_becomes() -> None:
    body = Body()
    x = torch.randn(3, 4)

    def frozen() -> Tensor:
        y = call_detached(body, (), {"x": x.to(next(body.parameters()).dtype)})
        assert not y.requires_grad
        torch.testing.assert_close(y, body(x.to(y.dtype)).detach(), rtol=0, atol=0)
        return y

    frozen()
    with torch.no_grad():
        body.first.weight.mul_(3)
    frozen()
    body.first.weight = nn.Parameter(torch.randn(4, 4))
    frozen()
    body.second = nn.Linear(4, 4)
    frozen()
    body.double()
    assert frozen().dtype == torch.float64
    body.load_state_dict({name: torch.randn(value.shape) for name, value in body.state_dict().items()})
    frozen()


class Counting(Block):
    """Keeps plain things in attributes: a number, a method, its layers in a list; and a buffer it replaces."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("total", torch.zeros(()))
        self.calls, self.log = 0, []
        self.chosen: Callable[..., Tensor] = self.compute
        self.in_a_list = [self.layer]

    def compute(self, x: Tensor) -> Tensor:
        return self.norm(self.in_a_list[0](x)) + self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.log.append(self.calls)
        self.total = self.total + 1
        return self.chosen(x)


def test_attributes_methods_lists_and_buffers_are_the_modules_own() -> None:
    block, twin = Counting(), Counting()
    twin.load_state_dict(block.state_dict())
    x = torch.randn(5, 4, requires_grad=True)

    y = call_detached(block, (), {"x": x})
    expected = twin(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(block.norm.running_mean, twin.norm.running_mean, rtol=0, atol=0)
    assert block.calls == 1 and block.log == [1] and block.total == 1

    (y.square().sum()).backward()
    assert all(weight.grad is None for weight in block.parameters())
    assert x.grad is not None and x.grad.abs().sum() > 0
    block.eval()
    torch.testing.assert_close(call_detached(block, (), {"x": x}), block(x), rtol=0, atol=0)


def test_a_frozen_use_keeps_no_module_alive() -> None:
    block = Body()
    call_detached(block, (), {"x": torch.randn(1, 4)})
    gone = weakref.ref(block)
    del block
    gc.collect()
    assert gone() is None


def test_an_optimizer_over_the_whole_moves_only_what_trains() -> None:
    graph = twice(Scale(2.0), True, True)  # blocks without weights at frozen places are no hindrance
    graph.set_trainable("n2", False)
    before = {name: weight.clone() for name, weight in graph.named_parameters()}
    optimizer = torch.optim.SGD(graph.trainable_parameters(), lr=0.1)
    graph(x=torch.randn(3, 4))["y"].square().sum().backward()
    optimizer.step()
    moved = {name for name, weight in graph.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"nodes.n0.linear.weight", "nodes.n0.linear.bias"}
