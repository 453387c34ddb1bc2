"""What is wrong with a structure, and what looks odd: findings, all at once."""

from __future__ import annotations

from collections.abc import Collection

from wgtorch.core.errors import Finding
from wgtorch.core.plan.routes import BehindRoutes
from wgtorch.core.plan.wiring import Wiring, closure, upstream, wire
from wgtorch.core.structure import Edge, InputShape, NodeShape, Structure


def validate_structure(structure: Structure) -> tuple[list[Finding], list[Finding]]:
    """Everything that is wrong, and everything that looks odd: (errors, warnings)."""
    errors = dangling(structure)
    if errors:
        return errors, []
    wiring = wire(structure)
    errors += source_findings(wiring)
    errors += cycle_findings(wiring)
    if structure.nodes and not structure.outputs:
        errors.append(
            Finding(structure.name, "no output is exposed", "at least one", "Call expose_output(node, port), or infer_exposed_ports().")
        )
    routes = [] if errors else BehindRoutes(wiring).findings()
    return errors, _reachability(structure) + routes


def dangling(structure: Structure) -> list[Finding]:
    """Edges and exposed ports that name something which does not exist."""
    findings = []

    def look(node_id: str, port: str, direction: str, where: str) -> None:
        shape = structure.nodes.get(node_id)
        if shape is None:
            findings.append(Finding(where, f"there is no node {node_id!r}", f"one of {sorted(structure.nodes)}"))
            return
        known = [entry.name for entry in shape.inputs] if direction == "input" else list(shape.outputs)
        if port not in known:
            findings.append(Finding(where, f"{node_id!r} has no {direction} {port!r}", f"one of {known}"))

    for edge in structure.edges:
        look(edge.source_node, edge.source_port, "output", f"{structure.name}: edge {edge}")
        look(edge.target_node, edge.target_port, "input", f"{structure.name}: edge {edge}")
    for exposed in structure.inputs:
        look(exposed.node_id, exposed.port_name, "input", f"{structure.name}: exposed input {exposed}")
    for exposed in structure.outputs:
        look(exposed.node_id, exposed.port_name, "output", f"{structure.name}: exposed output {exposed}")
    return findings


def source_findings(wiring: Wiring) -> list[Finding]:
    """Required ports that nothing feeds, and ``single`` ports that several sources feed."""
    structure, findings = wiring.structure, []
    for node in structure.nodes.values():
        for port in node.inputs:
            where = f"{structure.name}/{node.node_id}.{port.name}"
            edges = wiring.edges_into.get((node.node_id, port.name), [])
            exposed = wiring.exposed_into.get((node.node_id, port.name), [])
            forward = [edge for edge in edges if edge not in wiring.feedback]
            if not (edges or exposed or port.filled) and port.required:
                findings.append(
                    Finding(
                        where,
                        "required, but nothing feeds it",
                        mend=f"Add an edge into it{_candidates(structure, node, port)}, "
                        f"expose_input({node.node_id!r}, {port.name!r}), or give it a value.",
                    )
                )
            inner = [edge for edge in forward if wiring.inside(edge)]
            if port.aggregation == "single" and inner and len(forward) < len(edges):
                back = next(edge for edge in edges if edge in wiring.feedback)
                findings.append(
                    Finding(
                        where,
                        f"in each iteration of its loop two values arrive: from {inner[0].source_node}.{inner[0].source_port}, "
                        f"and fed back from {back.source_node}.{back.source_port}",
                        "one source inside the loop",
                        f"Remove one: remove_edge('{inner[0].source_node}.{inner[0].source_port}', '{node.node_id}.{port.name}').",
                    )
                )
            if port.aggregation == "single" and (len(forward) + len(exposed) > 1 or len(edges) - len(forward) > 1):
                names = ", ".join([str(edge) for edge in edges] + [f"input {entry.name!r}" for entry in exposed])
                findings.append(
                    Finding(
                        where,
                        f"{len(edges) + len(exposed)} sources feed it ({names})",
                        "one",
                        "Remove one, or give the port an aggregation (concat, sum, first, dict, list).",
                    )
                )
    return findings


def _candidates(structure: Structure, node: NodeShape, port: InputShape) -> str:
    same_name = [f"{other.node_id}.{port.name}" for other in structure.nodes.values() if other is not node and port.name in other.outputs]
    return f" (for example from {' or '.join(same_name[:3])})" if same_name else ""


def cycle_findings(wiring: Wiring) -> list[Finding]:
    """Cycles where none may be, and loops that have no starting value."""
    structure = wiring.structure
    if not structure.loops:
        return [
            Finding(
                structure.name,
                f"a cycle through {' -> '.join([*members, members[0]])}",
                "no cycle: this level is a DAG",
                "Remove one of its edges.",
            )
            for index, members in enumerate(wiring.components)
            if wiring.is_loop(index)
        ]
    findings = []

    def ports_in(members: list[str], *, but: Collection[Edge] = ()) -> dict[str, None]:
        inner = [edge for edge in structure.edges if edge.source_node in members and edge.target_node in members and edge not in but]
        return dict.fromkeys(f"{edge.target_node}.{edge.target_port}" for edge in inner)

    for members in wiring.stuck:
        findings.append(
            Finding(
                f"{structure.name}/{members[0]}",
                f"the loop through {', '.join(members)} has no starting value",
                f"a start for one of {', '.join(ports_in(members))}",
                "Expose that input, add an edge from outside the loop, or give the node a default for it.",
            )
        )
    for members in wiring.unordered:
        findings.append(
            Finding(
                f"{structure.name}/{members[0]}",
                f"nothing says which node of the loop through {', '.join(members)} is first: each can do without what the other sends",
                f"a start for exactly one of {', '.join(sorted(ports_in(members, but=wiring.feedback)))}",
                "Give the node that is to be first a start there: expose that input, add an edge from outside the loop, or fill it "
                "(inputs={port: value}).",
            )
        )
    return findings


def _reachability(structure: Structure) -> list[Finding]:
    after: dict[str, list[str]] = {}
    for edge in structure.edges:
        after.setdefault(edge.source_node, []).append(edge.target_node)
    roots = {entry.node_id for entry in structure.inputs}
    roots |= {node.node_id for node in structure.nodes.values() if not node.inputs or any(port.filled for port in node.inputs)}
    reached = closure(roots, lambda node: after.get(node, ()))
    leading = upstream(structure, {entry.node_id for entry in structure.outputs})
    findings = []
    for node_id in structure.nodes:
        if node_id not in reached:
            findings.append(
                Finding(f"{structure.name}/{node_id}", "no input reaches it", mend="Add an edge into it, or expose one of its inputs.")
            )
        if structure.outputs and node_id not in leading:
            findings.append(
                Finding(f"{structure.name}/{node_id}", "it leads to no output", mend="Expose one of its outputs, or remove the node.")
            )
    return findings
