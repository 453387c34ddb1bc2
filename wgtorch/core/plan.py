"""The planner: a structure in, a frozen plan or a list of findings out. Pure, without torch.

A plan is a flat tuple of steps over numbered slots. A slot holds one value of one run: an exposed input, an output that
somebody reads, the combination of several, or what a loop carries from turn to turn.

    inputs -> [0]            Call(a, args=(0,), store=y->[1])
                             Loop(body=(Call(b, args=(2,), store=z->[3]),), carries=(2 <- first [1], then [3]))
    outputs <- [3]
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from wgtorch.core.errors import Finding, ValidationError
from wgtorch.core.structure import Edge, Exposed, InputShape, NodeShape, Structure

NONE = -1
"""The slot number that stands for no slot."""


@dataclass(frozen=True, slots=True)
class Call:
    """Runs one node.

    Args:
        node: its id, and ``key``, what its child is called in the module that holds the children.
        inputs: (port, slot) of every fed input.
        args: slots passed by position, then ``kwargs`` as (port, slot).
        one: the slot of the only argument when there is just one, by position.
        store: (port, slot) of every output that is read.
        only: the slot of the output when the node declares just one, and its name in ``only_port``.
        plain: nothing but values to hand over; all inputs are sure to be there.
        required: inputs that must be there.
        waits: the call waits on a network.
        frees: slots nobody reads after this step.
    """

    node: str
    key: str
    inputs: tuple[tuple[str, int], ...]
    args: tuple[int, ...]
    kwargs: tuple[tuple[str, int], ...]
    one: int
    store: tuple[tuple[str, int], ...]
    only: int
    only_port: str
    plain: bool
    required: tuple[str, ...]
    waits: bool
    frees: tuple[int, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """Slots this step reads."""
        return tuple(slot for _, slot in self.inputs)

    @property
    def writes(self) -> tuple[int, ...]:
        """Slots this step fills."""
        return tuple(slot for _, slot in self.store)


@dataclass(frozen=True, slots=True)
class Combine:
    """Combines several sources of one port: ``how`` is the port's aggregation, ``keys`` name the sources."""

    node: str
    port: str
    how: str
    sources: tuple[int, ...]
    keys: tuple[str, ...]
    slot: int
    frees: tuple[int, ...] = ()
    plain: bool = False
    waits: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        """Slots this step reads."""
        return self.sources

    @property
    def writes(self) -> tuple[int, ...]:
        """Slots this step fills."""
        return (self.slot,)


@dataclass(frozen=True, slots=True)
class Carry:
    """A value that a loop hands from one turn to the next: ``slot`` starts as ``start`` and then takes ``feedback``."""

    slot: int
    start: int
    feedback: int
    port: str


@dataclass(frozen=True, slots=True)
class Loop:
    """Repeats ``body``; ``done`` are slots of boolean outputs that end it early, ``turn_frees`` are emptied each turn."""

    nodes: tuple[str, ...]
    body: tuple[Step, ...]
    carries: tuple[Carry, ...]
    done: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    turn_frees: tuple[int, ...] = ()
    frees: tuple[int, ...] = ()
    plain: bool = False
    waits: bool = False

    @property
    def node(self) -> str:
        """The first node of the loop, for messages."""
        return self.nodes[0]


Step = Call | Combine | Loop


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run walks.

    Args:
        size: how many slots a run needs.
        inputs: (name, slot, required) of exposed inputs that are read.
        feeds: (node, port, slot) of outputs whose value is given instead of computed.
        outputs: (name, slot).
        steps: the walk.
        waits: some node waits on a network.
        unread: exposed inputs that this plan has no use for.
    """

    size: int
    inputs: tuple[tuple[str, int, bool], ...]
    feeds: tuple[tuple[str, str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    waits: bool
    unread: frozenset[str] = frozenset()

    def order(self) -> tuple[str, ...]:
        """Node ids in the order they run, loops unrolled once."""

        def walk(steps: Iterable[Step]) -> Iterable[str]:
            for step in steps:
                if isinstance(step, Loop):
                    yield from walk(step.body)
                elif isinstance(step, Call):
                    yield step.node

        return tuple(walk(self.steps))


@dataclass(slots=True)
class _Wiring:
    """Sources of every port, and which edges are cut to order loops."""

    structure: Structure
    edges_into: dict[tuple[str, str], list[Edge]] = field(default_factory=dict)
    exposed_into: dict[tuple[str, str], list[Exposed]] = field(default_factory=dict)
    component: dict[str, int] = field(default_factory=dict)
    components: list[list[str]] = field(default_factory=list)
    own_tail: set[str] = field(default_factory=set)
    feedback: set[Edge] = field(default_factory=set)
    stuck: list[list[str]] = field(default_factory=list)

    def is_loop(self, index: int) -> bool:
        members = self.components[index]
        return len(members) > 1 or members[0] in self.own_tail

    def inside(self, edge: Edge) -> bool:
        return self.component[edge.source_node] == self.component[edge.target_node]


def validate_structure(structure: Structure) -> tuple[list[Finding], list[Finding]]:
    """Everything that is wrong, and everything that looks odd: (errors, warnings)."""
    errors = _dangling(structure)
    if errors:
        return errors, []
    wiring = _wire(structure)
    errors += _sources(wiring)
    errors += _cycles(wiring)
    if structure.nodes and not structure.outputs:
        errors.append(
            Finding(structure.name, "no output is exposed", "at least one", "Call expose_output(node, port), or infer_exposed_ports().")
        )
    return errors, _reachability(structure)


def make_plan(
    structure: Structure,
    *,
    wanted: Sequence[Exposed] | None = None,
    fed: Iterable[tuple[str, str]] = (),
    also: Iterable[str] = (),
) -> Plan:
    """Plans a run.

    Args:
        structure: what to run.
        wanted: outputs to compute; all exposed ones by default. Only nodes they need are in the plan.
        fed: output ports whose value is given, so that their node need not run.
        also: nodes to run even if no wanted output needs them.

    Raises:
        ValidationError: the structure cannot be run; lists all findings.
    """
    wanted = structure.outputs if wanted is None else tuple(wanted)
    fed = tuple(dict.fromkeys(fed))
    cut = _cut_down(structure, wanted, fed, also)
    errors = _dangling(cut)
    if not errors:
        wiring = _wire(cut)
        errors = _sources(wiring) + _cycles(wiring)
    if errors:
        raise ValidationError(structure.name, errors)
    plan = _Builder(wiring, wanted, fed).build()
    return replace(plan, unread=frozenset(entry.name for entry in structure.inputs) - {name for name, _, _ in plan.inputs})


def upstream(structure: Structure, targets: Iterable[str], stop: Iterable[tuple[str, str]] = ()) -> set[str]:
    """Nodes that ``targets`` need, themselves included; edges out of the ports in ``stop`` are not followed."""
    stop = set(stop)
    into: dict[str, list[Edge]] = {}
    for edge in structure.edges:
        into.setdefault(edge.target_node, []).append(edge)
    return _closure(targets, lambda node: [e.source_node for e in into.get(node, ()) if (e.source_node, e.source_port) not in stop])


def strong_components(nodes: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Strongly connected components, members in the order of ``nodes`` (Tarjan 1972, without recursion)."""
    nodes = list(nodes)
    rank = {node: index for index, node in enumerate(nodes)}
    after: dict[str, list[str]] = {node: [] for node in nodes}
    for edge in edges:
        after[edge.source_node].append(edge.target_node)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(after[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for target in rest:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(after[target])))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        members.append(member)
                        if member == node:
                            break
                    found.append(sorted(members, key=rank.__getitem__))
    return found


# --- findings ---------------------------------------------------------------------------------------------------------


def _dangling(structure: Structure) -> list[Finding]:
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


def _sources(wiring: _Wiring) -> list[Finding]:
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
                        mend=f"Add an edge into it{_candidates(structure, node, port)}, expose_input({node.node_id!r}, {port.name!r}), or give it a value.",
                    )
                )
            if port.aggregation == "single" and (len(forward) + len(exposed) > 1 or len(edges) - len(forward) > 1):
                names = ", ".join([str(edge) for edge in edges] + [f"input {entry.name!r}" for entry in exposed])
                findings.append(
                    Finding(where, f"{len(edges) + len(exposed)} sources feed it ({names})", "one", "Remove one, or give the port an aggregation (concat, sum, first, dict, list).")
                )
    return findings


def _candidates(structure: Structure, node: NodeShape, port: InputShape) -> str:
    same_name = [f"{other.node_id}.{port.name}" for other in structure.nodes.values() if other is not node and port.name in other.outputs]
    return f" (for example from {' or '.join(same_name[:3])})" if same_name else ""


def _cycles(wiring: _Wiring) -> list[Finding]:
    structure = wiring.structure
    if not structure.loops:
        return [
            Finding(structure.name, f"a cycle through {' -> '.join([*members, members[0]])}", "no cycle: this level is a DAG", "Remove one of its edges.")
            for index, members in enumerate(wiring.components)
            if wiring.is_loop(index)
        ]
    findings = []
    for members in wiring.stuck:
        ports = [f"{edge.target_node}.{edge.target_port}" for edge in structure.edges if edge.source_node in members and edge.target_node in members]
        findings.append(
            Finding(
                f"{structure.name}/{members[0]}",
                f"the loop through {', '.join(members)} has no starting value",
                f"a start for one of {', '.join(dict.fromkeys(ports))}",
                "Expose that input, add an edge from outside the loop, or give the node a default for it.",
            )
        )
    return findings


def _reachability(structure: Structure) -> list[Finding]:
    after: dict[str, list[str]] = {}
    for edge in structure.edges:
        after.setdefault(edge.source_node, []).append(edge.target_node)
    roots = {entry.node_id for entry in structure.inputs}
    roots |= {node.node_id for node in structure.nodes.values() if not node.inputs or any(port.filled for port in node.inputs)}
    reached = _closure(roots, lambda node: after.get(node, ()))
    leading = upstream(structure, {entry.node_id for entry in structure.outputs})
    findings = []
    for node_id in structure.nodes:
        if node_id not in reached:
            findings.append(Finding(f"{structure.name}/{node_id}", "no input reaches it", mend="Add an edge into it, or expose one of its inputs."))
        if structure.outputs and node_id not in leading:
            findings.append(Finding(f"{structure.name}/{node_id}", "it leads to no output", mend="Expose one of its outputs, or remove the node."))
    return findings


def _closure(start: Iterable[str], after: Callable[[str], Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(start)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(after(node))
    return seen


# --- wiring -----------------------------------------------------------------------------------------------------------


def _cut_down(structure: Structure, wanted: Sequence[Exposed], fed: Sequence[tuple[str, str]], also: Iterable[str]) -> Structure:
    """The structure that ``wanted`` needs when the outputs in ``fed`` are given."""
    given = set(fed)
    targets = {entry.node_id for entry in wanted if (entry.node_id, entry.port_name) not in given}
    needed = upstream(structure, targets | set(also), given)
    if not fed and len(needed) == len(structure.nodes):
        return replace(structure, outputs=tuple(wanted))
    # A given value replaces what a loop would feed back, so the loop's start is the only source left.
    idle = {edge for edge in _wire(structure).feedback if (edge.source_node, edge.source_port) in given} if fed else set()
    stand_ins = {node for node, _ in fed} - needed
    return replace(
        structure,
        nodes={
            node_id: replace(shape, inputs=()) if node_id in stand_ins else shape
            for node_id, shape in structure.nodes.items()
            if node_id in needed or node_id in stand_ins
        },
        edges=tuple(edge for edge in structure.edges if edge.target_node in needed and edge not in idle),
        inputs=tuple(entry for entry in structure.inputs if entry.node_id in needed),
        outputs=tuple(wanted),
    )


def _wire(structure: Structure) -> _Wiring:
    wiring = _Wiring(structure)
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


def _cut_loops(wiring: _Wiring) -> None:
    """Finds the feedback edges: those whose target has a start of its own, then those whose target can do without."""
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
    for rule in (lambda edge: edge.source_node == edge.target_node, lambda edge: True):
        rest = [edge for edge in within if edge not in wiring.feedback]
        cyclic = _on_cycles(structure.nodes, rest)
        wiring.feedback |= {edge for edge in cyclic if rule(edge) and can_do_without(edge)}
    rest = [edge for edge in within if edge not in wiring.feedback]
    left = {edge.source_node for edge in _on_cycles(structure.nodes, rest)}
    wiring.stuck = [members for members in strong_components(structure.nodes, rest) if left & set(members)]


def _on_cycles(nodes: Iterable[str], edges: Sequence[Edge]) -> list[Edge]:
    component = {node: index for index, members in enumerate(strong_components(nodes, edges)) for node in members}
    return [edge for edge in edges if component[edge.source_node] == component[edge.target_node]]


# --- building ---------------------------------------------------------------------------------------------------------


class _Builder:
    """Lays values out in slots and nodes out in steps."""

    def __init__(self, wiring: _Wiring, wanted: Sequence[Exposed], fed: Sequence[tuple[str, str]]) -> None:
        self.wiring = wiring
        self.structure = wiring.structure
        self.wanted = wanted
        self.size = 0
        self.unsure: set[int] = set()  # slots that may stay empty
        self.given = {key: self._slot() for key in fed}
        self.exposed: dict[str, int] = {}
        self.required: dict[str, bool] = {}
        for entry in self.structure.inputs:
            shape = next(port for port in self.structure.nodes[entry.node_id].inputs if port.name == entry.port_name)
            lone = len(wiring.exposed_into[entry.node_id, entry.port_name]) == 1 and not self._forward_edges(entry.node_id, entry.port_name)
            if entry.name not in self.exposed:
                self.exposed[entry.name] = self._slot()
            can_skip = self.structure.nodes[entry.node_id].may_skip
            needs = shape.required and not shape.filled and not can_skip and (shape.aggregation == "single" or lone)
            self.required[entry.name] = self.required.get(entry.name, False) or needs
        self.unsure |= {self.exposed[name] for name, required in self.required.items() if not required}
        self.carried: dict[Edge, int] = {}
        self.produced: dict[tuple[str, str], int] = {}
        read = {(edge.source_node, edge.source_port) for edge in self.structure.edges} | {(e.node_id, e.port_name) for e in wanted}
        for node in self.structure.nodes.values():
            in_loop = wiring.is_loop(wiring.component[node.node_id]) if self.structure.loops else False
            for port in node.outputs:
                key = (node.node_id, port)
                if key not in self.given and (key in read or (in_loop and port == "done")):
                    self.produced[key] = self._slot()
                    if node.may_skip or port in node.optional_outputs:
                        self.unsure.add(self.produced[key])

    def build(self) -> Plan:
        steps: list[Step] = []
        computed = [members for members in self._component_order() if not all(self._is_given(node) for node in members)]
        for members in computed:
            index = self.wiring.component[members[0]]
            steps += [self._loop(members)] if self.wiring.is_loop(index) else self._node_steps(members[0])
        outputs = tuple((entry.name, self._source_slot(entry.node_id, entry.port_name)) for entry in self.wanted)
        keep = {slot for _, slot in outputs}
        steps_freed = _with_frees(steps, keep)
        return Plan(
            size=self.size,
            inputs=tuple((name, slot, self.required[name]) for name, slot in self.exposed.items()),
            feeds=tuple((node, port, slot) for (node, port), slot in self.given.items()),
            outputs=outputs,
            steps=steps_freed,
            waits=any(step.waits for step in steps_freed),
        )

    def _slot(self) -> int:
        self.size += 1
        return self.size - 1

    def _is_given(self, node_id: str) -> bool:
        """True when a fed value stands in for everything that is read of a node."""
        return any(node == node_id for node, _ in self.given) and not any(node == node_id for node, _ in self.produced)

    def _forward_edges(self, node_id: str, port: str) -> list[Edge]:
        return [edge for edge in self.wiring.edges_into.get((node_id, port), ()) if edge not in self.wiring.feedback]

    def _source_slot(self, node_id: str, port: str) -> int:
        key = (node_id, port)
        return self.given[key] if key in self.given else self.produced[key]

    def _component_order(self) -> list[list[str]]:
        """Components in data order; among those that are ready, waiting ones first, then as they were added."""
        wiring = self.wiring
        position = {node: index for index, node in enumerate(self.structure.nodes)}
        rank = [
            (not any(self.structure.nodes[node].waits for node in members), position[members[0]]) for members in wiring.components
        ]
        needs = {(wiring.component[e.source_node], wiring.component[e.target_node]) for e in self.structure.edges if not wiring.inside(e)}
        return [wiring.components[index] for index in _ordered(range(len(wiring.components)), needs, rank)]

    def _loop(self, members: list[str]) -> Loop:
        wiring, shapes = self.wiring, self.structure.nodes
        component = wiring.component[members[0]]
        inner = [e for e in self.structure.edges if wiring.component[e.source_node] == component == wiring.component[e.target_node]]
        carries = self._carries([edge for edge in inner if edge in wiring.feedback])
        spot = {node: index for index, node in enumerate(members)}
        needs = {(spot[e.source_node], spot[e.target_node]) for e in inner if e not in wiring.feedback}
        rank = [(not shapes[node].waits, index) for index, node in enumerate(members)]
        ordered = [members[index] for index in _ordered(range(len(members)), needs, rank)]
        body = [step for node in ordered for step in self._node_steps(node)]
        done = tuple(self.produced[node, "done"] for node in ordered if (node, "done") in self.produced)
        writes = {slot for step in body for slot in step.writes}
        carried = {carry.slot for carry in carries}
        reads = {slot for step in body for slot in step.reads} | {carry.start for carry in carries if carry.start != NONE}
        outside = reads - writes - carried
        return Loop(
            nodes=tuple(ordered),
            body=tuple(body),
            carries=carries,
            done=done,
            reads=tuple(sorted(outside)),
            writes=tuple(sorted(writes)),
            waits=any(step.waits for step in body),
        )

    def _carries(self, feedback: list[Edge]) -> tuple[Carry, ...]:
        """One carried slot for each feedback edge, filled before the first turn from the port's start."""
        carries = []
        for edge in feedback:
            key = (edge.target_node, edge.target_port)
            single = self._input(key).aggregation == "single"
            starts = self._plain_sources(*key) if single else []
            slot = self._slot()
            if not starts or starts[0] in self.unsure:
                self.unsure.add(slot)
            self.carried[edge] = slot
            carries.append(Carry(slot, starts[0] if starts else NONE, self._source_slot(edge.source_node, edge.source_port), f"{key[0]}.{key[1]}"))
        return tuple(carries)

    def _input(self, key: tuple[str, str]) -> InputShape:
        return next(port for port in self.structure.nodes[key[0]].inputs if port.name == key[1])

    def _plain_sources(self, node_id: str, port: str) -> list[int]:
        """Slots of a port's sources outside its loop or earlier in the turn."""
        slots = [self._source_slot(edge.source_node, edge.source_port) for edge in self._forward_edges(node_id, port)]
        return slots + [self.exposed[entry.name] for entry in self.wiring.exposed_into.get((node_id, port), ())]

    def _node_steps(self, node_id: str) -> list[Step]:
        """The call of a node, behind the steps that combine what several sources bring to one port."""
        node = self.structure.nodes[node_id]
        before: list[Step] = []
        inputs: list[tuple[str, int]] = []
        for port in node.inputs:
            slot, combine = self._gather(node, port)
            before += combine
            if slot != NONE:
                inputs.append((port.name, slot))
        prefix = 0
        while prefix < min(len(inputs), len(node.positional)) and inputs[prefix][0] == node.positional[prefix]:
            prefix += 1
        args = tuple(slot for _, slot in inputs[:prefix])
        kwargs = tuple(inputs[prefix:])
        store = tuple((port, self.produced[node_id, port]) for port in node.outputs if (node_id, port) in self.produced)
        lone = len(node.outputs) == 1 and len(store) == 1 and node.outputs[0] not in node.optional_outputs
        sure = not any(slot in self.unsure for _, slot in inputs) and not any(port.filled for port in node.inputs)
        call = Call(
            node=node_id,
            key=node.key or node_id,
            inputs=tuple(inputs),
            args=args,
            kwargs=kwargs,
            one=args[0] if len(args) == 1 and not kwargs else NONE,
            store=store,
            only=store[0][1] if lone else NONE,
            only_port=node.outputs[0] if len(node.outputs) == 1 else "",
            plain=sure and not (node.special or node.waits or node.may_skip) and (lone or not node.optional_outputs),
            required=tuple(port.name for port in node.inputs if port.required),
            waits=node.waits,
        )
        return [*before, call]

    def _gather(self, node: NodeShape, port: InputShape) -> tuple[int, list[Step]]:
        """The slot a port reads, and the step that combines its sources when it has several."""
        key = (node.node_id, port.name)
        edges = self.wiring.edges_into.get(key, ())
        feedback = [edge for edge in edges if edge in self.wiring.feedback]
        if port.aggregation == "single" and feedback:
            return self.carried[feedback[0]], []
        sources = [
            (self.carried[edge] if edge in self.wiring.feedback else self._source_slot(edge.source_node, edge.source_port), edge.source_node, edge.source_port)
            for edge in edges
        ]
        sources += [(self.exposed[entry.name], entry.name, "") for entry in self.wiring.exposed_into.get(key, ())]
        if not sources:
            return NONE, []
        if len(sources) == 1 and port.aggregation not in ("dict", "list"):
            return sources[0][0], []
        slot = self._slot()
        slots = tuple(source for source, _, _ in sources)
        if all(source in self.unsure for source in slots):
            self.unsure.add(slot)
        return slot, [Combine(node.node_id, port.name, port.aggregation, slots, _keys(sources), slot)]


def _keys(sources: Sequence[tuple[int, str, str]]) -> tuple[str, ...]:
    """Names of sources: the node where that is enough to tell them apart, else ``node.port``."""
    nodes = [node for _, node, _ in sources]
    return tuple(f"{node}.{port}" if port and nodes.count(node) > 1 else node for _, node, port in sources)


def _ordered(items: Sequence[int] | range, needs: Iterable[tuple[int, int]], rank: Sequence[tuple]) -> list[int]:
    """Topological order (Kahn 1962); among ready items the one of the lowest rank comes first."""
    after: dict[int, list[int]] = {item: [] for item in items}
    waiting = dict.fromkeys(items, 0)
    for source, target in needs:
        after[source].append(target)
        waiting[target] += 1
    ready = [(rank[item], item) for item in items if not waiting[item]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, item = heapq.heappop(ready)
        order.append(item)
        for target in after[item]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, (rank[target], target))
    assert len(order) == len(waiting), "cycles are cut before ordering"
    return order


def _with_frees(steps: Sequence[Step], keep: set[int]) -> tuple[Step, ...]:
    """Adds to each step the slots that nobody reads after it; ``keep`` are read after the last."""
    freed: list[Step] = []
    alive = set(keep)
    for step in reversed(steps):
        touched = {*step.reads, *step.writes}
        frees = tuple(sorted(touched - alive))
        if isinstance(step, Loop):
            step = _free_in_turns(step, alive)
        alive |= set(step.reads)
        freed.append(replace(step, frees=frees))
    return tuple(reversed(freed))


def _free_in_turns(loop: Loop, alive_after: set[int]) -> Loop:
    """Frees inside a loop's body: values of this turn that neither the next turn nor anybody after the loop reads."""
    fed_back = {carry.feedback for carry in loop.carries}
    body = _with_frees(loop.body, set(loop.reads) | fed_back | set(loop.done) | (set(loop.writes) & alive_after))
    own = (fed_back | set(loop.done)) & set(loop.writes)
    return replace(loop, body=body, turn_frees=tuple(sorted(own - alive_after)))

