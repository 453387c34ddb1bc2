"""Gradient checkpointing of diffusers' and transformers' models: what is computed again has the adapter context it had.

Both libraries keep the function that checkpoints on each module, and set it with ``_set_gradient_checkpointing``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn

from wgtorch.lora.active_adapters import preserve_adapter_context

_FUNCTION = "_gradient_checkpointing_func"
_SETTER = "_set_gradient_checkpointing"


class ContextCheckpoint:
    """A checkpointing function that hands the adapter context on to what it computes again."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, module: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # A compiler traces the forward pass once and makes the second computation of it, so nothing is called again.
        return self.function(module if torch.compiler.is_compiling() else preserve_adapter_context(module), *args, **kwargs)


def preserve_when_recomputed(model: nn.Module) -> None:
    """From now on, whatever the model checkpoints keeps its adapter context, also where checkpointing is switched on later."""
    if hasattr(type(model), _SETTER):
        setattr(model, _SETTER, MethodType(_set_and_wrap, model))
    _wrap(model)


def restore_checkpointing(model: nn.Module) -> None:
    """Undoes :func:`preserve_when_recomputed`."""
    model.__dict__.pop(_SETTER, None)
    for part in model.modules():
        if isinstance(wrapped := part.__dict__.get(_FUNCTION), ContextCheckpoint):
            setattr(part, _FUNCTION, wrapped.function)


def _set_and_wrap(model: Any, *args: Any, **kwargs: Any) -> None:
    getattr(type(model), _SETTER)(model, *args, **kwargs)
    _wrap(model)


def _wrap(model: nn.Module) -> None:
    for part in model.modules():
        function = part.__dict__.get(_FUNCTION)
        if function is not None and not isinstance(function, ContextCheckpoint):
            setattr(part, _FUNCTION, ContextCheckpoint(function))
