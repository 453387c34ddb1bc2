"""What was written, read by diffusers and compared, before it is called written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wgtorch.core.errors import ConfigError, require
from wgtorch.integrations.diffusers.exported_adapters import ExportedAdapters
from wgtorch.integrations.diffusers.source import public
from wgtorch.lora.adapted_module import layers_of
from wgtorch.lora.formats.write_foreign_files import changes_of

_CLOSE = 1e-5
_SENTENCE = "a lighthouse in a storm"


def check_written(pipeline: Any, exported: ExportedAdapters, folder: Path) -> None:
    """Compares a folder, as diffusers reads it, with the pipeline that it was written from.

    Raises:
        ConfigError: diffusers cannot read it, or reads something else; names all parts that differ.
    """
    library: Any = require("diffusers", "diffusers")
    absent = {name: None for name, part in pipeline.components.items() if part is None}
    dtypes = {name: part.dtype for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that one version of diffusers gives up for another
            again = library.DiffusionPipeline.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, torch_dtype={**dtypes, "default": torch.float32}, **absent
            )
    except Exception as error:
        raise ConfigError(f"to_diffusers: diffusers cannot read what was written: {type(error).__name__}: {error}") from error
    wrong = [] if type(again) is type(pipeline) else [f"it is a {type(again).__name__}, written was a {type(pipeline).__name__}"]
    for name, part in pipeline.components.items():
        wrong += [f"{name}: {words}" for words in _differs(part, again.components.get(name))]
    if not wrong and exported.parts:
        again.load_lora_weights(str(folder))
        wrong = _adapters_differ(exported, again)
    if wrong:
        raise ConfigError(f"to_diffusers: diffusers reads something else than was written: {'; '.join(wrong[:20])}")


def _differs(part: Any, again: Any) -> list[str]:
    if type(part) is not type(again):
        return [f"read as {type(again).__name__}, written was {type(part).__name__}"]
    if isinstance(part, nn.Module):
        own, read = part.state_dict(), again.state_dict()
        if own.keys() != read.keys():
            return [f"other weights: {sorted(own.keys() ^ read.keys())[:5]}"]
        return [f"{key} is another" for key, value in own.items() if not _same(value, read[key])][:5]
    if hasattr(part, "set_timesteps"):
        own, read = public(part.config), public(again.config)
        return [f"{key} is {read.get(key)!r}, written was {value!r}" for key, value in own.items() if read.get(key) != value]
    if hasattr(part, "get_vocab") and part(_SENTENCE).input_ids != again(_SENTENCE).input_ids:
        return ["it makes other tokens of a sentence"]
    return []


def _same(first: Any, second: Any) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first.to(second.device), second)


def _adapters_differ(exported: ExportedAdapters, again: Any) -> list[str]:
    """Layers whose change diffusers reads otherwise."""
    wrong = []
    for part, place in exported.parts.items():
        read = dict(layers_of(again.components[part]))
        own = changes_of(place, exported.chosen[part])
        wrong += [f"{part}: {path} has no adapter" for path in own if path not in read]
        for path, change in own.items():
            if path in read:
                name = read[path].active_adapters[0]
                delta = read[path].get_delta_weight(name).flatten(1).float()
                same = torch.allclose(delta, change.delta().to(delta.device), atol=_CLOSE, rtol=1e-3)
                if change.magnitude is not None:
                    lengths = read[path].lora_magnitude_vector[name].weight.flatten()
                    same = same and torch.allclose(lengths, change.magnitude.to(lengths), atol=_CLOSE, rtol=1e-3)
                if not same:
                    wrong.append(f"{part}: {path} is changed otherwise")
    return wrong
