"""Adapters counted into the base weights: calls cost what they cost without, and every place wears the same."""

from __future__ import annotations

from typing import Any

import torch

from wgtorch.core.adapter_hook import Adapter
from wgtorch.core.errors import StructureError
from wgtorch.lora.context import PerSample, Weighted, adapters_on, as_worn, canonical, gate_of, missing_here, wearer_of
from wgtorch.lora.peft_model import layers_of
from wgtorch.lora.places import Place, places_of, unique_blocks


def merge(target: Any, adapter: Adapter) -> list[str]:
    """Counts an adapter, or several with weights, into the weights of the blocks below that have it.

    The weights as they were are kept beside, so that :func:`unmerge` brings them back bit for bit. A checkpoint of what is merged
    holds base and adapter apart, as ever.

    Args:
        target: a block or level.
        adapter: a name, or weights by name.

    Returns:
        Paths of the blocks.

    Raises:
        StructureError: a place below wears something else, so that it would feel what is not its own; or something is merged
            already. Nothing was changed then.
    """
    plain = canonical(adapter, target.block_id)
    worn = as_worn(plain)
    if worn is None or isinstance(worn, PerSample):
        raise StructureError(f"lora.merge: {adapter!r}; expected an adapter's name, or weights by name")
    if (wrong := missing_here(target, plain)) is not None:
        raise StructureError(f"{target.block_id}: {wrong}")
    names = {name for name, _ in worn}
    places = places_of(target)
    blocks = [place for place in unique_blocks(places) if names & adapters_on(place.block).keys()]
    for place in blocks:
        _check(place, places, worn)
    try:
        for place in blocks:
            own = _own(worn, place)
            with gate_of(wearer_of(place.block)).change(), torch.no_grad():
                wearer_of(place.block).__dict__["_merged_adapters"] = own
                for _, layer in layers_of(wearer_of(place.block)):
                    _merge_layer(layer, own)
    except Exception:
        for place in blocks:
            _restore(place)
        raise
    return [place.path for place in blocks]


def unmerge(target: Any) -> list[str]:
    """Gives the blocks below the weights back that they had before :func:`merge`, bit for bit.

    Returns:
        Paths of the blocks.

    Raises:
        StructureError: weights were changed while they were merged, so what they are without the adapter is not known.
    """
    blocks = [place for place in unique_blocks(places_of(target)) if "_merged_adapters" in wearer_of(place.block).__dict__]
    for place in blocks:
        for path, layer in layers_of(wearer_of(place.block)):
            data, version = layer.__dict__.get("_merged_state", (0, 0))
            if data == layer.weight.data_ptr() and version != layer.weight._version:
                raise StructureError(f"{place.path}: {path} was changed while an adapter was merged; load the base again")
    for place in blocks:
        _restore(place)
    return [place.path for place in blocks]


def _restore(place: Place) -> None:
    wearer = wearer_of(place.block)
    with gate_of(wearer).change(), torch.no_grad():
        for _, layer in layers_of(wearer):
            base = layer.get_base_layer()
            for key, value in layer.__dict__.pop("_unmerged", {}).items():
                now = getattr(base, key)
                now.data = value.to(now.device, now.dtype)
            layer.__dict__.pop("_merged_state", None)
            layer.merged_adapters.clear()
        wearer.__dict__.pop("_merged_adapters", None)


def _own(worn: Weighted, place: Place) -> Weighted:
    return tuple((name, weight) for name, weight in worn if name in adapters_on(place.block))


def _check(place: Place, places: list[Place], worn: Weighted) -> None:
    wearer = wearer_of(place.block)
    if "_merged_adapters" in wearer.__dict__:
        raise StructureError(f"{place.path}: {dict(wearer.__dict__['_merged_adapters'])} is merged already; unmerge it first")
    for _, layer in layers_of(wearer):
        if any(name in layer.lora_variant and weight != 1.0 for name, weight in worn):
            raise StructureError(
                f"{place.path}: an adapter that is no plain LoRA (DoRA or another variant) can only be merged with weight 1"
            )
    own = _own(worn, place)
    for other in places:
        if other.level is None or wearer_of(other.block) is not wearer:
            continue
        wears = as_worn(other.level.places[other.node_id].adapter)
        if wears != own:
            raise StructureError(
                f"{other.path}: wears {other.level.places[other.node_id].adapter!r}, and would feel {dict(own)} merged into the weights "
                "it shares; set its adapter to the same, or give it a copy with clone_node"
            )


def _merge_layer(layer: Any, worn: Weighted) -> None:
    own = [(name, weight) for name, weight in worn if name in layer.scaling]
    if not own:
        return
    base = layer.get_base_layer()
    kept = {"weight": base.weight.data}
    if any(layer.lora_bias[name] for name, _ in own) and base.bias is not None:
        kept["bias"] = base.bias.data
    layer.__dict__["_unmerged"] = kept
    for name, weight in own:
        if weight == 1.0:
            layer.merge(safe_merge=True, adapter_names=[name])  # into a copy, which becomes the weight
        else:
            base.weight.data = base.weight.data + weight * layer.get_delta_weight(name).to(base.weight.dtype)
            if layer.lora_bias[name] and base.bias is not None:
                base.bias.data = base.bias.data + weight * layer.scaling[name] * layer.lora_B[name].bias
            layer.merged_adapters.append(name)
    layer.__dict__["_merged_state"] = (base.weight.data_ptr(), base.weight._version)
