"""What a composite derives from its children's ports: the ports that it shows itself, and what the planner is told of each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from wgtorch.core.block_registry import BlockRegistry
from wgtorch.core.nodes import Nodes
from wgtorch.core.plan import FROZEN, LEVEL, RNG, STREAM, SURROUNDED
from wgtorch.core.port import MISSING, Port
from wgtorch.core.signature import positional_prefix
from wgtorch.core.structure import Edge, Exposed, InputShape, Node, NodeShape
from wgtorch.core.tree import is_level


def node_shape(node: Node, child: Any, key: str, *, is_adapted: bool) -> NodeShape:
    """What the planner is told of a node.

    Args:
        node: its place.
        child: what stands there.
        key: the child's name in the module that holds the children.
        is_adapted: its calls must say which adapters are active.
    """
    outputs = child.get_output_spec()
    is_async = bool(child.is_async) or node.timeout is not None
    needs = LEVEL * is_level(child) | FROZEN * (not node.trainable) | RNG * child.wants_rng | STREAM * child.wants_stream
    needs |= SURROUNDED * bool(node.map or node.retry or is_adapted)
    return NodeShape(
        node_id=node.node_id,
        key=key,
        inputs=tuple(
            InputShape(port.name, not port.optional, port.aggregation, port.name in node.inputs) for port in child.get_input_spec().values()
        ),
        outputs=tuple(outputs),
        optional_outputs=frozenset(name for name, port in outputs.items() if port.optional),
        positional=() if is_level(child) else positional_prefix(child.forward),
        is_async=is_async,
        needs=needs,
        may_skip=node.condition is not None,
        routes=tuple(child.routes),
        hoistable=() if needs & ~STREAM or is_async or node.condition is not None else tuple(child.invariant_ports),
    )


def shown_port(port: Port, entry: Exposed, place: Node, direction: Literal["input", "output"], *, is_routed: bool) -> Port:
    """A child's port as a composite shows it: a mapped one as a list, one that the place fills, or behind a route, as optional."""
    if direction == "output":
        is_list = bool(place.map)
        port = replace(port, name=entry.name, aggregation="single", default=MISSING, optional=port.optional or is_routed)
    else:
        is_list = entry.port_name in place.map
        port = replace(port, name=entry.name, default=MISSING, optional=port.optional or entry.port_name in place.inputs)
    return replace(port, dtype="list", shape=None) if is_list else port


def joined(ports: Sequence[Port]) -> Port:
    """The port that a name given to several ports shows: required when one of them is, of their narrowest kind."""
    narrow = next((port for port in ports if port.dtype != "any"), ports[0])
    aggregation = narrow.aggregation if len({port.aggregation for port in ports}) == 1 else "single"
    description = next((port.description for port in ports if port.description), "")
    is_optional, is_raw = all(port.optional for port in ports), all(port.raw for port in ports)
    return replace(narrow, optional=is_optional, aggregation=aggregation, description=description, raw=is_raw)


def free_names(ports: Sequence[tuple[str, str]], taken: set[str]) -> list[tuple[tuple[str, str], str]]:
    """Names to expose ports by: their own where it is free, else ``node_port``."""
    named = []
    count = {port: sum(1 for _, other in ports if other == port) for _, port in ports}
    for node_id, port in ports:
        alone = count[port] == 1 and port not in taken
        named.append(((node_id, port), port if alone else f"{node_id}_{port}"))
    return named


def what_fits(edge: Edge, nodes: Nodes) -> str:
    """In words, what would fit in place of an edge that does not: other ports of its nodes, and blocks that convert."""
    offered, wanted = nodes[edge.source_node].get_output_spec(), nodes[edge.target_node].get_input_spec()
    source, target = offered[edge.source_port], wanted[edge.target_port]
    ports = [f"{edge.target_node}.{port.name}" for port in wanted.values() if not port.why_not(source)]
    ports += [f"{edge.source_node}.{port.name}" for port in offered.values() if not target.why_not(port)]
    text = f"Ports that would fit: {', '.join(ports)}." if ports else "No port of either node would fit."
    converters = BlockRegistry.converting(source.dtype, target.dtype)
    return f"{text} Blocks that convert: {', '.join(converters)}." if converters else text
