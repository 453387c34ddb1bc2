"""Graphs of LTX-Video."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts
from wgtorch.integrations.diffusers.video import video_sampling
from wgtorch.lora.formats.names import AdapterNames

_SIZE = {"num_frames": 161, "height": 512, "width": 704}
_LENGTH = 128


def ltx(source: Source, task: str, batched: bool) -> Graph:
    """LTX-Video as a graph.

    Raises:
        ConfigError: the transformer takes several latents as one, which no released model does.
    """
    parts = begin(source, task, batched, Defaults(3.0), is_flow=True, is_even=True, rescales=True)
    parts.vae = source.model("vae", "codec/autoencoder_kl_ltx_video")
    parts.backbone = source.model("transformer", "backbone/ltx_transformer", frames=parts.vae.frames, factor=parts.vae.factor)
    own = parts.backbone.model.config
    if (own.patch_size, own.patch_size_t) != (1, 1):
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a transformer of patches {own.patch_size} x {own.patch_size_t}; expected 1 x 1"
        )
    pipeline_prompts(parts, "LTXPipeline", length=_LENGTH)
    conditions(parts, "text_encoder.embedding", masked=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt", "num_videos_per_prompt")
    video_sampling(parts, own.in_channels, _SIZE, {"attention_mask": "conditions"})
    for node in ("backbone",) if batched else ("backbone", "negative_backbone"):
        parts.graph.expose_input(node, "frame_rate")
    if parts.vae.model.config.timestep_conditioning:
        for name in ("decode_timestep", "decode_noise_scale"):
            parts.graph.expose_input("codec", name)
    return finished(parts)


LTX = Family(
    "LTX-Video",
    {"LTXPipeline": ("text_to_video",)},
    ltx,
    {
        "transformer": Part("backbone", ("LTXVideoTransformer3DModel",)),
        "vae": Part("codec", ("AutoencoderKLLTXVideo",)),
        **prompt_part("T5EncoderModel"),
    },
    {
        "LTXVideoTransformer3DModel": AdapterNames(
            "transformer",
            ("transformer",),
            first={"patchify_proj": ("proj_in",), "adaln_single.linear": ("time_embed.linear",)},
            first_in_kohya=lambda model: False,
            loader="LTXVideoLoraLoaderMixin",
        )
    },
    is_even=True,
)
