"""The executor: walks a plan's steps over the slots of one run.

The plan says what the call of each node needs. Where that is handing over values, perhaps with a source of random draws, the
walk makes the call itself, at little more than the price of the call; all else is in :mod:`wgtorch.core.run.node_call`.

    Composite.forward -> walk -> child                      a node that takes values and gives values
    Composite.forward -> walk -> call_node -> _called -> child
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.model_memory import invariants_of
from wgtorch.core.plan import FROZEN, LEVEL, NONE, RNG, STREAM, SURROUNDED, UNSURE, Call, Chain, Combine, Hoisted, Loop, Step, Unit
from wgtorch.core.port import MISSING
from wgtorch.core.run import async_walk
from wgtorch.core.run.active_call import ActiveCall, enter_call, leave_call
from wgtorch.core.run.aggregate import combine
from wgtorch.core.run.cached_call import CachedRun, Deferred, of_loop, slots_of, written_by
from wgtorch.core.run.call_outputs import outputs_of, store_outputs
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.detached_twin import call_detached
from wgtorch.core.run.error_paths import locate
from wgtorch.core.run.global_hooks import has_global_hooks
from wgtorch.core.run.gradient_checkpointing import Recomputed
from wgtorch.core.run.loop_compiler import Walk, scan_loop
from wgtorch.core.run.loop_steps import check_end, loop_steps
from wgtorch.core.run.node_call import ExecutorHost, call_node, call_told
from wgtorch.core.run.pause import Stopped
from wgtorch.core.run.rng import GLOBAL_RNG
from wgtorch.core.tree import is_level

Modules = Mapping[str, Any]
"""Children of a level, by their keys."""
TOLD, WATCHED = 64, 128
"""What a run adds to the needs of all calls: callbacks are told of them; or more is around them."""


def walk(
    composite: ExecutorHost,
    steps: Sequence[Step | Chain],
    slots: list[Any],
    run: RunContext | None,
    tables: Sequence[Modules] = (),
    active: ActiveCall | None = None,
) -> None:
    """Takes steps one after the other.

    Args:
        composite: whose steps they are.
        steps: of its plan.
        slots: values of this run.
        run: what it is part of, where it is.
        tables: what :func:`inlined_children` gave, for steps that have levels below written out in them.
        active: of the walk that these steps are an iteration of, where they are one: it is entered already.
    """
    children: Any = composite._modules["nodes"]._modules  # type: ignore[union-attr]  # the property costs as much as a small block
    step: Any = None
    result: Any = None
    # What makes a call more than handing over values, in this walk.
    special = SURROUNDED | RNG | UNSURE | (FROZEN if torch.is_grad_enabled() else 0)
    watched = 0
    token: Any = None
    ends = False
    if run is not None:
        special |= LEVEL
        options = run.options
        cancelled, deadline = options.cancelled, options.deadline
        ends = cancelled is not None or deadline is not None
        if options.is_watched:
            special |= STREAM
            watched = WATCHED if options.is_surrounded else TOLD
        if active is None:
            active = ActiveCall(run)
            token = None if torch.compiler.is_compiling() else enter_call(active)
        else:
            active.run = run
    try:
        for step in steps:
            if type(step) is Call:
                if active is not None:
                    if ends and ((deadline is not None and monotonic() > deadline) or (cancelled is not None and cancelled())):
                        raise run.ended(step.node)  # type: ignore[union-attr]
                    active.step, active.draws = step, 0
                child = tables[step.level][step.key] if step.level else children[step.key]
                if not (needs := step.needs & special | watched):
                    if step.arg_slot >= 0:  # written out: building a list costs half as much as a small block
                        result = child(slots[step.arg_slot])
                    elif step.kwargs:
                        result = child(*[slots[slot] for slot in step.args], **_named(step, slots))
                    elif len(step.args) == 2:
                        first, second = step.args
                        result = child(slots[first], slots[second])
                    else:
                        result = child(*[slots[slot] for slot in step.args])
                elif needs == TOLD:
                    result = call_told(run, step, child, slots)  # type: ignore[arg-type]
                elif needs == LEVEL and run.wanted is None:  # type: ignore[union-attr]
                    result = child(**_named(step, slots), run_context=run.child(step.node))  # type: ignore[union-attr]
                elif needs & (SURROUNDED | TOLD | WATCHED) and not step.is_async:
                    result = call_node(composite, step, slots, run)
                else:
                    result = _call(composite, step, child, slots, run, needs)
                if type(result) is Tensor and step.out_slot >= 0:
                    slots[step.out_slot] = result
                elif type(result) is dict:
                    try:
                        for port, slot in step.store:
                            slots[slot] = result[port]
                    except KeyError:  # left out, or by another name
                        store_outputs(step, result, child, slots)
                else:
                    store_outputs(step, result, child, slots)
                result = None  # a value lives in its slot alone
            elif type(step) is Chain:
                _pass_on(step, children, tables, slots, active, special)
                continue
            elif type(step) is Loop:
                loop(composite, step, slots, run, active)
                if active is not None:
                    active.run = run  # type: ignore[assignment]
            elif type(step) is Combine:
                slots[step.slot] = combine(step, slots)
            else:
                _hoist(composite, step, slots, run)
            for slot in step.frees:
                slots[slot] = MISSING
    except Exception as error:
        _locate(error, step, composite)
        raise
    except Stopped as stop:
        _note_stop(stop, step, children, slots)
        raise
    finally:
        if token is not None:
            leave_call(token)


def _pass_on(chain: Chain, children: Modules, tables: Sequence[Modules], slots: list[Any], active: Any, special: int) -> None:
    """Calls that pass one value on."""
    value, slots[chain.arg_slot] = slots[chain.arg_slot], MISSING
    call: Any = None
    ends = False
    if active is not None:
        options = active.run.options
        cancelled, deadline = options.cancelled, options.deadline
        ends = cancelled is not None or deadline is not None
    try:
        for call in chain.calls:
            if active is not None:
                if ends and ((deadline is not None and monotonic() > deadline) or (cancelled is not None and cancelled())):
                    raise active.run.ended(call.node)
                active.step, active.draws = call, 0
            child: Any = tables[call.level][call.key] if call.level else children[call.key]
            args = call.args
            if call.needs & special and (child._parameters or child._modules):  # a frozen place, where gradients are recorded
                value = call_detached(child, (value, *[slots[slot] for slot in args[1:]]), {})
            elif len(args) == 1:
                value = child(value)
            elif len(args) == 2:
                value = child(value, slots[args[1]])
            else:
                value = child(value, *[slots[slot] for slot in args[1:]])
            if type(value) is dict and call.store[0][0] in value:
                value = value[call.store[0][0]]
            elif type(value) is not Tensor or call.out_slot < 0:
                value = outputs_of(call, value, child).get(call.store[0][0], MISSING)
    except Exception as error:
        locate(error, call.node)
        raise
    slots[chain.out_slot] = value


def _call(composite: ExecutorHost, call: Call, child: Any, slots: list[Any], run: RunContext | None, needs: int) -> Any:
    """A call that is more than handing over values."""
    if needs & UNSURE:
        for slot in call.unsure:
            if slots[slot] is MISSING:
                return call_node(composite, call, slots, run)  # says what is missing
        if not (needs := needs & ~UNSURE):
            return child(*[slots[slot] for slot in call.args], **_named(call, slots))
    if needs == RNG:
        rng = GLOBAL_RNG if run is None else run.rng(call.node)
        if call.arg_slot >= 0:
            return child(slots[call.arg_slot], rng=rng)
        return child(*[slots[slot] for slot in call.args], **_named(call, slots), rng=rng)
    if needs == FROZEN:
        return call_detached(child, tuple([slots[slot] for slot in call.args]), _named(call, slots))
    if needs & WATCHED and call.is_async and not needs & LEVEL and run.options.pause is not None:  # type: ignore[union-attr]
        alone = replace(call, frees=())
        walk_async(composite, (Unit((alone,), (alone,), alone, 0, (), ()),), slots, run)  # within its own time limit
        return {port: slots[slot] for port, slot in call.store}
    return call_node(composite, call, slots, run)


def _named(call: Call, slots: list[Any]) -> dict[str, Any]:
    """What a call passes by name."""
    return {name: slots[slot] for name, slot in call.kwargs if slots[slot] is not MISSING}


def inlined_children(composite: ExecutorHost, levels: Sequence[tuple[int, str]]) -> list[Modules] | None:
    """By number, the children of the levels that a plan has written out.

    None where the call of one is more than its plan by now: it has hooks, a forward of its own, or is compiled.
    """
    if has_global_hooks():
        return None
    tables: list[Any] = [composite._modules["nodes"]._modules]  # type: ignore[union-attr]
    for above, key in levels:
        own = tables[above][key].__dict__
        if own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
            return None
        signed = own.get("_signed")  # None where something stands around the level
        if signed is None or own["forward"] is not signed or own.get("_compiled_call_impl") is not None:
            return None
        tables.append(own["_modules"]["nodes"]._modules)
    return tables


def _hoist(composite: ExecutorHost, step: Hoisted, slots: list[Any], run: RunContext | None) -> None:
    """Asks a node of a loop what it makes of inputs that stay the same in all iterations; what it does not make stays as it is."""
    values = {port: slots[slot] for port, slot in step.inputs if slots[slot] is not MISSING}
    if run is not None and run.options.pause is not None:
        run.options.pause.hoisted[run.path, step.node] = values
    cached = None if run is None else run.options.cache
    if cached is not None and cached.is_on and not cached.in_loop:  # the loop may turn out to be kept
        for port, slot in step.store:
            slots[slot] = Deferred(step, port, values) if port in values else MISSING
        return
    child: Any = composite.nodes._modules[step.key]
    made = {} if run is not None and run.options.is_dry else invariants_of(child, values)
    for port, slot in step.store:
        slots[slot] = made.get(port, values.get(port, MISSING))


# --- loops ------------------------------------------------------------------------------------------------------------


def loop(composite: ExecutorHost, step: Loop, slots: list[Any], run: RunContext | None, active: ActiveCall | None = None) -> None:
    """Goes through a loop's iterations.

    Args:
        composite: whose loop it is.
        step: the loop.
        slots: values of this run.
        run: what it is part of, where it is.
        active: of the walk that came to the loop.
    """
    if step.behind and any(slots[slot] is MISSING for slot, _ in step.behind):
        for slot in step.writes:
            slots[slot] = MISSING
        if run is not None and run.options.callbacks:
            routes = next(routes for slot, routes in step.behind if slots[slot] is MISSING)
            for node in step.nodes:
                run.emit("skip", node, "block", reason=f"its loop lies behind {routes}, which was not taken")
        return
    total = loop_steps(composite, step, run)
    cached = None if run is None else run.options.cache
    if cached is not None and cached.is_on and not cached.in_loop:
        _loop_through_cache(cached, composite, step, slots, run, total)  # type: ignore[arg-type]
        return
    if torch.compiler.is_compiling() and not (step.units or _recomputes(composite)) and scan_loop(composite, step, slots, total, walk):
        for slot in step.iteration_frees:
            slots[slot] = MISSING
        return
    take, body = _iteration_of(composite, step, run)
    if take is walk and active is not None and not torch.compiler.is_compiling():
        take = partial(walk, active=active)
    done, frees = step.done, step.iteration_frees
    pause = None if run is None else run.options.pause
    resumed = None if pause is None else pause.loop_of(run.path)  # type: ignore[union-attr]
    first, skipped = (0, 0) if resumed is None else resumed
    fed_back = []
    for carry in step.carries:
        if resumed is None:
            slots[carry.slot] = slots[carry.start] if carry.start != NONE else MISSING
        fed_back.append((carry.slot, carry.feedback))
    # Without draws, watchers or kept results nobody asks which iteration it is.
    counts = run is not None and (run.key is not None or run.options.is_watched or run.options.results is not None)
    for index in count(first) if total is None else range(first, total):
        if index > first or (index and resumed is None):
            for slot, source in fed_back:  # what is fed back is never itself a carried slot, so the order does not matter
                slots[slot] = slots[source]
            for slot in frees:
                slots[slot] = MISSING
        if counts:
            if run.options.callbacks:  # type: ignore[union-attr]
                run.check(step.node)  # type: ignore[union-attr]
                run.emit("loop", None, composite.level, step=index, total=total)  # type: ignore[union-attr]
            try:
                take(composite, body[skipped:] if skipped and index == first else body, slots, run.iteration(index))  # type: ignore[union-attr]
            except Stopped as stop:
                stop.iteration = index
                raise
        else:
            take(composite, body, slots, run)
        if done and (is_done := _is_done(step, slots)):
            break
    if done and total is not None and total > first and not (run is not None and run.options.is_dry):
        check_end(composite, step, run, index + 1, is_done)
    for slot in frees:
        slots[slot] = MISSING


def _loop_through_cache(
    cached: CachedRun, composite: ExecutorHost, step: Loop, slots: list[Any], run: RunContext, total: int | None
) -> None:
    """The kept result of a loop as a whole, or a loop whose result is kept where it can be."""
    inside = replace(run, options=replace(run.options, cache=replace(cached, in_loop=True)))
    target, where, written = of_loop(composite, step, total), run.where(step.node), written_by(step)

    def make() -> dict[str, Any]:
        made: dict[int, Any] = {}
        for slot in step.reads:
            if type(value := slots[slot]) is Deferred:
                if id(value.values) not in made:
                    made[id(value.values)] = invariants_of(composite.nodes._modules[value.step.key], value.values)
                slots[slot] = made[id(value.values)].get(value.port, value.values[value.port])
        loop(composite, step, slots, inside)
        return {str(index): slots[slot] for index, slot in enumerate(written) if slots[slot] is not MISSING}

    if target is None:
        cached.refuse(where, "the loop depends on more than what flows into it")
        make()
        return
    given = {name: value for name, value in slots_of(step, slots).items() if value is not MISSING}
    key = None if run.key is None else (run.key, run.sample, "loop")
    found = cached.call(where, target, given, key, make)
    for index, slot in enumerate(written):
        slots[slot] = found.get(str(index), MISSING)


def _iteration_of(composite: ExecutorHost, step: Loop, run: RunContext | None) -> tuple[Walk, Any]:
    """What goes through a loop's body, and the body as that takes it: the walk, the compiled body, either recomputed for gradients."""
    if run is not None and run.options.pause is not None:
        return walk, step.body
    if step.units:
        return walk_async, step.units
    if run is not None and run.options.is_watched:
        body: Any = step.body
    else:
        body = step.fast_body
    if run is not None and run.options.is_dry:
        return walk, body
    take: Walk = walk
    if composite.loop_compiler is not None and not torch.compiler.is_compiling():
        take = composite.loop_compiler.body(composite, step, walk)
    if take is not walk:
        body = step.body
    if _recomputes(composite):
        take, body = Recomputed(composite, step, take), step.body
    return take, body


def _recomputes(composite: ExecutorHost) -> bool:
    return bool(composite.metadata.get("gradient_checkpointing")) and torch.is_grad_enabled()


def _is_done(step: Loop, slots: list[Any]) -> bool:
    for slot in step.done:
        done = slots[slot]
        if done is not False and bool(done.all() if isinstance(done, Tensor) else done):
            return True
    return False


# --- where something failed -------------------------------------------------------------------------------------------


def _locate(error: BaseException, step: Step | Chain | None, composite: ExecutorHost) -> None:
    """Notes the node that failed; inside a loop, or a level below, the path is longer by then."""
    if isinstance(step, (Chain, Loop)) or step is None:  # noted already
        return
    below = isinstance(step, Call) and not step.level and is_level(composite.nodes[step.node])
    locate(error, step.node, below=below)


def _note_stop(stop: Stopped, step: Any, children: Modules, slots: list[Any]) -> None:
    """Leaves what a node gave that the run stops after, and notes the step on the way up."""
    is_done = stop.result is not MISSING
    if is_done:
        store_outputs(step, stop.result, children[step.key], slots)
        for slot in step.frees:
            slots[slot] = MISSING
        stop.result = MISSING
    stop.trail.append((step, is_done))


walk_async = partial(async_walk.walk_async, walk)
