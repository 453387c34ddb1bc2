"""Loop bodies as functions of values: what ``torch.compile`` compiles once, for a loop to call in every turn.

A turn is cut into parts: segments that are compiled whole, and between them nodes that cannot be. Whatever changes from turn
to turn and is no tensor would be compiled into the code, anew for each turn. So numbers that travel around the loop enter a
segment as tensors, and a node that keeps more than numbers says before the turn what of it is tensors (:class:`Foresees`).

    slots --> before_turn --> [ segment: backbone, guidance, solver ] --> finish --> slots
"""

from __future__ import annotations

import copy
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from wgtorch.core.plan import NONE, Call, Loop, Plan, Step
from wgtorch.core.port import ABSENT
from wgtorch.core.run.context import Run
from wgtorch.core.run.node_call import Walked
from wgtorch.core.run.rng import GLOBAL_RNG, Rng, seeded_global

Walk = Callable[[Walked, Sequence[Step], list[Any], Run | None], None]


class Ahead(NamedTuple):
    """What a node knows of its turn before the turn.

    Args:
        given: what its ``turn_port`` is fed in the compiled segment: tensors, in tuples or not, of the same shapes in every turn.
        finish: told what the segment gave for the node's outputs that are read; returns those that are to be replaced by
            what does not belong into compiled code (plain numbers, objects).
    """

    given: Any
    finish: Callable[[Mapping[str, Any]], Mapping[str, Any]]


@runtime_checkable
class Foresees(Protocol):
    """A block whose turns in a loop differ by more than numbers and tensors, as a solver's do.

    Attributes:
        turn_port: the input that is fed what is known ahead, in place of what travels around the loop.
        turn_needs: inputs that must be there before the turn.
    """

    turn_port: str
    turn_needs: tuple[str, ...]

    def before_turn(self, inputs: Mapping[str, Any], rng: Rng) -> Ahead:
        """What is known of a turn: from the inputs that are there before it, by port."""


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

    def body(self, composite: Walked, loop: Loop, walk: Walk) -> LoopBody:
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
    """One turn of a loop, compiled in as few segments as its nodes allow.

    Args:
        composite: whose loop it is.
        loop: the step of its plan.
        walk: walks steps over slots.
        options: for ``torch.compile``; None where the loop is part of something that is being compiled itself.
    """

    def __init__(self, composite: Walked, loop: Loop, walk: Walk, options: Mapping[str, Any] | None) -> None:
        self.loop, self.walk = loop, walk  # holds the loop, so that its id is not given away
        self.parts = tuple(
            part if isinstance(part, Segment) else (part,) for part in _cut(composite, loop, walk, lambda f: _compiled(f, options))
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> LoopBody:
        """The same for a copied composite: the loop is its own, and what is compiled knows of no composite."""
        made = object.__new__(LoopBody)
        made.loop, made.walk, made.parts = copy.deepcopy(self.loop, memo), self.walk, self.parts
        return made

    def __reduce__(self) -> Any:
        return _unpickled, ()

    def in_regions(self) -> bool:
        """True when a body that is part of what is being compiled may be a region of its own, compiled once.

        Inductor of PyTorch 2.13 gives wrong gradients where a region is used again: the backward of the whole may give memory
        away that the region's still reads (https://github.com/pytorch/pytorch/pull/192840). So with gradients a loop is unrolled,
        unless ``torch._functorch.config.donated_buffer`` says that no memory is given away.
        """
        return not torch.is_grad_enabled() or not torch._functorch.config.donated_buffer

    def __call__(self, composite: Walked, steps: Sequence[Step], slots: list[Any], run: Run | None) -> None:
        for part in self.parts:
            if isinstance(part, Segment):
                part(composite, slots, run)
            else:
                self.walk(composite, part, slots, run)


def _unpickled() -> None:
    """What a body is pickled as: compiled code is not, so a composite from a pickle is unrolled until it plans anew."""


def has_loops(plan: Plan) -> bool:
    """True when some node of a plan is run in turns."""
    return any(isinstance(step, Loop) for step in plan.steps)


def _compiled(function: Callable[..., Any], options: Mapping[str, Any] | None) -> Callable[..., Any]:
    if options is None:
        return torch.compiler.nested_compile_region(_apart(function))
    # Compiled code is kept, and its recompilations counted, by code object: each body gets one of its own.
    own = types.FunctionType(
        function.__code__.replace(co_name="loop_body"), function.__globals__, "loop_body", function.__defaults__, function.__closure__
    )
    return torch.compile(own, **options)


def _apart(function: Callable[..., Sequence[Any]]) -> Callable[..., tuple[Any, ...]]:
    """The function with outputs in memory of their own, as a region has to give them."""

    def apart(composite: Walked, values: dict[int, Any]) -> tuple[Any, ...]:
        return tuple([tree_map_only(Tensor, torch.clone, value) for value in function(composite, values)])

    return apart


@dataclass(frozen=True)
class Foreseen:
    """A node of a segment that is asked before the turn."""

    call: Call
    slot: int
    asked: tuple[tuple[str, int], ...]
    """(port, slot) of the inputs that are there before the turn."""


@dataclass(frozen=True)
class Segment:
    """Steps that are compiled as one.

    Args:
        function: of the composite, and by slot the values of ``reads`` and what is foreseen; gives those of ``writes``.
        plain: the same, not compiled on its own.
        reads: slots.
        writes: slots.
        frees: slots that nobody reads after it.
        foreseen: nodes that are asked before the turn.
        moving: those of ``reads`` that may differ from turn to turn.
        numbers: those of ``reads`` that only go to ports that take numbers.
        drawing: the node whose key seeds PyTorch's generator, where some node may draw from it.
    """

    function: Callable[..., Sequence[Any]]
    plain: Callable[..., Sequence[Any]]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    frees: tuple[int, ...]
    foreseen: tuple[Foreseen, ...]
    moving: frozenset[int]
    numbers: frozenset[int]
    drawing: str | None

    def __call__(self, composite: Walked, slots: list[Any], run: Run | None) -> None:
        """One turn of it."""
        # What is absent is left out, not passed: which values are there is then compiled in.
        values = {slot: slots[slot] for slot in self.reads if slots[slot] is not ABSENT}
        for slot in self.moving:
            if slot in values:
                values[slot] = _steady(values[slot])
        for slot in self.numbers:
            if slot in values:
                values[slot] = _number(values[slot], slot in self.moving)
        aheads = []
        for node in self.foreseen:
            child = composite.nodes._modules[node.call.key]
            inputs = {port: slots[slot] for port, slot in node.asked if slots[slot] is not ABSENT}
            rng = GLOBAL_RNG if run is None else run.rng(node.call.node)
            ahead = child.before_turn(inputs, rng)
            aheads.append(ahead)
            values[node.slot] = ahead.given
        for slot in self.frees:
            slots[slot] = ABSENT
        results = self._result(composite, values, run)
        for slot, value in zip(self.writes, results, strict=True):
            slots[slot] = value
        for node, ahead in zip(self.foreseen, aheads, strict=True):
            store = dict(node.call.store)
            for port, value in ahead.finish({port: slots[slot] for port, slot in store.items()}).items():
                if port in store:
                    slots[store[port]] = value

    def _result(self, composite: Walked, values: dict[int, Any], run: Run | None) -> Sequence[Any]:
        if torch.compiler.is_compiling():
            # What differs from turn to turn and is no tensor would make a region of its own for each: then the loop is unrolled.
            alike = all(_is_tensors(values[slot]) for slot in self.moving if slot in values)
            return (self.function if alike else self.plain)(composite, values)
        seeded: Any = nullcontext()
        if self.drawing is not None and run is not None and run.seed is not None:
            seeded = seeded_global(run.rng(self.drawing))
        try:
            with seeded:
                return self.function(composite, values)
        except Exception as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                error.add_note(
                    "raised while compiling a loop's body, as compile() has asked for. The default backend needs a C++ compiler on a CPU; "
                    "compile(backend='aot_eager') does without. A block that cannot be compiled says compiles = False"
                )
            raise


def _is_tensors(value: Any) -> bool:
    """True for a tensor, and for tuples and lists of them."""
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and all(_is_tensors(item) for item in value))


def _steady(value: Any) -> Any:
    """A value laid out as in every other turn."""
    return value.contiguous() if isinstance(value, Tensor) else value


def _number(value: Any, is_moving: bool) -> Any:
    """A number as a tensor, so that it is not compiled in. Whole numbers that stay as they are (how often, which) are."""
    if type(value) is float:
        return torch.tensor(value, dtype=torch.float64)
    return torch.tensor(value) if is_moving and type(value) is int else value


# --- cutting a turn ---------------------------------------------------------------------------------------------------


def _cut(composite: Walked, loop: Loop, walk: Walk, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[Segment | Step]:
    parts: list[list[Step] | Step] = []
    fresh: set[int] = set()  # slots that the segment at hand fills
    for step in loop.body:
        if _stays_out(composite, step, fresh):
            parts.append(step)
            fresh = set()
            continue
        if not fresh or not isinstance(parts[-1], list):
            parts.append([])
        parts[-1].append(step)  # type: ignore[union-attr]
        fresh |= set(step.writes)
    moving = {carry.slot for carry in loop.carries} | set(loop.writes)
    kept = set(loop.writes) - {slot for step in loop.body for slot in step.frees}
    found: list[Segment | Step] = []
    for index, part in enumerate(parts):
        if isinstance(part, list):
            after = {
                slot for other in parts[index + 1 :] for step in (other if isinstance(other, list) else (other,)) for slot in step.reads
            }
            found.append(_segment(composite, part, kept | after, moving, walk, compiled))
        else:
            found.append(part)
    return found


def _stays_out(composite: Walked, step: Step, fresh: set[int]) -> bool:
    """True for what is called as it is: it waits, cannot be traced, or has to know what the turn has not given yet."""
    if not isinstance(step, Call):
        return step.is_async
    child = composite.nodes._modules[step.key]
    if step.is_async or not getattr(child, "compiles", True):
        return True
    if isinstance(child, Foresees):
        slots = dict(step.inputs)
        return any(name not in slots or slots[name] in fresh for name in (*child.turn_needs, *({child.turn_port} & set(slots))))
    return bool(getattr(child, "wants_rng", False))


def _segment(
    composite: Walked,
    steps: list[Step],
    needed: set[int],
    moving: set[int],
    walk: Walk,
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Segment:
    own = {slot for step in steps for slot in step.writes}
    size = 1 + max(slot for step in steps for slot in (*step.reads, *step.writes, *step.frees))
    foreseen, body = [], []
    for step in steps:
        child = composite.nodes._modules[step.key] if isinstance(step, Call) else None
        if isinstance(step, Call) and isinstance(child, Foresees):
            asked = tuple((port, slot) for port, slot in step.inputs if slot not in own)
            foreseen.append(Foreseen(step, size, asked))
            step = _fed(step, child.turn_port, size)
            size += 1
        body.append(replace(step, frees=()))
    extra = tuple(node.slot for node in foreseen)
    reads = tuple(sorted({slot for step in body for slot in step.reads} - own - set(extra)))
    writes = tuple(sorted(own & needed))

    def function(composite: Walked, values: dict[int, Any]) -> tuple[Any, ...]:
        slots: list[Any] = [ABSENT] * size
        for slot, value in values.items():
            slots[slot] = value
        walk(composite, body, slots, None)
        return tuple([slots[slot] for slot in writes])

    numbers = _numbers(composite, body)
    draws = [s.node for s in body if isinstance(s, Call) and getattr(composite.nodes._modules[s.key], "uses_global_rng", False)]
    return Segment(
        function=compiled(function),
        plain=function,
        reads=reads,
        writes=writes,
        frees=tuple(slot for step in steps for slot in step.frees if slot not in writes),
        foreseen=tuple(foreseen),
        moving=frozenset(moving) & set(reads),
        numbers=frozenset(numbers) & set(reads),
        drawing=draws[0] if draws else None,
    )


def _fed(step: Call, port: str, slot: int) -> Call:
    """The call with one of its inputs read from another slot."""
    names = [name for name, _ in step.inputs]
    inputs = [(name, slot if name == port else old) for name, old in step.inputs]
    if port not in names:
        inputs.append((port, slot))
    args = tuple(old for _, old in inputs[: len(step.args)])
    return replace(step, inputs=tuple(inputs), args=args, kwargs=tuple(inputs[len(args) :]), one=NONE)


def _numbers(composite: Walked, steps: Sequence[Step]) -> set[int]:
    """Slots that are only read by ports that take numbers."""
    takes: dict[int, bool] = {}
    for step in steps:
        spec = composite.nodes[step.node].get_input_spec() if isinstance(step, Call) else {}
        for port, slot in step.inputs if isinstance(step, Call) else [("", slot) for slot in step.reads]:
            takes[slot] = takes.get(slot, True) and port in spec and spec[port].dtype == "number"
    return {slot for slot, only in takes.items() if only}
