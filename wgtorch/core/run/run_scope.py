"""What surrounds a run as a whole: its root in errors, gradient mode, train or eval, and served draws."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from wgtorch.core.run.active_call import active_call
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.error_paths import name_root
from wgtorch.core.run.foreign_draws import served_draws
from wgtorch.core.run.modes import training_mode


class RunScope:
    """While it lasts, a level runs: in the run's gradient mode, as in train or eval, with its draws served.

    Args:
        level: what runs.
        run: its context.
        training: what the caller said; None inside another run keeps that one's gradient mode.
    """

    __slots__ = ("_grad", "_mode", "_serving", "level", "run", "training")

    def __init__(self, level: Any, run: RunContext, training: bool | None) -> None:
        self.level, self.run, self.training = level, run, training

    def __enter__(self) -> None:
        is_training = self.run.options.training
        keeps_grad = keeps_gradient_mode(self.training)
        self._mode = training_mode(self.level, is_training)
        self._mode.__enter__()  # may wait for another run, and so be interrupted
        self._grad = torch.is_grad_enabled()
        if not keeps_grad:
            torch._C._set_grad_enabled(is_training)  # what torch.set_grad_enabled does, without making a context of it
        # A cache has to know of draws, whether they follow a seed or not.
        self._serving = None if self.run.key is None and self.run.options.cache is None else served_draws()
        if self._serving is not None:
            self._serving.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._serving is not None:
            self._serving.__exit__(kind, error, traceback)
        torch._C._set_grad_enabled(self._grad)
        self._mode.__exit__(kind, error, traceback)
        if isinstance(error, Exception):
            name_root(error, self.run.options.root)


def keeps_gradient_mode(training: bool | None) -> bool:
    """True for a run inside of another one, of which nobody said whether it is a training."""
    return training is None and active_call() is not None
