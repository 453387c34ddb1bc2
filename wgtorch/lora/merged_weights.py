"""Adapters counted into the base weights: calls cost what they cost without, and every place feels the same."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor

from wgtorch.core.adapter_hook import Adapter
from wgtorch.core.errors import StructureError
from wgtorch.lora.active_adapters import changing, missing
from wgtorch.lora.adapted_module import base_of, has_copies, is_low_rank, layers_of, merged_into, names_in, set_merged
from wgtorch.lora.add_remove import remove
from wgtorch.lora.places import Place, places_of, unique_models
from wgtorch.lora.selection import PerSample, Weighted, as_active, canonical


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
        StructureError: a place below selects something else, so that it would feel what is not its own; something is merged
            already; the adapter has a bias for a layer without one; or a layer's weight is tied to another's. Nothing was changed.
    """
    merged, blocks = _chosen(target, adapter, "merge")
    for place in blocks:
        if (before := merged_into(place.block)) is not None:
            raise StructureError(f"{place.path}: {dict(before)} is merged already; unmerge it first")
        check_mergeable(place, places_of(target), merged)
    try:
        for place in blocks:
            own = _own(merged, place)
            with changing(place.block), torch.no_grad():
                set_merged(place.block, own)
                for path, layer in layers_of(place.module):
                    merge_layer(layer, own, f"{place.path}: {path}")
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
    blocks = [place for place in unique_models(places_of(target)) if merged_into(place.block) is not None]
    for place in blocks:
        for path, layer in layers_of(place.module):
            data, version = layer.__dict__.get("_merged_state", (0, 0))
            first = _first_weight(layer)
            if data == first.data_ptr() and version != first._version:
                raise StructureError(f"{place.path}: {path} was changed while an adapter was merged; load the base again")
    for place in blocks:
        _restore(place)
    return [place.path for place in blocks]


def fuse(target: Any, adapter: Adapter) -> list[str]:
    """Makes an adapter, or several with weights, part of the base for good: what is left has no trace of it.

    Places stop selecting it and a base that it had frozen trains again, as after :func:`remove`. Other adapters stay, on the new
    base. What :func:`merge` counted in already is left in.

    Args:
        target: a block or level.
        adapter: a name, or weights by name.

    Returns:
        Paths of the blocks.

    Raises:
        StructureError: as for :func:`merge`. Nothing was changed then.
    """
    chosen, blocks = _chosen(target, adapter, "fuse")
    if any(merged_into(place.block) != _own(chosen, place) for place in blocks):
        merge(target, adapter)
    for place in blocks:
        with changing(place.block):
            _forget(place)
    for name, _ in chosen:
        remove(target, name)
    return [place.path for place in blocks]


def _chosen(target: Any, adapter: Adapter, what: str) -> tuple[Weighted, list[Place]]:
    """(adapters with weights, blocks that have one of them)."""
    plain = canonical(adapter, target.block_id)
    chosen = as_active(plain)
    if chosen is None or isinstance(chosen, PerSample):
        raise StructureError(f"lora.{what}: {adapter!r}; expected an adapter's name, or weights by name")
    if (wrong := missing(target, plain)) is not None:
        raise StructureError(f"{target.block_id}: {wrong}")
    return chosen, [place for place in unique_models(places_of(target)) if _own(chosen, place)]


def _own(chosen: Weighted, place: Place) -> Weighted:
    return tuple((name, weight) for name, weight in chosen if name in place.adapters)


def check_mergeable(place: Place, places: list[Place], chosen: Weighted) -> None:
    """Refuses adapters that cannot be in the weights of a model.

    Args:
        place: of the model.
        places: all that may have it.
        chosen: adapters with weights.

    Raises:
        StructureError: a place selects something else, a weight is tied to another's, or a layer takes no such change.
    """
    uses = Counter(id(parameter) for _, parameter in place.block.named_parameters(remove_duplicate=False))
    for path, layer in layers_of(place.module):
        own = [(name, weight) for name, weight in chosen if name in names_in(layer)]
        if not own:
            continue
        base = base_of(layer)
        if any(uses[id(parameter)] > 1 for parameter in base.parameters()):
            raise StructureError(
                f"{place.path}: {path} shares its weight with another layer (tied weights), which would feel what is merged into it; let "
                "places select the adapter instead, or give the layer a weight of its own"
            )
        if getattr(base, "groups", 1) > 1 and not has_copies(layer):
            raise StructureError(
                f"{place.path}: {path} is a convolution in groups, and what an adapter adds joins all its channels, so it cannot be in "
                "the weights; let places select the adapter instead"
            )
        if has_copies(layer) and len(own) > 1:
            raise StructureError(f"{place.path}: adapters {[name for name, _ in own]} have each a copy of {path}; merge one of them")
        for name, weight in own:
            if not is_low_rank(layer, name) and weight != 1.0:
                raise StructureError(
                    f"{place.path}: adapter {name!r} is no plain LoRA on {path} (DoRA, OFT, a copy), which can only be merged with weight 1"
                )
            if _has_bias(layer, name) and getattr(base, "bias", None) is None:
                raise StructureError(
                    f"{place.path}: adapter {name!r} has a bias for {path}, a layer without one, so it cannot be merged into its "
                    "weights; let places select it instead, or train one with lora_bias=False"
                )
    merged = _own(chosen, place)
    for other in places:
        if other.level is not None and other.module is place.module and as_active(other.selected) != merged:
            raise StructureError(
                f"{other.path}: selects {other.selected!r}, and would feel {dict(merged)} merged into the weights it shares; set its "
                "adapter to the same, or give it a copy with clone_node"
            )


def merge_layer(layer: Any, merged: Weighted, where: str) -> None:
    """Counts adapters into the weights of one of PEFT's layers; the weights as they were are kept beside.

    Raises:
        StructureError: they would not be finite.
    """
    own = [(name, weight) for name, weight in merged if name in names_in(layer)]
    if not own:
        return
    base = base_of(layer)
    state = base.state_dict(keep_vars=True)
    changed = state if has_copies(layer) else ("weight", "bias") if any(_has_bias(layer, name) for name, _ in own) else ("weight",)
    layer.__dict__["_unmerged"] = {key: state[key].data for key in changed}
    for name, weight in own:
        if has_copies(layer):
            for key, value in layer.modules_to_save[name].state_dict().items():
                state[key].data = value.clone()
            layer.merged_adapters.append(name)
            continue
        if not is_low_rank(layer, name):
            layer.merge(safe_merge=True, adapter_names=[name])  # into a copy, which becomes the weight
            continue
        base.weight.data = base.weight.data + weight * layer.get_delta_weight(name).to(base.weight.dtype)
        if _has_bias(layer, name):
            base.bias.data = base.bias.data + weight * layer.scaling[name] * layer.lora_B[name].bias
        layer.merged_adapters.append(name)
    if not all(bool(torch.isfinite(state[key]).all()) for key in changed):
        raise StructureError(
            f"{where}: with {dict(own)} merged its weights are not finite; the adapter, or the base, holds NaN or infinity"
        )
    first = _first_weight(layer)
    layer.__dict__["_merged_state"] = (first.data_ptr(), first._version)


def _first_weight(layer: Any) -> Tensor:
    return cast(Tensor, next(base_of(layer).parameters()))


def _has_bias(layer: Any, name: str) -> bool:
    return not has_copies(layer) and "lora_A" in layer._modules and bool(layer.lora_bias.get(name))


def _restore(place: Place) -> None:
    with changing(place.block), torch.no_grad():
        for _, layer in layers_of(place.module):
            state = base_of(layer).state_dict(keep_vars=True)
            for key, value in layer.__dict__.get("_unmerged", {}).items():
                now = state[key]
                now.data = value.to(now.device, now.dtype)
        _forget(place)


def _forget(place: Place) -> None:
    """Drops the record of a merge, with the weights that were before it."""
    for _, layer in layers_of(place.module):
        layer.__dict__.pop("_unmerged", None)
        layer.__dict__.pop("_merged_state", None)
        layer.merged_adapters.clear()
    set_merged(place.block, None)
