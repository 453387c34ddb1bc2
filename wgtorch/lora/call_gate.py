"""A gate around the calls of one model: many calls at once, and a change of its adapters only when none runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CallGate:
    """Counts running calls. Copies and pickles of a model get a gate of their own."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls = 0
        self._changing = False

    def enter(self, *, nested: bool) -> None:
        """A call begins; it waits while a change is made, unless it is made inside another call of the model."""
        with self._condition:
            self._condition.wait_for(lambda: nested or not self._changing)
            self._calls += 1

    def leave(self) -> None:
        """A call is through."""
        with self._condition:
            self._calls -= 1
            self._condition.notify_all()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Waits until no call runs, and lets none begin meanwhile."""
        with self._condition:
            self._condition.wait_for(lambda: not self._calls and not self._changing)
            self._changing = True
        try:
            yield
        finally:
            with self._condition:
                self._changing = False
                self._condition.notify_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> CallGate:
        return CallGate()

    def __reduce__(self) -> tuple[type[CallGate], tuple[()]]:
        return CallGate, ()
