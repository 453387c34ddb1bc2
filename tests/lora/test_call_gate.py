"""Calls of a model go on together; a change of its adapters waits for them, and they for it."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest

from wgtorch.lora.call_gate import CallGate

AGAIN = 0.05  # seconds after which what waits still waits


def started(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def waits(thread: threading.Thread) -> bool:
    thread.join(AGAIN)
    return thread.is_alive()


def change(gate: CallGate) -> None:
    with gate.change():
        pass


def test_a_change_waits_until_the_last_call_is_through() -> None:
    gate = CallGate()
    gate.enter(nested=False)
    gate.enter(nested=False)
    changer = started(lambda: change(gate))
    assert waits(changer)
    gate.leave()
    assert waits(changer)
    gate.leave()
    changer.join(60)
    assert not changer.is_alive()


def test_a_call_waits_until_a_change_is_through_unless_it_is_inside_another() -> None:
    gate = CallGate()
    with gate.change():
        caller, other = started(lambda: gate.enter(nested=False)), started(lambda: change(gate))
        assert waits(caller) and waits(other)
        gate.enter(nested=True)
        gate.leave()
        assert waits(caller)
    caller.join(60)
    assert not caller.is_alive()
    gate.leave()
    other.join(60)
    assert not other.is_alive()


def test_a_change_that_fails_lets_calls_go_on() -> None:
    gate = CallGate()
    with pytest.raises(ZeroDivisionError), gate.change():
        1 / 0  # noqa: B018
    gate.enter(nested=False)
    gate.leave()
    change(gate)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda gate: pickle.loads(pickle.dumps(gate))])
def test_a_copy_has_a_gate_of_its_own(copied: Callable[[CallGate], CallGate]) -> None:
    gate = CallGate()
    gate.enter(nested=False)
    own = copied(gate)
    assert type(own) is CallGate and own is not gate
    change(own)
