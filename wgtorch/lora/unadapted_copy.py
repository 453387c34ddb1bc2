"""A model as it is without adapters, or with them in its weights, beside the one that has them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from wgtorch.lora.adapted_module import adapted_module, base_of, layers_of, set_merged
from wgtorch.lora.call_gate import CallGate
from wgtorch.lora.gradient_checkpointing import restore_checkpointing
from wgtorch.lora.merged_weights import merge_layer
from wgtorch.lora.selection import Weighted


def unadapted_copy(block: nn.Module, fused: Weighted = ()) -> Any:
    """The model of a block with its first layers again; it shares all weights that are not changed.

    Args:
        block: with adapters.
        fused: adapters with weights that are counted into the copy's weights.

    Raises:
        StructureError: with them in, the weights would not be finite.
    """
    module = adapted_module(block)
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    if (gate := module.__dict__.get("_adapter_gate")) is not None:
        memo[id(gate)] = CallGate()
    made = copy.deepcopy(module, memo)
    with torch.no_grad():
        for path, layer in list(layers_of(made)):
            base = base_of(layer)
            for key, value in base.state_dict(keep_vars=True).items():
                inside, _, attribute = key.rpartition(".")
                fresh = layer.__dict__.get("_unmerged", {}).get(key, value.detach())
                owner = base.get_submodule(inside)
                setattr(owner, attribute, nn.Parameter(fresh, value.requires_grad) if isinstance(value, nn.Parameter) else fresh)
            layer.__dict__.pop("_unmerged", None)
            layer.merged_adapters.clear()
            merge_layer(layer, fused, f"{block.block_id}: {path}")
            parent, _, attribute = path.rpartition(".")
            setattr(made.get_submodule(parent), attribute, base)
    for name in ("peft_config", "_hf_peft_config_loaded"):
        made.__dict__.pop(name, None)
    set_merged(made, None)
    restore_checkpointing(made)
    return made
