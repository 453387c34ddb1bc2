"""The executor: walks a plan's steps over the slots of one run.

The common case - a node that only takes values and gives values - costs little more than calling the module. All else
(callbacks, seeds, maps, conditions, frozen places, limits) goes through :func:`~wgtorch.core.run.node_call.call_node`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.errors import PortError, RunCancelled, RunTimeoutError
from wgtorch.core.plan import NONE, Call, Chain, Combine, Loop, Plan, Prepare, Step
from wgtorch.core.port import ABSENT
from wgtorch.core.run import background
from wgtorch.core.run.aggregate import combine
from wgtorch.core.run.context import Run, in_this_context, locate
from wgtorch.core.run.gradient_checkpointing import Recomputed
from wgtorch.core.run.loop_compiler import Walk, scan_loop
from wgtorch.core.run.node_call import Walked, call_node, outputs_of
from wgtorch.core.tree import is_level

_POLL = 0.02  # seconds between looks at a cancelled run while nodes wait


def execute(composite: Walked, plan: Plan, slots: list[Any], run: Run | None) -> None:
    """Runs all steps of a plan. ``slots`` holds the inputs and, afterwards, the outputs."""
    if plan.is_async:
        _walk_waiting(composite, plan.steps, slots, run)
    else:
        _walk(composite, plan.quick if run is None else plan.steps, slots, run)


def _walk(composite: Walked, steps: Sequence[Step | Chain], slots: list[Any], run: Run | None) -> None:
    children: Any = composite._modules["nodes"]._modules  # type: ignore[union-attr]  # the property costs as much as a small block
    step: Any = None  # a Call wherever it is plain
    call: Any = None
    try:
        for step in steps:
            if run is None and step.plain:
                child = children[step.key]
                match step.args if not step.kwargs else ():  # written out: building a list costs half as much as a small block
                    case (a,):
                        result = child(slots[a])
                    case (a, b):
                        result = child(slots[a], slots[b])
                    case (a, b, c):
                        result = child(slots[a], slots[b], slots[c])
                    case (a, b, c, d):
                        result = child(slots[a], slots[b], slots[c], slots[d])
                    case _:
                        result = child(
                            *[slots[slot] for slot in step.args],
                            **{name: slots[slot] for name, slot in step.kwargs if slots[slot] is not ABSENT},
                        )
                if type(result) is Tensor and step.only >= 0:
                    slots[step.only] = result
                elif type(result) is dict:
                    try:
                        for port, slot in step.store:
                            slots[slot] = result[port]
                    except KeyError:  # left out, or by another name
                        _store(step, result, child, slots)
                else:
                    _store(step, result, child, slots)
                result = None
            elif type(step) is Chain:
                value, slots[step.one] = slots[step.one], ABSENT
                for call in step.calls:
                    value = children[call.key](value)
                    if type(value) is not Tensor:
                        value = outputs_of(call, value, children[call.key]).get(call.only_port, ABSENT)
                slots[step.only] = value
                value = None  # a value lives in its slot alone
                continue
            else:
                _perform(composite, step, slots, run)
            for slot in step.frees:
                slots[slot] = ABSENT
    except Exception as error:
        _locate(error, call if type(step) is Chain else step, composite)
        raise


def _perform(composite: Walked, step: Step, slots: list[Any], run: Run | None) -> None:
    if isinstance(step, Call):
        _store(step, call_node(composite, step, slots, run), composite.nodes._modules[step.key], slots)
    elif isinstance(step, Loop):
        _loop(composite, step, slots, run)
    elif isinstance(step, Combine):
        slots[step.slot] = combine(step, slots)
    else:
        _prepare(composite, step, slots, run)


def _store(step: Call, result: Any, child: nn.Module, slots: list[Any]) -> None:
    """Puts what a node gave into the slots that are read."""
    if result is ABSENT:  # skipped
        for _, slot in step.store:
            slots[slot] = ABSENT
        return
    named = outputs_of(step, result, child)
    for port, slot in step.store:
        slots[slot] = named.get(port, ABSENT)


def _prepare(composite: Walked, step: Prepare, slots: list[Any], run: Run | None) -> None:
    """Asks a node of a loop what it makes of inputs that stay the same in all turns; what it does not make stays as it is."""
    values = {port: slots[slot] for port, slot in step.inputs if slots[slot] is not ABSENT}
    child: Any = composite.nodes._modules[step.key]
    made = {} if run is not None and run.dry else child.precompute_invariants(**values)
    for port, slot in step.store:
        slots[slot] = made.get(port, values.get(port, ABSENT))


# --- loops ------------------------------------------------------------------------------------------------------------


def _loop(composite: Walked, loop: Loop, slots: list[Any], run: Run | None) -> None:
    total = turns(composite, loop, run)
    if torch.compiler.is_compiling() and not (loop.is_async or _recomputes(composite)) and scan_loop(composite, loop, slots, total, _walk):
        for slot in loop.turn_frees:
            slots[slot] = ABSENT
        return
    take_turn = _turn_taker(composite, loop, run)
    body: Any = loop.quick if run is None and take_turn is _walk else loop.body
    done, frees = loop.done, loop.turn_frees
    fed_back = []
    for carry in loop.carries:
        slots[carry.slot] = slots[carry.start] if carry.start != NONE else ABSENT
        fed_back.append((carry.slot, carry.feedback))
    for turn in count() if total is None else range(total):
        if turn:
            for slot, source in fed_back:  # what is fed back is never itself a carried slot, so the order does not matter
                slots[slot] = slots[source]
            for slot in frees:
                slots[slot] = ABSENT
        if run is None:
            take_turn(composite, body, slots, None)
        else:
            run.check(loop.node)
            run.emit("loop", None, composite.level, step=turn, total=total)
            take_turn(composite, body, slots, run.turn(turn))
        if done and _is_done(loop, slots):
            break
    for slot in frees:
        slots[slot] = ABSENT


def _turn_taker(composite: Walked, loop: Loop, run: Run | None) -> Walk:
    """What goes through a loop's body: the plain walk, the body as it was compiled, either of them recomputed for gradients."""
    if loop.is_async:
        return _walk_waiting
    if run is not None and run.dry:
        return _walk
    take: Walk = _walk
    if composite.loop_compiler is not None and not torch.compiler.is_compiling():
        take = composite.loop_compiler.body(composite, loop, _walk)
    if _recomputes(composite):
        take = Recomputed(composite, loop, take)
    return take


def _recomputes(composite: Walked) -> bool:
    return bool(composite.metadata.get("gradient_checkpointing")) and torch.is_grad_enabled()


def turns(composite: Walked, loop: Loop, run: Run | None) -> int | None:
    """How often a loop turns: the call's word, else the metadata's, else its nodes'; None turns until ``done``."""
    stated = composite.metadata.get("num_loop_steps") if run is None or run.num_loop_steps is None else run.num_loop_steps
    if stated is not None:
        if not isinstance(stated, int) or stated < 1:
            raise PortError(f"the loop through {', '.join(loop.nodes)}: num_loop_steps is {stated!r}; expected a whole number from 1")
        return stated
    children = composite.nodes._modules
    own = {step.node: told for step in loop.body if isinstance(step, Call) and (told := children[step.key].num_loop_steps) is not None}
    if len(set(own.values())) == 1:
        return next(iter(own.values()))
    if not own and loop.done:
        return None
    found = f"its nodes disagree: {own}" if own else "neither the call, the metadata nor a node of the loop says how often"
    raise PortError(
        f"the loop through {', '.join(loop.nodes)} has no number of turns: {found}. "
        "Pass num_loop_steps=, or set metadata['num_loop_steps']."
    )


def _is_done(loop: Loop, slots: list[Any]) -> bool:
    for slot in loop.done:
        done = slots[slot]
        if done is not False and bool(done.all() if isinstance(done, Tensor) else done):
            return True
    return False


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
    at: Step | None = None
    try:
        while todo or flying:
            later = []
            for step in todo:
                if not unready.isdisjoint(step.reads):
                    later.append(step)
                elif step.is_async and isinstance(step, Call):
                    call = in_this_context(partial(call_node, composite, step, slots, run))
                    flying[background.start(call)] = (step, time.monotonic())
                else:
                    at = step
                    _perform(composite, step, slots, run)
                    through(step)
            todo, at = later, None
            for future in _landed(composite, flying, run):
                landed, _ = flying.pop(future)
                at = landed
                _store(landed, future.result(), composite.nodes._modules[landed.key], slots)
                through(landed)
                del future
    except Exception as error:
        _end_others(composite, flying, run, cut=isinstance(error, (RunCancelled, RunTimeoutError, CancelledError)))
        _locate(error, at, composite)
        raise


def _end_others(composite: Walked, flying: dict[Future[Any], tuple[Call, float]], run: Run | None, *, cut: bool) -> None:
    """After a node failed: lets those on their way come home, so that what they bring is kept; cancels them when time is up."""
    try:
        while flying and not cut:
            for future in _landed(composite, flying, run):
                del flying[future]
    except (RunCancelled, RunTimeoutError):
        pass
    for future in flying:
        future.cancel()


def _locate(error: BaseException, step: Step | None, composite: Walked) -> None:
    """Notes the node that failed; inside a loop, or a level below, the path is longer by then."""
    if isinstance(step, Loop) or step is None:
        return
    below = isinstance(step, Call) and is_level(composite.nodes[step.node])
    locate(error, step.node, below=below)


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
                    error = RunTimeoutError(f"{step.node} took longer than its limit of {timeout} s")
                    locate(error, step.node)
                    raise error
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
