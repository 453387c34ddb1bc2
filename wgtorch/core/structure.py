"""What a composite is made of, as plain data: nodes, edges, exposed ports. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wgtorch.core.errors import StructureError

_NODE_ID = re.compile(r"[A-Za-z0-9_-]+")


def check_node_id(node_id: str) -> str:
    """Returns the id, or says why it cannot be one.

    Raises:
        StructureError: it is empty or holds other characters than letters, digits, ``_`` and ``-``.
    """
    if not isinstance(node_id, str) or not _NODE_ID.fullmatch(node_id):
        raise StructureError(f"node id {node_id!r}: expected letters, digits, '_' and '-' ('.' and '/' separate ports and paths)")
    return node_id


@dataclass(frozen=True, slots=True)
class Node:
    """A place in a composite: what is true only here of the child that stands here. It owns no weights.

    Args:
        node_id: unique in its composite.
        trainable: False lets gradients through this use of the child and adds none to its weights.
        adapter: which adapters of the child are active here: a name, weights by name, or a name or None for each sample of the
            batch. What is said of a level holds for all blocks below that have it.
        inputs: values for ports that nothing feeds.
        map: input ports at which a list arrives that the child runs over, item by item.
        timeout: seconds that one call may take.
        condition: what must hold for the child to run: slots that must be filled, a preset's or registered name, or a
            callable. Read by levels that run over a State.
        retry: how a call that fails is made again; see :func:`wgtorch.core.run.retry.check_retry`.
        reuse: False keeps the child out of every pool: an instance for this place alone.
    """

    node_id: str
    trainable: bool = True
    adapter: str | Mapping[str, float] | tuple[str | None, ...] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    map: tuple[str, ...] = ()
    timeout: float | None = None
    condition: Any = None
    reuse: bool = True
    retry: Mapping[str, Any] | None = None

    def __deepcopy__(self, memo: dict) -> Node:
        return self


@dataclass(frozen=True, slots=True)
class Edge:
    """(source node, source port) -> (target node, target port)."""

    source_node: str
    source_port: str
    target_node: str
    target_port: str

    def __str__(self) -> str:
        return f"{self.source_node}.{self.source_port} -> {self.target_node}.{self.target_port}"


@dataclass(frozen=True, slots=True)
class Exposed:
    """A child's port that the composite shows as its own, under ``name``."""

    node_id: str
    port_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.node_id}.{self.port_name} as {self.name!r}"


@dataclass(frozen=True, slots=True)
class InputShape:
    """What the planner must know of an input port.

    Args:
        required: a call without it is an error.
        aggregation: how several sources are combined.
        filled: the node holds a value for it.
    """

    name: str
    required: bool = True
    aggregation: str = "single"
    filled: bool = False


@dataclass(frozen=True, slots=True)
class NodeShape:
    """What the planner must know of a node.

    Args:
        node_id: the node.
        key: what its child is called in the module that holds the children.
        inputs: its input ports, in the order of the signature.
        outputs: names of its output ports.
        optional_outputs: those that a call may leave out.
        positional: leading inputs that may be passed by position.
        is_async: its calls wait on a network.
        needs: bits of what a call needs beside values, see :mod:`wgtorch.core.plan.steps`.
        may_skip: a call may be skipped.
        routes: outputs of which one call gives only some.
        hoistable: inputs of which it can make something before a loop that does not change them.
    """

    node_id: str
    key: str = ""
    inputs: tuple[InputShape, ...] = ()
    outputs: tuple[str, ...] = ()
    optional_outputs: frozenset[str] = frozenset()
    positional: tuple[str, ...] = ()
    is_async: bool = False
    needs: int = 0
    may_skip: bool = False
    hoistable: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Structure:
    """All the planner reads.

    Args:
        name: the composite's id, for messages.
        nodes: shapes by node id, in the order they were added.
        edges: between nodes of ``nodes``.
        inputs: exposed inputs; one name may be given to several ports.
        outputs: exposed outputs.
        loops: cycles are loops; False makes them errors.
    """

    name: str
    nodes: Mapping[str, NodeShape]
    edges: tuple[Edge, ...] = ()
    inputs: tuple[Exposed, ...] = ()
    outputs: tuple[Exposed, ...] = ()
    loops: bool = True
