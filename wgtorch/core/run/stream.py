"""A run as an iterator over its events: it goes on while the reader asks for the next one, and stops when the reader leaves."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from wgtorch.core.errors import RunCancelled
from wgtorch.core.run import background
from wgtorch.core.run.events import Callback, Event
from wgtorch.core.run.thread_context import in_this_context


class _HandOver:
    """Where the threads of a run leave events one at a time, and wait until the reader asks for the next.

    Nothing is computed between the end of a block and the event after it, so that one alone waits: waking a thread costs more than a call.
    """

    def __init__(self) -> None:
        self._offered: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._one_at_a_time = threading.Lock()
        self._taken = threading.Semaphore(0)
        self._is_waited_for = False
        self.is_left = False

    def offer(self, event: Event) -> None:
        """Gives an event and waits until the next one is asked for.

        Raises:
            RunCancelled: nobody reads any more.
        """
        with self._one_at_a_time:
            if not self.is_left:
                self._offered.put(event)
                if _is_waited_for(event):
                    self._taken.acquire()
        if self.is_left:
            raise RunCancelled("nobody reads the events of the run any more")

    def take(self) -> Event | None:
        """The next event, once the run has come to it; None at its end."""
        if self._is_waited_for:
            self._taken.release()
        event = self._offered.get()
        self._is_waited_for = event is not None and _is_waited_for(event)
        return event

    def end(self, *_: Any) -> None:
        """Tells the reader that no event comes any more."""
        self._offered.put(None)

    def leave(self) -> None:
        """Lets whoever waits go on, to find that nobody reads."""
        self.is_left = True
        self._taken.release()


def _is_waited_for(event: Event) -> bool:
    return event.kind != "end" or event.level != "block"


def events_of(
    run: Callable[..., Any],
    level: str,
    root: str,
    told: Sequence[Callback] = (),
    cancelled: Callable[[], bool] | None = None,
) -> Generator[Event, None, None]:
    """The events of a run, as they come, and one more that holds its outputs.

    Args:
        run: starts it; takes ``callbacks`` and ``cancelled``.
        level: what kind of level runs, and its id in ``root``, for the last event.
        told: callbacks that are called as well, with each event before it is read.
        cancelled: stops the run as well.
    """
    hand = _HandOver()
    started = time.perf_counter()
    work = in_this_context(
        lambda: run(callbacks=(*told, hand.offer), cancelled=lambda: hand.is_left or bool(cancelled is not None and cancelled()))
    )
    future = background.start(work)
    future.add_done_callback(hand.end)
    try:
        while (event := hand.take()) is not None:
            yield event
        result = future.result()
        outputs = result if isinstance(result, dict) else {"state": result}
        yield Event("end", "", level, outputs=outputs, elapsed=time.perf_counter() - started, root=root)
    finally:
        if not sys.is_finalizing():  # else the process ends with this stream unread: its threads are gone, and nothing is ever over
            hand.leave()
            future.cancel()
            background.settled(future)


def refuse_in_stream(options: Mapping[str, Any], where: str) -> None:
    """Refuses options of a run that its events say nothing of.

    Raises:
        TypeError: names the option.
    """
    if options.get("dry_run"):
        raise TypeError(f"{where}: stream() has no option 'dry_run'; a dry run has no events: write run(..., dry_run=True)")
