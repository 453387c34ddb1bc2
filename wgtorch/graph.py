"""Graph: blocks joined to one complete task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from wgtorch.core.autoconnect import RoleEdges, RoleNode, edges_beside, edges_by_role
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.composite import Composite
from wgtorch.core.config.serialization import LevelRegistry
from wgtorch.core.errors import Finding, StructureError, StructureTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.level import describe_child
from wgtorch.core.place import check_place
from wgtorch.core.pool import Pool
from wgtorch.core.registry import Registry
from wgtorch.core.structure import Edge
from wgtorch.roles import BESIDE_RULES, ROLE_RULES

GraphReaders: Registry[Callable[..., Any]] = Registry("reader of graphs", group="wgtorch.graph_readers")
"""What makes graphs of other libraries' models, by the library's name; integrations add theirs."""
GraphWriters: Registry[Callable[..., Any]] = Registry("writer of graphs", group="wgtorch.graph_writers")
"""What writes graphs as other libraries read them, by the library's name."""
SolverChanges: Registry[Callable[..., Any]] = Registry("change of solvers", group="wgtorch.solver_changes")
"""What changes schedule and solver together, by whose conventions they follow."""


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
        self._derived: RoleEdges | None = None
        self._all_edges: tuple[Edge, ...] | None = None
        self._with_role: dict[str, None] = {}
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

    @classmethod
    def from_modular(cls, pipeline: Any, *, example: Mapping[str, Any]) -> Graph:
        """A graph of the blocks of a modular pipeline of diffusers, whose models are shared.

        Args:
            pipeline: a ``diffusers.ModularPipeline`` with its components.
            example: a call of it, by which graph and pipeline are compared; see
                :func:`wgtorch.integrations.diffusers.modular.from_modular`.

        Raises:
            ConfigError: it is none, or the graph would do something else; names the block.
            MissingExtraError: diffusers is not installed.
        """
        return GraphReaders.get("modular")(pipeline, example=example)

    @classmethod
    def from_comfy(cls, workflow: str | os.PathLike[str] | Mapping[str, Any], *, models: str | os.PathLike[str], **options: Any) -> Graph:
        """A graph of a workflow of ComfyUI in its API form.

        Args:
            workflow: the file, or what is in it.
            models: folder of checkpoints, LoRAs and ControlNets, as ComfyUI's ``models``.
            options: see :func:`wgtorch.integrations.comfy.importer.from_comfy`.

        Raises:
            ConfigError: it holds nodes, inputs or values that no graph has; all are named.
            CheckpointError: a file is not there, or cannot be read.
            MissingExtraError: diffusers, which reads checkpoints, is not installed.
        """
        return GraphReaders.get("comfy")(workflow, models=models, **options)

    def to_diffusers(self, folder: str | os.PathLike[str], *, adapters: str = "keep") -> Path:
        """Writes a folder that diffusers loads; see :func:`wgtorch.integrations.diffusers.to_diffusers`.

        Args:
            folder: new, empty, or with a pipeline of diffusers, which is replaced.
            adapters: ``keep`` writes the base beside ``pytorch_lora_weights.safetensors``, ``fuse`` the weights with adapters in them.

        Raises:
            ConfigError: the graph does what no pipeline of diffusers does; lists all of it.
            CheckpointError: the folder holds something else.
        """
        return GraphWriters.get("diffusers")(self, folder, adapters=adapters)

    def set_solver(self, solver: str, **config: Any) -> None:
        """Another solver, with the schedule that it wants; what the model was trained for is kept.

        Example:
            >>> graph.set_solver("solver/dpmpp_2m", use_karras_sigmas=True)

        Args:
            solver: a block type, or the name of a scheduler of diffusers.
            config: settings that are to be others than before, as diffusers calls them.

        Raises:
            ConfigError: there is no such solver, or it does not fit the schedule.
            MissingExtraError: diffusers, whose conventions schedules follow, is not installed.
        """
        SolverChanges.get("diffusers")(self, solver, **config)

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
        if not isinstance(config, Mapping | None):
            raise StructureTypeError(f"{self.block_id}: config is {describe(config)}; expected a mapping of constructor arguments")
        if config and not isinstance(block, str):
            raise StructureError(
                f"{self.block_id}: config= is given beside {describe_child(block)}, which is made already; "
                "give the arguments to its constructor, or name a block type: add_node('role/name', config={...})"
            )
        if isinstance(block, type):
            block = self._as_child(block)
        if isinstance(block, str):
            check_place(place, f"{self.block_id}/{node_id or block}")
            block = BlockRegistry.build({"block_type": block, "config": config or {}, "reuse": place.get("reuse", True)}, pool=pool)
        elif not isinstance(block, (Block, Mapping)) and callable(block):
            block = Block.wrap(block)
        node_id = self.add_child(block, node_id, **place)
        if not auto_connect:
            self._by_hand.add(node_id)
        else:
            for port, name in getattr(self.nodes[node_id], "exposes", {}).items():
                self.expose_input(node_id, port, name)
        return node_id

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges: those that were added, in their order, then those that roles give."""
        if self._all_edges is None:
            by_role = self._by_role()
            self._all_edges = (*self._edges, *(edge for edge in (*by_role.edges, *by_role.feedback) if self._is_joined(edge)))
        return self._all_edges

    def _is_joined(self, edge: Edge) -> bool:
        """True when an edge that roles give counts."""
        return edge not in self._refused and edge not in self._edges and self._mismatch(edge) is None

    def remove_edge(self, *ends: str) -> None:
        edge = self._edge(ends)
        if edge in self._edges or edge not in self.edges:
            super().remove_edge(*ends)
        self._refused.add(edge)
        self._changed()

    def infer_exposed_ports(self) -> None:
        """As for every composite; a loop that roles closed starts from inputs named as its ports (``latent``, ``timestep``)."""
        edges, feedback = set(self.edges), dict.fromkeys(self._by_role().feedback)
        started = {(edge.target_node, edge.target_port) for edge in edges if edge not in feedback}
        started |= {(entry.node_id, entry.port_name) for entry in self._inputs}
        for edge in feedback:
            port = self._port(edge.target_node, edge.target_port, "input")
            into = (edge.target_node, edge.target_port)
            starts = (
                into in started
                or edge.target_port in self._node_specs[edge.target_node].inputs
                or (port.optional and edge.source_node == edge.target_node)  # what a node sends itself starts absent
            )
            if edge in edges and not starts:
                self.expose_input(*into)
                started.add(into)
        super().infer_exposed_ports()

    def _set_child(self, node_id: str, child: Block) -> None:
        super()._set_child(node_id, child)
        if child.role:
            self._with_role[node_id] = None
        else:
            self._with_role.pop(node_id, None)

    def remove_node(self, node_id: str) -> Block:
        child = super().remove_node(node_id)
        self._with_role.pop(node_id, None)
        return child

    def select(self, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Self:
        """As for every composite; roles join nothing anew in the part."""
        part = super().select(inputs, outputs)
        part._by_hand = set(part._node_specs)
        part._changed()
        return part

    def _edges_at(self, node_id: str) -> list[Edge]:
        by_role = self._by_role()
        derived = [edge for edge in (*by_role.edges, *by_role.feedback) if node_id in (edge.source_node, edge.target_node)]
        return super()._edges_at(node_id) + [edge for edge in derived if self._is_joined(edge)]

    def _changed(self) -> None:
        super()._changed()
        self.__dict__.update(_derived=None, _all_edges=None)

    def _by_role(self) -> RoleEdges:
        """The edges that roles give, derived anew from all nodes when they are asked for after a change.

        So the order of calls does not matter, and what is built step by step is derived once.
        """
        if self._derived is None:
            self._derived = self._derive()
        return self._derived

    def _derive(self) -> RoleEdges:
        roles = {node_id: self.nodes[node_id].role for node_id in self._with_role}
        nodes, combining = self._role_nodes([node_id for node_id in roles if node_id not in self._by_hand])
        if not nodes:
            return RoleEdges((), (), {})
        taken: dict[tuple[str, str], set[str]] = {}
        for edge in self._edges:
            taken.setdefault((edge.target_node, edge.target_port), set()).add(roles.get(edge.source_node, ""))
        for node_id in roles:
            for port in self._node_specs[node_id].inputs:
                taken.setdefault((node_id, port), set()).add("")
        derived = edges_by_role(nodes, ROLE_RULES, taken, combining)
        if any(rule.role in roles.values() for rule in BESIDE_RULES):
            derived = self._with_beside(derived, list(roles), frozenset(node.node_id for node in nodes))
        return derived

    def _role_nodes(self, node_ids: Sequence[str]) -> tuple[list[RoleNode], set[tuple[str, str]]]:
        """Nodes as the rules see them, and the ports of theirs that combine several sources."""
        inputs = {node_id: self.nodes[node_id].get_input_spec() for node_id in node_ids}
        nodes = [
            RoleNode(node_id, self.nodes[node_id].role, frozenset(spec), frozenset(self.nodes[node_id].get_output_spec()))
            for node_id, spec in inputs.items()
        ]
        return nodes, {(node_id, port.name) for node_id, spec in inputs.items() for port in spec.values() if port.aggregation != "single"}

    def _with_beside(self, derived: RoleEdges, node_ids: Sequence[str], put: frozenset[str]) -> RoleEdges:
        """What roles gave, and what joins adapters to the backbone whoever joined that."""
        nodes, combining = self._role_nodes(node_ids)
        there = dict.fromkeys((*self._edges, *derived.edges, *derived.feedback))
        beside = edges_beside(nodes, BESIDE_RULES, list(there), put, combining)
        return RoleEdges(
            (*derived.edges, *(edge for edge in beside.edges if edge not in there)),
            derived.feedback,
            {**derived.undecided, **beside.undecided},
        )

    def apply_config(self, config: Mapping[str, Any]) -> None:
        if not config.get("auto_connect"):
            self._by_hand |= set(self._node_specs)
        super().apply_config(config)

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors, warnings = super()._findings()
        fed = {(e.target_node, e.target_port) for e in self.edges} | {(e.node_id, e.port_name) for e in self._inputs}
        for (node_id, port), candidates in self._by_role().undecided.items():
            if node_id in self._node_specs and (node_id, port) not in fed:
                found = Finding(
                    f"{self.block_id}/{node_id}.{port}",
                    f"{' and '.join(candidates)} could feed it, so nothing was joined",
                    mend=f"Choose one: add_edge({candidates[0]!r}, '{node_id}.{port}').",
                )
                (warnings if self.nodes[node_id].get_input_spec()[port].optional else errors).append(found)
        return errors, warnings


LevelRegistry.register("graph", Graph)
