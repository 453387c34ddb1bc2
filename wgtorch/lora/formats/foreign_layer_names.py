"""What other programs call the layers of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from wgtorch.core.registry import Registry

_SWAPPED = "AdaLayerNormContinuous"
"""A module of diffusers whose linear layer gives scale and shift, where the models' first code has shift and scale."""
FUSED = Mapping[str, tuple[str, ...]]
"""For a layer of a model's first code, the layers that its rows are cut into here; ``{}`` in both stands for each number."""


@dataclass(frozen=True)
class Spelling:
    """One name of a layer elsewhere.

    Args:
        layers: paths of the layers here; of several, each has the next rows of the one there.
        swapped: the halves of its rows are the other way round.
    """

    layers: tuple[str, ...]
    swapped: bool = False


@dataclass(frozen=True)
class AdapterNames:
    """What adapter files call a model and its layers.

    Args:
        part: its name in files of diffusers, of a backbone.
        parts: all parts that diffusers reads adapters for in a pipeline of this model.
        first: layers of the model's first code, by its names (see :data:`FUSED`).
        first_of: the same for a model whose layers follow from its config.
        first_in_kohya: kohya's scripts name layers as the model's first code does, else as diffusers.
        t5: the text encoder that is T5, which kohya's scripts count as the third.
        loader: diffusers' class that reads adapter files of the family.
    """

    part: str
    parts: tuple[str, ...]
    first: FUSED = field(default_factory=dict)
    first_of: Callable[[Any], dict[str, tuple[str, ...]]] | None = None
    first_in_kohya: Callable[[Any], bool] = lambda model: True
    t5: str = ""
    loader: str = ""

    def spellings(self, model: nn.Module) -> dict[str, Spelling]:
        """Layers that the model has, by their names in its first code."""
        own = dict(model.named_modules())
        rules = dict(self.first) if self.first_of is None else {**self.first, **self.first_of(model)}
        return {
            name: Spelling(layers, type(own[layers[0].rpartition(".")[0]]).__name__ == _SWAPPED)
            for rule, layers in rules.items()
            for name, layers in _numbered(rule, layers, own)
        }


AdapterNaming: Registry[AdapterNames] = Registry("model with adapters", group="wgtorch.adapter_names")
"""Names by the class of the backbone; each family of models adds its own."""

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
"""Text encoders as diffusers calls them."""
_PREFIXES: dict[str, str] = {
    **{f"{name}.": "" for name in ("unet", "transformer", "diffusion_model", "model.diffusion_model")},
    **{f"{name}_": "" for name in ("lora_unet", "lora_transformer", "lycoris")},
    **{f"{name}.": name for name in (*TEXT_ENCODERS, "transformer_2", "vae", "controlnet")},
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_3",
}  # fmt: skip
"""Beginnings of names in files, with the part of a pipeline that they are for; none for the backbone."""


def split_prefix(name: str) -> tuple[str, str]:
    """(how the name of a layer in a file begins, empty for none that is known; the rest)."""
    for prefix in sorted(_PREFIXES, key=len, reverse=True):
        if name.startswith(prefix):
            return prefix, name[len(prefix) :]
    return "", name


def part_of(prefix: str) -> str:
    """The part that names which begin so are for: a text encoder, ``vae``, ...; empty for the backbone, or for none that is named."""
    return _PREFIXES.get(prefix, "")


def is_backbone(prefix: str) -> bool:
    """Names that begin so are a backbone's."""
    return bool(prefix) and not _PREFIXES[prefix]


def layers_by_name(model: nn.Module, names: AdapterNames | None) -> dict[str, Spelling]:
    """All names that a layer of a model has in files, without what they begin with, dots also as underscores."""
    found = {path: Spelling((path,)) for path, _ in model.named_modules() if path}
    if names is not None:
        found = {**names.spellings(model), **found}
    for path, spelling in list(found.items()):
        # CLIP's text encoders of transformers have lost a level, which files still name.
        other = path.removeprefix("text_model.") if path.startswith("text_model.") else f"text_model.{path}"
        found.setdefault(other, spelling)
    dotted = list(found.items())
    for path, spelling in dotted:
        found.setdefault(path.replace(".", "_"), spelling)
    return found


def adapter_names(model: nn.Module) -> AdapterNames | None:
    """How files name the layers of a backbone; None of another model."""
    kind = type(model).__name__
    return AdapterNaming.get(kind) if kind in AdapterNaming else None


def _numbered(name: str, layers: tuple[str, ...], own: Mapping[str, nn.Module]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A rule for each number for which the model has its layers."""
    if "{}" not in name:
        if all(layer in own for layer in layers):
            yield name, layers
        return
    number = 0
    stem = layers[0].partition(".{}")[0]
    while f"{stem}.{number}" in own:
        filled = tuple(layer.replace("{}", str(number)) for layer in layers)
        if all(layer in own for layer in filled):
            yield name.replace("{}", str(number)), filled
        number += 1
