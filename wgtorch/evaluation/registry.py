"""The registry of evaluators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from wgtorch.core.errors import WgtorchError
from wgtorch.core.registry import Registry

Evaluator = Callable[..., Mapping[str, float]]
"""Takes a :class:`~wgtorch.evaluation.past.Past` and options by keyword; gives numbers by name."""

EvaluatorRegistry: Registry[Evaluator] = Registry("evaluator", group="wgtorch.evaluators")


class NotMeasured(WgtorchError):
    """Raised by an evaluator that finds nothing to measure in a world; the table says why."""


def register_evaluator(name: str) -> Callable[[Evaluator], Evaluator]:
    """Decorator: makes an evaluator known to :func:`wgtorch.evaluate` under ``name``; its first line of docstring is shown beside it."""
    return partial(EvaluatorRegistry.register, name)
