"""Runs that stop at a node and go on later: what a stopped run holds, and where it stopped.

A run stops by an exception that climbs from the node to the level that runs. Each level on its way leaves what its slots hold and how
far its plan was walked; going on is walking the rest of each plan over the same slots, the outermost first.

    Stopped   frame of first/t2i: slots, step 3 (the loop), iteration 5, step 1 of its body
              frame of first:     slots, step 0
              frame of the root:  slots, step 2
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from wgtorch.core.errors import PortError, PortTypeError, UnknownNameError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.model_memory import invariants_of
from wgtorch.core.plan import Hoisted, Plan, calls_of
from wgtorch.core.port import MISSING
from wgtorch.core.tree import is_level

Path = tuple[str, ...]


@dataclass(slots=True)
class Frame:
    """How far one level of a stopped run has come.

    Args:
        path: of the level, below the one that runs.
        slots: values by slot.
        step: number of the plan's step that is next, or goes on.
        iteration, inner: where that is a loop that goes on: which iteration, and the step of its body.
        names: slots by what users call them: exposed inputs, and ``node.port`` of outputs.
        ports: of the node that it stopped before, slots by ``node.port`` of its inputs.
        hoisted: by step of the plan, what a node made something of before a loop; ``made`` are the slots of that.
        plan: a digest of the plan that was walked.
        results: of a mapped node in this level whose items were under way, those that are through.
        read: slots that what is left of the run reads; None where nothing tells.
    """

    path: Path
    slots: dict[int, Any]
    step: int
    iteration: int | None
    inner: int | None
    names: dict[str, int]
    ports: dict[str, int]
    hoisted: dict[int, dict[str, Any]]
    plan: str
    made: tuple[int, ...] = ()
    results: list[Any] | None = None
    read: frozenset[int] | None = None

    def is_read(self, slot: int) -> bool:
        """False where nothing that is left of the run reads a slot."""
        return self.read is None or slot in self.read


class Stopped(BaseException):
    """A run comes to the node that it was to stop at.

    Args:
        result: what the node gave, where it stops after it.
    """

    def __init__(self, result: Any = MISSING) -> None:
        super().__init__("the run stops here")
        self.result = result
        self.frames: list[Frame] = []
        self.trail: list[tuple[Any, bool]] = []
        """In the level it climbs through: steps that were under way, the innermost first, and whether they are done."""
        self.iteration: int | None = None
        self.results: list[Any] | None = None

    def leave(self, level: Any, plan: Plan, slots: list[Any], run: Any) -> None:
        """Takes down what a level holds that the run stops in."""
        request = run.options.pause
        outer, is_done = self.trail[-1]
        step = next(index for index, each in enumerate(plan.steps) if each is outer)
        inner = None
        call = self.trail[0][0]
        if len(self.trail) > 1:
            at, is_done_inside = self.trail[0]
            inner = next(index for index, each in enumerate(outer.body) if each is at) + is_done_inside
        else:
            step += is_done
        stops_here = not self.frames and not self.trail[0][1]
        hoisted = {
            index: request.hoisted[run.path, each.node]
            for index, each in enumerate(plan.steps)
            if isinstance(each, Hoisted) and (run.path, each.node) in request.hoisted
        }
        self.frames.append(
            Frame(
                run.path,
                {index: value for index, value in enumerate(slots) if value is not MISSING},
                step,
                self.iteration,
                inner,
                _names(plan),
                {f"{call.node}.{port}": slot for port, slot in call.inputs} if stops_here else {},
                hoisted,
                digest_of_plan(plan),
                tuple([slot for index in hoisted for _, slot in plan.steps[index].store]),  # type: ignore[union-attr]
                self.results,
                _read_later(plan, step, inner, is_inside=not stops_here and not self.trail[0][1] and self.results is None),
            )
        )
        self.trail, self.iteration, self.results = [], None, None


@dataclass(eq=False, slots=True)
class PauseRequest:
    """Where a run is to stop, and where it goes on.

    Args:
        root: the level that runs.
        target: path of the node it stops at; empty where it only goes on.
        is_before: it stops before the node, else after.
        iteration: of the loops around the node; one number is that of the innermost.
        frames: of the run that goes on, the innermost first.
        resumed: path of the node that the run goes on at.
        inputs: of that node, values that take the place of those it would be called with.
        key: of the draws of the run that goes on.
        is_resumed: the run goes on, and did not begin.
    """

    root: Any
    target: Path = ()
    is_before: bool = True
    iteration: int | tuple[int, ...] | None = None
    frames: list[Frame] = field(default_factory=list)
    resumed: Path = ()
    inputs: dict[str, Any] = field(default_factory=dict)
    key: Any = None
    is_resumed: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    hoisted: dict[tuple[Path, str], dict[str, Any]] = field(default_factory=dict)
    taken: dict[Any, Any] = field(default_factory=dict)
    seen: set[tuple[int, ...]] = field(default_factory=set)
    run: Any = None
    was_claimed: bool = False
    skips: bool = False
    loop: tuple[Path, int, int] | None = None
    results: tuple[Path, list[Any]] | None = None

    def begin(self, run: Any) -> Any:
        """The run that starts now, with the draws of the one that goes on."""
        self.run = run
        if self.is_resumed:
            run.key = self.key
        return run

    def stops(self, run: Any, node: str, *, before: bool) -> bool:
        """True where the run stops now."""
        if not self.target or self.target[-1] != node or (*run.path, node) != self.target:
            return False
        if before:
            self.seen.add(run.iterations)
        if before and self.skips:  # it is the call that the run goes on with
            self.skips = False
            return False
        if before is not self.is_before:
            return False
        wanted = self.iteration
        return wanted is None or (run.iterations[-1:] == (wanted,) if isinstance(wanted, int) else run.iterations == wanted)

    def frame_of(self, path: Path) -> Frame | None:
        """The frame of a level that goes on; it is taken from those that are left."""
        if self.frames and self.frames[-1].path == path:
            return self.frames.pop()
        return None

    def given(self, run: Any, node: str) -> dict[str, Any]:
        """Inputs that the first call of the node where the run goes on has in place of its own."""
        if not self.inputs or (*run.path, node) != self.resumed:
            return {}
        inputs, self.inputs = self.inputs, {}
        return inputs

    def loop_of(self, path: Path) -> tuple[int, int] | None:
        """The iteration and the step of its body at which the loop of a level goes on."""
        if self.loop is None or self.loop[0] != path:
            return None
        _, iteration, inner = self.loop
        self.loop = None
        return iteration, inner

    def results_of(self, path: Path) -> list[Any]:
        """Results of those items of a mapped node that were through when the run stopped."""
        if self.results is None or self.results[0] != path:
            return []
        found, self.results = self.results[1], None
        return list(found)


_request: ContextVar[PauseRequest | None] = ContextVar("where the run that starts next is to stop", default=None)


def claim_request() -> PauseRequest | None:
    """What was asked of the run that starts now; runs inside of it do not stop."""
    request = _request.get()
    if request is None or request.was_claimed:
        return None
    request.was_claimed = True
    return request


def digest_of_plan(plan: Plan) -> str:
    """What is the same as long as slots and steps mean the same."""
    return hashlib.blake2b(repr((plan.size, plan.inputs, plan.outputs, plan.steps)).encode(), digest_size=12).hexdigest()


def resume_level(level: Any, plan: Plan, frame: Frame, run: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """The slots of a level that goes on, and the steps that are left.

    Raises:
        PortError: the level is not as it was.
    """
    if frame.plan != digest_of_plan(plan):
        where = "/".join(run.path) or level.block_id
        raise PortError(f"{where}: its nodes and edges are not what they were when the run stopped; go on with the level as it was")
    slots: list[Any] = [MISSING] * plan.size
    for slot, value in frame.slots.items():
        slots[slot] = value
    request = run.options.pause
    if frame.iteration is not None:
        request.loop = (run.path, frame.iteration, frame.inner or 0)
    if frame.results is not None:
        request.results = (run.path, frame.results)
    for index, values in frame.hoisted.items():
        step: Any = plan.steps[index]
        request.hoisted[run.path, step.node] = values
        if any(slots[slot] is MISSING for _, slot in step.store):
            made = invariants_of(level.nodes[step.node], values)
            for port, slot in step.store:
                slots[slot] = made.get(port, values.get(port, MISSING))
    return slots, plan.steps[frame.step :]


def _read_later(plan: Plan, step: int, inner: int | None, *, is_inside: bool) -> frozenset[int]:
    """Slots that a run reads of a level after it has stopped in a step of its plan.

    Args:
        plan: of the level.
        step: that is next, or goes on.
        inner: the step of its body, where that is a loop.
        is_inside: what it was doing has its inputs already.
    """
    left = list(plan.steps[step:])
    read = {slot for _, slot in plan.outputs}
    if inner is not None:
        loop: Any = left.pop(0)
        again = {slot for each in loop.body for slot in each.reads} & {*loop.reads, *loop.done}
        for each in reversed(left):
            read = (read - set(each.writes)) | set(each.reads)
        read |= again | set(loop.done) | {carry.feedback for carry in loop.carries}
        left = list(loop.body[inner:])
    for index, each in reversed(list(enumerate(left))):
        read -= set(each.writes)
        if index or not is_inside:
            read |= set(each.reads)
    return frozenset(read)


def _names(plan: Plan) -> dict[str, int]:
    """Slots by what users call the values in them."""
    names = {name: slot for name, slot, _ in plan.inputs}
    for call, _ in calls_of(plan.steps):
        names |= {f"{call.node}.{port}": slot for port, slot in call.store}
    return names


# --- asking for it ----------------------------------------------------------------------------------------------------


def request_of(root: Any, before: str | None, after: str | None, iteration: Any) -> PauseRequest:
    """Where a run of a level is to stop.

    Raises:
        PortTypeError: not one of ``before`` and ``after`` is given, or ``iteration`` is no number.
        UnknownNameError: there is no such node.
    """
    if (before is None) == (after is None):
        raise PortTypeError(f"{root.block_id}: expected one of before= and after=, with the path of a node, as before='solver'")
    path = before if before is not None else after
    if not isinstance(path, str):
        raise PortTypeError(f"{root.block_id}: {'before' if after is None else 'after'} is {describe(path)}; expected the path of a node")
    found = root
    for part in path.split("/"):
        if getattr(found, "remote", False):
            raise PortError(f"{root.block_id}: {path!r} lies at another endpoint, where a run cannot be stopped; stop before or after it")
        if not is_level(found):
            raise UnknownNameError(f"{root.block_id}: {path!r}: {found.block_id} is a block and has no nodes, so no {part!r}")
        if part not in found.nodes:
            raise UnknownNameError(f"{root.block_id}: there is no node {path!r}; {suggest(part, list(found.nodes))}")
        found = found.nodes[part]
    whole = isinstance(iteration, int) and not isinstance(iteration, bool)
    several = isinstance(iteration, (tuple, list)) and all(isinstance(each, int) for each in iteration)
    if iteration is not None and not whole and not several:
        raise PortTypeError(
            f"{root.block_id}: iteration is {describe(iteration)}; expected a number from 0, or one for each loop around the node"
        )
    wanted = tuple(iteration) if several else iteration
    return PauseRequest(root, tuple(path.split("/")), after is None, wanted)


def run_until_stopped(request: PauseRequest, run: Callable[[], Any]) -> Stopped | Any:
    """The exception that a run stopped by, or what it returned where it went to its end."""
    token = _request.set(request)
    try:
        return run()
    except Stopped as stop:
        return stop
    finally:
        _request.reset(token)


def never_reached(request: PauseRequest) -> PortError:
    """Says that a run ended without coming to where it was to stop."""
    path, when = "/".join(request.target), "before" if request.is_before else "after"
    at = "" if request.iteration is None else f" in iteration {request.iteration}"
    seen = sorted(request.seen)
    found = f"it ran in iterations {', '.join(map(str, seen))}" if any(seen) else "it ran once" if seen else "it did not run"
    return PortError(f"{request.root.block_id}: the run ended without stopping {when} {path}{at}; {found}")
