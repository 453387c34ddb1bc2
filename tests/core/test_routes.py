"""Routes: outputs of which one call gives only some, what lies behind them, and what joins them again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch import Block, Graph, NodeCache, Pipeline, Port, Stage, State
from wgtorch.core.errors import MissingInputError, PortError, StructureError


class Sign(Block):
    """A router: positive numbers one way, negative ones the other, zero both."""

    outputs = {"up": "number", "down": "number", "size": "number"}
    routes = ("up", "down")

    def forward(self, x: int) -> dict[str, Any]:
        taken = {name: x for name, holds in (("up", x >= 0), ("down", x <= 0)) if holds}
        return {**taken, "size": abs(x)}


class Add(Block):
    outputs = {"y": "number"}

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k, self.calls = k, 0

    def forward(self, x: int, other: int | None = None) -> int:
        self.calls += 1
        return x + self.k + (other or 0)


class Both(Block):
    outputs = {"y": "number"}

    def forward(self, a: int, b: int) -> int:
        return a * b


class First(Block):
    inputs = {"x": Port(dtype="number", aggregation="first")}
    outputs = {"y": "number"}

    def forward(self, x: int) -> int:
        return x


class Valid(Block):
    """The end of a loop that goes on until a number is large enough."""

    outputs = {"valid": "number", "again": "number", "done": "any"}
    routes = ("valid", "again")

    def __init__(self, least: int = 10) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: int) -> dict[str, Any]:
        return {"valid": x, "done": True} if x >= self.least else {"again": x, "done": False}


def branches(name: str = "g", join: bool = True) -> Graph:
    """sign -> up -> plus_up -> .; sign -> down -> plus_down -> join."""
    graph = Graph(name)
    graph.add_node(Sign(), "sign")
    for route, k in (("up", 100), ("down", 1000)):
        graph.add_node(Add(k), route)
        graph.add_node(Add(1), f"plus_{route}")
        graph.add_edge(f"sign.{route}", f"{route}.x")
        graph.add_edge("sign.size", f"{route}.other")
        graph.add_edge(f"{route}.y", f"plus_{route}.x")
        if not join:
            graph.expose_output(f"plus_{route}", "y", route)
    graph.expose_input("sign", "x")
    if join:
        graph.add_node(First(), "join")
        graph.add_edge("plus_up.y", "join.x")
        graph.add_edge("plus_down.y", "join.x")
        graph.expose_output("join", "y")
    return graph


def test_what_lies_behind_a_route_that_is_not_taken_is_skipped_and_a_join_takes_what_came() -> None:
    graph = branches()
    graph.validate()
    assert graph.run({"x": 5}) == {"y": 5 + 100 + 5 + 1}
    assert [graph.nodes[name].calls for name in ("up", "plus_up", "down", "plus_down")] == [1, 1, 0, 0]
    assert graph.run({"x": -5}) == {"y": -5 + 1000 + 5 + 1}
    assert graph.run({"x": 0}) == {"y": 1001}, "both ways: the first of the ids"
    assert graph(x=5) == {"y": 111}


def test_callbacks_are_told_why() -> None:
    told: list[Any] = []
    branches().run({"x": 5}, callbacks=told.append)
    assert [(event.path, event.reason) for event in told if event.kind == "skip"] == [
        ("down", "down.x lies behind sign.down, which was not taken"),
        ("plus_down", "plus_down.x lies behind sign.down, which was not taken"),
    ]


def test_outputs_behind_a_route_are_optional_and_an_asked_one_is_named() -> None:
    graph = branches(join=False)
    assert {name: port.optional for name, port in graph.get_output_spec().items()} == {"up": True, "down": True}
    assert list(graph.routes) == ["up", "down"]
    assert graph.run({"x": 5}) == {"up": 111}
    with pytest.raises(MissingInputError, match="output 'down' has no value"):
        graph.run({"x": 5}, outputs=["down"])
    assert graph.run({"x": 5}, outputs=["sign.up"]) == {"sign.up": 5}


def test_levels_pass_routes_on() -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(branches(join=False), "branches")
    for name, k in (("up", 1), ("down", 2)):
        after = Graph(f"after_{name}")
        after.add_node(Add(k), "add")
        after.infer_exposed_ports()
        pipeline.add_graph(after, f"after_{name}")
        pipeline.add_edge(f"branches.{name}", f"after_{name}.x")
        pipeline.expose_output(f"after_{name}", "y", name)
    pipeline.infer_exposed_ports()
    pipeline.validate(deep=True)
    assert pipeline.run({"x": 5}) == {"up": 112}
    assert pipeline.run({"x": -5}) == {"down": 1003}
    stage = Stage("s", role="s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract(["intent"], ["recipe", "outcome"], {"p.x": "intent"}, {"recipe": "p.up", "outcome": "p.down"})
    state = stage.run(State(intent=-5))
    assert (state.recipe, state.outcome) == (None, 1003)


def test_a_router_behind_a_route() -> None:
    graph = branches()
    graph.add_node(Sign(), "again")
    graph.add_edge("down.y", "again.x")
    graph.add_node(Add(7), "deep")
    graph.add_edge("again.up", "deep.x")
    graph.expose_output("deep", "y", "deep")
    assert graph.run({"x": -5}) == {"y": 1001, "deep": 1007}
    assert graph.run({"x": 5}) == {"y": 111}


def crossed() -> Graph:
    graph = branches(join=False)
    graph.add_node(Both(), "both")
    graph.add_edge("up.y", "both.a")
    graph.add_edge("down.y", "both.b")
    graph.expose_output("both", "y", "both")
    return graph


def test_a_required_input_behind_a_route_that_was_not_taken_is_an_error_where_another_was() -> None:
    graph = crossed()
    found = graph.validate(strict=False)
    assert [str(f) for f in found.warnings if "both" in str(f)] == [
        "g/both: a lies behind sign.up and b behind sign.down; one call may give only one. "
        "Join them in one port with aggregation 'first', or make one of the ports optional."
    ]
    with pytest.raises(
        MissingInputError, match=r"both.b: required, but it lies behind sign.down, which was not taken, while both.a came by"
    ):
        graph.run({"x": 5})
    assert graph.run({"x": 0})["both"] == 100 * 1000


def until(least: int = 10) -> Graph:
    """Adds 3 until the number is valid, then takes it out of the loop and doubles it."""
    graph = Graph("until")
    graph.add_node(Add(3), "model")
    graph.add_node(Valid(least), "valid")
    graph.add_node(Add(0), "correct")
    graph.add_node(Add(1000), "after")
    for source, target in (("model.y", "valid.x"), ("valid.again", "correct.x"), ("correct.y", "model.x"), ("valid.valid", "after.x")):
        graph.add_edge(source, target)
    graph.expose_input("model", "x")
    graph.expose_output("after", "y")
    return graph


def test_a_loop_until_valid() -> None:
    graph = until()
    graph.validate()
    assert graph.run({"x": 0}) == {"y": 1012}
    assert (graph.nodes["model"].calls, graph.nodes["correct"].calls) == (4, 3)
    assert graph.run({"x": 8}) == {"y": 1011}
    assert graph.run({"x": 0}, num_loop_steps=2) == {}, "it never became valid, and what needs that is skipped"


def test_a_loop_that_may_lose_what_it_goes_on_with_is_told() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 3})
    graph.add_node(Sign(), "sign", auto_connect=False)
    graph.add_node(Add(-4), "less", auto_connect=False)
    graph.add_edge("sign.up", "less.x")
    graph.add_edge("less.y", "sign.x")
    graph.expose_input("sign", "x")
    graph.expose_output("less", "y")
    assert [str(found) for found in graph.validate(strict=False).warnings] == [
        "g/sign: x is fed back from less.y, which lies behind sign.up: where that is not taken, the next iteration lacks it. "
        "Join what each route brings in one port with aggregation 'first' before it is fed back, or end the loop by 'done'."
    ]
    assert graph.run({"x": 20}) == {"y": 8}
    with pytest.raises(MissingInputError, match=r"less.y \(skipped, or gave no such output\) or input 'x' \(for the first iteration\)"):
        graph.run({"x": 3})
    assert not until().validate(strict=False).warnings


def test_a_loop_behind_a_route_is_not_entered() -> None:
    graph = branches()
    inner = until()
    for node_id, block in inner.nodes.items():
        graph.add_node(block, node_id)
    for edge in inner.edges:
        graph.add_edge(edge.source_node, edge.source_port, edge.target_node, edge.target_port)
    graph.add_edge("down.y", "model.x")
    graph.expose_output("after", "y", "until")
    assert graph.run({"x": 5}) == {"y": 111}
    assert inner.nodes["model"].calls == 0
    assert graph.run({"x": -5})["until"] == 2003


@pytest.mark.parametrize("x", [5, -5, 0])
def test_other_ways_to_run_agree(x: int, tmp_path: Any) -> None:
    graph, cache = branches(), NodeCache()
    want = graph.run({"x": x})
    assert graph.run({"x": x}, cache=cache) == graph.run({"x": x}, cache=cache) == want
    assert list(graph.stream({"x": x}))[-1].outputs == want
    assert graph.batch([{"x": x}, {"x": -x}]) == [want, graph.run({"x": -x})]
    paused = graph.run_until({"x": x}, before="join")
    assert graph.resume(paused) == want
    graph.configure_node("up", timeout=5.0)
    assert graph.run({"x": x}) == want
    with pytest.raises(PortError, match="ended without stopping before down"):
        branches().run_until({"x": 5}, before="down")
    assert until().run({"x": 0}, cache=cache) == until().run({"x": 0})


def test_a_compiled_loop_calls_routers_as_they_are() -> None:
    class Model(Block):
        outputs = {"y": "tensor"}

        def forward(self, x: Tensor) -> Tensor:
            return x * 2 + 1

    class Large(Block):
        outputs = {"valid": "tensor", "again": "tensor", "done": "any"}
        routes = ("valid", "again")

        def forward(self, x: Tensor) -> dict[str, Any]:
            done = bool(x.sum() > 100)
            return {"valid" if done else "again": x, "done": done}

    graph = Graph("g")
    graph.add_node(Model(), "model", auto_connect=False)
    graph.add_node(Large(), "large", auto_connect=False)
    for source, target in (("model.y", "large.x"), ("large.again", "model.x")):
        graph.add_edge(source, target)
    graph.expose_input("model", "x")
    graph.expose_output("large", "valid")
    want = graph.run({"x": torch.ones(2)})["valid"]
    graph.compile(backend="eager")
    assert torch.equal(graph.run({"x": torch.ones(2)})["valid"], want)


def test_pictures_and_configs_have_them() -> None:
    graph = Graph.from_template("text_to_image", steps=1)
    assert "?" not in graph.draw()
    drawn = branches().draw()
    assert "up?" in drawn
    assert "size?" not in drawn
    assert "up?" in branches().draw("dot")


def test_mistakes_are_told() -> None:
    class Typo(Sign):
        routes = ("up", "dwn")

    class Nothing(Sign):
        def forward(self, x: int) -> dict[str, Any]:
            return {"size": 1}

    with pytest.raises(StructureError, match=r"Typo.routes: 'dwn' is no output; did you mean 'down'"):
        Typo().get_output_spec()
    graph = branches()
    graph.replace_node("sign", Nothing())
    with pytest.raises(PortError, match=r"sign: gave none of its routes \['up', 'down'\]"):
        graph.run({"x": 1})
