"""From a structure to a plan."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

from wgtorch.core.errors import ValidationError
from wgtorch.core.plan.checks import cycle_findings, dangling, source_findings
from wgtorch.core.plan.frees_and_units import joined, units_of, with_frees
from wgtorch.core.plan.inline import Inliner
from wgtorch.core.plan.routes import BehindRoutes
from wgtorch.core.plan.steps import NONE, SURROUNDED, UNSURE, Call, Carry, Combine, Hoisted, Loop, Plan, Step
from wgtorch.core.plan.wiring import Wiring, natural, upstream, wire
from wgtorch.core.structure import Edge, Exposed, InputShape, NodeShape, Structure


def make_plan(
    structure: Structure,
    *,
    wanted: Sequence[Exposed] | None = None,
    fed: Iterable[tuple[str, str]] = (),
    also: Iterable[str] = (),
    plan_of: Callable[[str], Plan | None] | None = None,
) -> Plan:
    """Plans a run.

    Args:
        structure: what to run.
        wanted: outputs to compute; all exposed ones by default. Only nodes they need are in the plan.
        fed: output ports whose value is given, so that their node need not run.
        also: nodes to run even if no wanted output needs them.
        plan_of: the plan of the level at a node, which may be written out in this one; None where its call has to be made as it is.

    Raises:
        ValidationError: the structure cannot be run; lists all findings.
    """
    wanted = structure.outputs if wanted is None else tuple(wanted)
    structure = _in_order(structure)
    fed = tuple(dict.fromkeys(fed))
    cut = _cut_down(structure, wanted, fed, also)
    errors = dangling(cut)
    if not errors:
        wiring = wire(cut)
        errors = source_findings(wiring) + cycle_findings(wiring)
    if errors:
        raise ValidationError(structure.name, errors)
    plan = Builder(wiring, wanted, fed, plan_of or (lambda node_id: None)).build()
    return replace(plan, unread=frozenset(entry.name for entry in structure.inputs) - {name for name, _, _ in plan.inputs})


def _in_order(structure: Structure) -> Structure:
    """The structure with everything by name: in which order it was built tells nothing."""
    return replace(
        structure,
        nodes={node_id: structure.nodes[node_id] for node_id in sorted(structure.nodes, key=natural)},
        edges=tuple(sorted(structure.edges, key=_edge_order)),
        inputs=tuple(sorted(structure.inputs, key=lambda entry: (natural(entry.name), natural(entry.node_id), entry.port_name))),
    )


def _edge_order(edge: Edge) -> tuple[Any, ...]:
    return natural(edge.source_node), natural(edge.source_port), natural(edge.target_node), natural(edge.target_port)


def _cut_down(structure: Structure, wanted: Sequence[Exposed], fed: Sequence[tuple[str, str]], also: Iterable[str]) -> Structure:
    """The structure that ``wanted`` needs when the outputs in ``fed`` are given."""
    given = set(fed)
    targets = {entry.node_id for entry in wanted if (entry.node_id, entry.port_name) not in given}
    needed = upstream(structure, targets | set(also), given)
    if not fed and len(needed) == len(structure.nodes):
        return replace(structure, outputs=tuple(wanted))
    # A given value replaces what a loop would feed back, so the loop's start is the only source left.
    idle = {edge for edge in wire(structure).feedback if (edge.source_node, edge.source_port) in given} if fed else set()
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


class Builder:
    """Lays values out in slots and nodes out in steps."""

    def __init__(
        self, wiring: Wiring, wanted: Sequence[Exposed], fed: Sequence[tuple[str, str]], plan_of: Callable[[str], Plan | None]
    ) -> None:
        self.wiring = wiring
        self.plan_of = plan_of
        self.structure = wiring.structure
        self.wanted = wanted
        self.size = 0
        self.unsure: set[int] = set()  # slots that may stay empty
        self.fills: list[tuple[str, str, int]] = []
        self.routes = BehindRoutes(wiring)
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
                    if node.may_skip or port in node.optional_outputs or self.routes.output(*key):
                        self.unsure.add(self.produced[key])

    def build(self) -> Plan:
        steps: list[Step] = []
        computed = [members for members in self._component_order() if not all(self._is_given(node) for node in members)]
        for members in computed:
            index = self.wiring.component[members[0]]
            steps += self._loop(members) if self.wiring.is_loop(index) else self._node_steps(members[0])
        outputs = tuple((entry.name, self._source_slot(entry.node_id, entry.port_name)) for entry in self.wanted)
        keep = {slot for _, slot in outputs} | {slot for _, _, slot in self.fills}  # what a node holds itself is freed by nobody
        steps_freed = with_frees(steps, keep)
        inliner = Inliner(self.plan_of, self.size)
        fast_steps = inliner.written_out(steps)
        return Plan(
            size=inliner.size,
            inputs=tuple((name, slot, self.required[name]) for name, slot in self.exposed.items()),
            feeds=tuple((node, port, slot) for (node, port), slot in self.given.items()),
            outputs=outputs,
            steps=steps_freed,
            fast_steps=joined(with_frees(fast_steps, keep)),
            fills=tuple(self.fills),
            units=units_of(steps_freed, keep),
            inlined=tuple(inliner.levels),
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
        """Components in data order; among those that are ready, async ones first, then by the nodes' ids."""
        wiring = self.wiring
        rank = [
            (not any(self.structure.nodes[node].is_async for node in members), natural(min(members, key=natural)))
            for members in wiring.components
        ]
        needs = {(wiring.component[e.source_node], wiring.component[e.target_node]) for e in self.structure.edges if not wiring.inside(e)}
        return [wiring.components[index] for index in _ordered(range(len(wiring.components)), needs, rank)]

    def _loop(self, members: list[str]) -> list[Step]:
        """The loop, behind what its nodes can do before it."""
        wiring, shapes = self.wiring, self.structure.nodes
        component = wiring.component[members[0]]
        inner = [e for e in self.structure.edges if wiring.component[e.source_node] == component == wiring.component[e.target_node]]
        carries = self._carries([edge for edge in inner if edge in wiring.feedback])
        spot = {node: index for index, node in enumerate(members)}
        needs = {(spot[e.source_node], spot[e.target_node]) for e in inner if e not in wiring.feedback}
        rank = [(not shapes[node].is_async, natural(node)) for node in members]
        ordered = [members[index] for index in _ordered(range(len(members)), needs, rank)]
        body = [step for node in ordered for step in self._node_steps(node)]
        done = tuple(self.produced[node, "done"] for node in ordered if (node, "done") in self.produced)
        writes = {slot for step in body for slot in step.writes}
        carried = {carry.slot for carry in carries}
        before, body = self._hoisted(body, writes | carried)
        reads = {slot for step in body for slot in step.reads} | {carry.start for carry in carries if carry.start != NONE}
        outside = reads - writes - carried
        loop = Loop(
            nodes=tuple(ordered),
            body=tuple(body),
            carries=carries,
            done=done,
            reads=tuple(sorted(outside)),
            writes=tuple(sorted(writes)),
            is_async=any(step.is_async for step in body),
            behind=self._entered_by(members, carries, set(outside)),
        )
        return [*before, loop]

    def _entered_by(self, members: list[str], carries: tuple[Carry, ...], outside: set[int]) -> tuple[tuple[int, str], ...]:
        """Slots that have to be filled for a loop to be entered: required inputs from outside of it that lie behind routes."""
        found: dict[int, str] = {}
        starts = {name: carry.start for carry in carries for name in carry.ports if carry.start != NONE}
        for node_id in members if self.routes.has_any else ():
            for name, routes in self.routes.of_required(node_id):
                sources = self._plain_sources(node_id, name)
                slot = starts.get(f"{node_id}.{name}", sources[0] if len(sources) == 1 else NONE)
                if slot in outside:
                    found.setdefault(slot, ", ".join(f"{router}.{route}" for router, route in sorted(routes)))
        return tuple(found.items())

    def _hoisted(self, body: Sequence[Step], changing: set[int]) -> tuple[list[Step], list[Step]]:
        """What nodes of a loop make of inputs that no iteration changes, and the loop's body that reads that instead."""
        before: list[Step] = []
        after: list[Step] = []
        for step in body:
            if isinstance(step, Call) and (ports := self.structure.nodes[step.node].hoistable):
                inputs = tuple((port, slot) for port, slot in step.inputs if port in ports)
                if inputs and not any(slot in changing for _, slot in inputs):
                    store = tuple((port, self._slot()) for port, _ in inputs)
                    before.append(Hoisted(step.node, step.key, inputs, store))
                    step = _reading(step, dict(store))
            after.append(step)
        return before, after

    def _carries(self, feedback: list[Edge]) -> tuple[Carry, ...]:
        """One carried slot for all feedback edges that bring the same, filled before the first iteration from their ports' start."""
        carries: dict[tuple[int, int], Carry] = {}
        for edge in feedback:
            key = (edge.target_node, edge.target_port)
            single = self._input(key).aggregation == "single"
            starts = self._plain_sources(*key) if single else []
            if single and not starts and self._input(key).filled:
                self.fills.append((*key, self._slot()))
                starts = [self.fills[-1][2]]
            origin = (starts[0] if starts else NONE, self._source_slot(edge.source_node, edge.source_port))
            carry = carries[origin] if origin in carries else Carry(self._slot(), *origin, ports=())
            if not starts or starts[0] in self.unsure or origin[1] in self.unsure:
                self.unsure.add(carry.slot)
            self.carried[edge] = carry.slot
            carries[origin] = replace(carry, ports=(*carry.ports, ".".join(key)))
        return tuple(carries.values())

    def _input(self, key: tuple[str, str]) -> InputShape:
        return next(port for port in self.structure.nodes[key[0]].inputs if port.name == key[1])

    def _plain_sources(self, node_id: str, port: str) -> list[int]:
        """Slots of a port's sources outside its loop or earlier in the iteration."""
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
        for (name, slot), position in zip(inputs, node.positional, strict=False):
            if name != position or slot in self.unsure:
                break
            prefix += 1
        args = tuple(slot for _, slot in inputs[:prefix])
        kwargs = tuple(inputs[prefix:])
        store = tuple((port, self.produced[node_id, port]) for port in node.outputs if (node_id, port) in self.produced)
        lone = len(node.outputs) == 1 and len(store) == 1 and node.outputs[0] not in node.optional_outputs
        required = tuple(port.name for port in node.inputs if port.required)
        unsure = tuple(slot for name, slot in inputs if slot in self.unsure and name in required)
        # A value of the node's own that stands in for one that may not come is looked for when it is known.
        falls_back = any(port.filled and slot in self.unsure for port in node.inputs for name, slot in inputs if name == port.name)
        behind = self.routes.of_required(node_id)
        surrounded = bool(node.is_async or node.may_skip or falls_back or behind or node.routes)
        call = Call(
            node=node_id,
            key=node.key or node_id,
            inputs=tuple(inputs),
            args=args,
            kwargs=kwargs,
            arg_slot=args[0] if len(args) == 1 and not kwargs else NONE,
            store=store,
            out_slot=store[0][1] if lone else NONE,
            out_port=node.outputs[0] if len(node.outputs) == 1 else "",
            needs=node.needs | SURROUNDED * surrounded | UNSURE * bool(unsure),
            required=required,
            unsure=unsure,
            is_async=node.is_async,
            behind=behind,
            routes=node.routes,
        )
        return [*before, call]

    def _gather(self, node: NodeShape, port: InputShape) -> tuple[int, list[Step]]:
        """The slot a port reads, and the step that combines its sources when it has several."""
        key = (node.node_id, port.name)
        edges = self.wiring.edges_into.get(key, ())
        if port.filled and not edges and key not in self.wiring.exposed_into:
            self.fills.append((*key, self._slot()))
            return self.fills[-1][2], []
        feedback = [edge for edge in edges if edge in self.wiring.feedback]
        if port.aggregation == "single" and feedback:
            return self.carried[feedback[0]], []
        sources = [
            (
                self.carried[edge] if edge in self.wiring.feedback else self._source_slot(edge.source_node, edge.source_port),
                edge.source_node,
                edge.source_port,
            )
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
        outside = frozenset(source for source, _, name in sources if not name)
        return slot, [Combine(node.node_id, port.name, port.aggregation, slots, _keys(sources), slot, outside)]


def _reading(call: Call, instead: dict[str, int]) -> Call:
    """The call with some of its inputs read from other slots."""
    inputs = tuple((port, instead.get(port, slot)) for port, slot in call.inputs)
    args = tuple(slot for _, slot in inputs[: len(call.args)])
    kwargs = inputs[len(args) :]
    return replace(call, inputs=inputs, args=args, kwargs=kwargs, arg_slot=args[0] if len(args) == 1 and not kwargs else NONE)


def _keys(sources: Sequence[tuple[int, str, str]]) -> tuple[str, ...]:
    """Names of sources: the node where that is enough to tell them apart, else ``node.port``."""
    nodes = [node for _, node, _ in sources]
    return tuple(f"{node}.{port}" if port and nodes.count(node) > 1 else node for _, node, port in sources)


def _ordered(items: Iterable[int], needs: Iterable[tuple[int, int]], rank: Sequence[tuple]) -> list[int]:
    """Topological order; among ready items the one of the lowest rank comes first. Cycles are cut before."""
    sorter = TopologicalSorter[int](dict.fromkeys(items, ()))
    for source, target in needs:
        sorter.add(target, source)
    sorter.prepare()
    ready: list[tuple[tuple, int]] = []
    order: list[int] = []
    while sorter.is_active():
        for item in sorter.get_ready():
            heapq.heappush(ready, (rank[item], item))
        order.append(heapq.heappop(ready)[1])
        sorter.done(order[-1])
    return order
