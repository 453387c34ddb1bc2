"""Locks that are free in a forked process: a fork goes through all of them, so none is added meanwhile."""

from __future__ import annotations

import threading

from wgtorch.core.run import fork_safe_lock as locks


def test_a_lock_that_is_made_while_another_thread_forks_waits_for_the_fork() -> None:
    made = threading.Event()
    held = locks.fork_safe_lock()

    def make() -> None:
        locks.fork_safe_lock()
        made.set()

    thread = threading.Thread(target=make)
    locks._before()
    try:
        thread.start()
        assert not made.wait(0.2)  # an addition would have ended the walk through the locks in an error, and the next fork in waiting
    finally:
        locks._after()
    thread.join()
    assert made.is_set()
    assert held.acquire(blocking=False)
    held.release()
