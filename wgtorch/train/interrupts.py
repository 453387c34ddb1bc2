"""Ctrl-C and SIGTERM during a training: the first lets the batch that runs come to its end, a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

_FLAG = "_wgtorch_interrupted"
"""Attribute of a Trainer: that it is to stop after the batch that runs."""


@contextmanager
def interruptible(trainer: Any) -> Iterator[None]:
    """Inside, Ctrl-C asks a Trainer to stop after the batch that runs; whatever handled it before does so again afterwards.

    SIGTERM ends the process as a shell expects it, with 143: Lightning's own exception says that all is well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        if getattr(trainer, _FLAG, False) or not trainer.training:
            raise KeyboardInterrupt
        setattr(trainer, _FLAG, True)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    except SIGTERMException as stop:
        stop.code = 128 + signal.SIGTERM
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def stops_now(trainer: Any) -> bool:
    """True when some process of a training was asked to stop; all of them learn of it after the same batch."""
    asked = getattr(trainer, _FLAG, False)
    return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked
