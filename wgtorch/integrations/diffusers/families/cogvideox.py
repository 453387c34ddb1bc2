"""CogVideoX 1."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.video_autoencoders import AutoencoderKLCogVideoX
from wgtorch.integrations.diffusers.blocks.video_transformers import CogVideoXTransformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import asked


def _check(source: Source, task: str) -> None:
    name, _ = source.scheduler()
    if name == "CogVideoXDPMScheduler":
        raise ConfigError(
            f"from_diffusers: {name} steps from two predictions, which solver/diffusers does not hand on; expected CogVideoXDDIMScheduler: "
            "pipeline.scheduler = diffusers.CogVideoXDDIMScheduler.from_config(pipeline.scheduler.config)"
        )


def _prepare(parts: Parts) -> None:
    """Version 1.5's pipeline adds frames and takes them away again, which nothing here does."""
    own = parts.backbone.model.config
    if own.patch_size_t is not None:
        raise ConfigError(f"from_diffusers: {parts.source.name!r} is a CogVideoX 1.5, which is not supported; expected version 1")
    parts.patch = own.patch_size


def _size(parts: Parts) -> dict[str, Any]:
    own, factor = parts.backbone.model.config, parts.vae.factor
    return {"num_frames": own.sample_frames, "height": own.sample_height * factor, "width": own.sample_width * factor}


COGVIDEOX = Family(
    "CogVideoX",
    {"CogVideoXPipeline": ("text_to_video",)},
    {"text_to_video": Defaults(6.0)},
    CogVideoXTransformer,
    (AutoencoderKLCogVideoX,),
    asked("CogVideoXPipeline", length=226),
    prompt_part("T5EncoderModel"),
    condition={"counted": False},
    settings={"steps_eta": True, "latent_form": "frames_first"},
    size=_size,
    noise={"frames_first": True, "any_count": True},
    check=_check,
    prepare=_prepare,
    adapters=transformer_adapters("CogVideoXLoraLoaderMixin"),
)
