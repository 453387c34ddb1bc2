"""Gradient checkpointing of diffusers' and transformers' models: what is computed again wears what it wore.

Both libraries keep the function that checkpoints on each module, and set it with ``_set_gradient_checkpointing``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn

from wgtorch.lora.context import keeping

_FUNCTION = "_gradient_checkpointing_func"
_SETTER = "_set_gradient_checkpointing"


class WornAgain:
    """A checkpointing function that hands what is worn now on to what it computes again."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, module: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # A compiler traces the forward pass once and makes the second computation of it, so nothing is called again.
        return self.function(module if torch.compiler.is_compiling() else keeping(module), *args, **kwargs)


def keep_when_recomputed(model: nn.Module) -> None:
    """From now on, whatever the model checkpoints keeps what it wears, also where checkpointing is switched on later."""
    if hasattr(type(model), _SETTER):
        setattr(model, _SETTER, MethodType(_set_and_keep, model))
    _keep(model)


def as_before(model: nn.Module) -> None:
    """Undoes :func:`keep_when_recomputed`."""
    model.__dict__.pop(_SETTER, None)
    for part in model.modules():
        if isinstance(kept := part.__dict__.get(_FUNCTION), WornAgain):
            setattr(part, _FUNCTION, kept.function)


def _set_and_keep(model: Any, *args: Any, **kwargs: Any) -> None:
    getattr(type(model), _SETTER)(model, *args, **kwargs)
    _keep(model)


def _keep(model: nn.Module) -> None:
    for part in model.modules():
        function = part.__dict__.get(_FUNCTION)
        if function is not None and not isinstance(function, WornAgain):
            setattr(part, _FUNCTION, WornAgain(function))
