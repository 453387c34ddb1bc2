"""Draws of modules that do not ask for a generator - dropout in training, ``torch.randn`` inside - served from a run's key.

PyTorch has one default generator for each device and process; seeding it would be felt by every thread. Here operators that
draw are given a generator of their own while a thread runs a seeded run. They are found through a dispatch key that nothing
else uses: its kernels, registered for just these operators, are reached only by a thread that has the key switched on
(dispatch keys: https://pytorch.org/docs/stable/torch.library.html), and cost all other operators nothing.

    aten::bernoulli_(x)  --[key on in this thread]-->  aten::bernoulli_(x[k], generator=that of sample k)

Rows of the first dimension are samples, each with its own draws, as in :class:`~wgtorch.core.run.rng.Rng`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.run import rng
from wgtorch.core.run.cached_call import note_own_generator
from wgtorch.core.run.rng import Rng

_KEY_NAME = "TESTING_ONLY_GenericMode"
_MOST_ROWS = 4096  # rows with draws of their own; more are drawn as one
_FACTORIES = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like")
_OF_VECTORS = ("multinomial", "_sample_dirichlet")
"""Operators whose last dimension is one thing that is drawn from or drawn, so a single vector is no batch."""
_UNSERVED = ("_cudnn_rnn", "miopen_rnn", "_lstm_mps")
"""Kernels that draw from a state of their own and take no generator."""

_is_included, _set_included = torch._C._dispatch_tls_is_dispatch_key_included, torch._C._dispatch_tls_set_dispatch_key_included
_lock = threading.Lock()
_kernels: list[torch.library.Library] = []
_key: Any = None


active: ContextVar[Any] = ContextVar("active call", default=None)
"""The :class:`~wgtorch.core.run.active_call.ActiveCall` that goes on here, whose draws are served; None where none does."""


def served_draws() -> AbstractContextManager[None]:
    """While it lasts, draws of this thread that name no generator are served from the call the thread is in."""
    if _key is None:
        _register()
    guard: AbstractContextManager[None] = torch._C._IncludeDispatchKeyGuard(_key)
    return guard


def is_serving() -> bool:
    """True where draws of this thread are served."""
    return _key is not None and _is_included(_key)


def _serve(on: bool) -> bool:
    was_on: bool = _is_included(_key)
    _set_included(_key, on)
    return was_on


def serving(is_seeded: bool) -> AbstractContextManager[None]:
    """:func:`served_draws` for a run that has a seed."""
    return served_draws() if is_seeded else nullcontext()


# --- kernels ----------------------------------------------------------------------------------------------------------


def _register() -> None:
    global _key
    with _lock:
        if _key is not None:
            return
        fallthrough = torch.library.Library("_", "IMPL")
        fallthrough.fallback(torch.library.fallthrough_kernel, dispatch_key=_KEY_NAME)
        aten = torch.library.Library("aten", "IMPL")
        for schema in torch._C._jit_get_all_schemas():
            if not schema.name.startswith("aten::"):
                continue
            name, overload = schema.name[6:], schema.overload_name or "default"
            op = getattr(getattr(torch.ops.aten, name, None), overload, None)
            if op is None or torch.Tag.nondeterministic_seeded not in op.tags or any(a.is_out for a in schema.arguments):
                continue
            if (kernel := _kernel_of(op, name, {argument.name for argument in schema.arguments})) is not None:
                aten.impl(op, kernel, dispatch_key=_KEY_NAME)
        _kernels.extend((fallthrough, aten))
        _key = torch._C._parse_dispatch_key(_KEY_NAME)
        rng.serve = _serve


def _kernel_of(op: Any, name: str, arguments: set[str]) -> Callable[..., Any] | None:
    """What an operator that draws is replaced by while draws are served; None where it is made of others that are."""
    if name in _FACTORIES and "generator" in arguments:
        return None  # the overload for a generator that is named
    if "generator" in arguments:
        return _drawing(op, op, name)
    if name in _FACTORIES:
        suffixes = {"default": "generator", "low": "low_generator", "low_dtype": "low_generator_dtype", "Tensor": "Tensor_generator"}
        suffixes["names"] = "generator_with_names"  # of named tensors, which newer versions of PyTorch have no more
        with_generator = getattr(getattr(torch.ops.aten, name), suffixes[op._overloadname], None)
        return None if with_generator is None else _drawing(op, with_generator, name)
    if name == "native_dropout":
        return _native_dropout
    if name == "scaled_dot_product_attention":
        return _attention(op)
    return _unserved(op, name) if name in _UNSERVED else None


def _passes(op: Any, args: Any, kwargs: Any) -> Any:
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_key)):
        return op(*args, **kwargs)


def _drawing(op: Any, with_generator: Any, name: str) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        source = active.get()
        given = kwargs.get("generator") is not None or any(isinstance(value, torch.Generator) for value in args)
        if given:
            note_own_generator()
        # While something is traced its draws are not made: what is compiled draws when it runs.
        if given or source is None or torch._guards.TracingContext.try_get() is not None or (drawn := source.next_draw()) is None:
            return _passes(op, args, kwargs)
        kwargs.pop("generator", None)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_key)):
            return _by_rows(with_generator, name, drawn, args, kwargs)

    return kernel


def _by_rows(op: Any, name: str, draws: Rng, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator for each row of the first dimension, from that sample's generator."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    if tensors:
        device, shape = tensors[0].device, tuple(torch.broadcast_shapes(*[value.shape for value in tensors]))
    else:
        device = torch.device(kwargs.get("device") or "cpu")
        at = next((index for index, value in enumerate(args) if isinstance(value, (list, tuple))), None)
        shape = () if at is None else tuple(args[at])
    rows = shape[0] if shape and not (name in _OF_VECTORS and len(shape) == 1) else 0
    if not 1 < rows <= _MOST_ROWS:
        return op(*args, generator=draws.generator(0, 1 if type(draws.key) is int or rows <= 1 else rows, device), **kwargs)
    generators = [draws.generator(index, rows, device) for index in range(rows)]
    if tensors:
        wide = [value.expand(shape) if isinstance(value, Tensor) else value for value in args]
        parts = [
            op(*[value[index] if isinstance(value, Tensor) else value for value in wide], generator=generator, **kwargs)
            for index, generator in enumerate(generators)
        ]
        return args[0] if name.endswith("_") else torch.stack(parts)
    row = [list(shape[1:]) if index == at else value for index, value in enumerate(args)]
    return torch.stack([op(*row, generator=generator, **kwargs) for generator in generators])


def _native_dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """The fused dropout of accelerators, which takes no generator, from a mask that has one."""
    if train is False or p == 0:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p)
    return x * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


def _attention(op: Any) -> Callable[..., Any]:
    """Attention with dropout as its formula: the fused kernels draw from a generator that cannot be given."""

    def kernel(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, *args: Any, **kwargs: Any) -> Any:
        if dropout_p == 0.0 or active.get() is None:
            return _passes(op, (query, key, value, attn_mask, dropout_p, *args), kwargs)
        options = dict(zip(("is_causal",), args, strict=False)) | kwargs
        return torch.ops.aten._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, **options)[0]

    return kernel


def _unserved(op: Any, name: str) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        source = active.get()
        if source is not None and source.next_draw() is not None:
            warnings.warn(
                f"{source.where()}: {name} draws from a state of its own and takes no generator, so the node does not repeat under a seed; "
                "set its dropout to 0, or switch the fused kernel off (torch.backends.cudnn.enabled = False)",
                stacklevel=2,
            )
        return _passes(op, args, kwargs)

    return kernel
