"""Adapters written as diffusers and kohya's scripts read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.core.errors import StructureError
from wgtorch.core.json_text import loads
from wgtorch.lora.adapted_module import layers_of, names_in
from wgtorch.lora.formats.foreign_layer_names import TEXT_ENCODERS, AdapterNames, Spelling, adapter_names
from wgtorch.lora.formats.low_rank import LowRank
from wgtorch.lora.formats.read_foreign_files import DIFFUSERS_WEIGHTS, METADATA, config_of, tensors_for, weight_of
from wgtorch.lora.peft_format import PREFIX, stored_adapter
from wgtorch.lora.places import Place
from wgtorch.lora.selection import Weighted

FORMATS = ("peft", "diffusers", "kohya")
"""In which adapters are written."""
_KINDS_OF_TEXT = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "UMT5EncoderModel")


def parts_of(places: Sequence[Place]) -> tuple[dict[str, Place], AdapterNames | None]:
    """(blocks by what files call them, names of the backbone among them).

    Raises:
        StructureError: a block is nothing that such files name, or two are the same.
    """
    found: dict[str, Place] = {}
    naming: AdapterNames | None = None
    for place in places:
        names = adapter_names(place.module)
        node = place.path.rpartition("/")[2]
        part = names.part if names is not None else node if node in TEXT_ENCODERS else ""
        if not part and type(place.module).__name__ in _KINDS_OF_TEXT:
            part = "text_encoder"
        if not part:
            raise StructureError(
                f"{place.path}: files of other programs have no name for adapters of a {type(place.module).__name__}; take them off it "
                "(lora.add(..., nodes=...)), or save with format='peft'"
            )
        if part in found:
            raise StructureError(f"{place.path} and {found[part].path} are both {part}; save the adapters of one graph at a time")
        found[part] = place
        naming = names or naming
    return found, naming


def changes_of(place: Place, chosen: Weighted) -> dict[str, LowRank]:
    """What adapters with weights change in a block, by layer; several are one of the sum of their ranks.

    Raises:
        StructureError: an adapter of several, or one with a weight, is no plain LoRA.
    """
    found: dict[str, list[tuple[LowRank, float]]] = {}
    for path, layer in layers_of(place.module):
        for name, weight in chosen:
            if name in names_in(layer):
                found.setdefault(path, []).append((_change(place, path, layer, name), weight))
    return {path: _sum(changes, f"{place.path}: {path}") for path, changes in found.items()}


def write_diffusers(file: Path, parts: Mapping[str, Place], chosen: Mapping[str, Weighted], names: AdapterNames | None) -> None:
    """Writes what ``load_lora_weights`` of diffusers reads.

    Args:
        file: new.
        parts: blocks by what diffusers calls them.
        chosen: adapters with weights, for each.
        names: of the backbone.

    Raises:
        StructureError: diffusers reads no adapters of one of the parts.
    """
    readable = names.parts if names is not None else ("unet", "transformer", "text_encoder")
    if unread := [part for part in parts if part not in readable]:
        raise StructureError(
            f"diffusers reads adapters of {', '.join(readable)} here, and not of {', '.join(unread)}; take them off "
            f"{', '.join(parts[part].path for part in unread)}, or save with format='kohya' or 'peft'"
        )
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    for part, place in parts.items():
        for path, layer in layers_of(place.module):
            _check_low_rank(place, path, layer, chosen[part])
        if len(chosen[part]) == 1 and chosen[part][0][1] == 1.0:
            text, own = stored_adapter(place.block, chosen[part][0][0])
            config = loads(text)
            own = {key.removeprefix(PREFIX): value for key, value in own.items()}
        else:
            changes = changes_of(place, chosen[part])
            layers = dict(layers_of(place.module))
            own = {key: value for path, change in changes.items() for key, value in tensors_for(path, change, layers[path]).items()}
            config = {**config_of(changes), "target_modules": sorted(changes)}
        tensors |= {f"{part}.{_said(key, part)}": value for key, value in own.items()}
        metadata |= {f"{part}.{key}": value for key, value in config.items()}
    write_tensors(file, tensors, {"format": "pt", METADATA: json.dumps(metadata, indent=2, sort_keys=True)})


def write_kohya(file: Path, parts: Mapping[str, Place], chosen: Mapping[str, Weighted], names: AdapterNames | None) -> None:
    """Writes a file as kohya's scripts do, which most programs read; arguments as of :func:`write_diffusers`."""
    tensors: dict[str, Tensor] = {}
    dims, alphas = set(), set()
    for part, place in parts.items():
        changes = changes_of(place, chosen[part])
        layers = dict(layers_of(place.module))
        for name, change, kernel in _spelled(part, place, changes, layers, names):
            key = f"{_prefix(part, parts, names)}_{name.replace('.', '_')}"
            sides = [1] * len(kernel)
            tensors[f"{key}.lora_down.weight"] = change.down.reshape(change.rank, -1, *kernel)
            tensors[f"{key}.lora_up.weight"] = change.up.reshape(-1, change.rank, *sides)
            tensors[f"{key}.alpha"] = torch.tensor(change.alpha)
            if change.magnitude is not None:
                tensors[f"{key}.dora_scale"] = change.magnitude.reshape(-1, 1, *sides)
            if change.bias is not None:
                tensors[f"{key}.diff_b"] = change.bias * change.scale
            dims.add(change.rank)
            alphas.add(change.alpha)
    said = {"ss_network_module": "networks.lora", "ss_network_dim": str(max(dims)), "ss_network_alpha": str(max(alphas))}
    write_tensors(file, {key: value.contiguous() for key, value in tensors.items()}, {"format": "pt", **said})


WRITERS = {"diffusers": (write_diffusers, DIFFUSERS_WEIGHTS), "kohya": (write_kohya, "")}
"""For each format that is one file what writes it, and how the file is called; by the adapter where that is empty."""


# --- private steps ----------------------------------------------------------------------------------------------------


def _said(key: str, part: str) -> str:
    """A tensor's name as its reader wants it: transformers, which reads those of text encoders, finds DoRA's magnitude in full only."""
    return f"{key}.weight" if part in TEXT_ENCODERS and key.endswith("lora_magnitude_vector") else key


def _check_low_rank(place: Place, path: str, layer: Any, chosen: Weighted) -> None:
    if "lora_A" not in layer._modules and (own := [name for name, _ in chosen if name in names_in(layer)]):
        what = "a whole copy of the module" if "modules_to_save" in layer._modules else "OFT"
        raise StructureError(
            f"{place.path}: adapter {own[0]!r} is {what} on {path}, which only format='peft' holds; save it so, or fuse it"
        )


def _change(place: Place, path: str, layer: Any, name: str) -> LowRank:
    _check_low_rank(place, path, layer, ((name, 1.0),))
    if name not in layer.lora_A:
        raise StructureError(f"{place.path}: {path} is an embedding, whose adapters only format='peft' and 'diffusers' hold")
    down, up = layer.lora_A[name].weight.detach().flatten(1), layer.lora_B[name].weight.detach().flatten(1)
    bias = layer.lora_B[name].bias if layer.lora_bias.get(name) else None
    magnitude = layer.lora_magnitude_vector[name].weight if name in layer.lora_magnitude_vector else None
    flat = [None if value is None else value.detach().flatten() for value in (magnitude, bias)]
    return LowRank(up, down, layer.scaling[name] * down.shape[0], *flat)


def _sum(changes: list[tuple[LowRank, float]], where: str) -> LowRank:
    if len(changes) == 1 and changes[0][1] == 1.0:
        return changes[0][0]
    if any(change.magnitude is not None for change, _ in changes):
        raise StructureError(f"{where}: DoRA can neither be weighted nor joined with others in one file; save it alone, or fuse it")
    ups: list[Tensor] = [weight * change.scale * change.up for change, weight in changes]
    biases: list[Tensor] = [weight * change.scale * change.bias for change, weight in changes if change.bias is not None]
    rank = sum(change.rank for change, _ in changes)
    downs = [change.down for change, _ in changes]
    return LowRank(torch.cat(ups, dim=1), torch.cat(downs), float(rank), bias=torch.stack(biases).sum(dim=0) if biases else None)


def _spelled(
    part: str, place: Place, changes: dict[str, LowRank], layers: Mapping[str, Any], names: AdapterNames | None
) -> list[tuple[str, LowRank, tuple[int, ...]]]:
    """(a layer's name as kohya's scripts say it, its change, the kernel of its weight)."""
    model, left, found = place.module, dict(changes), []
    own = adapter_names(model)
    spellings = own.spellings(model) if own is not None and own.first_in_kohya(model) else {}
    for name, spelling in spellings.items():
        if any(path in left for path in spelling.layers):
            change = _fused(spelling, left, dict(model.named_modules()))
            found.append((name, change, tuple(weight_of(layers[next(path for path in spelling.layers if path in left)]).shape[2:])))
            left = {path: change for path, change in left.items() if path not in spelling.layers}
    is_clip = type(model).__name__.startswith("CLIPTextModel")
    for path, change in left.items():
        name = f"text_model.{path}" if is_clip and not path.startswith(("text_model.", "text_projection")) else path
        found.append((name, change, tuple(weight_of(layers[path]).shape[2:])))
    return found


def _fused(spelling: Spelling, changes: Mapping[str, LowRank], modules: Mapping[str, Any]) -> LowRank:
    """Changes of layers whose rows are one layer's elsewhere: blocks beside each other, zeros where one has none."""
    own = [changes[path] for path in spelling.layers if path in changes]
    if len(spelling.layers) == 1:
        made = own[0]
    elif len(own) == len(spelling.layers) and all(
        change.alpha == own[0].alpha and change.down.shape == own[0].down.shape and torch.equal(change.down, own[0].down) for change in own
    ):
        made = LowRank(torch.cat([change.up for change in own]), own[0].down, own[0].alpha)
    else:
        rank = sum(change.rank for change in own)
        rows, start = [], 0
        for path in spelling.layers:
            count = weight_of(modules[path]).shape[0]
            block = own[0].up.new_zeros(count, rank)
            if path in changes:
                block[:, start : start + changes[path].rank] = changes[path].scale * changes[path].up
                start += changes[path].rank
            rows.append(block)
        made = LowRank(torch.cat(rows), torch.cat([change.down for change in own]), float(rank))
    if len(spelling.layers) > 1:
        made = LowRank(made.up, made.down, made.alpha, *(_joined(spelling, changes, modules, made, kind) for kind in ("magnitude", "bias")))
    return made.swapped() if spelling.swapped else made


def _joined(spelling: Spelling, changes: Mapping[str, LowRank], modules: Mapping[str, Any], made: LowRank, kind: str) -> Tensor | None:
    """Magnitudes or biases of all rows; those of layers without an adapter change nothing."""
    if all(getattr(change, kind) is None for path, change in changes.items() if path in spelling.layers):
        return None
    found: list[Any] = []
    for path in spelling.layers:
        own = changes.get(path)
        weight = weight_of(modules[path])
        if own is not None and getattr(own, kind) is not None:
            found.append(own.magnitude if kind == "magnitude" else own.bias * own.scale / made.scale)  # type: ignore[operator]
        elif kind == "magnitude":
            delta = 0 if own is None else own.delta()
            found.append((weight.detach().float().flatten(1) + delta).norm(dim=1).to(weight.dtype))
        else:
            found.append(weight.new_zeros(weight.shape[0]))
    return torch.cat([value for value in found if value is not None])


def _prefix(part: str, parts: Mapping[str, Place], names: AdapterNames | None) -> str:
    """How kohya's scripts begin names of a part's layers."""
    if part not in TEXT_ENCODERS:
        return "lora_unet"
    if names is not None and part == names.t5:
        return "lora_te3"
    several = (
        names is None
        or names.part != "unet"
        or any(adapter_names(place.module) is names and names.first_in_kohya(place.module) for place in parts.values())
    )
    several = several or "text_encoder_2" in parts
    return f"lora_te{TEXT_ENCODERS.index(part) + 1}" if several else "lora_te"
