"""LTX-Video."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.video_autoencoders import AutoencoderKLLTXVideo
from wgtorch.integrations.diffusers.blocks.video_transformers import LTXTransformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.text import asked


def _prepare(parts: Parts) -> None:
    """Several latents as one, as no released model takes them, are refused."""
    own = parts.backbone.model.config
    if (own.patch_size, own.patch_size_t) != (1, 1):
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a transformer of patches {own.patch_size} x {own.patch_size_t}; expected 1 x 1"
        )


def _finish(parts: Parts) -> None:
    if parts.vae.model.config.timestep_conditioning:
        for name in ("decode_timestep", "decode_noise_scale"):
            parts.graph.expose_input("codec", name)


LTX = Family(
    "LTX-Video",
    {"LTXPipeline": ("text_to_video",)},
    {"text_to_video": Defaults(3.0)},
    LTXTransformer,
    (AutoencoderKLLTXVideo,),
    asked("LTXPipeline", length=128),
    prompt_part("T5EncoderModel"),
    condition={"masked": True, "tiled_mask": True},
    settings={"is_flow": True, "rescales": True, "latent_form": 1},
    size={"num_frames": 161, "height": 512, "width": 704},
    told=("frames", "factor"),
    shown=("backbone.frame_rate",),
    prepare=_prepare,
    finish=_finish,
    adapters=transformer_adapters(
        "LTXVideoLoraLoaderMixin", {"patchify_proj": ("proj_in",), "adaln_single.linear": ("time_embed.linear",)}
    ),
    is_even=True,
)
