"""Loops in compiled code: a loop's body is compiled once, whatever the number of iterations.

``compile()`` of a composite compiles the body in segments, which the executor calls in every iteration. Between them stand nodes that
cannot be compiled, and those that need not be (a solver's few operations, whose counters stay Python's).

Where the composite is itself part of what ``torch.compile`` takes, the loop becomes one operation (``scan``), whose body is traced once;
gradients pass through it. What travels around the loop is then tensors alone.

    carried values --> [ body: backbone, guidance, solver ] --> carried values
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from wgtorch.core.model_memory import in_use
from wgtorch.core.plan import NONE, Call, Loop, Plan, Step
from wgtorch.core.port import MISSING
from wgtorch.core.run.active_call import ActiveCall, enter_call, leave_call
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.node_call import ExecutorHost

Walk = Callable[[ExecutorHost, Sequence[Step], list[Any], RunContext | None], None]


class LoopCompiler:
    """How one composite's loops are compiled, and what has been. Belongs to one instance: a copy compiles for itself."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self._bodies: dict[int, LoopBody] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> LoopCompiler:
        return LoopCompiler(self.options)

    def __reduce__(self) -> Any:
        return LoopCompiler, (self.options,)

    def body(self, composite: ExecutorHost, loop: Loop, walk: Walk) -> LoopBody:
        """The compiled body of a loop."""
        with self._lock:
            found = self._bodies.get(id(loop))
            if found is None:
                found = self._bodies[id(loop)] = LoopBody(composite, loop, walk, self.options)
            return found

    def forget(self) -> None:
        """Drops what was compiled: the structure has changed."""
        with self._lock:
            self._bodies = {}


class LoopBody:
    """One iteration of a loop, compiled in as few segments as its nodes allow.

    Args:
        composite: whose loop it is.
        loop: the step of its plan.
        walk: walks steps over slots.
        options: for ``torch.compile``.
    """

    def __init__(self, composite: ExecutorHost, loop: Loop, walk: Walk, options: Mapping[str, Any]) -> None:
        self.loop = loop  # held, so that its id is not given away
        self.walk = walk
        self.parts = tuple(part if isinstance(part, Segment) else (part,) for part in _cut(composite, loop, walk, options))

    def __call__(self, composite: ExecutorHost, steps: Sequence[Step], slots: list[Any], run: RunContext | None) -> None:
        for part in self.parts:
            if isinstance(part, Segment):
                part(composite, slots, run)
            else:
                self.walk(composite, part, slots, run)


def has_loops(plan: Plan) -> bool:
    """True when some node of a plan is run in iterations."""
    return any(isinstance(step, Loop) for step in plan.steps)


def _compiled(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    # Compiled code is kept, and its recompilations counted, by code object: each body gets one of its own.
    own = types.FunctionType(
        function.__code__.replace(co_name="loop_body"), function.__globals__, "loop_body", function.__defaults__, function.__closure__
    )
    return torch.compile(own, **options)


@dataclass(frozen=True)
class Segment:
    """Steps that are compiled as one.

    Args:
        function: of the composite, and by slot the values of ``reads``; gives those of ``writes``.
        reads: slots.
        writes: slots.
        frees: slots that nobody reads after it.
        moving: those of ``reads`` that may differ from iteration to iteration.
        numbers: those of ``reads`` that only go to ports that take numbers.
        drawing: the call by whose key the draws of all its nodes are made, where some node may draw without asking.
        nodes: keys of the nodes that are called in it.
    """

    function: Callable[..., Sequence[Any]]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    frees: tuple[int, ...]
    moving: frozenset[int]
    numbers: frozenset[int]
    drawing: Call | None
    nodes: tuple[str, ...] = ()

    def __call__(self, composite: ExecutorHost, slots: list[Any], run: RunContext | None) -> None:
        """One iteration of it."""
        # What is absent is left out, not passed: which values are there is then compiled in.
        values = {slot: slots[slot] for slot in self.reads if slots[slot] is not MISSING}
        for slot in self.moving:
            if slot in values:
                values[slot] = _steady(values[slot])
        for slot in self.numbers:
            if slot in values:
                values[slot] = _number(values[slot], slot in self.moving)
        for slot in self.frees:
            slots[slot] = MISSING
        results = self._result(composite, values, run)
        for slot, value in zip(self.writes, results, strict=True):
            slots[slot] = value

    def _result(self, composite: ExecutorHost, values: dict[int, Any], run: RunContext | None) -> Sequence[Any]:
        token = None if run is None or self.drawing is None else enter_call(ActiveCall(run, self.drawing))
        children = composite.nodes._modules
        try:
            with in_use([children[key] for key in self.nodes]) as results:
                results.append(found := self.function(composite, values))
                return found
        except Exception as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                error.add_note(
                    "raised while compiling a loop's body, as compile() has asked for. The default backend needs a C++ compiler on a CPU; "
                    "compile(backend='aot_eager') does without. A block that cannot be compiled says compiles = False"
                )
            raise
        finally:
            if token is not None:
                leave_call(token)


def _steady(value: Any) -> Any:
    """A value laid out as in every other iteration."""
    return value.contiguous() if isinstance(value, Tensor) else value


def _number(value: Any, is_moving: bool) -> Any:
    """A number as a tensor, so that it is not compiled in. Whole numbers that stay as they are (how often, which) are."""
    if type(value) is float:
        return torch.tensor(value, dtype=torch.float64)
    return torch.tensor(value) if is_moving and type(value) is int else value


# --- cutting an iteration ---------------------------------------------------------------------------------------------


def _cut(composite: ExecutorHost, loop: Loop, walk: Walk, options: Mapping[str, Any]) -> list[Segment | Step]:
    parts = [(stays_out, list(steps)) for stays_out, steps in groupby(loop.body, partial(_stays_out, composite))]
    moving = {carry.slot for carry in loop.carries} | set(loop.writes)
    live = set(loop.writes) - {slot for step in loop.body for slot in step.frees}
    found: list[Segment | Step] = []
    for index, (stays_out, steps) in enumerate(parts):
        after = {slot for _, others in parts[index + 1 :] for step in others for slot in step.reads}
        found += steps if stays_out else [_segment(composite, steps, live | after, moving, walk, options)]
    return found


def _stays_out(composite: ExecutorHost, step: Step) -> bool:
    """True for what is called as it is: it waits, cannot be traced, draws in Python, or says that it is better left out."""
    if not isinstance(step, Call):
        return step.is_async
    child = composite.nodes._modules[step.key]
    draws = any(getattr(part, "wants_rng", False) for part in child.modules())  # a level has no rng of its own, what is in it may
    stays_in = getattr(child, "compiles", True) and getattr(child, "compiles_alone", True) and not draws
    return step.is_async or not stays_in or bool(step.routes or step.behind)  # which is called depends on values


def _segment(
    composite: ExecutorHost,
    steps: list[Step],
    needed: set[int],
    moving: set[int],
    walk: Walk,
    options: Mapping[str, Any],
) -> Segment:
    own = {slot for step in steps for slot in step.writes}
    size = 1 + max(slot for step in steps for slot in (*step.reads, *step.writes, *step.frees))
    body = [replace(step, frees=()) for step in steps]
    reads = tuple(sorted({slot for step in body for slot in step.reads} - own))
    writes = tuple(sorted(own & needed))

    def function(composite: ExecutorHost, values: dict[int, Any]) -> tuple[Any, ...]:
        slots: list[Any] = [MISSING] * size
        for slot, value in values.items():
            slots[slot] = value
        walk(composite, body, slots, None)
        return tuple([slots[slot] for slot in writes])

    numbers = _numbers(composite, body)
    draws = [s for s in body if isinstance(s, Call) and getattr(composite.nodes._modules[s.key], "uses_global_rng", False)]
    return Segment(
        function=_compiled(function, options),
        reads=reads,
        writes=writes,
        frees=tuple(slot for step in steps for slot in step.frees if slot not in writes),
        moving=frozenset(moving) & set(reads),
        numbers=frozenset(numbers) & set(reads),
        drawing=draws[0] if draws else None,
        nodes=tuple(step.key for step in steps if isinstance(step, Call)),
    )


def _numbers(composite: ExecutorHost, steps: Sequence[Step]) -> set[int]:
    """Slots that are only read by ports that take numbers."""
    takes: dict[int, bool] = {}
    for step in steps:
        spec = composite.nodes[step.node].get_input_spec() if isinstance(step, Call) else {}
        for port, slot in step.inputs if isinstance(step, Call) else [("", slot) for slot in step.reads]:
            takes[slot] = takes.get(slot, True) and port in spec and spec[port].dtype == "number"
    return {slot for slot, only in takes.items() if only}


# --- a loop as one operation ------------------------------------------------------------------------------------------


@runtime_checkable
class Recurrent(Protocol):
    """A block that sends a state of its own around a loop (port ``progress``), and says when the loop ends (port ``done``)."""

    def initial_state(self, latent: Tensor, timestep: Any, progress: Any = None) -> Any:
        """The state before the first iteration, of the same structure as after it."""

    def iterations_left(self, state: Any) -> int:
        """Iterations until ``done``."""


def scan_loop(composite: ExecutorHost, loop: Loop, slots: list[Any], total: int | None, walk: Walk) -> bool:
    """Runs a loop as one operation of the graph that is being traced, its body traced once; False when it has to be unrolled.

    It has to be where something other than tensors and numbers travels around the loop, or changes its shape on the way.

    Args:
        composite: whose loop it is.
        loop: the step of its plan.
        slots: of the run.
        total: iterations, where they are known.
        walk: walks steps over slots.
    """
    children = composite.nodes._modules
    if any(not _is_scannable(children[step.key]) if isinstance(step, Call) else isinstance(step, Loop) for step in loop.body):
        return False
    own = list(slots)
    for carry in loop.carries:
        own[carry.slot] = slots[carry.start] if carry.start != NONE else MISSING
    recurrent = [step for step in loop.body if isinstance(step, Call) and isinstance(children[step.key], Recurrent)]
    ends: dict[int, int] = {}  # slots that say that the loop is done, and after how many iterations they will
    for step in recurrent:
        read = dict(step.inputs)
        needed = [own[read[port]] if port in read else MISSING for port in ("latent", "timestep")]
        if "progress" not in read or any(value is MISSING for value in needed):
            return False
        given = own[read["progress"]]
        state = children[step.key].initial_state(*needed, None if given is MISSING else given)
        own[read["progress"]] = state
        ends[dict(step.store).get("done", NONE)] = children[step.key].iterations_left(state)
    if not set(loop.done) <= set(ends):
        return False
    count = min([ends[slot] for slot in loop.done] + ([] if total is None else [total]))
    if any(left < count for left in ends.values()):  # the solver says what is wrong
        return False
    states = {dict(step.inputs)["progress"] for step in recurrent}
    if not recurrent:  # an iteration by itself shows what travels
        if count < 2:
            return False
        walk(composite, [replace(step, frees=()) for step in loop.body], own, None)
        count -= 1
        before = [slots[carry.start] if carry.start != NONE else MISSING for carry in loop.carries]
        for carry, value in zip(loop.carries, before, strict=True):
            own[carry.slot] = own[carry.feedback]
            if not _is_alike(value, own[carry.slot]):
                return False
    elif any(
        own[carry.slot] is MISSING or not (carry.slot in states or _is_alike(own[carry.slot], own[carry.slot])) for carry in loop.carries
    ):
        return False
    _scan(composite, loop, own, count, walk)
    slots[:] = own
    return True


def _scan(composite: ExecutorHost, loop: Loop, own: list[Any], count: int, walk: Walk) -> None:
    body = [replace(step, frees=()) for step in loop.body]
    fed_back = [(carry.slot, carry.feedback) for carry in loop.carries]
    freed = {slot for step in loop.body for slot in step.frees} | {feedback for _, feedback in fed_back} | set(loop.done)
    seen = [slot for slot in loop.writes if slot not in freed]
    first = [own[slot] for slot, _ in fed_back]

    def iteration(carried: tuple[Tensor, ...], index: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        inner, left = list(own), list(carried)
        for (slot, _), like in zip(fed_back, first, strict=True):
            inner[slot] = _rebuilt(like, left)
        walk(composite, body, inner, None)
        following = [leaf for (_, back), like in zip(fed_back, first, strict=True) for leaf in _leaves(inner[back], like)]
        # What is given has to be in memory of its own.
        return tuple([leaf.clone() for leaf in following]), tuple([torch.as_tensor(inner[slot]).clone() for slot in seen])

    carried, last = scan(iteration, tuple([leaf for value in first for leaf in _leaves(value, value)]), torch.arange(count))
    left = list(carried)
    for (slot, feedback), like in zip(fed_back, first, strict=True):
        own[slot] = own[feedback] = _rebuilt(like, left)
    for slot, values in zip(seen, last, strict=True):
        own[slot] = values[-1]


def _is_scannable(child: Any) -> bool:
    """True for a block that can be traced, and changes no buffer."""
    return (
        getattr(child, "compiles", True)
        and not getattr(child, "routes", ())
        and not any(isinstance(module, nn.modules.batchnorm._NormBase) and module.training for module in child.modules())
    )


def _leaves(value: Any, like: Any) -> list[Tensor]:
    """The tensors in a value that is made as ``like`` is, and where that has numbers, those as float64: ``scan`` differentiates by all."""
    if isinstance(like, Tensor):
        return [value]
    if isinstance(like, (bool, int, float)):
        return [torch.as_tensor(value).double()]
    return [leaf for pair in zip(value, like, strict=True) for leaf in _leaves(*pair)] if isinstance(like, (tuple, list)) else []


def _rebuilt(like: Any, leaves: list[Tensor]) -> Any:
    """A value that is made as ``like`` is, of leaves that are taken from the front of the list; numbers become tensors []."""
    if isinstance(like, Tensor):
        return leaves.pop(0)
    if isinstance(like, (bool, int)):
        return leaves.pop(0).to(torch.bool if isinstance(like, bool) else torch.int64)
    if isinstance(like, float):
        return leaves.pop(0)
    if isinstance(like, (tuple, list)):
        items = [_rebuilt(item, leaves) for item in like]
        return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)
    return like


def _is_alike(before: Any, after: Any) -> bool:
    """True when both are tensors, or tuples and lists of them, of the same shapes; or numbers of the same type."""
    if isinstance(before, Tensor):
        alike = isinstance(after, Tensor) and (before.shape, before.dtype, before.device) == (after.shape, after.dtype, after.device)
        return alike and (before.dtype.is_floating_point or not torch.is_grad_enabled())  # scan's gradients take no other
    if isinstance(before, (tuple, list)):
        return type(before) is type(after) and len(before) == len(after) and all(map(_is_alike, before, after))
    return isinstance(before, (bool, int, float)) and type(before) is type(after)
