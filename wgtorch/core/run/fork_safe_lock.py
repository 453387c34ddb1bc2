"""Locks that are free in a process which is forked: the thread that held one is not there to release it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_guard = threading.Lock()
_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_held: list[Any] = []


def fork_safe_lock() -> Any:
    """A lock that its thread may take again; forks wait until it is free."""
    lock = threading.RLock()
    with _guard:  # a fork in another thread goes through all of them
        _locks.add(lock)
    return lock


def _before() -> None:
    _guard.acquire()
    _held.extend(_locks)
    for lock in _held:
        lock.acquire()


def _after() -> None:
    while _held:
        _held.pop().release()
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
