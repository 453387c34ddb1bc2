"""Ctrl-C and SIGTERM during a training: the first lets the batch that runs come to its end, a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch.utilities.exceptions import SIGTERMException

from wgtorch.train.processes import tied_to_leader


class Interrupted(SIGTERMException):
    """A signal ended a training; a process that it ends gives 128 and the signal's number, as shells expect.

    Args:
        number: of the signal.
        is_agreed: all processes of the training stop after the same batch.
    """

    def __init__(self, number: int, *, is_agreed: bool = False) -> None:
        super().__init__(128 + number)
        self.is_agreed = is_agreed


class _Left(Exception):
    """What was under way is left, since the training stops after the batch that runs."""


class Interrupts(pl.Callback):
    """Hears Ctrl-C and SIGTERM, and stops all processes of a training after the same batch, of training or of validation.

    Lightning's own handler of SIGTERM talks to the other processes from wherever the signal finds this one, so that they wait for one
    another for ever.
    """

    def __init__(self) -> None:
        self._number, self._process = 0, os.getpid()
        self._has_begun = self._is_ending = self._may_leave = False

    @contextmanager
    def heard(self, trainer: pl.Trainer) -> Iterator[None]:
        """Inside, the signals are heard; whatever handled them before does so again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        trainer._signal_connector._sigterm_notifier_fn = lambda *ignored: None  # type: ignore[method-assign]  # beside which it calls ours
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with tied_to_leader():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        if self._is_ending or os.getpid() != self._process:  # a process that was forked from this one ends with it
            return
        again, self._number = bool(self._number) and number == signal.SIGINT, self._number or number
        if again or not self._has_begun:
            raise Interrupted(number)
        if self._may_leave:
            raise _Left

    @contextmanager
    def may_be_left(self) -> Iterator[None]:
        """What is done inside, on one process alone, changes nothing and ends as soon as a signal comes."""
        with suppress(_Left):
            self._may_leave = True
            try:
                if self._number:
                    raise _Left
                yield
            finally:
                self._may_leave = False

    # --- Lightning's hooks --------------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._stop_together(trainer)
        self._has_begun = True

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._stop_together(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._is_ending = True

    def _stop_together(self, trainer: pl.Trainer) -> None:
        if not self._has_begun:
            return
        asked = bool(self._number)
        if trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked:
            raise Interrupted(self._number or signal.SIGTERM, is_agreed=True)


def begin_worker(number: int, rank: int) -> None:
    """What a process that makes items does first: it goes on at Ctrl-C and at a first SIGTERM, which all of a job's processes are sent.

    The process that trains ends it after its batch, by a second SIGTERM where it does not end by itself.
    """
    pl_worker_init_function(number, rank)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *ignored: signal.signal(signal.SIGTERM, signal.SIG_DFL))
