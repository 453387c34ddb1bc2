"""Adapters put into models, read and taken out. A model's base, its names and what of it trains are as before afterwards."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.errors import StructureError, require, suggest
from wgtorch.core.tree import is_level, walk
from wgtorch.lora.context import adapters_on, wearer_of
from wgtorch.lora.gradient_checkpointing import as_before, keep_when_recomputed

_NAME = re.compile(r"[A-Za-z0-9_-]+")
ALLOWED = (
    "alpha_pattern", "exclude_modules", "fan_in_fan_out", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_bias",
    "rank_pattern", "use_dora", "use_rslora",
)  # fmt: skip
"""Options of PEFT's LoraConfig, beside the usual ones, that leave the base and other adapters as they are."""
_CHANGING: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "layer_replication": (None,),
    "kasa_config": (None,),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
"""Fields of a LoraConfig that would change the base, and the values that do not."""


def check_name(name: str) -> str:
    """Returns an adapter's name, or says why it cannot be one.

    Raises:
        StructureError: it is empty or holds other characters than letters, digits, ``_`` and ``-``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StructureError(f"adapter name {name!r}: expected letters, digits, '_' and '-'")
    return name


def check_config(config: Any, where: str) -> None:
    """Refuses configs of PEFT whose adapters would change the base or cannot be told apart by place.

    Raises:
        StructureError: names the field, and the values it may have.
    """
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise StructureError(f"{where}: an adapter of type {kind}; expected LORA")
    for field, fine in _CHANGING.items():
        value = getattr(config, field, fine[0])
        if value not in fine:
            raise StructureError(
                f"{where}: {field} is {value!r}, which changes the base itself; expected {' or '.join(repr(entry) for entry in fine)}"
            )


def inject(block: nn.Module, name: str, config: Any) -> None:
    """Puts a new adapter, a ``peft.LoraConfig``, into a block; nothing wears it yet.

    Raises:
        StructureError: the name is taken, or PEFT cannot adapt a layer that the config names; nothing was changed then.
    """
    peft: Any = require("peft", "train")
    wearer = wearer_of(block)
    before: dict[str, Any] = wearer.__dict__.get("peft_config") or {}
    if check_name(name) in before:
        raise StructureError(f"{_named(block)}: has an adapter {name!r} already; remove it first, or choose another name")
    check_config(config, f"{_named(block)}: adapter {name!r}")
    grads = [(parameter, parameter.requires_grad) for parameter in wearer.parameters()]
    # PEFT writes the model's configs anew each time, with a warning where there are some: it is shown none.
    wearer.__dict__.pop("peft_config", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            peft.inject_adapter_in_model(config, wearer, adapter_name=name)
        adopt(block)
    except Exception as error:
        _take_out(wearer, name)
        if not isinstance(error, (ValueError, TypeError, RuntimeWarning)):
            raise
        raise StructureError(f"{_named(block)}: adapter {name!r} cannot be put in: {error}") from error
    finally:
        wearer.__dict__.pop("peft_config", None)
        if before:
            wearer.peft_config = before  # type: ignore[assignment]
        for parameter, grad in grads:
            parameter.requires_grad_(grad)
    wearer.peft_config = {**before, name: config}  # type: ignore[assignment]
    for _, layer in layers_of(wearer):
        layer.training = layer.base_layer.training
        for part in (part for part in layer.children() if part is not layer.base_layer):
            part.train(layer.training)
    for parameter in tensors_of(block, name).values():
        parameter.requires_grad_(True)
    keep_when_recomputed(wearer)


def adopt(block: nn.Module) -> None:
    """Makes layers that PEFT put into a block read what the call wears; those that do are left as they are.

    Raises:
        StructureError: there is a layer of a kind that cannot.
    """
    from wgtorch.lora.layers import KINDS, WornLayer

    found = [(path, layer) for path, layer in layers_of(wearer_of(block)) if not isinstance(layer, WornLayer)]
    for path, layer in found:
        if type(layer) not in KINDS:
            raise StructureError(
                f"{_named(block)}: {path} is a {type(layer).__name__} of PEFT, which cannot wear different adapters at different places; "
                f"adapters go on {', '.join(sorted(kind.__name__ for kind in KINDS))}"
            )
    for _, layer in found:
        layer.__class__ = KINDS[type(layer)]
    if found:
        keep_when_recomputed(wearer_of(block))


def adopt_below(child: Any) -> None:
    """:func:`adopt` for a block, or for all blocks of a level, that have adapters."""
    for _, block, _ in walk(child, repeats=0):
        if not is_level(block) and adapters_on(block):
            adopt(block)


def is_adopted(block: nn.Module) -> bool:
    """False while a block has layers that PEFT put in and that know nothing of places."""
    return all(type(layer).__module__ == "wgtorch.lora.layers" for _, layer in layers_of(wearer_of(block)))


def detach(block: nn.Module, name: str) -> None:
    """Takes an adapter out; with the last one the block's modules are those it had before there was any.

    Raises:
        StructureError: the block has no such adapter, or it is merged.
    """
    wearer = wearer_of(block)
    configs: dict[str, Any] = wearer.__dict__.get("peft_config") or {}
    if name not in configs:
        raise StructureError(f"{_named(block)}: has no adapter {name!r}; {suggest(name, configs)}")
    if any(name in layer.merged_adapters for _, layer in layers_of(wearer)):
        raise StructureError(f"{_named(block)}: adapter {name!r} is merged into the base; unmerge it first")
    _take_out(wearer, name)
    rest = {other: config for other, config in configs.items() if other != name}
    if rest:
        wearer.peft_config = rest  # type: ignore[assignment]
        return
    del wearer.peft_config
    as_before(wearer)


def layers_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's LoRA layers inside a model: (path, layer)."""
    return ((path, part) for path, part in model.named_modules() if "lora_A" in part._modules and "base_layer" in part._modules)


def tensors_of(block: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """An adapter's parameters under the names that PEFT gives them in files, without its prefix ``base_model.model.``."""
    found: dict[str, nn.Parameter] = {}
    for path, layer in layers_of(wearer_of(block)):
        for kind in layer.adapter_layer_names:
            holder = getattr(layer, kind, None)
            if holder is None or name not in holder:
                continue
            if isinstance(holder[name], nn.Parameter):
                found[f"{path}.{kind}"] = holder[name]
            elif kind == "lora_magnitude_vector":  # DoRA's only parameter, whose own name PEFT leaves out
                found[f"{path}.{kind}"] = next(holder[name].parameters())
            else:
                found |= {f"{path}.{kind}.{key}": value for key, value in holder[name].named_parameters()}
    return found


def set_tensors(block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Copies values, named as by :func:`tensors_of`, into an adapter; in the dtype that they have."""
    with torch.no_grad():
        for key, parameter in tensors_of(block, name).items():
            value = tensors[key].detach()
            if parameter.dtype != value.dtype:
                parameter.data = value.to(parameter.device).clone()
            else:
                parameter.copy_(value)


def misfits(block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """What of tensors named as by :func:`tensors_of` does not fit an adapter, in words."""
    expected = tensors_of(block, name)
    wrong = [f"{key} matched nothing" for key in tensors if key not in expected]
    wrong += [f"{key} is missing" for key in expected if key not in tensors]
    return wrong + [
        f"{key} has shape {list(tensors[key].shape)}, expected {list(parameter.shape)}"
        for key, parameter in expected.items()
        if key in tensors and tensors[key].shape != parameter.shape
    ]


def base_state(block: nn.Module) -> dict[str, Any]:
    """``state_dict`` as it is without adapters, and not merged with any; values are the parameters themselves."""
    state: dict[str, Any] = block.state_dict(keep_vars=True)
    layers = dict(layers_of(block))
    if not layers:
        return state
    base = {}
    for name, value in state.items():
        found = _plain_name(name, layers)
        if found is not None:
            plain, layer, inside = found
            base[plain] = value if layer is None else layer.__dict__.get("_unmerged", {}).get(inside, value)
    return base


def base_parameters(block: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are no adapter's, under the names they have without adapters."""
    layers = dict(layers_of(block))
    named = ((_plain_name(name, layers), parameter) for name, parameter in block.named_parameters(remove_duplicate=False))
    return {found[0]: parameter for found, parameter in named if found is not None}


def _plain_name(name: str, layers: Mapping[str, Any]) -> tuple[str, Any, str] | None:
    """(a name as it is without adapters, the adapted layer it is in, its name there); None for what an adapter brought."""
    at = name.rfind(".")
    while at > 0:
        path, inside = name[:at], name[at + 1 :]
        if path in layers:
            plain = inside.removeprefix("base_layer.")
            return (f"{path}.{plain}", layers[path], plain) if plain != inside else None
        at = name.rfind(".", 0, at)
    return name, None, ""


def _take_out(wearer: nn.Module, name: str) -> None:
    for path, layer in list(layers_of(wearer)):
        layer._active_adapter = []  # else PEFT makes another one active, and so trainable
        layer.delete_adapter(name)
        if not layer.scaling:
            parent, _, attribute = path.rpartition(".")
            setattr(wearer.get_submodule(parent), attribute, layer.base_layer)


def _named(block: Any) -> str:
    return str(getattr(block, "block_id", type(block).__name__))
