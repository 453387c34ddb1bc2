"""Waiting for what another thread does, and a clock that a test moves on: neither depends on how fast a machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest


def wait_until(holds: Callable[[], object]) -> None:
    """Waits, not for ever, until something holds."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


def at_some_pace(check: Callable[[float], None], *limits: float) -> None:
    """Makes a check with a time limit which what is right has to keep to, and again with longer ones where it was not kept to."""
    for limit in limits[:-1]:
        try:
            check(limit)
        except Exception:
            continue
        return
    check(limits[-1])


def clock_of_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock on at which runs look between their nodes, by so many seconds."""
    ahead = 0.0

    def move(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead)
    monkeypatch.setattr("wgtorch.core.run.executor.monotonic", clock.monotonic)
    monkeypatch.setattr("wgtorch.core.run.context.time", clock)
    monkeypatch.setattr("wgtorch.core.run.start_run.time", clock)
    return move
