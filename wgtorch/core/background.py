"""Calls that wait on a network, run beside others: a thread for each blocking call, one event loop for coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def start(function: Callable[[], Any]) -> Future[Any]:
    """Calls a blocking function in a thread of its own.

    A thread for each call, not a pool: calls nest (a composite that waits holds nodes that wait), and nested calls in a
    bounded pool can all wait for a place.
    """
    future: Future[Any] = Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=work, name="wgtorch-node", daemon=True).start()
    return future


def submit(coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
    """Runs a coroutine on the process's background event loop; cancelling the future cancels the coroutine."""
    return asyncio.run_coroutine_threadsafe(coroutine, _event_loop())


def _event_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="wgtorch-async", daemon=True).start()
        return _loop
