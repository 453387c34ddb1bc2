"""What a node makes, before a loop, of inputs that no turn changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.blocks_for_tests import Scale
from wgtorch.core.block import Block
from wgtorch.graph import Graph

WIDTH = 4


class Told(Block):
    """Adds a projection of ``told`` to x; the projection is made before a loop where it can be."""

    outputs = {"y": "tensor"}
    invariant_ports = ("told", "bias")

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH)
        self.projected = 0
        self.asked: list[dict[str, Any]] = []

    def precompute_invariants(self, **inputs: Any) -> dict[str, Any]:
        self.asked.append(inputs)
        return {"told": (self._of(inputs["told"]),)} if "told" in inputs else {}

    def forward(self, x: Tensor, told: Any, bias: float | None = None) -> Tensor:
        return x / 2 + (told[0] if isinstance(told, tuple) else self._of(told)) + (bias or 0)

    def _of(self, told: Tensor) -> Tensor:
        self.projected += 1
        return self.project(told)


def loop(block: Told, turns: int = 3, **place: Any) -> Graph:
    graph = Graph("loop", metadata={"num_loop_steps": turns})
    graph.add_node(block, "told", **place)
    graph.add_node(Scale(0.5), "scale")
    graph.add_edge("told.y", "scale.x")
    graph.add_edge("scale.y", "told.x")
    for port in ("x", "told", "bias"):
        graph.expose_input("told", port)
    graph.expose_output("scale", "y")
    return graph


def by_hand(block: Told, x: Tensor, told: Tensor, bias: float = 0.0, turns: int = 3) -> Tensor:
    for _ in range(turns):
        x = (x / 2 + block.project(told) + bias) * 0.5
    return x


@pytest.fixture
def block() -> Told:
    torch.manual_seed(0)
    return Told()


X, TOLD = torch.ones(2, WIDTH), torch.arange(2.0 * WIDTH).view(2, WIDTH)


def test_it_is_made_once_for_a_run_and_read_in_every_turn(block: Told) -> None:
    graph = loop(block)
    with torch.no_grad():
        for count in (1, 2):
            assert torch.equal(graph.run({"x": X, "told": TOLD})["y"], by_hand(block, X, TOLD))
            assert block.projected == count
        assert torch.equal(graph.run({"x": X, "told": TOLD, "bias": 0.5}, seed=1)["y"], by_hand(block, X, TOLD, 0.5))
    assert [sorted(inputs) for inputs in block.asked] == [["told"], ["told"], ["bias", "told"]]


def test_a_node_outside_of_a_loop_is_not_asked(block: Told) -> None:
    graph = Graph("straight")
    graph.add_node(block, "told")
    graph.infer_exposed_ports()
    graph.run({"x": X, "told": TOLD})
    assert block.asked == [] and block.projected == 1


def test_an_input_that_turns_change_is_left_alone(block: Told) -> None:
    graph = loop(block)
    graph.add_edge("scale.y", "told.told")
    graph.run({"x": X, "told": TOLD})
    assert block.asked == [] and block.projected == 3


def test_a_place_that_is_frozen_is_not_asked(block: Told) -> None:
    found = loop(block, trainable=False).run({"x": X, "told": TOLD}, training=True)["y"]
    torch.testing.assert_close(found, by_hand(block, X, TOLD))
    assert not found.requires_grad and block.asked == []


def test_a_place_that_maps_is_not_asked(block: Told) -> None:
    graph = loop(block)
    graph.configure_node("told", map=("x", "told"))
    graph.configure_node("scale", map=("x",))
    found = graph.run({"x": [X, X], "told": [TOLD, 2 * TOLD]})["y"]
    torch.testing.assert_close(found, [by_hand(block, X, told).detach() for told in (TOLD, 2 * TOLD)])
    assert block.asked == []


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_it_from_every_turn(block: Told, checkpointing: bool) -> None:
    graph = loop(block).gradient_checkpointing(checkpointing)
    told, other = TOLD.clone().requires_grad_(), TOLD.clone().requires_grad_()
    expected = torch.autograd.grad(by_hand(block, X, other).sum(), [other, *block.parameters()])
    found = torch.autograd.grad(graph.run({"x": X, "told": told}, training=True)["y"].sum(), [told, *block.parameters()])
    torch.testing.assert_close(found, expected)
    assert block.projected == 1


def test_new_weights_and_a_new_block_are_seen(block: Told) -> None:
    graph = loop(block)
    graph.run({"x": X, "told": TOLD})
    with torch.no_grad():
        block.project.weight.mul_(2)
    assert torch.equal(graph.run({"x": X, "told": TOLD})["y"], by_hand(block, X, TOLD).detach())
    graph.replace_node("told", other := Told())
    assert torch.equal(graph.run({"x": X, "told": TOLD})["y"], by_hand(other, X, TOLD).detach())
    assert other.projected == 1


def test_order_dry_runs_and_callbacks_know_the_node_once(block: Told) -> None:
    graph = loop(block)
    assert graph.run({"x": X, "told": TOLD}, dry_run=True).order == ("told", "scale")
    assert graph.run({"x": X, "told": TOLD}, dry_run="fake").shapes["scale.y"] == (2, WIDTH)
    assert block.asked == []
    seen: list[str] = []
    graph.run({"x": X, "told": TOLD}, callbacks=[lambda event: seen.append(event.path) if event.kind == "start" else None])
    assert seen == ["told", "scale"] * 3 and len(block.asked) == 1


def test_what_fails_there_names_the_node(block: Told) -> None:
    with pytest.raises(RuntimeError) as caught:
        loop(block).run({"x": X, "told": TOLD[:, :2]})
    assert any("node told of loop" in note for note in caught.value.__notes__)


def test_a_compiled_loop_reads_it_too(block: Told) -> None:
    graph = loop(block)
    expected = graph.run({"x": X, "told": TOLD})["y"]
    graph.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(graph.run({"x": X, "told": TOLD})["y"], expected)
    assert block.projected == 2


def test_a_partial_run_makes_it_for_the_loop_alone(block: Told) -> None:
    graph = loop(block)
    assert torch.equal(graph.run({"x": X, "told": TOLD}, outputs=["told.y"])["told.y"] * 0.5, by_hand(block, X, TOLD).detach())
    assert block.projected == 1
