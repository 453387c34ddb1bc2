"""What surrounds a run as a whole: its root in errors, gradient mode, train or eval, and served draws."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch

from wgtorch.core.run.context import RunContext, active_call, located
from wgtorch.core.run.foreign_draws import serving
from wgtorch.core.run.modes import training_mode


class Running:
    """While it lasts, a level runs: in the run's gradient mode, as in train or eval, with its draws served.

    Args:
        level: what runs.
        run: its context.
        training: what the caller said; None inside another run keeps that one's gradient mode.
    """

    __slots__ = ("_stack", "level", "run", "training")

    def __init__(self, level: Any, run: RunContext, training: bool | None) -> None:
        self.level, self.run, self.training = level, run, training

    def __enter__(self) -> None:
        is_training = self.run.options.training
        keeps_grad = self.training is None and active_call() is not None
        with ExitStack() as stack:
            stack.enter_context(located(self.run.options.root))
            if not keeps_grad:
                stack.enter_context(torch.set_grad_enabled(is_training))
            stack.enter_context(training_mode(self.level, is_training))
            if self.run.key is not None:
                stack.enter_context(serving(True))
            self._stack = stack.pop_all()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, traceback)
