"""Which source feeds which port, and which edges close loops."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from wgtorch.core.structure import Edge, Exposed, Structure

_DIGITS = re.compile(r"(\d+)")


@dataclass(slots=True)
class Wiring:
    """Sources of every port, and which edges are cut to order loops."""

    structure: Structure
    edges_into: dict[tuple[str, str], list[Edge]] = field(default_factory=dict)
    exposed_into: dict[tuple[str, str], list[Exposed]] = field(default_factory=dict)
    component: dict[str, int] = field(default_factory=dict)
    components: list[list[str]] = field(default_factory=list)
    own_tail: set[str] = field(default_factory=set)
    feedback: set[Edge] = field(default_factory=set)
    stuck: list[list[str]] = field(default_factory=list)
    unordered: list[list[str]] = field(default_factory=list)

    def is_loop(self, index: int) -> bool:
        members = self.components[index]
        return len(members) > 1 or members[0] in self.own_tail

    def inside(self, edge: Edge) -> bool:
        return self.component[edge.source_node] == self.component[edge.target_node]


def wire(structure: Structure) -> Wiring:
    """Finds sources, components and feedback edges of a structure."""
    wiring = Wiring(structure)
    for edge in structure.edges:
        wiring.edges_into.setdefault((edge.target_node, edge.target_port), []).append(edge)
    for entry in structure.inputs:
        wiring.exposed_into.setdefault((entry.node_id, entry.port_name), []).append(entry)
    wiring.own_tail = {edge.source_node for edge in structure.edges if edge.source_node == edge.target_node}
    wiring.components = strong_components(structure.nodes, structure.edges)
    wiring.component = {node: index for index, members in enumerate(wiring.components) for node in members}
    if structure.loops:
        _cut_loops(wiring)
    return wiring


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts names as people do: ``frame_2`` before ``frame_10``."""
    return tuple([(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(text)])


def _cut_loops(wiring: Wiring) -> None:
    """Finds the feedback edges: those whose target has a start of its own, then those that close a cycle of which all other edges
    bring what has to be there. Cycles that are left over have no start, or nothing in them says which node is first."""
    structure = wiring.structure
    ports = {(node.node_id, port.name): port for node in structure.nodes.values() for port in node.inputs}

    def started(edge: Edge) -> bool:
        key = (edge.target_node, edge.target_port)
        outside = any(not wiring.inside(other) for other in wiring.edges_into[key])
        return ports[key].aggregation == "single" and (outside or ports[key].filled or key in wiring.exposed_into)

    def can_do_without(edge: Edge) -> bool:
        key = (edge.target_node, edge.target_port)
        return not ports[key].required or len(wiring.edges_into[key]) > 1 or key in wiring.exposed_into

    within = [edge for edge in structure.edges if wiring.inside(edge)]
    wiring.feedback = {edge for edge in within if started(edge)}
    rest = [edge for edge in within if edge not in wiring.feedback]
    cyclic = _on_cycles(structure.nodes, rest)
    loose = {edge for edge in cyclic if can_do_without(edge)}
    firm = [edge for edge in rest if edge not in loose]
    left = {edge.source_node for edge in _on_cycles(structure.nodes, firm)}
    wiring.stuck = [members for members in strong_components(structure.nodes, firm) if left & set(members)]
    if wiring.stuck:
        return
    while True:
        closing = {edge for edge in loose if edge.source_node == edge.target_node or _leads(edge.target_node, edge.source_node, firm)}
        wiring.feedback |= closing
        loose -= closing
        # What lies on no cycle any more brings the value of this iteration, and may show of others that they close one.
        still = _on_cycles(structure.nodes, [*firm, *loose])
        settled = {edge for edge in loose if edge not in still}
        if not closing and not settled:
            break
        loose -= settled
        firm += settled
    if loose:
        left = {edge.source_node for edge in loose} | {edge.target_node for edge in loose}
        wiring.unordered = [sorted(set(members) & left, key=natural) for members in strong_components(structure.nodes, [*firm, *loose])]
        wiring.unordered = [members for members in wiring.unordered if len(members) > 1]


def _leads(start: str, end: str, edges: Sequence[Edge]) -> bool:
    after: dict[str, list[str]] = {}
    for edge in edges:
        after.setdefault(edge.source_node, []).append(edge.target_node)
    return end in closure([start], lambda node: after.get(node, ()))


def _on_cycles(nodes: Iterable[str], edges: Sequence[Edge]) -> set[Edge]:
    component = {node: index for index, members in enumerate(strong_components(nodes, edges)) for node in members}
    return {edge for edge in edges if component[edge.source_node] == component[edge.target_node]}


def upstream(structure: Structure, targets: Iterable[str], stop: Iterable[tuple[str, str]] = ()) -> set[str]:
    """Nodes that ``targets`` need, themselves included; edges out of the ports in ``stop`` are not followed."""
    stop = set(stop)
    into: dict[str, list[Edge]] = {}
    for edge in structure.edges:
        into.setdefault(edge.target_node, []).append(edge)
    return closure(targets, lambda node: [e.source_node for e in into.get(node, ()) if (e.source_node, e.source_port) not in stop])


def strong_components(nodes: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Strongly connected components, members in the order of ``nodes`` (Tarjan 1972, without recursion)."""
    rank = {node: index for index, node in enumerate(nodes)}
    after: dict[str, list[str]] = {node: [] for node in rank}
    for edge in edges:
        after[edge.source_node].append(edge.target_node)
    index: dict[str, int] = {}
    low: dict[str, int] = {}  # of nodes whose component is not found yet
    stack: list[str] = []
    found: list[list[str]] = []
    work = list(reversed(rank))
    while work:
        node = work[-1]
        if node not in index:
            index[node] = low[node] = len(index)
            stack.append(node)
            work += [target for target in after[node] if target not in index]
            continue
        work.pop()
        if node in low:  # else another way has led to it
            low[node] = min([low[node], *[low[target] for target in after[node] if target in low]])
            if low[node] == index[node]:
                members = [stack.pop()]
                while members[-1] != node:
                    members.append(stack.pop())
                for member in members:
                    del low[member]
                found.append(sorted(members, key=rank.__getitem__))
    return found


def closure(start: Iterable[str], after: Callable[[str], Iterable[str]]) -> set[str]:
    """All that can be reached, the start included."""
    seen: set[str] = set()
    todo = list(start)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(after(node))
    return seen
