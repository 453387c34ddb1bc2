"""Adapters put into models by PEFT and taken out. A model's base, its names and what of it trains are as before afterwards."""

from __future__ import annotations

import re
import warnings
from typing import Any

from torch import nn

from wgtorch.core.errors import StructureError, require
from wgtorch.core.tree import is_level, walk
from wgtorch.lora.adapted_module import adapted_module, adapters_on, base_of, has_copies, layers_of, merged_into, names_in, tensors_of
from wgtorch.lora.gradient_checkpointing import preserve_when_recomputed, restore_checkpointing

_NAME = re.compile(r"[A-Za-z0-9_-]+")
OPTIONS = (
    "alpha_pattern", "exclude_modules", "fan_in_fan_out", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_bias",
    "modules_to_save", "rank_pattern", "use_dora", "use_rslora",
)  # fmt: skip
"""Options of PEFT's LoraConfig, beside the usual ones, that leave the base and other adapters as they are."""
OFT_OPTIONS = (
    "block_share", "coft", "eps", "exclude_modules", "init_weights", "layers_pattern", "layers_to_transform", "modules_to_save",
    "num_cayley_neumann_terms", "oft_block_size", "use_cayley_neumann",
)  # fmt: skip
"""The same of its OFTConfig."""
_CHANGING: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
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
    for field, fine in _CHANGING.items():
        value = getattr(config, field, fine[0])
        if value not in fine:
            raise StructureError(
                f"{where}: {field} is {value!r}, which changes the base itself; expected {' or '.join(repr(entry) for entry in fine)}"
            )


def inject(block: nn.Module, name: str, config: Any) -> None:
    """Puts a new adapter, a ``peft.LoraConfig`` or ``peft.OFTConfig``, into a block; no place selects it yet.

    Raises:
        StructureError: no adapter can have the name, or PEFT cannot adapt a layer that the config names; nothing was changed then.
    """
    peft: Any = require("peft", "train")
    module = adapted_module(block)
    before = dict(adapters_on(block))
    assert check_name(name) not in before, name
    check_config(config, f"{block.block_id}: adapter {name!r}")
    grads = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    # PEFT writes the model's configs anew each time, with a warning where there are some: it is shown none.
    _set_configs(module, {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            peft.inject_adapter_in_model(config, module, adapter_name=name)
        _convert(block)
    except Exception as error:
        _take_out(module, name)
        if not isinstance(error, (ValueError, TypeError, RuntimeWarning)):
            raise
        raise StructureError(f"{block.block_id}: adapter {name!r} cannot be put in: {error}") from error
    finally:
        _set_configs(module, before)
        for parameter, grad in grads:
            parameter.requires_grad_(grad)
    _set_configs(module, {**before, name: config})
    for _, layer in layers_of(module):
        base = base_of(layer)
        layer.training = base.training
        for part in (part for part in layer.children() if part is not base):
            part.train(layer.training)
    for value in tensors_of(block, name).values():
        if isinstance(value, nn.Parameter):
            value.requires_grad_(True)
    preserve_when_recomputed(module)


def convert_layers(target: Any) -> None:
    """Makes layers that PEFT put into a block, or into blocks of a level, read the adapter context; others are left as they are.

    Raises:
        StructureError: there is a layer of a kind that cannot.
    """
    for _, block, _ in walk(target, repeats=0):
        if not is_level(block) and adapters_on(block) and not is_converted(block):
            _convert(block)


def is_converted(block: nn.Module) -> bool:
    """False while a block has layers that PEFT put in and that know nothing of places."""
    return all(type(layer).__module__ == "wgtorch.lora.layers" for _, layer in layers_of(adapted_module(block)))


def eject(block: nn.Module, name: str) -> None:
    """Takes an adapter out; with the last one the block's modules are those it had before there was any."""
    assert name not in dict(merged_into(block) or ()), name
    module = adapted_module(block)
    _take_out(module, name)
    configs = {other: config for other, config in adapters_on(block).items() if other != name}
    _set_configs(module, configs)
    if not configs:
        restore_checkpointing(module)


def _convert(block: nn.Module) -> None:
    from wgtorch.lora.layers import CONTEXT_LAYERS, ContextLayer

    every = dict(layers_of(adapted_module(block)))
    found = [(path, layer) for path, layer in every.items() if not isinstance(layer, ContextLayer)]
    for path, layer in found:
        if type(layer) not in CONTEXT_LAYERS:
            raise StructureError(
                f"{block.block_id}: {path} is a {type(layer).__name__} of PEFT, whose adapters cannot differ from place to place; "
                f"adapters go on {', '.join(sorted({kind.__name__ for kind in CONTEXT_LAYERS} - {'ModulesToSaveWrapper'}))}"
            )
    for path in every:
        if outer := next((path[:at] for at, letter in enumerate(path) if letter == "." and path[:at] in every), None):
            raise StructureError(
                f"{block.block_id}: {outer} would have adapters of two kinds, one inside the other (LoRA, OFT or a copy of the module); "
                "put them on different layers, or remove one first"
            )
    for _, layer in found:
        layer.__class__ = CONTEXT_LAYERS[type(layer)]
        if has_copies(layer):
            layer.merged_adapters = []  # PEFT's is one list of the class
    preserve_when_recomputed(adapted_module(block))


def _set_configs(module: nn.Module, configs: dict[str, Any]) -> None:
    module.__dict__.pop("peft_config", None)
    if configs:
        module.peft_config = configs  # type: ignore[assignment]


def _take_out(module: nn.Module, name: str) -> None:
    for path, layer in list(layers_of(module)):
        layer._active_adapter = []  # else PEFT makes another one active, and so trainable
        layer.delete_adapter(name, *([None] if has_copies(layer) else []))
        if not names_in(layer):
            parent, _, attribute = path.rpartition(".")
            setattr(module.get_submodule(parent), attribute, base_of(layer))
