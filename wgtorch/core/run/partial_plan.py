"""The plan of a run that wants some outputs only, or is given values of ports inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wgtorch.core.plan import Plan, make_plan
from wgtorch.core.run.context import RunContext
from wgtorch.core.structure import Exposed, Structure


def plan_of_part(level: Any, structure: Structure, run: RunContext) -> Plan:
    """Plans what a run wants of a level, with the values it gives.

    Args:
        level: the composite.
        structure: of it.
        run: as the level sees it.
    """
    fed = tuple((path[0], port) for path, port in run.feeds or () if len(path) == 1)
    if run.wanted is None:
        wanted, also = list(level.exposed_outputs), set()
    else:
        local = [Exposed(path[0], port, f"{path[0]}.{port}") for path, port in sorted(run.wanted) if len(path) == 1]
        wanted = [entry for entry in level.exposed_outputs if entry.name in run.exposed] + local
        also = {path[0] for path, _ in run.wanted if len(path) > 1}
    return make_plan(_without_spared_inputs(level, structure, run), wanted=wanted, fed=fed, also=also)


def _without_spared_inputs(level: Any, structure: Structure, run: RunContext) -> Structure:
    """The structure without inputs of child levels that values given inside them make needless."""
    shapes = dict(structure.nodes)
    for node_id in {path[0] for path, _ in run.feeds or () if len(path) > 1}:
        child = level.nodes[node_id]
        below = child.plan_for(replace(run.child(node_id, exposed=tuple(child.get_output_spec())), wanted=None))
        needed = {name for name, _, _ in below.inputs}
        shapes[node_id] = replace(shapes[node_id], inputs=tuple(port for port in shapes[node_id].inputs if port.name in needed))
    return replace(
        structure,
        nodes=shapes,
        edges=tuple(edge for edge in structure.edges if edge.target_port in {port.name for port in shapes[edge.target_node].inputs}),
        inputs=tuple(entry for entry in structure.inputs if entry.port_name in {port.name for port in shapes[entry.node_id].inputs}),
    )
