"""The walk of a plan some of whose nodes are async: their calls go on in threads of their own while whatever is ready is walked.

A call that nothing else could go on beside, and that nothing ends before its time, is made where the walk is.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

from wgtorch.core.errors import RunCancelled, RunTimeoutError
from wgtorch.core.plan import Call, Unit
from wgtorch.core.port import MISSING
from wgtorch.core.run import background
from wgtorch.core.run.active_call import ActiveCall, enter_call, leave_call
from wgtorch.core.run.call_outputs import store_outputs
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.error_paths import locate
from wgtorch.core.run.node_call import ExecutorHost, call_node
from wgtorch.core.run.thread_context import in_this_context
from wgtorch.core.tree import is_level

_POLL = 0.02  # seconds between looks at a cancelled run while nodes wait


def walk_async(walk: Callable[..., None], composite: ExecutorHost, units: Sequence[Unit], slots: list[Any], run: RunContext | None) -> None:
    """Walks the units of a plan as they become ready.

    Args:
        walk: walks the steps of one unit.
        composite: whose plan it is.
        units: of the plan.
        slots: values of this run.
        run: what it is part of, where it is.
    """
    is_watched = run is not None and run.options.is_watched
    waits_for = [unit.waits_for for unit in units]
    readers: dict[int, int] = {}
    for unit in units:
        for slot in unit.crossing:
            readers[slot] = readers.get(slot, 0) + 1
    flying = Flying(composite, units, run)
    ready = [number for number, unit in enumerate(units) if not unit.waits_for]
    at: Call | None = None
    result: Any = None
    try:
        while ready or flying.calls:
            if len(ready) == 1 and not flying.calls and flying.may_stay(units[ready[0]].call):
                number = ready.pop()
                at = units[number].call
                result = flying.call_here(at, slots)  # type: ignore[arg-type]
            else:
                for number in ready:
                    if (at := units[number].call) is not None:
                        flying.begin(number, at, slots)
                ready = [number for number in ready if number not in flying.calls]
                if ready and flying.landed.empty():
                    at, number = None, ready.pop(0)
                    walk(composite, units[number].steps if is_watched else units[number].fast_steps, slots, run)
                else:
                    number = flying.next_landed()
                    at = units[number].call  # whose failure it is, if it failed
                    result = flying.calls.pop(number)[0].result()
            if at is not None:
                store_outputs(at, result, composite.nodes._modules[at.key], slots)
                result = None  # a value lives in its slot alone
                for slot in at.frees:
                    slots[slot] = MISSING
            for slot in units[number].crossing:
                readers[slot] -= 1
                if not readers[slot]:
                    slots[slot] = MISSING
            for other in units[number].then:
                waits_for[other] -= 1
                if not waits_for[other]:
                    ready.append(other)
    except Exception as error:
        flying.end(is_stopped=isinstance(error, (RunCancelled, RunTimeoutError, CancelledError)))
        if at is not None:
            locate(error, at.node, below=is_level(composite.nodes[at.node]))
        raise


class Flying:
    """Async calls of one walk that are on their way.

    Args:
        composite: whose nodes are called.
        units: of its plan.
        run: what the walk is part of, where it is.
    """

    def __init__(self, composite: ExecutorHost, units: Sequence[Unit], run: RunContext | None) -> None:
        self.composite, self.units, self.run = composite, units, run
        self.calls: dict[int, tuple[Future[Any], float]] = {}
        """By the number of their unit: the future, and when it was begun."""
        self.landed: queue.SimpleQueue[int] = queue.SimpleQueue()

    def begin(self, number: int, call: Call, slots: list[Any]) -> None:
        """Makes the call of a unit in a thread of its own."""
        run = self.run
        if run is not None:
            run.check(call.node)
        active = None if run is None else ActiveCall(run, call)
        future = background.start(in_this_context(partial(call_node, self.composite, call, slots, run), active))
        self.calls[number] = (future, time.monotonic())
        future.add_done_callback(lambda _: self.landed.put(number))

    def may_stay(self, call: Call | None) -> bool:
        """True for an async call that may be made in this thread, where there is nothing else to do: no limit of time ends it early."""
        options = None if self.run is None else self.run.options
        is_free = options is None or (options.deadline is None and options.cancelled is None)
        return call is not None and is_free and self.composite.node_specs[call.node].timeout is None

    def call_here(self, call: Call, slots: list[Any]) -> Any:
        """Makes the call of a unit in this thread."""
        token = None if self.run is None else enter_call(ActiveCall(self.run, call))
        try:
            return call_node(self.composite, call, slots, self.run)
        finally:
            if token is not None:
                leave_call(token)

    def next_landed(self) -> int:
        """Waits until a call has landed: the number of its unit.

        Raises:
            RunTimeoutError: a call, or the run, took longer than it may.
            RunCancelled: the run was cancelled.
        """
        places = self.composite.node_specs
        limits = [
            (started + timeout, number)
            for number, (_, started) in self.calls.items()
            if (timeout := places[self._node(number)].timeout) is not None
        ]
        options = None if self.run is None else self.run.options
        while True:
            now = time.monotonic()
            ends = [end for end, _ in limits] + ([options.deadline] if options is not None and options.deadline is not None else [])
            pause = max(0.0, min(ends) - now) if ends else None
            if options is not None and options.cancelled is not None:
                pause = _POLL if pause is None else min(_POLL, pause)
            try:
                return self.landed.get(timeout=pause)
            except queue.Empty:
                pass
            now = time.monotonic()
            for end, number in limits:
                if now >= end and not self.calls[number][0].done():
                    node = self._node(number)
                    error = RunTimeoutError(f"{node} took longer than its limit of {places[node].timeout} s")
                    locate(error, node)
                    raise error
            if self.run is not None:
                self.run.check(self._node(next(iter(self.calls))))

    def end(self, *, is_stopped: bool) -> None:
        """After a node failed: lets those on their way come home, so that what they bring is kept; cancels them when time is up."""
        try:
            while self.calls and not is_stopped:
                self.calls.pop(self.next_landed(), None)
        except (RunCancelled, RunTimeoutError):
            pass
        for future, _ in self.calls.values():
            future.cancel()

    def _node(self, number: int) -> str:
        call = self.units[number].call
        assert call is not None
        return call.node
