"""What building costs, counted in calls of functions, and what cannot be built."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.blocks_for_tests import Scale
from wgtorch import Block, Graph, Pipeline, Stage, State
from wgtorch.core.errors import StructureError, UnknownNameError, ValidationError
from wgtorch.core.plan import build


class Told(Block):
    """A block with a role, so that rules look at it."""

    role = "conditioner"
    outputs = {"embedding": "tensor"}

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def calls_in(work: Callable[[], Any]) -> int:
    """How many functions, of Python and of C, are called."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def chain_of(length: int, *, auto_connect: bool = True) -> Graph:
    """n0 -> n1 -> ..., with an exposed input and output from the beginning."""
    graph = Graph("chain")
    graph.add_node(Scale(), "n0", auto_connect=auto_connect)
    graph.expose_input("n0", "x")
    graph.expose_output("n0", "y")
    for index in range(1, length):
        graph.add_node(Scale(), f"n{index}", auto_connect=auto_connect)
        graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    return graph


@pytest.mark.parametrize("auto_connect", [True, False])
def test_eight_times_the_nodes_cost_eight_times_the_calls(auto_connect: bool) -> None:
    few, many = (calls_in(lambda n=n: chain_of(n, auto_connect=auto_connect)) for n in (50, 400))
    assert many < 9 * few


def test_one_name_given_to_many_ports_and_ids_that_are_made_cost_what_they_are() -> None:
    def work(count: int) -> None:
        graph = Graph("fan")
        for _ in range(count):
            graph.expose_input(graph.add_node(Scale()), "x", "value")
        assert len(graph.get_input_spec()) == 1

    assert calls_in(lambda: work(200)) < 4.6 * calls_in(lambda: work(50))


EDITS: dict[str, Callable[[Graph], Any]] = {
    "add_node": lambda graph: graph.add_node(Scale(), "new"),
    "add a node with a role": lambda graph: graph.add_node(Told(), "new"),
    "add_edge": lambda graph: graph.add_edge("free.y", "last.x"),
    "remove_edge": lambda graph: graph.remove_edge("n3.y", "n4.x"),
    "remove_node": lambda graph: graph.remove_node("n3"),
    "replace_node": lambda graph: graph.replace_node("n3", Scale(7.0)),
    "configure_node": lambda graph: graph.configure_node("n3", inputs={}, timeout=1.0),
    "set_trainable": lambda graph: graph.set_trainable("n3", False),
    "expose_input": lambda graph: graph.expose_input("last", "x", "other"),
    "expose_output": lambda graph: graph.expose_output("n4", "y", "other"),
    "hide_output": lambda graph: graph.hide_output("y"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_costs_the_same_in_a_large_graph(edit: str) -> None:
    def cost(length: int) -> int:
        graph = chain_of(length)
        graph.add_node(Scale(), "free")
        graph.add_node(Scale(), "last")
        return calls_in(lambda: EDITS[edit](graph))

    cost(10)  # what is read once for all
    assert cost(300) <= cost(10) + 5


def test_nothing_is_planned_while_a_graph_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []
    real = build.Builder.build

    def noted(builder: build.Builder) -> Any:
        plans.append(builder.structure.name)
        return real(builder)

    monkeypatch.setattr(build.Builder, "build", noted)
    graph = chain_of(5)
    graph.run({"x": torch.ones(1)})
    graph.run({"x": torch.ones(1)})
    assert plans == ["chain"]
    graph.add_node(Scale(), "more")
    graph.add_edge("n4.y", "more.x")
    graph.expose_output("more", "y", "z")
    assert plans == ["chain"]
    assert graph.run({"x": torch.ones(1)})["z"] == 64
    assert plans == ["chain", "chain"]


# --- containment ------------------------------------------------------------------------------------------------------


def nested() -> tuple[Graph, Graph, Graph]:
    inner, middle, outer = (Graph(name) for name in ("inner", "middle", "outer"))
    inner.add_node(Scale(), "s")
    inner.infer_exposed_ports()
    middle.add_node(inner, "inner")
    middle.infer_exposed_ports()
    outer.add_node(middle, "middle")
    outer.infer_exposed_ports()
    return inner, middle, outer


class Owner(Block):
    """Holds a graph as an attribute."""

    outputs = {"y": "any"}

    def __init__(self, held: Any = None) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Any) -> Any:
        return x


WAYS: dict[str, Callable[[Graph, Any], Any]] = {
    "add_node": lambda graph, child: graph.add_node(child, "me"),
    "add_child": lambda graph, child: graph.add_child(child, "me"),
    "replace_node": lambda graph, child: graph.replace_node("s", child),
    "replace_child": lambda graph, child: graph.replace_child("s", child),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("child", ["itself", "one that holds it", "one that holds one that holds it", "a block that holds it"])
def test_a_level_never_comes_to_stand_inside_itself(way: str, child: str) -> None:
    inner, middle, outer = nested()
    held = {"itself": inner, "one that holds it": middle, "one that holds one that holds it": outer, "a block that holds it": Owner(outer)}
    before = inner.to_config(), outer.to_config()
    message = "inner cannot hold itself" if child == "itself" else "inner cannot hold (Graph|Owner) .*, which holds it"
    with pytest.raises(StructureError, match=message):
        WAYS[way](inner, held[child])
    assert (inner.to_config(), outer.to_config()) == before
    assert outer.run({"x": torch.ones(1)})["y"] == 2


def test_a_pipeline_never_comes_to_stand_inside_itself() -> None:
    pipeline, graph = Pipeline("p"), Graph("g")
    graph.add_node(Owner(pipeline), "owner")
    with pytest.raises(StructureError, match="p/again: p cannot hold Graph 'g', which holds it"):
        pipeline.add_graph(graph, "again")
    assert not len(pipeline.nodes)


# --- depth ------------------------------------------------------------------------------------------------------------


def deep(depth: int = 100) -> Graph:
    graph = chain_of(1)
    for _ in range(depth - 1):
        outer = Graph("outer")
        outer.add_node(graph, "in")
        outer.infer_exposed_ports()
        graph = outer
    return graph


DEEP_USES: dict[str, Callable[[Graph, Path], Any]] = {
    "config": lambda graph, folder: Graph.from_config(graph.to_config()),
    "yaml": lambda graph, folder: (graph.save_config(folder / "deep.yaml"), Graph.from_yaml(folder / "deep.yaml"))[1],
    "json": lambda graph, folder: (graph.save_config(folder / "deep.json"), Graph.from_yaml(folder / "deep.json"))[1],
    "checkpoint": lambda graph, folder: (graph.save(folder / "deep"), Graph.load(folder / "deep"))[1],
    "state_dict": lambda graph, folder: (graph.load_state_dict(graph.state_dict()), graph)[1],
    "draw": lambda graph, folder: ([graph.draw(form) for form in ("mermaid", "dot", "svg")], graph)[1],
    "validate": lambda graph, folder: (graph.validate(deep=True), graph)[1],
    "dry run": lambda graph, folder: (graph.run({"x": torch.ones(1)}, dry_run=True), graph)[1],
    "set_adapter": lambda graph, folder: (graph.set_adapter("/".join(["in"] * 99 + ["n0"]), None), graph)[1],
}


@pytest.mark.parametrize("use", DEEP_USES)
def test_a_hundred_graphs_inside_each_other(use: str, tmp_path: Path) -> None:
    graph = DEEP_USES[use](deep(), tmp_path)
    assert isinstance(graph.find("/".join(["in"] * 99 + ["n0"])), Scale)
    assert graph.run({"x": torch.ones(1)})["y"] == 2


def test_a_change_deep_below_reaches_every_level_above() -> None:
    inner = Graph("inner")
    inner.add_node(Scale(2.0), "a")
    inner.infer_exposed_ports()
    middle = Pipeline("middle")
    middle.add_graph(inner, "inner")
    middle.infer_exposed_ports()
    outer = Stage("outer")
    outer.add_pipeline(middle, "middle")
    outer.set_state_contract(["intent"], ["outcome"], {"middle.x": "intent"}, {"outcome": "middle.y"})
    before = State(intent=torch.ones(1))
    assert outer.run(before).outcome.item() == 2.0
    inner.remove_node("a")
    inner.add_node(Scale(3.0), "a")
    inner.add_node(Scale(5.0), "b", auto_connect=False)
    inner.add_edge("a.y", "b.x")
    inner.expose_input("a", "x")
    inner.expose_output("b", "y", name="y")
    for level in (copy.deepcopy(outer), pickle.loads(pickle.dumps(outer)), outer):
        assert level.run(before).outcome.item() == 15.0
        level.find("middle/inner").remove_node("a")
        with pytest.raises((ValidationError, UnknownNameError)):  # the pipeline exposes an input that is gone
            level.run(before)
