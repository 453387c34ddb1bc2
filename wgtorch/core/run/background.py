"""Calls that wait on a network, run beside others: a thread for each blocking call, one event loop for coroutines."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0  # the process whose loop it is: a forked one has no thread of it
_idle_owner = 0
_here = threading.local()
_LOOP_THREAD = "wgtorch-async"


class Task(Future[Any]):
    """A call in a thread. A thread cannot be stopped, but what it waits for can: cancelling reaches everything begun in it."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[Future[Any]] = set()
        self._is_cancelled = False
        self._guard = threading.Lock()

    def cancel(self) -> bool:
        """Cancels the call if it has not begun, else whatever it began and waits for."""
        stopped = super().cancel()
        with self._guard:
            self._is_cancelled = True
            begun = list(self._begun)
        for future in begun:
            future.cancel()
        return stopped

    def begins(self, future: Future[Any]) -> None:
        """Makes another call one that this waits for."""
        with self._guard:
            if not self._is_cancelled:
                self._begun.add(future)
        if self._is_cancelled:
            future.cancel()
        else:
            future.add_done_callback(self._begun.discard)


def start(function: Callable[[], Any]) -> Future[Any]:
    """Calls a blocking function in a thread of its own.

    A thread for each call that goes on, not a pool of so many: calls nest (a composite that waits holds nodes that wait), and
    nested calls in a bounded pool can all wait for a place.
    """
    task = Task()
    _note(task)
    worker = _idle_worker()
    worker.put((task, function))
    return task


_idle: list[queue.SimpleQueue[tuple[Task, Callable[[], Any]]]] = []
"""What threads that have nothing to do wait at, the last one that became idle last."""
_MOST_IDLE = 64


def _idle_worker() -> queue.SimpleQueue[tuple[Task, Callable[[], Any]]]:
    """What a thread without work waits at; a new one's where there is none. A forked process has none of its parent's threads."""
    global _idle, _idle_owner
    if _idle_owner != os.getpid():
        _idle, _idle_owner = [], os.getpid()
    try:
        return _idle.pop()
    except IndexError:
        work: queue.SimpleQueue[tuple[Task, Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(work,), name="wgtorch-node", daemon=True).start()
        return work


def _work(work: queue.SimpleQueue[tuple[Task, Callable[[], Any]]]) -> None:
    while True:
        task, function = work.get()
        tell: Callable[[], None] | None = None
        if task.set_running_or_notify_cancel():
            _here.task = task
            try:
                tell = partial(task.set_result, function())
            except BaseException as error:
                tell = partial(task.set_exception, error)
            _here.task = None
        del task, function  # what they hold is not kept until the thread has other work
        is_last = tell is not None and len(_idle) >= _MOST_IDLE
        if not is_last:
            _idle.append(work)
        if tell is not None:
            tell()
            del tell
        if is_last:
            return


def settled(future: Future[Any]) -> None:
    """Waits until a call is over, however it ends."""
    wait([future])


def submit(coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
    """Runs a coroutine on the process's background event loop; cancelling the future cancels the coroutine.

    Raises:
        RuntimeError: called from that loop itself, where waiting for the result would stop everything.
    """
    loop = _event_loop()
    if threading.current_thread().name == _LOOP_THREAD:
        coroutine.close()
        raise RuntimeError("this is called from a coroutine that the engine runs, and would wait for itself; call it in a plain forward")
    future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, loop)
    _note(future)
    return future


def _note(future: Future[Any]) -> None:
    """Tells the call that this thread makes of another that it begins."""
    task: Task | None = getattr(_here, "task", None)
    if task is not None:
        task.begins(future)


def _event_loop() -> asyncio.AbstractEventLoop:
    global _loop, _owner
    with _lock:
        if _loop is None or _loop.is_closed() or _owner != os.getpid():
            _loop, _owner = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name=_LOOP_THREAD, daemon=True).start()
        return _loop
