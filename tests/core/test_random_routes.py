"""Random graphs of routers, branches and joins, flat and with levels inside: every way to run them gives what a naive reading gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wgtorch import Block, Graph, NodeCache, Paused, Port, register_block
from wgtorch.core.errors import MissingInputError, PortError


@register_block("test/routes/sign")
class Sign(Block):
    """Odd numbers one way, even ones the other, multiples of four both."""

    outputs = {"odd": "number", "even": "number", "always": "number"}
    routes = ("odd", "even")

    def forward(self, x: int) -> dict[str, Any]:
        return {name: x for name, holds in (("odd", x % 2 or not x % 4), ("even", not x % 2), ("always", True)) if holds}


@register_block("test/routes/add")
class Add(Block):
    outputs = {"y": "number"}

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: int, other: int | None = None) -> int:
        return 3 * x + self.k + 7 * (other or 0)


@register_block("test/routes/first")
class First(Block):
    inputs = {"x": Port(dtype="number", aggregation="first")}
    outputs = {"y": "number"}

    def forward(self, x: int) -> int:
        return x


PORTS = {Sign: ("odd", "even", "always"), Add: ("y",), First: ("y",)}


@st.composite
def sketches(draw: st.DrawFn) -> list[tuple[type[Block], list[tuple[str, str, str]]]]:
    """Nodes in an order that data flows in: a class, and edges as (source, port, own port). ``in`` is the input of the graph."""
    nodes: list[tuple[type[Block], list[tuple[str, str, str]]]] = []
    sources = [("in", "x")]
    for index in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from([Sign, Sign, Add, Add, First] if len(sources) > 3 else [Sign, Add]))
        if kind is First:
            chosen = sorted(draw(st.lists(st.sampled_from(sources[1:]), min_size=2, max_size=3, unique=True)))
        else:
            chosen = [draw(st.sampled_from(sources))]
        edges = [(source, port, "x") for source, port in chosen]
        if kind is Add and draw(st.booleans()) and len(sources) > 1:
            edges.append((*draw(st.sampled_from(sources[1:])), "other"))
        nodes.append((kind, edges))
        sources += [(f"n{index}", port) for port in PORTS[kind]]
    return nodes


def reading(sketch: Any, x: int) -> tuple[dict[tuple[str, str], int], list[str]]:
    """What every output is, as far as it is there, and the nodes that run."""
    values: dict[tuple[str, str], int] = {("in", "x"): x}
    ran = []
    for index, (kind, edges) in enumerate(sketch):
        given = [(port, values[source, out]) for source, out, port in edges if (source, out) in values]
        arguments = dict(reversed(given))  # of several, the first
        if "x" not in arguments:
            continue
        block = Add(index) if kind is Add else kind()
        result = block.run(arguments)
        values |= {(f"n{index}", port): value for port, value in result.items()}
        ran.append(f"n{index}")
    return values, ran


def flat(sketch: Any) -> Graph:
    graph = Graph("g")
    for index, (kind, _) in enumerate(sketch):
        graph.add_node(Add(index) if kind is Add else kind(), f"n{index}", auto_connect=False)
    for index, (_, edges) in enumerate(sketch):
        for source, out, port in edges:
            if source == "in":
                graph.expose_input(f"n{index}", port, "x")
            else:
                graph.add_edge(f"{source}.{out}", f"n{index}.{port}")
        for port in PORTS[sketch[index][0]]:
            graph.expose_output(f"n{index}", port, f"n{index}_{port}")
    return graph


def wrapped(graph: Graph, deep: int) -> Graph:
    """The graph as the only node of another, and that again."""
    for level in range(deep):
        outer = Graph(f"level{level}")
        outer.add_node(graph, "inner", auto_connect=False)
        for name in graph.get_input_spec():
            outer.expose_input("inner", name, name)
        for name in graph.get_output_spec():
            outer.expose_output("inner", name, name)
        graph = outer
    return graph


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sketch=sketches(), x=st.integers(0, 7), deep=st.integers(0, 3), data=st.data())
def test_every_way_to_run_takes_the_same_branches(sketch: Any, x: int, deep: int, data: st.DataObject, tmp_path: Path) -> None:
    graph = wrapped(flat(sketch), deep)
    assert graph.validate(strict=False).is_valid
    where = "inner/" * deep
    values, ran = reading(sketch, x)
    want = {f"{node}_{port}": value for (node, port), value in values.items() if node != "in"}
    inputs = {"x": x} if graph.get_input_spec() else {}
    told: list[Any] = []
    assert graph.run(inputs, callbacks=told.append) == want
    assert {event.path for event in told if event.kind == "start" and event.level == "block"} == {where + name for name in ran}
    skipped = {event.path for event in told if event.kind == "skip"}
    assert skipped == {where + f"n{index}" for index in range(len(sketch))} - {where + name for name in ran}
    assert graph(**inputs) == want
    assert graph.run(inputs, debug=True) == want
    assert graph.run(inputs, seed=3) == want
    assert list(graph.stream(inputs))[-1].outputs == want
    others = [reading(sketch, other)[0] for other in (x, x + 1)]
    assert graph.batch([{"x": x}, {"x": x + 1}]) == [
        {f"{node}_{port}": value for (node, port), value in each.items() if node != "in"} for each in others
    ]
    cache = NodeCache()
    assert graph.run(inputs, cache=cache) == graph.run(inputs, cache=cache) == want
    assert Graph.from_config(graph.to_config()).run(inputs) == want
    graph.run(inputs, dry_run=True)
    assert graph.draw()
    name = data.draw(st.sampled_from([f"n{index}" for index in range(len(sketch))]))
    if name in ran:
        for when in ("before", "after"):
            paused = graph.run_until(inputs, **{when: where + name})
            assert graph.resume(paused) == want
            assert graph.resume(Paused.load(paused.save(tmp_path / "paused"))) == want
    else:
        with pytest.raises(PortError, match="without stopping"):
            graph.run_until(inputs, before=where + name)
    node, port = data.draw(st.sampled_from([(f"n{index}", port) for index, (kind, _) in enumerate(sketch) for port in PORTS[kind]]))
    if (node, port) in values:
        assert graph.run(inputs, outputs=[f"{where}{node}.{port}"]) == {f"{where}{node}.{port}": values[node, port]}
    else:
        with pytest.raises(MissingInputError):
            graph.run(inputs, outputs=[f"{where}{node}.{port}"])
