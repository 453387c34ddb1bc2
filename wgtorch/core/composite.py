"""Composite: a graph of executables. Graph, Pipeline and Stage are this, with another child type and a few words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from wgtorch.core import background
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.dryrun import DryRun, dry_run_of
from wgtorch.core.errors import Finding, MissingInputError, PortError, PortTypeError, StructureError, UnknownNameError, WgtorchError, suggest
from wgtorch.core.executor import execute
from wgtorch.core.level import Level
from wgtorch.core.modes import mode_for_run
from wgtorch.core.plan import Plan, make_plan, upstream, validate_structure
from wgtorch.core.port import ABSENT, Port, Spec
from wgtorch.core.run import Callback, Run, located, new_run, split_path
from wgtorch.core.signature import positional_prefix
from wgtorch.core.structure import Edge, Exposed, InputShape, Node, NodeShape, Structure


class Composite(Level):
    """Children joined by edges. It is a block itself: its ports are the ports of its children that it exposes.

    The plan of a run is made once and kept until the structure changes. Nothing about a run is kept: two threads may
    run one composite at once.
    """

    loops: ClassVar[bool] = False

    def __init__(self, level_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(level_id, metadata=metadata)
        self._edges: list[Edge] = []
        self._inputs: list[Exposed] = []
        self._outputs: list[Exposed] = []
        self._plans: dict[Any, Plan] = {}
        self._plan: Plan | None = None
        self._watched: tuple[tuple[Level, int], ...] = ()
        self._specs: tuple[Spec, Spec] | None = None
        self._building = 0

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
        self._edges.append(edge)
        self._changed()
        return edge

    def remove_edge(self, *ends: str) -> None:
        """Removes an edge."""
        edge = self._edge(ends)
        if edge not in self._edges:
            raise UnknownNameError(f"{self.block_id}: there is no edge {edge}; {suggest(edge, self._edges)}")
        self._edges.remove(edge)
        self._changed()

    def remove_node(self, node_id: str) -> Block:
        """Takes a node, its edges and its exposed ports out, and returns its child."""
        self._require_node(node_id)
        self._edges = [edge for edge in self._edges if node_id not in (edge.source_node, edge.target_node)]
        self._inputs = [entry for entry in self._inputs if entry.node_id != node_id]
        self._outputs = [entry for entry in self._outputs if entry.node_id != node_id]
        return super().remove_node(node_id)

    def replace_node(self, node_id: str, child: Any) -> list[str]:
        """Puts another child at a node; edges and exposed ports that fit the new one stay.

        Returns:
            What did not fit and was taken away, in words.
        """
        self._require_node(node_id)
        child = self._as_child(child)
        inputs, outputs = child.get_input_spec(), child.get_output_spec()
        lost: list[str] = []

        def stays(entry: Edge | Exposed) -> bool:
            if isinstance(entry, Exposed):
                fits = entry.node_id != node_id or entry.port_name in (inputs if entry in self._inputs else outputs)
            else:
                fits = self._fits(entry, node_id, inputs, outputs)
            if not fits:
                lost.append(str(entry))
            return fits

        self._edges = [edge for edge in self._edges if stays(edge)]
        self._inputs, self._outputs = [e for e in self._inputs if stays(e)], [e for e in self._outputs if stays(e)]
        kept = {name: value for name, value in self._places[node_id].inputs.items() if name in inputs}
        self.nodes.put(node_id, child)
        self.configure_node(node_id, inputs=kept, map=tuple(name for name in self._places[node_id].map if name in inputs))
        return lost

    def expose_input(self, node_id: str, port_name: str, name: str | None = None) -> str:
        """Shows a child's input as this composite's own. One name may be given to several ports: one value feeds them all."""
        self._port(node_id, port_name, "input")
        entry = Exposed(node_id, port_name, name or port_name)
        if entry not in self._inputs:
            others = [self._port(e.node_id, e.port_name, "input") for e in self._inputs if e.name == entry.name]
            for other in others:
                if (reason := self._port(node_id, port_name, "input").why_not(other)) and other.why_not(self._port(node_id, port_name, "input")):
                    raise PortTypeError(f"{self.block_id}: input {entry.name!r} cannot feed {node_id}.{port_name} as well: {reason}")
            self._inputs.append(entry)
            self._changed()
            self._settle()
        return entry.name

    def expose_output(self, node_id: str, port_name: str, name: str | None = None) -> str:
        """Shows a child's output as this composite's own."""
        self._port(node_id, port_name, "output")
        entry = Exposed(node_id, port_name, name or port_name)
        taken = {other.name: other for other in self._outputs}
        if entry.name in taken and taken[entry.name] != entry:
            raise StructureError(f"{self.block_id}: output {entry.name!r} already shows {taken[entry.name]}; give this one another name")
        if entry not in self._outputs:
            self._outputs.append(entry)
            self._changed()
            self._settle()
        return entry.name

    def infer_exposed_ports(self) -> None:
        """Exposes every required input that nothing feeds, and every output that nothing reads.

        A port's own name is used where it is free; else ``node_port``.
        """
        fed = {(e.target_node, e.target_port) for e in self._edges} | {(e.node_id, e.port_name) for e in self._inputs}
        read = {(e.source_node, e.source_port) for e in self._edges} | {(e.node_id, e.port_name) for e in self._outputs}
        free_inputs = [
            (node_id, port.name)
            for node_id, child in self.nodes.items()
            for port in child.get_input_spec().values()
            if (node_id, port.name) not in fed and not port.optional and port.name not in self._places[node_id].inputs
        ]
        loose = [(node_id, name) for node_id, child in self.nodes.items() for name in child.get_output_spec() if (node_id, name) not in read]
        with self._in_one_go():
            for (node_id, port_name), name in _free_names(free_inputs, {e.name for e in self._inputs}):
                self.expose_input(node_id, port_name, name)
            for (node_id, port_name), name in _free_names(loose, {e.name for e in self._outputs}):
                self.expose_output(node_id, port_name, name)

    def get_input_spec(self) -> Spec:
        """Exposed inputs by name, in the order they were exposed."""
        return dict(self._own_specs()[0])

    def get_output_spec(self) -> Spec:
        """Exposed outputs by name, in the order they were exposed."""
        return dict(self._own_specs()[1])

    def select(self, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Self:
        """Cuts a part out that shares the children.

        Args:
            inputs: ports (``"b.x"``) or exposed inputs where values come in; edges into them are cut.
            outputs: ports (``"a.y"``) or exposed outputs where values go out.

        Returns:
            A composite with the nodes between, its inputs and outputs named as asked (``b.x`` as ``x``).
        """
        starts = self._chosen(inputs, self._inputs, "input") if inputs else list(self._inputs)
        ends = self._chosen(outputs, self._outputs, "output") if outputs else list(self._outputs)
        cut = {(entry.node_id, entry.port_name) for entry in starts}
        edges = [edge for edge in self._edges if (edge.target_node, edge.target_port) not in cut]
        structure = Structure(self.block_id, self._structure().nodes, tuple(edges))
        needed = upstream(structure, {entry.node_id for entry in ends})
        part = type(self)(self.block_id, metadata=self.metadata)
        for node_id in self._places:
            if node_id in needed:
                part.nodes.put(node_id, self.nodes[node_id])
                part._places[node_id] = self._places[node_id]
        part._edges = [edge for edge in edges if {edge.source_node, edge.target_node} <= needed]
        part._inputs = [entry for entry in starts if entry.node_id in needed]
        part._outputs = ends
        part._changed()
        return part

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **inputs: Any) -> dict[str, Any]:
        """The computation itself, in the grad mode and train or eval mode that the caller has set.

        Args:
            inputs: values by exposed input; unnamed ones are taken in the order of the spec.

        Returns:
            Values by exposed output.
        """
        run = None
        if args:
            run, inputs = self._positional(args, inputs)
        plan = self._current_plan() if run is None or not (run.feeds or run.wanted is not None) else self._partial_plan(run)
        slots: list[Any] = [ABSENT] * plan.size
        used = 0
        for name, slot, required in plan.inputs:
            if name in inputs:
                slots[slot] = inputs[name]
                used += 1
            elif required:
                raise MissingInputError(f"{self.block_id}: missing input {name!r}; needed: {[n for n, _, r in plan.inputs if r]}, given: {sorted(inputs)}")
        if used < len(inputs):
            self._check_names(inputs, plan)
        if run is not None:
            for node_id, port, slot in plan.feeds:
                slots[slot] = run.feeds[(node_id,), port]
        execute(self, plan, slots, run)
        outputs = {name: slots[slot] for name, slot in plan.outputs if slots[slot] is not ABSENT}
        return outputs if run is None or run.wanted is None else self._take(run, outputs)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        num_loop_steps: int | None = None,
        training: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
        callbacks: Iterable[Callback] = (),
        dry_run: bool | str = False,
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Any:
        """Runs with checking, seeds, callbacks and limits.

        Args:
            inputs: values by exposed input; a value under a port's path (``"a.y"``, ``"first/a.y"``) is taken in place of
                what that node would compute.
            outputs: exposed outputs or ports by path (``"a.y"``) to compute; only what they need is run.
            num_loop_steps: turns of every loop.
            training: with gradients and as in ``train``; else without and as in ``eval``. Modules keep their own mode.
            seed: every node draws from its own generator, keyed by (seed, path, loop step, sample).
            device: where input tensors are moved.
            callbacks: called with an :class:`~wgtorch.core.run.Event` at each node's start and end and each loop step.
            dry_run: True checks order and availability and computes nothing; ``"fake"`` also runs with fake tensors and
                reports shapes, memory and API calls.
            timeout: seconds the run may take.
            cancelled: asked between nodes and loop steps; true stops the run.

        Returns:
            Values by output name, or a :class:`~wgtorch.core.dryrun.DryRun`.

        Raises:
            PortError: an input is unknown, missing or of the wrong kind.
            ValidationError: the structure cannot be run.
            RunCancelled, RunTimeoutError: it was stopped.
        """
        run = new_run(self.block_id, seed, callbacks, num_loop_steps, timeout, cancelled)
        run.dry = bool(dry_run)
        values = self._border(inputs or {}, run, device)
        if outputs is not None:
            self._request(outputs, run)
        if dry_run:
            return dry_run_of(self, values, run, fake=dry_run == "fake")
        with located(self.block_id), torch.set_grad_enabled(training), mode_for_run(self, training):
            found = self(**values) if run.is_quiet else self(run, **values)
        return found if outputs is None else {name: self._requested(name, found, run) for name in outputs}

    async def arun(self, inputs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """:meth:`run` for async code: the event loop goes on meanwhile, and cancelling the task stops the run."""
        stop = threading.Event()
        asked = options.pop("cancelled", None)
        future = background.start(lambda: self.run(inputs, cancelled=lambda: stop.is_set() or bool(asked and asked()), **options))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            raise

    def links(self) -> list[tuple[str, str, str]]:
        """What :meth:`draw` draws arrows for: (source, target, words)."""
        links = [(f">{entry.name}", entry.node_id, entry.port_name) for entry in self._inputs]
        links += [(e.source_node, e.target_node, e.source_port if e.source_port == e.target_port else f"{e.source_port} > {e.target_port}") for e in self._edges]
        return links + [(entry.node_id, f"{entry.name}>", entry.port_name) for entry in self._outputs]

    @property
    def waits(self) -> bool:  # type: ignore[override]
        """True when some child waits on a network."""
        return any(getattr(child, "waits", False) for child in self.nodes.values())

    def skip_reason(self, node: Node, run: Run | None) -> str | None:
        """Why a node is to be skipped now; levels with conditions answer."""
        return None

    # --- config -------------------------------------------------------------------------------------------------------

    def own_config(self) -> dict[str, Any]:
        return {
            "edges": [{name: getattr(edge, name) for name in Edge.__dataclass_fields__} for edge in self._edges],
            "exposed_inputs": [{name: getattr(entry, name) for name in Exposed.__dataclass_fields__} for entry in self._inputs],
            "exposed_outputs": [{name: getattr(entry, name) for name in Exposed.__dataclass_fields__} for entry in self._outputs],
        }

    def apply_config(self, config: Mapping[str, Any]) -> None:
        with self._in_one_go():
            for edge in config.get("edges", ()):
                self.add_edge(*(edge[name] for name in Edge.__dataclass_fields__))
            for entry in config.get("exposed_inputs", ()):
                self.expose_input(entry["node_id"], entry["port_name"], entry.get("name"))
            for entry in config.get("exposed_outputs", ()):
                self.expose_output(entry["node_id"], entry["port_name"], entry.get("name"))

    # --- private steps ------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        super()._changed()
        self._plans, self._plan, self._specs = {}, None, None

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors, warnings = validate_structure(self._structure())
        for edge in self._edges:
            if (reason := self._mismatch(edge)) is not None:
                errors.append(Finding(f"{self.block_id}: edge {edge}", reason))
        return errors, warnings

    def _structure(self) -> Structure:
        shapes = {node_id: self._shape(node_id) for node_id in self._places}
        return Structure(self.block_id, shapes, tuple(self._edges), tuple(self._inputs), tuple(self._outputs), self.loops)

    def _shape(self, node_id: str) -> NodeShape:
        child, node = self.nodes[node_id], self._places[node_id]
        outputs = child.get_output_spec()
        leaf = not isinstance(child, Level)
        return NodeShape(
            node_id=node_id,
            key=self.nodes.key(node_id),
            inputs=tuple(
                InputShape(port.name, not port.optional, port.aggregation, port.name in node.inputs) for port in child.get_input_spec().values()
            ),
            outputs=tuple(outputs),
            optional_outputs=frozenset(name for name, port in outputs.items() if port.optional),
            positional=positional_prefix(child.forward) if leaf else (),
            waits=bool(child.waits) or node.timeout is not None,
            special=bool(node.map or node.adapter or not node.trainable or child.wants_rng),
            may_skip=node.condition is not None,
        )

    def _current_plan(self) -> Plan:
        if self._plan is None or any(child._version != version for child, version in self._watched):
            self._changed()
            self._plan = make_plan(self._structure())
            self._watched = tuple((child, child._version) for child in self.child_levels())
        return self._plan

    def _settle(self) -> None:
        """Plans now if that can be done, so that ``torch.compile`` finds the plan made."""
        if self._outputs and not self._building:
            try:
                self._current_plan()
            except WgtorchError:
                self._plan = None  # not whole yet; the run or validate() will say why

    @contextmanager
    def _in_one_go(self) -> Iterator[None]:
        """Many changes with one plan at the end."""
        self._building += 1
        try:
            yield
        finally:
            self._building -= 1
        self._settle()

    def _partial_plan(self, run: Run) -> Plan:
        """The plan for what a run wants of this composite, with what it gives."""
        fed = tuple((path[0], port) for path, port in run.feeds if len(path) == 1)
        if run.wanted is None:
            wanted, also, key = self._outputs, set(), (None, frozenset(fed))
        else:
            local = [Exposed(path[0], port, f"{path[0]}.{port}") for path, port in sorted(run.wanted) if len(path) == 1]
            wanted = [entry for entry in self._outputs if entry.name in run.exposed] + local
            also = {path[0] for path, _ in run.wanted if len(path) > 1}
            key = (tuple(wanted), frozenset(also), frozenset(fed))
        self._current_plan()
        if key not in self._plans:
            self._plans[key] = make_plan(self._structure(), wanted=wanted, fed=fed, also=also)
        return self._plans[key]

    def _take(self, run: Run, outputs: dict[str, Any]) -> dict[str, Any]:
        """Keeps values wanted from inside for whoever asked, and returns the exposed ones."""
        exposed = {entry.name for entry in self._outputs}
        for name, value in outputs.items():
            if name not in exposed:
                path, port = split_path(name)
                run.taken[(*run.path, *path), port] = value
        return {name: value for name, value in outputs.items() if name in exposed}

    def _positional(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Run | None, dict[str, Any]]:
        run = args[0] if isinstance(args[0], Run) else None
        values = args if run is None else args[1:]
        names = list(self.get_input_spec()) if values else []
        if len(values) > len(names):
            raise PortError(f"{self.block_id}: {len(values)} unnamed inputs; it has {names}")
        for name, value in zip(names, values, strict=False):
            if name in inputs:
                raise PortError(f"{self.block_id}: input {name!r} is given twice, unnamed and by name")
            inputs[name] = value
        return run, inputs

    def _check_names(self, inputs: Mapping[str, Any], plan: Plan) -> None:
        known = {name for name, _, _ in plan.inputs} | plan.unread
        for name in inputs:
            if name not in known:
                raise PortError(f"{self.block_id}: unknown input {name!r}; {suggest(name, known)}")

    def _border(self, inputs: Mapping[str, Any], run: Run, device: torch.device | str | None) -> dict[str, Any]:
        """Checks and normalises what comes in; values for inner ports go to ``run.feeds``."""
        spec = self._own_specs()[0]
        values, feeds = {}, {}
        for name, value in inputs.items():
            if device is not None and isinstance(value, Tensor):
                value = value.to(device)
            if name in spec:
                values[name] = spec[name].check(value, f"{self.block_id}.{name}")
            elif "." in name:
                path, port_name = split_path(name)
                feeds[path, port_name] = self._inner_port(path, port_name, name).check(value, f"{self.block_id}/{name}")
            else:
                raise PortError(f"{self.block_id}: unknown input {name!r}; {suggest(name, spec)}")
        run.feeds = feeds
        return values

    def _request(self, outputs: Sequence[str], run: Run) -> None:
        spec = self._own_specs()[1]
        inner = [split_path(name) for name in outputs if name not in spec]
        for (path, port), name in zip(inner, [name for name in outputs if name not in spec], strict=True):
            if not path:
                raise UnknownNameError(f"{self.block_id}: unknown output {name!r}; {suggest(name, spec)}. Ports inside are asked for by path, as 'node.port'.")
            self._inner_port(path, port, name)
        run.wanted = frozenset(inner)
        run.exposed = tuple(name for name in outputs if name in spec)

    def _requested(self, name: str, found: Mapping[str, Any], run: Run) -> Any:
        if name in found:
            return found[name]
        path, port = split_path(name)
        if (run.path + path, port) in run.taken:
            return run.taken[run.path + path, port]
        raise MissingInputError(f"{self.block_id}: output {name!r} has no value: its node was skipped or left it out")

    def _inner_port(self, path: Sequence[str], port: str, name: str) -> Port:
        child = self.find("/".join(path)) if path else self
        spec = child.get_output_spec()
        if port not in spec:
            raise UnknownNameError(f"{self.block_id}: {name!r} names no output; {'/'.join(path)} has {list(spec)}")
        return spec[port]

    def _own_specs(self) -> tuple[Spec, Spec]:
        if self._specs is None or any(child._version != version for child, version in self._watched):
            inputs: dict[str, list[Port]] = {}
            for entry in self._inputs:
                port = self._port(entry.node_id, entry.port_name, "input")
                filled = entry.port_name in self._places[entry.node_id].inputs
                mapped = entry.port_name in self._places[entry.node_id].map
                shown = Port(entry.name, "in", "list" if mapped else port.dtype, port.optional or filled, port.aggregation, None if mapped else port.shape)
                inputs.setdefault(entry.name, []).append(shown)
            outputs = {}
            for entry in self._outputs:
                port = self._port(entry.node_id, entry.port_name, "output")
                outputs[entry.name] = Port(entry.name, "out", "list" if self._places[entry.node_id].map else port.dtype, port.optional, shape=port.shape)
            self._specs = {name: _joined(ports) for name, ports in inputs.items()}, outputs
            self._watched = tuple((child, child._version) for child in self.child_levels())
        return self._specs

    def _chosen(self, names: Sequence[str], exposed: Sequence[Exposed], direction: str) -> list[Exposed]:
        chosen = []
        for name in names:
            found = [entry for entry in exposed if entry.name == name]
            if not found:
                path, port = split_path(name)
                if len(path) != 1:
                    raise UnknownNameError(f"{self.block_id}: unknown {direction} {name!r}; {suggest(name, {e.name for e in exposed})}, or a port as 'node.port'")
                self._port(path[0], port, direction)
                found = [Exposed(path[0], port, port)]
            chosen += found
        return chosen

    def _edge(self, ends: Sequence[str]) -> Edge:
        if len(ends) == 2 and all(isinstance(end, str) and end.count(".") == 1 for end in ends):
            return Edge(*ends[0].split("."), *ends[1].split("."))
        if len(ends) == 4:
            return Edge(*ends)
        raise StructureError(f"{self.block_id}: add_edge{tuple(ends)}; expected ('a', 'y', 'b', 'x') or ('a.y', 'b.x')")

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
        if edge.source_node in self._places and (self._places[edge.source_node].map or edge.target_port in self._places[edge.target_node].map):
            return None  # lists of values travel here
        return target.why_not(source)

    def _check_edge(self, edge: Edge) -> None:
        reason = self._mismatch(edge)
        if reason is not None:
            raise PortTypeError(f"{self.block_id}: cannot join {edge}: {reason}. {self._what_fits(edge)}")
        into = [other for other in self._edges if (other.target_node, other.target_port) == (edge.target_node, edge.target_port)]
        target = self._port(edge.target_node, edge.target_port, "input")
        if into and target.aggregation == "single" and (not self.loops or len(into) > 1):
            raise PortError(
                f"{self.block_id}: {edge.target_node}.{edge.target_port} takes one source and already has {into[0]}; "
                "remove that edge, or give the port an aggregation (concat, sum, first, dict, list)"
            )

    def _what_fits(self, edge: Edge) -> str:
        source = self._port(edge.source_node, edge.source_port, "output")
        target = self._port(edge.target_node, edge.target_port, "input")
        ports = [f"{edge.target_node}.{port.name}" for port in self.nodes[edge.target_node].get_input_spec().values() if not port.why_not(source)]
        ports += [f"{edge.source_node}.{port.name}" for port in self.nodes[edge.source_node].get_output_spec().values() if not target.why_not(port)]
        text = f"Ports that would fit: {', '.join(ports)}." if ports else "No port of either node would fit."
        converters = BlockRegistry.converting(source.dtype, target.dtype)
        return f"{text} Blocks that convert: {', '.join(converters)}." if converters else text

    @staticmethod
    def _fits(edge: Edge, node_id: str, inputs: Spec, outputs: Spec) -> bool:
        if edge.target_node == node_id and edge.target_port not in inputs:
            return False
        return edge.source_node != node_id or edge.source_port in outputs


def _joined(ports: Sequence[Port]) -> Port:
    """The port that a name given to several ports shows: required when one of them is, of their narrowest kind."""
    narrow = next((port for port in ports if port.dtype != "any"), ports[0])
    aggregation = narrow.aggregation if len({port.aggregation for port in ports}) == 1 else "single"
    return Port(narrow.name, "in", narrow.dtype, all(port.optional for port in ports), aggregation, narrow.shape)


def _free_names(ports: Sequence[tuple[str, str]], taken: set[str]) -> list[tuple[tuple[str, str], str]]:
    named = []
    count = {port: sum(1 for _, other in ports if other == port) for _, port in ports}
    for node_id, port in ports:
        alone = count[port] == 1 and port not in taken
        named.append(((node_id, port), port if alone else f"{node_id}_{port}"))
    return named
