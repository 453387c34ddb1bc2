"""What PEFT's layers make of a module: its adapters, their tensors under PEFT's names, and the base as it is without them.

PEFT puts its layers inside a module: ``linear.weight`` becomes ``linear.base_layer.weight`` beside ``linear.lora_A.<name>`` or
``linear.oft_R.<name>``; of ``modules_to_save``, ``head.original_module.weight`` beside a whole copy in ``head.modules_to_save.<name>``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from wgtorch.lora.selection import Weighted

_MERGED = "_merged_adapters"
_BASES = ("base_layer", "original_module")
_KINDS = frozenset(("lora_A", "oft_R", "modules_to_save"))


def adapted_module(block: nn.Module) -> nn.Module:
    """The module whose layers are adapted: the model that a block stands for (``ref_module``), or the block itself.

    A single layer that was made a block stays a layer of that block: PEFT puts its layers inside a module.
    """
    inner = block._modules.get(getattr(type(block), "ref_module", ""))
    return block if inner is None or not inner._modules else inner


def adapters_on(block: nn.Module) -> Mapping[str, Any]:
    """PEFT's configs of a block's adapters, by name."""
    return adapted_module(block).__dict__.get("peft_config") or {}


def merged_into(block: nn.Module) -> Weighted | None:
    """Adapters that are counted into a block's base weights now, None when there are none."""
    return adapted_module(block).__dict__.get(_MERGED)


def set_merged(block: nn.Module, merged: Weighted | None) -> None:
    """Notes what :func:`merged_into` says."""
    adapted_module(block).__dict__.pop(_MERGED, None)
    if merged is not None:
        adapted_module(block).__dict__[_MERGED] = merged


def layers_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's layers inside a module, and modules of which adapters have copies: (path, layer)."""
    return (
        (path, part)
        for path, part in module.named_modules()
        if any(base in part._modules and _KINDS & part._modules.keys() for base in _BASES)
    )


def base_of(layer: Any) -> Any:
    """The module that a layer of PEFT's stands around."""
    return next(layer._modules[base] for base in _BASES if base in layer._modules)


def names_in(layer: Any) -> Collection[str]:
    """Adapters that a layer has."""
    return cast("Collection[str]", layer.modules_to_save.keys() if has_copies(layer) else layer.r.keys())


def has_copies(layer: Any) -> bool:
    """True for a module of which adapters have whole copies."""
    return "modules_to_save" in layer._modules


def is_low_rank(layer: Any, name: str) -> bool:
    """True where an adapter of a layer is plain LoRA, so that it can be weighted and summed with others."""
    return "lora_A" in layer._modules and name not in layer.lora_variant


def tensors_of(block: nn.Module, name: str) -> dict[str, Tensor]:
    """An adapter's parameters, and buffers of its copies, as PEFT names them in files, without its prefix ``base_model.model.``."""
    found: dict[str, Tensor] = {}
    for path, layer in layers_of(adapted_module(block)):
        for kind in layer.adapter_layer_names:
            holder = getattr(layer, kind, None)
            if holder is None or name not in holder:
                continue
            if isinstance(holder[name], nn.Parameter):
                found[f"{path}.{kind}"] = holder[name]
            elif kind == "modules_to_save":
                found |= {f"{path}.{key}": value for key, value in holder[name].state_dict(keep_vars=True).items()}
            elif kind == "lora_magnitude_vector":  # DoRA's only parameter, whose own name PEFT leaves out
                found[f"{path}.{kind}"] = next(holder[name].parameters())
            else:
                found |= {f"{path}.{kind}.{key}": value for key, value in holder[name].named_parameters()}
    return found


def set_tensors(block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Copies values, named as by :func:`tensors_of`, into an adapter; in the dtype that they have, the widest of a layer's."""
    wide: dict[str, torch.dtype] = {}
    for key, value in tensors.items():
        layer = key.partition(".lora_")[0]
        wide[layer] = torch.promote_types(value.dtype, wide.get(layer, value.dtype))
    with torch.no_grad():
        for key, parameter in tensors_of(block, name).items():
            value = tensors[key].detach().to(wide[key.partition(".lora_")[0]])
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
            plain = inside.removeprefix("base_layer.").removeprefix("original_module.")
            return (f"{path}.{plain}", layers[path], plain) if plain != inside else None
        at = name.rfind(".", 0, at)
    return name, None, ""
