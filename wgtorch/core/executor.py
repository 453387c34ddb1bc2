"""The executor: walks a plan's steps over the slots of one run.

The common case - a node that only takes values and gives values - costs little more than calling the module. All else
(callbacks, seeds, maps, conditions, frozen places, limits) goes through :func:`_call`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from inspect import iscoroutine
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wgtorch.core import background
from wgtorch.core.block import Block, named_outputs
from wgtorch.core.errors import MissingInputError, PortError, RunTimeoutError
from wgtorch.core.kinds import describe
from wgtorch.core.places import call_frozen
from wgtorch.core.plan import NONE, Call, Combine, Loop, Plan, Step
from wgtorch.core.port import ABSENT
from wgtorch.core.rng import seeded_global
from wgtorch.core.run import Run, in_this_context, locate
from wgtorch.core.structure import Edge, Exposed, Node

_POLL = 0.02  # seconds between looks at a cancelled run while nodes wait


class Walked(Protocol):
    """What the executor needs of a composite."""

    nodes: Any
    places: Mapping[str, Node]
    edges: tuple[Edge, ...]
    exposed_inputs: tuple[Exposed, ...]
    metadata: Mapping[str, Any]
    level: str

    def skip_reason(self, node: Node, run: Run | None) -> str | None:
        """Why a node is to be skipped now, or None."""


def execute(composite: Walked, plan: Plan, slots: list[Any], run: Run | None) -> None:
    """Runs all steps of a plan. ``slots`` holds the inputs and, afterwards, the outputs."""
    if plan.waits:
        _walk_waiting(composite, plan.steps, slots, run)
    else:
        _walk(composite, plan.steps, slots, run)


def _walk(composite: Walked, steps: Sequence[Step], slots: list[Any], run: Run | None) -> None:
    children = composite.nodes._modules
    step: Step | None = None
    try:
        for step in steps:
            if run is None and step.plain:
                if step.one >= 0:
                    result = children[step.key](slots[step.one])
                else:
                    result = children[step.key](*[slots[slot] for slot in step.args], **{name: slots[slot] for name, slot in step.kwargs})
                if step.only >= 0 and type(result) is Tensor:
                    slots[step.only] = result
                else:
                    _store(step, result, children[step.key], slots)
            else:
                _perform(composite, step, slots, run)
            for slot in step.frees:
                slots[slot] = ABSENT
    except Exception as error:
        if step is not None and not isinstance(step, Loop):
            locate(error, step.node)
        raise


def _perform(composite: Walked, step: Step, slots: list[Any], run: Run | None) -> None:
    if isinstance(step, Loop):
        _loop(composite, step, slots, run)
    elif isinstance(step, Combine):
        slots[step.slot] = _combine(step, slots)
    else:
        _store(step, _call(composite, step, slots, run), composite.nodes._modules[step.key], slots)


def _store(step: Call, result: Any, child: nn.Module, slots: list[Any]) -> None:
    """Puts what a node gave into the slots that are read."""
    if result is ABSENT:  # skipped
        for _, slot in step.store:
            slots[slot] = ABSENT
        return
    named = _named(step, result, child)
    for port, slot in step.store:
        slots[slot] = named.get(port, ABSENT)


def _named(step: Call, result: Any, child: nn.Module) -> dict[str, Any]:
    """What a node gave, by output name."""
    if type(result) is dict:
        for port, _ in step.store:
            if port not in result:
                break
        else:
            return result
    elif step.only_port and not isinstance(result, Mapping):
        return {step.only_port: result}
    return named_outputs(result, tuple(child.get_output_spec().values()), step.node)  # type: ignore[operator]


# --- loops ------------------------------------------------------------------------------------------------------------


def _loop(composite: Walked, loop: Loop, slots: list[Any], run: Run | None) -> None:
    total = turns(composite, loop, run)
    walk = _walk_waiting if loop.waits else _walk
    for carry in loop.carries:
        slots[carry.slot] = slots[carry.start] if carry.start != NONE else ABSENT
    turn = 0
    while total is None or turn < total:
        if run is not None:
            run.check(loop.node)
            run.emit("loop", None, composite.level, step=turn, total=total)
        walk(composite, loop.body, slots, None if run is None else run.turn(turn))
        turn += 1
        if turn == total or _is_done(loop, slots):
            break
        carried = [slots[carry.feedback] for carry in loop.carries]
        for carry, value in zip(loop.carries, carried, strict=True):
            slots[carry.slot] = value
        for slot in loop.turn_frees:
            slots[slot] = ABSENT
    for slot in loop.turn_frees:
        slots[slot] = ABSENT


def turns(composite: Walked, loop: Loop, run: Run | None) -> int | None:
    """How often a loop turns: the call's word, else the metadata's, else its nodes'; None turns until ``done``."""
    if run is not None and run.num_loop_steps is not None:
        return run.num_loop_steps
    if (stated := composite.metadata.get("num_loop_steps")) is not None:
        return stated
    own = {node: count for node in loop.nodes if (count := getattr(composite.nodes[node], "num_loop_steps", None)) is not None}
    if len(set(own.values())) == 1:
        return next(iter(own.values()))
    if not own and loop.done:
        return None
    found = f"its nodes disagree: {own}" if own else "neither the call, the metadata nor a node of the loop says how often"
    raise PortError(f"the loop through {', '.join(loop.nodes)} has no number of turns: {found}. Pass num_loop_steps=, or set metadata['num_loop_steps'].")


def _is_done(loop: Loop, slots: list[Any]) -> bool:
    return any(bool(slots[slot].all()) if isinstance(slots[slot], Tensor) else bool(slots[slot]) for slot in loop.done)


# --- joining ----------------------------------------------------------------------------------------------------------


def _combine(step: Combine, slots: list[Any]) -> Any:
    """Combines what several sources brought to one port; sources without a value are left out."""
    present = [(key, slots[slot]) for key, slot in zip(step.keys, step.sources, strict=True) if slots[slot] is not ABSENT]
    values = [value for _, value in present]
    if not values:
        return ABSENT
    if step.how == "dict":
        return dict(present)
    if step.how == "list":
        return values
    if step.how == "first":
        return values[0]
    try:
        return _concat(values) if step.how == "concat" else sum(values[1:], start=values[0])
    except (TypeError, RuntimeError) as error:
        kinds = ", ".join(f"{key}: {describe(value)}" for key, value in present)
        raise PortError(f"{step.node}.{step.port}: cannot {step.how} {kinds} ({error})") from error


def _concat(values: list[Any]) -> Any:
    """Joins tensors along dim 1 (features, tokens or channels; dim 0 for vectors), lists and texts end to end."""
    if isinstance(values[0], Tensor):
        return torch.cat(values, dim=min(1, values[0].dim() - 1))
    if isinstance(values[0], str):
        return "\n".join(values)
    return [item for value in values for item in value]


# --- one call ---------------------------------------------------------------------------------------------------------


def _call(composite: Walked, step: Call, slots: list[Any], run: Run | None) -> Any:
    """Calls a node with everything that a place or a run may ask for; ABSENT when it was skipped."""
    node = composite.places[step.node]
    child = composite.nodes._modules[step.key]
    if run is not None:
        run.check(step.node)
    if (reason := composite.skip_reason(node, run)) is not None:
        if run is not None and run.callbacks:
            run.emit("skip", step.node, _level(child), reason=reason)
        return ABSENT
    values = _gather(composite, node, step, slots)
    if run is None or not run.callbacks:
        return _invoke(node, child, step, values, run)
    run.emit("start", step.node, _level(child), inputs=values)
    started = time.perf_counter()
    try:
        result = _invoke(node, child, step, values, run)
        outputs = _named(step, result, child)
    except Exception as error:
        run.emit("error", step.node, _level(child), inputs=values, elapsed=time.perf_counter() - started, error=error)
        raise
    run.emit("end", step.node, _level(child), inputs=values, outputs=outputs, elapsed=time.perf_counter() - started)
    return outputs


def _gather(composite: Walked, node: Node, step: Call, slots: list[Any]) -> dict[str, Any]:
    values = {name: slots[slot] for name, slot in step.inputs if slots[slot] is not ABSENT}
    for name, value in node.inputs.items():
        values.setdefault(name, value)
    for name in step.required:
        if name not in values:
            raise MissingInputError(f"{step.node}.{name}: required, but no value arrived from {_sources(composite, step.node, name)}")
    return values


def _sources(composite: Walked, node_id: str, port: str) -> str:
    names = [f"{e.source_node}.{e.source_port} (skipped, or gave no such output)" for e in composite.edges if (e.target_node, e.target_port) == (node_id, port)]
    names += [f"input {e.name!r} (not given)" for e in composite.exposed_inputs if (e.node_id, e.port_name) == (node_id, port)]
    return " or ".join(names) or "anywhere"


def _invoke(node: Node, child: nn.Module, step: Call, values: dict[str, Any], run: Run | None) -> Any:
    """One call of a child, or one for each item of a mapped list."""
    if not node.map:
        return _one(node, child, step, values, run, None)
    lists = {name: values[name] for name in node.map if name in values}
    for name, items in lists.items():
        if not isinstance(items, (list, tuple)):
            raise PortError(f"{node.node_id}.{name}: got {describe(items)}; expected a list, since the node maps over {list(node.map)}")
    lengths = {name: len(items) for name, items in lists.items()}
    if len(set(lengths.values())) > 1:
        raise PortError(f"{node.node_id}: the mapped inputs differ in length: {lengths}")
    if getattr(child, "batched", False):
        return _one(node, child, step, values, run, None)
    count = next(iter(lengths.values()), 0)
    items_of = [{**values, **{name: items[index] for name, items in lists.items()}} for index in range(count)]
    calls = [lambda index=index, item=item: _one(node, child, step, item, run, index) for index, item in enumerate(items_of)]
    results = _together(calls) if step.waits else [call() for call in calls]
    ports = tuple(child.get_output_spec().values())  # type: ignore[operator]
    named = [named_outputs(result, ports, f"{node.node_id}[{index}]") for index, result in enumerate(results)]
    return {port.name: [result.get(port.name) for result in named] for port in ports}


def _together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    futures = [background.start(in_this_context(call)) for call in calls]
    return [future.result() for future in futures]


def _one(node: Node, child: nn.Module, step: Call, values: dict[str, Any], run: Run | None, item: int | None) -> Any:
    args: tuple[Any, ...] = ()
    if getattr(child, "level", "block") != "block":
        if run is not None:
            args = (run.child(node.node_id, item=item, exposed=tuple(port for port, _ in step.store)),)
        drawing: Any = nullcontext()
    else:
        drawing = _drawing(node, child, values, run, item)
    with drawing:
        if run is not None and run.dry and hasattr(child, "dry"):
            return child.dry(**values)
        if node.trainable or not torch.is_grad_enabled():
            result = child(*args, **values)
        else:
            result = call_frozen(child, args, values)
        return background.submit(result).result() if iscoroutine(result) else result


def _drawing(node: Node, child: nn.Module, values: dict[str, Any], run: Run | None, item: int | None) -> Any:
    """Gives a block its random draws: as an argument, or by seeding the global generator around the call."""
    if getattr(child, "wants_rng", False):
        values["rng"] = (run or _NO_RUN).rng(node.node_id, item=item)
    elif run is not None and run.seed is not None and isinstance(child, Block) and child.draws and not child.waits:
        return seeded_global(run.rng(node.node_id, item=item))
    return nullcontext()


_NO_RUN = Run(())


def _level(child: nn.Module) -> str:
    return getattr(child, "level", "block")


# --- nodes that wait --------------------------------------------------------------------------------------------------


def _walk_waiting(composite: Walked, steps: Sequence[Step], slots: list[Any], run: Run | None) -> None:
    """Walks steps some of which wait on a network: those run aside while whatever is ready goes on.

    The order of the plan is kept as far as values allow; slots are freed when their last reader is through.
    """
    readers: dict[int, int] = {}
    for step in steps:
        for slot in step.reads:
            readers[slot] = readers.get(slot, 0) + 1
    freed = {slot for step in steps for slot in step.frees}
    unready = {slot for step in steps for slot in step.writes}
    flying: dict[Future[Any], tuple[Call, float]] = {}

    def through(step: Step) -> None:
        unready.difference_update(step.writes)
        for slot in step.reads:
            readers[slot] -= 1
            if not readers[slot] and slot in freed:
                slots[slot] = ABSENT

    todo = list(steps)
    step: Step = steps[0]
    try:
        while todo or flying:
            later = []
            for step in todo:
                if not unready.isdisjoint(step.reads):
                    later.append(step)
                elif step.waits and isinstance(step, Call):
                    call = in_this_context(lambda step=step: _call(composite, step, slots, run))
                    flying[background.start(call)] = (step, time.monotonic())
                else:
                    _perform(composite, step, slots, run)
                    through(step)
            todo = later
            for future in _landed(composite, flying, run):
                step, _ = flying.pop(future)
                _store(step, future.result(), composite.nodes._modules[step.key], slots)
                through(step)
    except Exception as error:
        for future in flying:
            future.cancel()
        if not isinstance(step, Loop):
            locate(error, step.node)
        raise


def _landed(composite: Walked, flying: Mapping[Future[Any], tuple[Call, float]], run: Run | None) -> list[Future[Any]]:
    """Waits until a call has landed.

    Raises:
        RunTimeoutError: a call, or the run, took longer than it may.
        RunCancelled: the run was cancelled.
    """
    while flying:
        now = time.monotonic()
        limits = []
        for step, started in flying.values():
            timeout = composite.places[step.node].timeout
            if timeout is not None:
                limits.append(started + timeout)
                if now >= started + timeout and not all(future.done() for future, (other, _) in flying.items() if other is step):
                    raise RunTimeoutError(f"{step.node} took longer than its limit of {timeout} s")
        if run is not None and run.deadline is not None:
            limits.append(run.deadline)
        pause = max(0.0, min(limits) - now) if limits else None
        if run is not None and run.cancelled is not None:
            pause = _POLL if pause is None else min(_POLL, pause)
        done, _ = wait(flying, timeout=pause, return_when=FIRST_COMPLETED)
        if done:
            return [future for future in flying if future in done]
        if run is not None:
            run.check(next(iter(flying.values()))[0].node)
    return []
