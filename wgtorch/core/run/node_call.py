"""One call of one node, with everything that surrounds it: condition, watching, map, kept results, adapter, draws, detached use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from inspect import iscoroutine
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from wgtorch.core import adapter_hook
from wgtorch.core.errors import MissingInputError, PortError
from wgtorch.core.plan import LEVEL, Call
from wgtorch.core.plan.routes import apart
from wgtorch.core.port import MISSING
from wgtorch.core.run import background
from wgtorch.core.run.active_call import ActiveCall, enter_call, leave_call
from wgtorch.core.run.cached_call import CachedRun, NotedRng, note_draw, of_level, of_node, why_not
from wgtorch.core.run.call_outputs import outputs_of
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.debug import Snapshot
from wgtorch.core.run.detached_twin import call_detached
from wgtorch.core.run.events import Event
from wgtorch.core.run.joined_runs import Arrival, takes_several
from wgtorch.core.run.mapped_call import call_mapped
from wgtorch.core.run.pause import Stopped
from wgtorch.core.run.result_cache import ResultCache
from wgtorch.core.run.retry import call_again
from wgtorch.core.run.rng import GLOBAL_RNG, mix, name_key
from wgtorch.core.run.thread_context import SteppedHere
from wgtorch.core.signature import copy_containers
from wgtorch.core.structure import Edge, Exposed, Node
from wgtorch.core.tree import is_level


class ExecutorHost(Protocol):
    """What the executor needs of a composite."""

    level: ClassVar[str]
    _modules: dict[str, nn.Module | None]
    metadata: dict[str, Any]
    loop_compiler: Any
    """Compiles loops, where that was asked for."""

    @property
    def nodes(self) -> Any:
        """Children by node id."""

    @property
    def node_specs(self) -> Mapping[str, Node]:
        """What is true of each node's place."""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Edges between nodes."""

    @property
    def exposed_inputs(self) -> tuple[Exposed, ...]:
        """Inputs from outside."""

    def skip_reason(self, node: Node, run: RunContext | None) -> str | None:
        """Why a node is to be skipped now, or None."""


def call_node(composite: ExecutorHost, call: Call, slots: list[Any], run: RunContext | None) -> Any:
    """Calls a node with everything that its place and the run ask for; MISSING when it was skipped."""
    child, node = composite.nodes._modules[call.key], composite.node_specs[call.node]
    if node.condition is not None and (reason := composite.skip_reason(node, run)) is not None:
        if run is not None and run.options.callbacks:
            run.emit("skip", call.node, _level(child), reason=reason)
        return MISSING
    values = {name: slots[slot] for name, slot in call.inputs if slots[slot] is not MISSING}
    for name, value in node.inputs.items():
        if name not in values:
            values[name] = copy_containers(value)
    pause = None if run is None else run.options.pause
    if pause is not None:
        values |= pause.given(run, call.node)
    if call.behind and (reason := _not_taken(composite, call, values)):
        if run is not None and run.options.callbacks:
            run.emit("skip", call.node, _level(child), reason=reason)
        return MISSING
    if pause is not None and pause.stops(run, call.node, before=True):
        raise Stopped
    for name in call.required:
        if name not in values:
            raise MissingInputError(f"{call.node}.{name}: required, but no value arrived from {_sources(composite, call.node, name)}")
    make = _maker(run, node, call)
    if node.map:
        make = partial(call_mapped, make)
    if run is None or not (run.options.callbacks or run.options.debug):
        result = make(node, child, call, values, run)
        if call.routes:
            result = outputs_of(call, result, child)
            _check_routes(call, child, result)
        if pause is not None and pause.stops(run, call.node, before=False):
            raise Stopped(outputs_of(call, result, child))
        return result
    root, path, level = run.options.root, run.where(call.node), _level(child)
    run.tell(Event("start", path, level, values, root=root))
    started = time.perf_counter()
    try:
        snapshot = Snapshot(path, values, child.get_input_spec(), node.map) if run.options.debug else None
        outputs = outputs_of(call, make(node, child, call, values, run), child)
        if call.routes:
            _check_routes(call, child, outputs)
        if snapshot is not None:
            snapshot.check(outputs, child.get_output_spec())
    except Exception as error:
        run.tell(Event("error", path, level, values, elapsed=time.perf_counter() - started, error=error, root=root))
        raise
    run.tell(Event("end", path, level, values, outputs, elapsed=time.perf_counter() - started, root=root))
    if pause is not None and pause.stops(run, call.node, before=False):
        raise Stopped(outputs)
    return outputs


def _not_taken(composite: ExecutorHost, call: Call, values: Mapping[str, Any]) -> str:
    """Why a node is skipped: the route that was not taken; empty where nothing that it needs is missing.

    Raises:
        MissingInputError: it needs values of two routes of one router, one of which came.
    """
    behind = dict(call.behind)
    missing = [name for name in call.required if name not in values]
    if not missing or not all(name in behind for name in missing):
        return ""
    for name in missing:
        for other, routes in behind.items():
            if other in values and (pair := apart(behind[name], routes)) is not None:
                (router, route), (_, taken) = pair
                raise MissingInputError(
                    f"{call.node}.{name}: required, but it lies behind {router}.{route}, which was not taken, while {call.node}.{other} "
                    f"came by {router}.{taken}; join what the two bring in one port with aggregation 'first', or make the port optional"
                )
    named = ", ".join(f"{router}.{route}" for router, route in sorted(behind[missing[0]]))
    return f"{call.node}.{missing[0]} lies behind {named}, which was not taken"


def _check_routes(call: Call, child: nn.Module, outputs: Mapping[str, Any]) -> None:
    """Refuses a router that gave none of its routes.

    Raises:
        PortError: names the routes.
    """
    if not is_level(child) and not any(route in outputs for route in call.routes):
        raise PortError(f"{call.node}: gave none of its routes {list(call.routes)}; expected at least one, of which the rest is skipped")


def call_told(run: RunContext, call: Call, child: nn.Module, slots: list[Any]) -> Any:
    """Calls a node that needs nothing but values, and tells callbacks."""
    if call.arg_slot >= 0:
        values = {call.inputs[0][0]: slots[call.arg_slot]}
    else:
        values = {name: slots[slot] for name, slot in call.inputs if slots[slot] is not MISSING}
    options, level = run.options, "block"
    root, path, callbacks = options.root, run.where(call.node) if run.path else call.node, options.callbacks
    event = Event("start", path, level, values, None, None, None, None, None, None, root)
    for callback in callbacks:
        callback(event)
    started = time.perf_counter()
    try:
        if call.arg_slot >= 0:
            result = child(slots[call.arg_slot])
        elif call.kwargs:
            args, named = _by_position(call, values)
            result = child(*args, **named)
        else:
            result = child(*[slots[slot] for slot in call.args])
        outputs = {call.out_port: result} if type(result) is Tensor and call.out_port else outputs_of(call, result, child)
    except Exception as error:
        run.tell(Event("error", path, level, values, elapsed=time.perf_counter() - started, error=error, root=root))
        raise
    event = Event("end", path, level, values, outputs, None, None, time.perf_counter() - started, None, None, root)
    for callback in callbacks:
        callback(event)
    return outputs


def _sources(composite: ExecutorHost, node_id: str, port: str) -> str:
    names = [
        f"{e.source_node}.{e.source_port} (skipped, or gave no such output)"
        for e in composite.edges
        if (e.target_node, e.target_port) == (node_id, port)
    ]
    told = "for the first iteration" if names else "not given"
    names += [f"input {e.name!r} ({told})" for e in composite.exposed_inputs if (e.node_id, e.port_name) == (node_id, port)]
    return " or ".join(names) or "anywhere"


def _maker(run: RunContext | None, node: Node, call: Call) -> Callable[..., Any]:
    """What makes the calls of a node: the call alone, where neither the run nor the place has anything to put around it."""
    if node.retry is not None and not torch.compiler.is_compiling():
        return _retried
    return _called if run is not None and (run.options.is_surrounded or (call.is_async and run.options.results)) else _made


def _retried(node: Node, child: nn.Module, call: Call, values: dict[str, Any], run: RunContext | None, item: int | None = None) -> Any:
    """One call of a child, made again when it fails."""
    make = partial(_made if run is None else _called, node, child, call, values, run, item)
    assert node.retry is not None
    return call_again(make, node.retry, run, node.node_id, _level(child))


def _called(node: Node, child: nn.Module, call: Call, values: dict[str, Any], run: RunContext | None, item: int | None = None) -> Any:
    """One call of a child, with the place's adapter around it, as a detached use where the place is frozen.

    A result that was kept from a try before is given in its place.
    """
    results: ResultCache | None = None
    key: tuple[Any, ...] = ()
    if run is not None:
        if run.options.is_dry and hasattr(child, "dry"):
            return child.dry(**values)  # type: ignore[operator]
        if call.is_async and run.options.results is not None and _is_whole(child, call, run):
            results = run.options.results
            draws = child.wants_rng or child.uses_global_rng
            key = (run.key if draws else None, *run.path, node.node_id, run.iterations, run.sample, item)
            if node.adapter is not None:
                key = (*key, repr(node.adapter))
    if results is not None and (known := results.find(key, child, values)) is not MISSING:
        _tell_whole(run, node, child, outputs_of(call, known, child))  # type: ignore[arg-type]
        return known
    cached = None if run is None else run.options.cache
    try:
        if cached is not None and cached.is_on:
            result = _through_cache(cached, node, child, call, values, run, item)  # type: ignore[arg-type]
        else:
            result = _joined(node, child, call, values, run, item)
    except Exception:
        if results is not None:
            results.has_failed = True
        raise
    if results is not None:
        results.keep(key, child, values, result)
    return result


def _is_whole(child: Any, call: Call, run: RunContext) -> bool:
    """True for a call whose result may be kept as it is: of a block, or of a level elsewhere all of whose outputs are asked for."""
    if torch.is_grad_enabled() or (call.needs & LEVEL and not child.remote):
        return False
    return not call.needs & LEVEL or (run.wanted is None and not run.feeds)


def _through_cache(
    cached: CachedRun, node: Node, child: nn.Module, call: Call, values: dict[str, Any], run: RunContext, item: int | None
) -> Any:
    """The kept result of a call, or a call whose result is kept where it can be."""
    make = partial(_joined, node, child, call, values, run, item)
    if reason := why_not(child):
        cached.refuse(run.where(node.node_id), reason)
        return make()
    below = bool(call.needs & LEVEL)
    if cached.in_loop and (below or not call.is_async):
        return make()
    if not below:
        target = of_node(node, child)
    elif not run.wanted and not run.feeds:
        target = of_level(child, node, run.num_loop_steps)  # type: ignore[assignment]
    else:
        target = None  # type: ignore[assignment]
    if target is None:
        return make()
    key = None if run.key is None else (mix(run.key, name_key(node.node_id)), run.sample, item)
    is_made = False

    def made() -> dict[str, Any]:
        nonlocal is_made
        is_made = True
        return outputs_of(call, make(), child)

    found = cached.call(run.where(node.node_id), target, values, key, made)
    if not is_made:
        _tell_whole(run, node, child, found)
    return found


def _tell_whole(run: RunContext, node: Node, child: Any, outputs: dict[str, Any]) -> None:
    """Tells who listens of each text of a result that was kept as one chunk, where the block tells of parts of it."""
    emit = run.emitter(node.node_id) if getattr(child, "wants_stream", False) else None
    if emit is not None:
        for name, value in outputs.items():
            for index, text in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(text, str):
                    emit(**{name: text, "index": index})


def _joined(node: Node, child: nn.Module, call: Call, values: dict[str, Any], run: RunContext | None, item: int | None) -> Any:
    """The call, as one with those of other items of a batch where the block takes several samples."""
    alone = run is None or run.options.batch is None or run.options.rng is not None  # generators that callers own are each item's own
    if alone or call.is_async or call.needs & LEVEL or not takes_several(child):
        return _made(node, child, call, values, run, item)
    assert run is not None
    joined, number = run.options.batch
    place = (run.path, node.node_id, run.sample, item)
    result = joined.call(Arrival(number, child, place, values, run, partial(_made, node, child, call, item=item)))
    if child.wants_rng or child.uses_global_rng:
        note_draw()  # another item may have made the call
    return result


def _made(node: Node, child: nn.Module, call: Call, values: dict[str, Any], run: RunContext | None, item: int | None = None) -> Any:
    """The call itself, with its adapter, its draws and its own context."""
    args: tuple[Any, ...] = ()
    if call.needs & LEVEL:
        if run is not None:
            values = {**values, "run_context": run.child(node.node_id, item=item, exposed=tuple([port for port, _ in call.store]))}
    else:
        args, values = _by_position(call, values)
        if run is not None and getattr(child, "wants_stream", False):
            values = {**values, "stream": run.emitter(node.node_id)}
        if getattr(child, "wants_rng", False):
            rng = GLOBAL_RNG if run is None else run.rng(node.node_id, item=item)
            if run is not None and run.options.cache is not None:
                if run.options.rng is None:
                    rng = NotedRng.of_rng(rng)
                else:
                    note_draw()  # from the caller's own generator, which follows no key
            values = {**values, "rng": rng}
    token = None if run is None or torch.compiler.is_compiling() else enter_call(ActiveCall(run, call, item))
    try:
        frozen = not node.trainable and torch.is_grad_enabled()
        with adapter_hook.hook.context(node.adapter, child, node.node_id, item) or _NOTHING:
            result = call_detached(child, args, values) if frozen else child(*args, **values)
        if iscoroutine(result):
            result = background.submit(SteppedHere(result)).result()
    finally:
        if token is not None:
            leave_call(token)
    return result


_NOTHING = nullcontext()


def _by_position(call: Call, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """By position what the walk passes by position, so that hooks are told the same however a level is called."""
    first = [name for name, _ in call.inputs[: len(call.args)]]
    if not first or not all(name in values for name in first):
        return (), values
    return tuple([values[name] for name in first]), {name: value for name, value in values.items() if name not in first}


def _level(child: nn.Module) -> str:
    return str(child.level) if is_level(child) else "block"
