"""Modules without weights, and weights put into modules: names, shapes and ties are checked before anything is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from wgtorch.core import adapter_hook
from wgtorch.core.checkpoint.shared_tensors import shared_names
from wgtorch.core.checkpoint.tensors import can_store
from wgtorch.core.errors import CheckpointError, Finding

_SHOWN = 40
_UNSHAPED = (UninitializedParameter, UninitializedBuffer)
is_empty: ContextVar[bool] = ContextVar("wgtorch_is_empty", default=False)
"""True while :func:`build_empty` builds, so that no block looks for its weights."""

# --- modules without weights ------------------------------------------------------------------------------------------


def build_empty(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a module whose weights hold no memory yet, to be given some by :func:`assign`.

    A constructor that needs values (``.item()``) or that computes tensors which are not in ``state_dict`` (rotary
    frequencies in a non-persistent buffer) cannot be run on the meta device; it is run on the CPU, with the random
    initialisation of parameters left out. PyTorch's global generator is as before.
    """
    state, token = torch.get_rng_state(), is_empty.set(True)
    try:
        try:
            with torch.device("meta"), _NoFilling():
                module = build()
            if not _computed(module):
                return module
        except Exception:
            pass  # whatever is truly wrong is raised again below, in its own words
        with _NoInit():
            return build()
    finally:
        torch.set_rng_state(state)
        is_empty.reset(token)


def _computed(module: nn.Module) -> bool:
    """True when a module holds tensors that no checkpoint would give it."""
    for part in module.modules():
        if part._non_persistent_buffers_set and any(part._buffers.get(name) is not None for name in part._non_persistent_buffers_set):
            return True
        for name in part.__dict__.keys() - _OWN_NAMES:
            if _holds_tensor(part.__dict__[name]):
                return True
    return False


_OWN_NAMES = frozenset(nn.Module().__dict__)


def _holds_tensor(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Tensor):
        return True
    if depth > 3:
        return False
    if isinstance(value, Mapping):
        return any(_holds_tensor(item, depth + 1) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_holds_tensor(item, depth + 1) for item in value)


class _NoFilling(TorchFunctionMode):
    """Leaves the random filling of parameters out: it is about to be replaced, and takes most of a constructor's time."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in _FILLING:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        return function(*args, **kwargs)


class _NoInit(_NoFilling):
    """Takes no memory for parameters either: zeros that are never written are never taken."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is torch.empty and "out" not in (kwargs or {}):
            return torch.zeros(*args, **{name: value for name, value in (kwargs or {}).items() if name != "memory_format"})
        return super().__torch_function__(function, types, args, kwargs)


_FILLING = frozenset(
    ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_")
)


# --- what a module stores ---------------------------------------------------------------------------------------------


def check_storable(state: Mapping[str, Any], where: str) -> None:
    """Refuses what safetensors cannot hold.

    Raises:
        CheckpointError: with the block, the tensor and what it is.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{where}.{name}: state_dict holds a {type(value).__name__}; a checkpoint holds tensors. "
                "Keep plain values in the block's config, or return a tensor from get_extra_state"
            )
        if is_traceable_wrapper_subclass(value):
            raise CheckpointError(
                f"{where}.{name}: is a {type(value).__name__}, which has no memory of its own to be stored; expected a plain tensor. "
                "Save on one process what full_tensor() gives where it is distributed, and convert it where it is of another sort"
            )
        if isinstance(value, _UNSHAPED):
            raise CheckpointError(
                f"{where}.{name}: has no shape yet, as its lazy module was never called; call the block once before it is saved"
            )
        if value.is_meta:
            raise CheckpointError(f"{where}.{name}: has no memory (it is on the meta device), so there is nothing to save")
        if not can_store(value.dtype) or value.layout is not torch.strided or value.is_quantized or value.is_nested:
            layout = (
                " (nested)"
                if value.is_nested
                else ""
                if value.layout is torch.strided
                else f" of layout {str(value.layout).removeprefix('torch.')}"
            )
            raise CheckpointError(
                f"{where}.{name}: {value.dtype}{layout} cannot be stored in safetensors; expected a dense tensor (to_dense())"
            )


# --- weights put into modules -----------------------------------------------------------------------------------------


_NOT_RUN = "pooler."
"""Weights of a part whose output nobody takes here; folders of encoders often lack them."""


def check_whole(model: nn.Module, told: Mapping[str, Any], where: str) -> None:
    """Refuses a model that another library read from a folder and left without some weights, which are then random.

    Args:
        model: as it was read.
        told: what ``from_pretrained`` gives for ``output_loading_info``.
        where: the folder, for messages.

    Raises:
        CheckpointError: names them.
    """
    if missing := sorted(name for name in told["missing_keys"] if not name.startswith(_NOT_RUN)):
        more = " ..." if len(missing) > 8 else ""
        raise CheckpointError(
            f"{where} lacks {len(missing)} weights of a {type(model).__name__}, which would be random: {', '.join(missing[:8])}{more}; "
            "fetch the folder anew, or name one of a whole model"
        )


def misfits(module: nn.Module, tensors: Mapping[str, Any], path: str) -> list[Finding]:
    """Everything about ``tensors`` that does not fit the module.

    Args:
        module: with or without weights; adapters in it do not count.
        tensors: by name; anything with ``shape`` and ``dtype``.
        path: the block's, for messages.
    """
    own = adapter_hook.hook.base_state(module)
    found: list[Finding] = []
    if tensors.keys() != own.keys():
        ties = shared_names(own.items())
        given = {*tensors, *(name for names in ties if not tensors.keys().isdisjoint(names) for name in names)}
        again = {name for names in ties for name in names[1:]}
        missing = {name: tensor for name, tensor in own.items() if name not in given and name not in again}
        found += [Finding(f"{path}.{name}", "missing", _words(tensor)) for name, tensor in missing.items()]
        found += [Finding(f"{path}.{name}", f"unexpected {_words(tensor)}") for name, tensor in tensors.items() if name not in own]
    for name, tensor in tensors.items():
        expected = own.get(name)
        if isinstance(expected, _UNSHAPED):  # of a lazy module, which takes the shape that it is given
            continue
        if expected is not None and (tensor.shape != expected.shape or not _converts(tensor.dtype, expected.dtype)):
            found.append(Finding(f"{path}.{name}", _words(tensor), _words(expected)))
    return found


def misfit_error(where: str, found: list[Finding]) -> CheckpointError:
    """One error that lists what does not fit, the first of it where there is much."""
    lines = "\n".join(f"  - {str(finding)[:300]}" for finding in found[:_SHOWN])
    more = f"\n  - and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return CheckpointError(f"{where} does not fit ({len(found)} finding{'s' if len(found) != 1 else ''}):\n{lines}{more}")


def _words(tensor: Any) -> str:
    if isinstance(tensor, _UNSHAPED):
        return f"{str(tensor.dtype).removeprefix('torch.')} of any shape"
    if not hasattr(tensor, "shape"):
        return type(tensor).__name__
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _converts(source: torch.dtype, target: torch.dtype) -> bool:
    """Numbers of one sort: floating to floating, complex to complex; everything else only to itself."""
    return source == target or (source.is_floating_point and target.is_floating_point) or (source.is_complex and target.is_complex)


def assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes checked tensors the module's own, without copying; what was one parameter under two names stays one."""
    own = module.state_dict(keep_vars=True)
    buffers = dict(module.named_buffers(remove_duplicate=False))  # those that are not in state_dict may be tied as well
    ties = shared_names({**own, **{name: tensor for name, tensor in buffers.items() if name not in own}}.items())
    full = dict(tensors)
    for names in ties:
        given = next((full[name] for name in names if name in full), None)
        full.update({name: given for name in names if name in own and name not in full and given is not None})
    module.load_state_dict(full, strict=True, assign=True)
    for names in ties:
        owner, _, attribute = names[0].rpartition(".")
        first = getattr(module.get_submodule(owner), attribute)
        for name in names[1:]:
            owner, _, attribute = name.rpartition(".")
            holder = module.get_submodule(owner)
            (holder._parameters if attribute in holder._parameters else holder._buffers)[attribute] = first


def copy_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies checked tensors into the module's own, which stay the objects that optimizers hold."""
    with torch.no_grad():
        for name, value in adapter_hook.hook.base_state(module).items():
            if name in tensors:
                if isinstance(value, _UNSHAPED):
                    value.materialize(tensors[name].shape)
                value.copy_(tensors[name])


def to_dtypes_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the dtypes that the module was built with."""
    own = module.state_dict(keep_vars=True)
    return {name: tensor.to(own[name].dtype) if name in own else tensor for name, tensor in tensors.items()}
