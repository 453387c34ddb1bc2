"""Random graphs for property tests, and the naive executor that the engine is compared with.

A sketch is drawn once and read three ways: as what the planner takes, as a real Graph, and by :func:`reference`, which
follows the words of the specification and knows nothing of plans: a value is what its node makes of the values of its
sources, found by recursion over (node, turn).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.structure import Edge, Exposed, InputShape, NodeShape, Structure
from wgtorch.graph import Graph

_PRIME = 2**31 - 1


def mixed(salt: int, ports: tuple[str, ...], values: Mapping[str, Any], count: int) -> list[int]:
    """``count`` numbers that change whenever a value, its port, or its absence does."""
    mark = salt
    for port in ports:
        value = values.get(port)
        for item in value if isinstance(value, list) else [value]:
            mark = (mark * 31 + (7 if item is None else int(item) + 11)) % _PRIME
        mark = (mark * 5 + 3) % _PRIME
    return [(mark * (index + 2) + index) % _PRIME for index in range(count)]


@register_block("test/mix")
class Mix(Block):
    """Mixes what arrives into ``outputs`` numbers.

    Args:
        ports: aggregation by input; a name ending in ``?`` is optional.
    """

    def __init__(self, salt: int, ports: dict[str, str], outputs: int, is_async: bool = False) -> None:
        super().__init__()
        self.salt = salt
        self.is_async = is_async
        self.inputs = {name.rstrip("?"): Port(dtype="any", aggregation=how, optional=name.endswith("?")) for name, how in ports.items()}  # type: ignore[arg-type]
        self.outputs = {f"o{index}": "any" for index in range(outputs)}
        self.num_loop_steps = None

    def forward(self, **values: Any) -> Any:
        numbers = [torch.tensor(number) for number in mixed(self.salt, tuple(self.inputs), values, len(self.outputs))]
        return numbers[0] if len(numbers) == 1 else {f"o{index}": number for index, number in enumerate(numbers)}


@dataclass(frozen=True)
class SketchPort:
    """One input: its sources are edges, exposed names, or a value that the node holds."""

    name: str
    optional: bool = False
    how: str = "single"
    edges: tuple[tuple[int, int], ...] = ()
    """(source node, output) in order."""
    back: tuple[int, int] | None = None
    """The edge that closes a loop."""
    exposed: tuple[str, ...] = ()
    value: int | None = None


@dataclass(frozen=True)
class Sketch:
    """A random graph; node ``i`` is called ``n<i>`` and forward edges go from lower to higher numbers."""

    ports: tuple[tuple[SketchPort, ...], ...]
    counts: tuple[int, ...]
    outputs: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    is_async: frozenset[int] = frozenset()
    inputs: Mapping[str, int] = field(default_factory=dict)
    """Values of the exposed inputs that are given."""
    steps: int = 1

    def edges(self) -> list[Edge]:
        """Edges in the order of ``order``; within a port as its sources are listed, feedback last."""
        found = []
        for node in self.order:
            for port in self.ports[node]:
                for source, output in (*port.edges, *([port.back] if port.back else [])):
                    found.append(Edge(f"n{source}", f"o{output}", f"n{node}", port.name))
        return found

    def exposed(self) -> tuple[list[Exposed], list[Exposed]]:
        """Exposed inputs and outputs."""
        inputs = [Exposed(f"n{node}", port.name, name) for node in self.order for port in self.ports[node] for name in port.exposed]
        return inputs, [Exposed(f"n{node}", f"o{output}", f"n{node}-o{output}") for node, output in self.outputs]

    def structure(self) -> Structure:
        """What the planner takes."""
        nodes = {
            f"n{node}": NodeShape(
                f"n{node}",
                inputs=tuple(InputShape(port.name, not port.optional, port.how, port.value is not None) for port in self.ports[node]),
                outputs=tuple(f"o{index}" for index in range(self.counts[node])),
                is_async=node in self.is_async,
            )
            for node in self.order
        }
        inputs, outputs = self.exposed()
        return Structure("random", nodes, tuple(self.edges()), tuple(inputs), tuple(outputs))

    def graph(self, name: str = "random", *, plain: bool = False) -> Graph:
        """A real graph, built by the public methods; ``plain`` holds numbers where a config could not hold tensors."""
        graph = Graph(name, metadata={"num_loop_steps": self.steps})
        for node in self.order:
            ports = {port.name + "?" * port.optional: port.how for port in self.ports[node]}
            held = {port.name: port.value if plain else torch.tensor(port.value) for port in self.ports[node] if port.value is not None}
            graph.add_node(Mix(node + 1, ports, self.counts[node], node in self.is_async), f"n{node}", inputs=held)
        for edge in self.edges():
            graph.add_edge(edge.source_node, edge.source_port, edge.target_node, edge.target_port)
        inputs, outputs = self.exposed()
        for entry in inputs:
            graph.expose_input(entry.node_id, entry.port_name, entry.name)
        for entry in outputs:
            graph.expose_output(entry.node_id, entry.port_name, entry.name)
        return graph

    def tensors(self) -> dict[str, Tensor]:
        """The given inputs."""
        return {name: torch.tensor(value) for name, value in self.inputs.items()}


# --- the naive executor -----------------------------------------------------------------------------------------------


def loop_members(sketch: Sketch) -> dict[int, frozenset[int]]:
    """For each node the nodes that it reaches and that reach it; itself included when it lies on a cycle."""
    after: dict[int, set[int]] = {node: set() for node in sketch.order}
    for edge in sketch.edges():
        after[int(edge.source_node[1:])].add(int(edge.target_node[1:]))
    reach: dict[int, set[int]] = {}
    for node in sketch.order:
        seen: set[int] = set()
        todo = list(after[node])
        while todo:
            other = todo.pop()
            if other not in seen:
                seen.add(other)
                todo += after[other]
        reach[node] = seen
    return {node: frozenset(other for other in reach[node] if node in reach[other]) for node in sketch.order}


def reference(sketch: Sketch, given: Mapping[tuple[int, int], int] | None = None) -> Callable[[int, int], int]:
    """The value of (node, output) after the whole run, by recursion; ``given`` values replace what nodes make."""
    members = loop_members(sketch)
    given = given or {}

    @cache
    def value(node: int, output: int, turn: int) -> int:
        if (node, output) in given:
            return given[node, output]
        arrived = {port.name: arriving(node, port, turn) for port in sketch.ports[node]}
        names = tuple(port.name for port in sketch.ports[node])
        return mixed(node + 1, names, arrived, sketch.counts[node])[output]

    def read(node: int, source: int, output: int, turn: int) -> int:
        inside = source in members[node]
        last = sketch.steps - 1 if members[source] else 0
        return value(source, output, turn if inside else last)

    def arriving(node: int, port: SketchPort, turn: int) -> Any:
        if port.back is not None and turn > 0:
            return read(node, *port.back, turn - 1)
        found = [read(node, *edge, turn) for edge in sorted(port.edges)]
        found += [sketch.inputs[name] for name in sorted(port.exposed) if name in sketch.inputs]
        if not found:
            return port.value
        return {"single": found[0], "first": found[0], "sum": sum(found), "list": found}[port.how]

    return lambda node, output: value(node, output, sketch.steps - 1 if members[node] else 0)


# --- drawing sketches -------------------------------------------------------------------------------------------------


@st.composite
def dags(draw: st.DrawFn, max_nodes: int = 7, is_async: bool = False) -> Sketch:
    """Random DAGs: several outputs, shared inputs, held values, aggregations, any order of building."""
    count = draw(st.integers(1, max_nodes))
    counts = tuple(draw(st.integers(1, 3)) for _ in range(count))
    ports = tuple(tuple(draw(_ports(node, index, counts)) for index in range(draw(st.integers(0, 3)))) for node in range(count))
    names = {name for node in ports for port in node for name in port.exposed}
    free = {
        name for name in names if all(port.optional or port.value is not None for node in ports for port in node if name in port.exposed)
    }
    left_out = draw(st.sets(st.sampled_from(sorted(free)))) if free else set()
    all_outputs = [(node, output) for node in range(count) for output in range(counts[node])]
    return Sketch(
        ports=ports,
        counts=counts,
        outputs=tuple(draw(st.lists(st.sampled_from(all_outputs), min_size=1, max_size=4, unique=True))),
        order=tuple(draw(st.permutations(range(count)))),
        is_async=frozenset(draw(st.sets(st.sampled_from(range(count))))) if is_async else frozenset(),
        inputs={name: 1000 + draw(st.integers(0, 99)) for name in sorted(names - left_out)},
        steps=1,
    )


@st.composite
def _ports(draw: st.DrawFn, node: int, index: int, counts: tuple[int, ...]) -> SketchPort:
    earlier = [(source, output) for source in range(node) for output in range(counts[source])]
    name, optional = f"p{index}", draw(st.booleans())
    how = draw(st.sampled_from(["edge", "exposed", "value", "value and exposed", "none", "several"]))
    if how == "edge" and earlier:
        return SketchPort(name, optional, edges=(draw(st.sampled_from(earlier)),))
    if how == "several" and earlier:
        aggregation = draw(st.sampled_from(["sum", "list", "first"]))
        edges = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=3, unique=True))
        return SketchPort(name, optional, aggregation, tuple(edges), exposed=draw(st.sampled_from([(), ("u",)])))
    if how == "value":
        return SketchPort(name, optional, value=draw(st.integers(0, 99)))
    if how == "value and exposed":
        return SketchPort(name, optional, value=draw(st.integers(0, 99)), exposed=(draw(st.sampled_from("uvw")),))
    if how == "none":
        return SketchPort(name, optional=True)
    return SketchPort(name, optional, exposed=(draw(st.sampled_from("uvw")),))


@st.composite
def loops(draw: st.DrawFn, max_nodes: int = 6, is_async: bool = False) -> Sketch:
    """Random graphs with feedback: into ports that have a start of their own, and from a node to an optional port of itself."""
    sketch = draw(dags(max_nodes, is_async))
    ports = [list(node) for node in sketch.ports]
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.integers(0, len(ports) - 1))
        source = draw(st.sampled_from(sorted(_below(ports, node))))
        back = (source, draw(st.integers(0, sketch.counts[source] - 1)))
        fitting = [index for index, port in enumerate(ports[node]) if port.how == "single" and (port.exposed or port.edges)]
        if fitting:
            index = draw(st.sampled_from(fitting))
            ports[node][index] = replace(ports[node][index], back=back)
        else:
            own = (node, draw(st.integers(0, sketch.counts[node] - 1)))
            ports[node].append(SketchPort(f"p{len(ports[node])}", optional=True, back=own))
    sketch = replace(sketch, ports=tuple(map(tuple, ports)), steps=draw(st.integers(1, 4)))
    return _sound(sketch)


def _below(ports: Sequence[Sequence[SketchPort]], start: int) -> set[int]:
    """Nodes that forward edges lead to from ``start``, itself included."""
    found = {start}
    for node in range(start, len(ports)):
        if any(source in found for port in ports[node] for source, _ in port.edges):
            found.add(node)
    return found


def _sound(sketch: Sketch) -> Sketch:
    """Every feedback edge closes a loop, and every start comes from outside its loop; an exposed input where it did not."""
    while True:
        members = loop_members(sketch)
        changed = [list(node) for node in sketch.ports]
        for node in sketch.order:
            for index, port in enumerate(sketch.ports[node]):
                if port.back and port.back[0] not in members[node]:
                    changed[node][index] = replace(port, back=None)
                elif port.back and any(source in members[node] for source, _ in port.edges):
                    changed[node][index] = replace(port, edges=(), exposed=("start",))
        after = replace(sketch, ports=tuple(map(tuple, changed)))
        starts = any("start" in port.exposed for node in after.ports for port in node)
        after = replace(after, inputs={**after.inputs, "start": 500} if starts else after.inputs)
        if after == sketch:
            return sketch
        sketch = after
