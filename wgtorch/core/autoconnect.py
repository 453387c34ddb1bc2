"""Edges from roles: which port feeds which, found from the set of nodes, never from the order of calls. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from wgtorch.core.structure import Edge


@dataclass(frozen=True, slots=True)
class RoleRule:
    """Output ``source_port`` of one role feeds input ``target_port`` of another.

    Args:
        source_role: role of the node the value comes from.
        source_port: its output.
        target_role: role of the node the value goes to.
        target_port: its input.
        unless: when a node of this role is there, it stands between the two, and this rule is silent.
        loops: the rule closes a loop; it stands beside another source, which is the loop's start.
    """

    source_role: str
    source_port: str
    target_role: str
    target_port: str
    unless: str = ""
    loops: bool = False


@dataclass(frozen=True, slots=True)
class SideBranchRule:
    """A node of one role stands beside those of another: it is fed what they are fed, and what it gives goes to them.

    Args:
        role: of the node that is put beside.
        beside: role of the nodes that are there.
        shared: inputs that are fed from the same ports as theirs.
        gives: True when outputs that are named as inputs of theirs feed those.
    """

    role: str
    beside: str
    shared: frozenset[str]
    gives: bool = False


@dataclass(frozen=True, slots=True)
class RoleNode:
    """What the rules look at: a node's role and the names of its ports."""

    node_id: str
    role: str
    inputs: frozenset[str]
    outputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class RoleEdges:
    """What the rules give.

    Args:
        edges: edges that carry values forward.
        feedback: edges that close loops.
        undecided: ports that several nodes could feed, with the candidates; nothing is guessed there.
    """

    edges: tuple[Edge, ...]
    feedback: tuple[Edge, ...]
    undecided: Mapping[tuple[str, str], tuple[str, ...]]


def edges_by_role(
    nodes: Sequence[RoleNode],
    rules: Sequence[RoleRule],
    taken: Mapping[tuple[str, str], Collection[str]],
    combining: Collection[tuple[str, str]] = (),
) -> RoleEdges:
    """Applies the rules.

    Args:
        nodes: the nodes with roles.
        rules: which port feeds which.
        taken: ports that have sources by the user's own word, with the roles of those sources.
        combining: ports that take several sources.
    """
    roles = {node.role for node in nodes}
    edges: list[Edge] = []
    feedback: list[Edge] = []
    undecided: dict[tuple[str, str], tuple[str, ...]] = {}
    for target in nodes:
        for port in sorted(target.inputs):
            key = (target.node_id, port)
            fitting = [rule for rule in rules if (rule.target_role, rule.target_port) == (target.role, port) and rule.unless not in roles]
            back = {rule.source_role for rule in fitting if rule.loops}
            for loops, into in ((False, edges), (True, feedback)):
                if key in taken and any((role in back) is loops for role in taken[key]):
                    continue
                candidates = [
                    (source.node_id, rule.source_port)
                    for rule in fitting
                    if rule.loops is loops
                    for source in nodes
                    if source.role == rule.source_role and rule.source_port in source.outputs and (loops or source is not target)
                ]
                if len(candidates) == 1 or key in combining:
                    into += [Edge(node_id, name, *key) for node_id, name in candidates]
                elif candidates:
                    undecided[key] = tuple(f"{node_id}.{name}" for node_id, name in sorted(candidates))
    return RoleEdges(tuple(edges), tuple(feedback), undecided)


def edges_beside(
    nodes: Sequence[RoleNode],
    rules: Sequence[SideBranchRule],
    edges: Sequence[Edge],
    put: Collection[str],
    combining: Collection[tuple[str, str]] = (),
) -> RoleEdges:
    """Joins nodes to what they stand beside, whoever joined that.

    Args:
        nodes: the nodes with roles.
        rules: who stands beside whom.
        edges: those that are there.
        put: ids of the nodes that are to be joined.
        combining: ports that take several sources.
    """
    found: list[Edge] = []
    undecided: dict[tuple[str, str], tuple[str, ...]] = {}
    taken = {(edge.target_node, edge.target_port) for edge in edges}
    into: dict[tuple[str, str], list[Edge]] = {}
    for rule in rules:
        there = [node for node in nodes if node.role == rule.beside]
        for node in nodes:
            if node.role != rule.role or node.node_id not in put or not there:
                continue
            for port in sorted(node.inputs & rule.shared):
                if (node.node_id, port) in taken:
                    continue
                sources = {
                    other.node_id: tuple(
                        (edge.source_node, edge.source_port)
                        for edge in edges
                        if (edge.target_node, edge.target_port) == (other.node_id, port)
                    )
                    for other in there
                }
                if len({frozenset(each) for each in sources.values()}) == 1:
                    found += [Edge(*source, node.node_id, port) for source in next(iter(sources.values()))]
                else:
                    undecided[node.node_id, port] = tuple(sorted({f"{a}.{b}" for each in sources.values() for a, b in each}))
            for other in there if rule.gives else ():
                for port in sorted(node.outputs & other.inputs):
                    into.setdefault((other.node_id, port), []).append(Edge(node.node_id, port, other.node_id, port))
    for key, candidates in into.items():
        if key in taken and key not in combining:
            continue
        if len(candidates) == 1 or key in combining:
            found += candidates
        else:
            undecided[key] = tuple(f"{edge.source_node}.{edge.source_port}" for edge in candidates)
    return RoleEdges(tuple(found), (), undecided)
