"""What belongs to one use of a shared block and must not be felt by another."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def call_frozen(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls a module so that gradients pass through its computation and none reach its weights.

    ``requires_grad`` is not touched: another use of the same module in the same backward pass still trains. As
    ``torch.func.functional_call`` swaps weights inside the module, frozen uses in other threads wait for this one.
    """
    detached = {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}
    if not detached:
        return module(*args, **kwargs)
    if torch.compiler.is_compiling():
        return functional_call(module, detached, args, dict(kwargs))
    with _guard:
        lock = _locks.setdefault(module, threading.RLock())
    with lock:
        return functional_call(module, detached, args, dict(kwargs))
