"""Lumina-Image 2. The language model is told a system prompt before the prompt, and none before the other; guidance is two calls."""

from __future__ import annotations

from wgtorch.integrations.diffusers.assembly import Defaults, Parts, join
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.text_transformers import Lumina2Transformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.text import asked

_FACTOR = 8  # pixels to a latent's side, whatever the autoencoder's


def _prepare(parts: Parts) -> None:
    """The pipeline counts channels where it means to count tokens."""
    own = parts.backbone.model.config
    parts.patch, parts.tokens = own.patch_size, own.in_channels


LUMINA2 = Family(
    "Lumina-Image 2",
    {"Lumina2Pipeline": ("text_to_image",)},
    {"text_to_image": Defaults(4.0, steps=30)},
    Lumina2Transformer,
    (AutoencoderKL,),
    asked("Lumina2Pipeline", "system_prompt", tells_apart=True),
    prompt_part("Gemma2Model"),
    condition={"masked": True, "tiled_mask": True},
    settings={"is_flow": True, "guidance": "guidance/lumina2", "factor": _FACTOR},
    size=lambda parts: parts.backbone.model.config.sample_size * _FACTOR,
    shown=("guidance.cfg_normalization", "guidance.cfg_trunc_ratio"),
    prepare=_prepare,
    finish=lambda parts: join(parts.graph, ("schedule.progress", "guidance.progress"), ("solver.progress", "guidance.progress")),
    adapters=transformer_adapters("Lumina2LoraLoaderMixin"),
    is_even=True,
    is_batched=False,
)
