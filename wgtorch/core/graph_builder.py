"""GraphBuilder: children joined by edges, some of their ports exposed. How a composite is built; it does not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from wgtorch.core import adapter_hook
from wgtorch.core.block import Block
from wgtorch.core.config.schema import EDGE, EXPOSED, listed
from wgtorch.core.derived_ports import free_names, joined, node_shape, shown_port, what_fits
from wgtorch.core.drawing import Link
from wgtorch.core.edge_index import Edges, ExposedPorts
from wgtorch.core.errors import Finding, PortError, PortTypeError, StructureError, StructureTypeError, UnknownNameError, suggest
from wgtorch.core.level import Level, edits
from wgtorch.core.plan import upstream, validate_structure
from wgtorch.core.plan.routes import BehindRoutes
from wgtorch.core.plan.wiring import wire
from wgtorch.core.port import Port, Spec
from wgtorch.core.structure import Edge, Exposed, Structure
from wgtorch.core.tree import split_path


class GraphBuilder(Level):
    """Edges between children, and the ports of children that are shown as its own."""

    loops: ClassVar[bool] = False
    config_properties: ClassVar[Mapping[str, Any]] = {
        "edges": listed(EDGE),
        "exposed_inputs": listed(EXPOSED),
        "exposed_outputs": listed(EXPOSED),
    }

    def __init__(self, level_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(level_id, metadata=metadata)
        self._edges = Edges()
        self._inputs = ExposedPorts()
        self._outputs = ExposedPorts()
        self._seen = -1  # the count of edits up to which levels below have been looked at
        self._versions_below: tuple[int, ...] = ()
        self._routed: BehindRoutes | None = None
        self._specs: tuple[Spec, Spec] | None = None
        self._adapted: frozenset[str] = frozenset()

    # --- edges and exposed ports --------------------------------------------------------------------------------------

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, in the order they were added."""
        return tuple(self._edges)

    @property
    def exposed_inputs(self) -> tuple[Exposed, ...]:
        """Children's inputs shown as this composite's own."""
        return tuple(self._inputs)

    @property
    def exposed_outputs(self) -> tuple[Exposed, ...]:
        """Children's outputs shown as this composite's own."""
        return tuple(self._outputs)

    def add_edge(self, *ends: str) -> Edge:
        """Joins an output to an input: ``add_edge("a", "y", "b", "x")`` or ``add_edge("a.y", "b.x")``.

        Raises:
            UnknownNameError: there is no such node or port.
            PortTypeError: the kinds do not fit; the message names ports and blocks that would.
            PortError: the input takes one source and has one from outside a loop already.
        """
        edge = self._edge(ends)
        if edge in self._edges:
            return edge
        self._check_edge(edge)
        self._edges.add(edge)
        self._changed()
        return edge

    def remove_edge(self, *ends: str) -> None:
        """Removes an edge."""
        edge = self._edge(ends)
        if edge not in self._edges:
            raise UnknownNameError(f"{self.block_id}: there is no edge {edge}; {suggest(edge, self.edges)}")
        self._edges.remove([edge])
        self._changed()

    def remove_node(self, node_id: str) -> Block:
        """Takes a node, its edges and its exposed ports out, and returns its child."""
        self._require_node(node_id)
        self._edges.remove(self._edges.find("node", node_id))
        self._inputs.remove(self._inputs.find("node", node_id))
        self._outputs.remove(self._outputs.find("node", node_id))
        return super().remove_node(node_id)

    def replace_node(self, node_id: str, child: Any) -> list[str]:
        """Puts another child at a node; edges and exposed ports that fit the new one stay.

        Returns:
            What did not fit and was taken away, in words.
        """
        self._require_node(node_id)
        child = self._as_child(child)
        inputs, outputs = child.get_input_spec(), child.get_output_spec()
        edges = self._edges_at(node_id)
        hidden = [entry for entry in self._inputs.find("node", node_id) if entry.port_name not in inputs]
        silent = [entry for entry in self._outputs.find("node", node_id) if entry.port_name not in outputs]
        remaining = {name: value for name, value in self._node_specs[node_id].inputs.items() if name in inputs}
        self._set_child(node_id, child)
        lost = [edge for edge in edges if not self._fits(edge, node_id, inputs, outputs) or self._mismatch(edge) is not None]
        self._edges.remove(edge for edge in lost if edge in self._edges)
        self._inputs.remove(hidden)
        self._outputs.remove(silent)
        self.configure_node(node_id, inputs=remaining, map=tuple(name for name in self._node_specs[node_id].map if name in inputs))
        return [str(entry) for entry in (*lost, *hidden, *silent)]

    def expose_input(self, node_id: str, port_name: str, name: str | None = None) -> str:
        """Shows a child's input as this composite's own. One name may be given to several ports: one value feeds them all."""
        port = self._port(node_id, port_name, "input")
        entry = self._shown_as(node_id, port_name, name)
        if entry not in self._inputs:
            kinds = self._kinds_of_input(entry.name)
            for other in kinds.values():
                if (reason := port.why_not(other)) and other.why_not(port):
                    raise PortTypeError(f"{self.block_id}: input {entry.name!r} cannot feed {node_id}.{port_name} as well: {reason}")
            self._inputs.add(entry)
            self._changed()
            kinds.setdefault(port.dtype, port)
        return entry.name

    def expose_output(self, node_id: str, port_name: str, name: str | None = None) -> str:
        """Shows a child's output as this composite's own."""
        self._port(node_id, port_name, "output")
        entry = self._shown_as(node_id, port_name, name)
        for other in self._outputs.find("name", entry.name):
            if other != entry:
                mend = f"give this one another name, or call hide_output({entry.name!r}) first"
                raise StructureError(f"{self.block_id}: output {entry.name!r} already shows {other}; {mend}")
        if entry not in self._outputs:
            self._outputs.add(entry)
            self._changed()
        return entry.name

    def hide_input(self, name: str) -> None:
        """Shows an input no longer; raises UnknownNameError where there is none of that name."""
        self._hide(name, self._inputs, "input")

    def hide_output(self, name: str) -> None:
        """Shows an output no longer; raises UnknownNameError where there is none of that name."""
        self._hide(name, self._outputs, "output")

    def _hide(self, name: str, entries: ExposedPorts, direction: str) -> None:
        if not (shown := entries.find("name", name)):
            raise UnknownNameError(f"{self.block_id}: no {direction} {name!r} is shown; {suggest(name, [entry.name for entry in entries])}")
        entries.remove(shown)
        self._changed()

    def infer_exposed_ports(self) -> None:
        """Exposes every required input that nothing feeds, and every output that nothing reads.

        A port's own name is used where it is free; else ``node_port``.
        """
        edges = self.edges
        fed = {(e.target_node, e.target_port) for e in edges} | {(e.node_id, e.port_name) for e in self._inputs}
        read = {(e.source_node, e.source_port) for e in edges} | {(e.node_id, e.port_name) for e in self._outputs}
        free_inputs = [
            (node_id, port.name)
            for node_id, child in self.nodes.items()
            for port in child.get_input_spec().values()
            if (node_id, port.name) not in fed and not port.optional and port.name not in self._node_specs[node_id].inputs
        ]
        loose = [
            (node_id, name)
            for node_id, child in self.nodes.items()
            for name in child.get_output_spec()
            if (node_id, name) not in read and not (self.loops and name == "done")  # a loop reads it itself
        ]
        for (node_id, port_name), name in free_names(free_inputs, {e.name for e in self._inputs}):
            self.expose_input(node_id, port_name, name)
        for (node_id, port_name), name in free_names(loose, {e.name for e in self._outputs}):
            self.expose_output(node_id, port_name, name)

    def get_input_spec(self) -> Spec:
        """Exposed inputs by name, in the order they were exposed."""
        return dict(self.specs()[0])

    def get_output_spec(self) -> Spec:
        """Exposed outputs by name, in the order they were exposed."""
        return dict(self.specs()[1])

    def select(self, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Self:
        """Cuts a part out that shares the children.

        Args:
            inputs: ports (``"b.x"``) or exposed inputs where values come in; edges into them are cut, and into no others. Exposed
                inputs that the part needs beside them stay its inputs.
            outputs: ports (``"a.y"``) or exposed outputs where values go out.

        Returns:
            A composite with the nodes between, its inputs and outputs named as asked (``b.x`` as ``x``).
        """
        starts = self._chosen(inputs, self._inputs, "input")
        ends = self._chosen(outputs, self._outputs, "output") if outputs else list(self._outputs)
        cut = {(entry.node_id, entry.port_name) for entry in starts}
        starts += [entry for entry in self._inputs if (entry.node_id, entry.port_name) not in cut]
        edges = [edge for edge in self.edges if (edge.target_node, edge.target_port) not in cut]
        structure = Structure(self.block_id, self._structure().nodes, tuple(edges))
        needed = upstream(structure, {entry.node_id for entry in ends})
        part = type(self)(self.block_id, metadata=self.metadata)
        for node_id in self._node_specs:
            if node_id in needed:
                part._set_child(node_id, self.nodes[node_id])
                part._node_specs[node_id] = self._node_specs[node_id]
        part._edges = Edges(edge for edge in edges if {edge.source_node, edge.target_node} <= needed)
        part._inputs = ExposedPorts(entry for entry in starts if entry.node_id in needed)
        part._outputs = ExposedPorts(ends)
        part._changed()
        return part

    def links(self) -> list[Link]:
        links = [Link(f">{entry.name}", "", entry.node_id, entry.port_name) for entry in self._inputs]
        links += [Link(edge.source_node, edge.source_port, edge.target_node, edge.target_port) for edge in self.edges]
        return links + [Link(entry.node_id, entry.port_name, f"{entry.name}>", "") for entry in self._outputs]

    # --- config -------------------------------------------------------------------------------------------------------

    def own_config(self) -> dict[str, Any]:
        return {
            "edges": [{name: getattr(edge, name) for name in Edge.__dataclass_fields__} for edge in self.edges],
            "exposed_inputs": [{name: getattr(entry, name) for name in Exposed.__dataclass_fields__} for entry in self._inputs],
            "exposed_outputs": [{name: getattr(entry, name) for name in Exposed.__dataclass_fields__} for entry in self._outputs],
        }

    def apply_config(self, config: Mapping[str, Any]) -> None:
        for edge in config.get("edges", ()):
            self.add_edge(*(edge[name] for name in Edge.__dataclass_fields__))
        for entry in config.get("exposed_inputs", ()):
            self.expose_input(entry["node_id"], entry["port_name"], entry.get("name"))
        for entry in config.get("exposed_outputs", ()):
            self.expose_output(entry["node_id"], entry["port_name"], entry.get("name"))

    # --- private steps ------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        super()._changed()
        self._invalidate_plan()

    def _invalidate_plan(self) -> None:
        """Drops what was derived from the structure; it is derived anew when it is needed."""
        self.__dict__.update(_specs=None)  # nn.Module's own way costs an edit twice as much

    def refresh_below(self) -> None:
        if self._seen == (now := edits.value):
            return
        children = [child for child in self._modules["nodes"]._modules.values() if isinstance(child, Level)]  # type: ignore[union-attr]
        for child in children:
            child.refresh_below()
        versions = tuple([child._version for child in children])
        if versions != self._versions_below:
            self._invalidate_plan()
            self._versions_below = versions
            self._version += 1  # the level above asks for it next
        self._seen = now  # last: another thread that sees it has to find the rest done

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors, warnings = validate_structure(self._structure())
        for edge in self.edges:
            try:
                reason = self._mismatch(edge)
            except UnknownNameError:  # a port that is gone is among the errors already
                continue
            if reason is not None:
                errors.append(Finding(f"{self.block_id}: edge {edge}", reason))
        for node_id, node in self._node_specs.items():
            if node.adapter is not None and (wrong := adapter_hook.hook.missing(node.adapter, self.nodes[node_id])) is not None:
                errors.append(Finding(f"{self.block_id}/{node_id}", wrong))
        return errors, warnings

    def refresh_plan(self) -> None:
        if self._adapted != self._with_adapters():
            self._changed()

    def _with_adapters(self) -> frozenset[str]:
        """Nodes whose calls must say which adapters are active, if only that none is."""
        return frozenset(
            node_id for node_id, child in self.nodes.items() if self._node_specs[node_id].adapter or adapter_hook.hook.names(child)
        )

    def _structure(self) -> Structure:
        if (adapted := self._with_adapters()) != self._adapted:
            self._adapted = adapted
        shapes = {
            node_id: node_shape(node, self.nodes[node_id], self.nodes.key(node_id), is_adapted=node_id in adapted)
            for node_id, node in self._node_specs.items()
        }
        return Structure(self.block_id, shapes, self.edges, tuple(self._inputs), tuple(self._outputs), self.loops)

    def _kinds_of_input(self, name: str) -> dict[str, Port]:
        """For each kind among the ports that an exposed input feeds, one of those ports."""
        kinds = self._inputs.kinds
        if name not in kinds:
            ports = [self._port(entry.node_id, entry.port_name, "input") for entry in self._inputs.find("name", name)]
            kinds[name] = {port.dtype: port for port in ports}
        return kinds[name]

    def specs(self) -> tuple[Spec, Spec]:
        """Exposed inputs and outputs by name, not to be changed."""
        self.refresh_below()
        specs = self._specs
        if specs is None:
            inputs: dict[str, list[Port]] = {}
            self._routed = BehindRoutes(wire(self._structure())) if any(child.routes for child in self.nodes.values()) else None
            for entry in self._inputs:
                inputs.setdefault(entry.name, []).append(self._shown(entry, "input"))
            specs = (
                {name: joined(ports) for name, ports in inputs.items()},
                {entry.name: self._shown(entry, "output") for entry in self._outputs},
            )
            self._specs = specs
        return specs

    @property
    def routes(self) -> Sequence[str]:  # type: ignore[override]
        """Exposed outputs that lie behind routes of nodes inside."""
        self.specs()
        routed = self._routed
        return () if routed is None else tuple([e.name for e in self._outputs if routed.output(e.node_id, e.port_name)])

    def _shown(self, entry: Exposed, direction: Literal["input", "output"]) -> Port:
        is_routed = direction == "output" and self._routed is not None and bool(self._routed.output(entry.node_id, entry.port_name))
        place = self._node_specs[entry.node_id]
        return shown_port(self._port(entry.node_id, entry.port_name, direction), entry, place, direction, is_routed=is_routed)

    def _chosen(self, names: Sequence[str], exposed: ExposedPorts, direction: str) -> list[Exposed]:
        chosen = []
        for name in names:
            found = list(exposed.find("name", name))
            if not found:
                path, port = split_path(name)
                if len(path) != 1:
                    raise UnknownNameError(
                        f"{self.block_id}: unknown {direction} {name!r}; {suggest(name, {e.name for e in exposed})}, "
                        "or a port as 'node.port'"
                    )
                self._port(path[0], port, direction)
                found = [Exposed(path[0], port, port)]
            chosen += found
        return chosen

    def _edges_at(self, node_id: str) -> list[Edge]:
        return list(self._edges.find("node", node_id))

    def _edge(self, ends: Sequence[str]) -> Edge:
        if len(ends) == 2 and all(isinstance(end, str) and end.count(".") == 1 for end in ends):
            return Edge(*ends[0].split("."), *ends[1].split("."))
        if len(ends) == 4 and all(isinstance(end, str) for end in ends):
            return Edge(*ends)
        raise StructureTypeError(
            f"{self.block_id}: got the ends {', '.join(map(repr, ends))}; expected ('a', 'y', 'b', 'x') or ('a.y', 'b.x'), "
            "for a node a with an output y and a node b with an input x"
        )

    def _shown_as(self, node_id: str, port_name: str, name: str | None) -> Exposed:
        name = port_name if name is None else name
        if not isinstance(name, str) or not name:
            raise StructureTypeError(
                f"{self.block_id}: {node_id}.{port_name} is to be exposed as {name!r}; expected a name, or nothing to call it {port_name!r}"
            )
        return Exposed(node_id, port_name, name)

    def _port(self, node_id: str, port_name: str, direction: str) -> Port:
        self._require_node(node_id)
        child = self.nodes[node_id]
        spec = child.get_input_spec() if direction == "input" else child.get_output_spec()
        if port_name not in spec:
            raise UnknownNameError(f"{self.block_id}/{node_id}: no {direction} {port_name!r}; {suggest(port_name, spec)}")
        return spec[port_name]

    def _mismatch(self, edge: Edge) -> str | None:
        source = self._port(edge.source_node, edge.source_port, "output")
        target = self._port(edge.target_node, edge.target_port, "input")
        if edge.source_node in self._node_specs and (
            self._node_specs[edge.source_node].map or edge.target_port in self._node_specs[edge.target_node].map
        ):
            return None  # lists of values travel here
        return target.why_not(source)

    def _check_edge(self, edge: Edge) -> None:
        reason = self._mismatch(edge)
        if reason is not None:
            raise PortTypeError(f"{self.block_id}: cannot join {edge}: {reason}. {what_fits(edge, self.nodes)}")
        into = list(self._edges.find("into", edge.target_node, edge.target_port))
        one = into and self._port(edge.target_node, edge.target_port, "input").aggregation == "single"
        if one and (not self.loops or len(into) > 1):
            raise PortError(
                f"{self.block_id}: {edge.target_node}.{edge.target_port} takes one source and already has {into[0]}; "
                "remove that edge, or give the port an aggregation (concat, sum, first, dict, list)"
            )

    @staticmethod
    def _fits(edge: Edge, node_id: str, inputs: Spec, outputs: Spec) -> bool:
        if edge.target_node == node_id and edge.target_port not in inputs:
            return False
        return edge.source_node != node_id or edge.source_port in outputs
