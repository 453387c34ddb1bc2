"""Graph: blocks joined to one complete task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from wgtorch.core.autoconnect import RoleEdges, RoleNode, edges_beside, edges_by_role
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.composite import Composite
from wgtorch.core.config.serialization import LevelRegistry
from wgtorch.core.errors import Finding
from wgtorch.core.pool import Pool
from wgtorch.core.registry import Registry
from wgtorch.core.structure import Edge
from wgtorch.roles import BESIDE_RULES, ROLE_RULES

GraphReaders: Registry[Callable[..., Any]] = Registry("reader of graphs")
"""What makes graphs of other libraries' models, by the library's name; integrations add theirs."""
GraphWriters: Registry[Callable[..., Any]] = Registry("writer of graphs")
"""What writes graphs as other libraries read them, by the library's name."""


class Graph(Composite):
    """One task - text-to-image, upscaling, captioning - as a graph of blocks, with inner loops.

    Example:
        >>> g = Graph("two_steps")
        >>> g.add_node(Scale(2.0), "a")
        >>> g.add_node("demo/scale", "b", config={"factor": 5.0})
        >>> g.add_edge("a.y", "b.x")
        >>> g.infer_exposed_ports()
        >>> g.run({"x": torch.ones(2)})
        {'y': tensor([10., 10.])}
    """

    level: ClassVar[str] = "graph"
    id_key: ClassVar[str] = "graph_id"
    child_class: ClassVar[type[Block]] = Block
    config_properties: ClassVar[Mapping[str, Any]] = {**Composite.config_properties, "auto_connect": {"type": "boolean"}}
    loops: ClassVar[bool] = True

    def __init__(self, graph_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(graph_id, metadata=metadata)
        self._derived = RoleEdges((), (), {})
        self._refused: set[Edge] = set()
        self._by_hand: set[str] = set()

    @property
    def graph_id(self) -> str:
        """The graph's id."""
        return self.block_id

    @classmethod
    def from_diffusers(cls, source: Any, *, task: str = "text_to_image", **options: Any) -> Graph:
        """A graph of the parts of a diffusers pipeline, from its local folder or from the object, whose modules are shared.

        Args:
            source: the folder or the pipeline.
            task: ``text_to_image``, ``image_to_image``, ``inpaint``, ``text_to_video`` or ``image_to_video``.
            options: see :func:`wgtorch.integrations.diffusers.from_diffusers`.

        Raises:
            CheckpointError: the folder holds no pipeline that can be read.
            ConfigError: the family or the task is not supported.
            MissingExtraError: diffusers is not installed.
        """
        return GraphReaders.get("diffusers")(source, task=task, **options)

    def to_diffusers(self, folder: str | os.PathLike[str]) -> Path:
        """Writes a folder that diffusers loads; see :func:`wgtorch.integrations.diffusers.to_diffusers`.

        Raises:
            ConfigError: the graph does what no pipeline of diffusers does; lists all of it.
            CheckpointError: the folder holds something else.
        """
        return GraphWriters.get("diffusers")(self, folder)

    def add_node(
        self,
        block: Block | nn.Module | Callable[..., Any] | Mapping[str, Any] | str,
        node_id: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        auto_connect: bool = True,
        pool: Pool | None = None,
        **place: Any,
    ) -> str:
        """Adds a block, a registered type with its config, or any module or function whose ports can be told.

        Args:
            block: what stands at the node; a Graph may stand there too.
            node_id: made from the block's type when left out.
            config: constructor arguments, for a type name.
            auto_connect: join it to what stands there by role; see :mod:`wgtorch.roles`.
            pool: where a model that the config names (``checkpoint_ref``) is looked for first.
            place: ``trainable``, ``adapter``, ``inputs`` (values for unfed ports), ``map``, ``timeout``, ``reuse``.

        Returns:
            The node's id.
        """
        if isinstance(block, str):
            block = BlockRegistry.build({"block_type": block, "config": config or {}, "reuse": place.get("reuse", True)}, pool=pool)
        elif not isinstance(block, (Block, Mapping)) and callable(block):
            block = Block.wrap(block)
        node_id = self.add_child(block, node_id, **place)
        if not auto_connect:
            self._by_hand.add(node_id)
        self.connect_by_role()
        if auto_connect:
            for port, name in getattr(self.nodes[node_id], "exposes", {}).items():
                self.expose_input(node_id, port, name)
        return node_id

    def add_edge(self, *ends: str) -> Edge:
        self._edges = self._own_edges()  # the user's own edge comes before one that a rule would put into the same port
        try:
            return super().add_edge(*ends)
        finally:
            self._derived = RoleEdges((), (), {})
            self.connect_by_role()

    def remove_edge(self, *ends: str) -> None:
        super().remove_edge(*ends)
        self._refused.add(self._edge(ends))
        self.connect_by_role()

    def remove_node(self, node_id: str) -> Block:
        child = super().remove_node(node_id)
        self.connect_by_role()
        return child

    def replace_node(self, node_id: str, child: Any) -> list[str]:
        lost = super().replace_node(node_id, child)
        self.connect_by_role()
        return lost

    def infer_exposed_ports(self) -> None:
        """As for every composite; a loop that roles closed starts from inputs named as its ports (``latent``, ``timestep``)."""
        feedback = set(self._derived.feedback)
        for edge in self._derived.feedback:
            port = self.nodes[edge.target_node].get_input_spec()[edge.target_port]
            into = (edge.target_node, edge.target_port)
            has_start = (
                any((other.target_node, other.target_port) == into for other in self._edges if other not in feedback)
                or any((entry.node_id, entry.port_name) == into for entry in self._inputs)
                or edge.target_port in self._places[edge.target_node].inputs
                or (port.optional and edge.source_node == edge.target_node)  # what a node sends itself starts absent
            )
            if edge in self._edges and not has_start:
                self.expose_input(*into)
        super().infer_exposed_ports()

    def connect_by_role(self) -> None:
        """Derives the edges that roles give, anew from all nodes, so that the order of calls does not matter."""
        own = self._own_edges()
        roles = {node_id: child.role for node_id, child in self.nodes.items()}
        nodes = [
            RoleNode(node_id, roles[node_id], frozenset(child.get_input_spec()), frozenset(child.get_output_spec()))
            for node_id, child in self.nodes.items()
            if roles[node_id] and node_id not in self._by_hand
        ]
        taken: dict[tuple[str, str], set[str]] = {}
        for edge in own:
            taken.setdefault((edge.target_node, edge.target_port), set()).add(roles[edge.source_node])
        for node_id, node in self._places.items():
            for port in node.inputs:
                taken.setdefault((node_id, port), set()).add("")
        combining = {
            (n.node_id, port.name)
            for n in nodes
            for port in self.nodes[n.node_id].get_input_spec().values()
            if port.aggregation != "single"
        }
        self._derived = edges_by_role(nodes, ROLE_RULES, taken, combining)
        if any(rule.role in roles.values() for rule in BESIDE_RULES):
            self._derived = self._with_beside(own, roles, frozenset(node.node_id for node in nodes))
        self._edges = own + [
            edge
            for edge in (*self._derived.edges, *self._derived.feedback)
            if edge not in self._refused and edge not in own and self._mismatch(edge) is None
        ]
        self._changed()

    def _with_beside(self, own: list[Edge], roles: Mapping[str, str], put: frozenset[str]) -> RoleEdges:
        """What roles gave, and what joins adapters to the backbone whoever joined that."""
        derived = self._derived
        ports = {node_id: self.nodes[node_id].get_input_spec() for node_id in self.nodes}
        nodes = [RoleNode(each, roles[each], frozenset(ports[each]), frozenset(self.nodes[each].get_output_spec())) for each in ports]
        combining = {(each, port.name) for each in ports for port in ports[each].values() if port.aggregation != "single"}
        beside = edges_beside(nodes, BESIDE_RULES, [*own, *derived.edges, *derived.feedback], put, combining)
        there = {*own, *derived.edges, *derived.feedback}
        return RoleEdges(
            (*derived.edges, *(edge for edge in beside.edges if edge not in there)),
            derived.feedback,
            {**derived.undecided, **beside.undecided},
        )

    def _own_edges(self) -> list[Edge]:
        derived = {*self._derived.edges, *self._derived.feedback}
        return [edge for edge in self._edges if edge not in derived]

    def apply_config(self, config: Mapping[str, Any]) -> None:
        if not config.get("auto_connect"):
            self._by_hand |= set(self._places)
        super().apply_config(config)
        if config.get("auto_connect"):
            self.connect_by_role()

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors, warnings = super()._findings()
        fed = {(e.target_node, e.target_port) for e in self._edges} | {(e.node_id, e.port_name) for e in self._inputs}
        for (node_id, port), candidates in self._derived.undecided.items():
            if node_id in self._places and (node_id, port) not in fed:
                found = Finding(
                    f"{self.block_id}/{node_id}.{port}",
                    f"{' and '.join(candidates)} could feed it, so nothing was joined",
                    mend=f"Choose one: add_edge({candidates[0]!r}, '{node_id}.{port}').",
                )
                (warnings if self.nodes[node_id].get_input_spec()[port].optional else errors).append(found)
        return errors, warnings


LevelRegistry.register("graph", Graph)
