"""AnimateDiff: Stable Diffusion 1 whose UNet makes the frames of a video with motion modules (Guo et al. 2023, https://arxiv.org/abs/2307.04725)."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError, require
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.unets import UNetMotion
from wgtorch.integrations.diffusers.blocks.video_autoencoders import FrameAutoencoder
from wgtorch.integrations.diffusers.families.family import CLIP, Family, text_part
from wgtorch.integrations.diffusers.families.stable_diffusion import check_unet, clip_prompts, unet_size
from wgtorch.integrations.diffusers.source import Source
from wgtorch.lora.formats.foreign_layer_names import AdapterNames


def _check(source: Source, task: str) -> None:
    check_unet(source, task)
    if "motion_adapter" not in source.classes:
        raise ConfigError(f"from_diffusers: {source.name!r} has no motion_adapter; expected a pipeline as diffusers makes it")
    for switch, held in (("free_init", "_free_init_num_iters"), ("free_noise", "_free_noise_context_length")):
        if getattr(getattr(source, "pipeline", None), held, None) is not None:
            raise ConfigError(
                f"from_diffusers: enable_{switch} is on in the pipeline, which a graph does not do; call pipeline.disable_{switch}(), "
                "or run the pipeline itself"
            )


def _size(parts: Parts) -> dict[str, int]:
    height, width = unet_size(parts)
    return {"num_frames": 16, "height": height, "width": width}


def _arguments(graph: Graph) -> dict[str, Any]:
    """The motion modules are a part of their own there, beside the UNet that has them."""
    block: Any = graph.nodes["backbone"]
    unet, library = block.model, require("diffusers", "diffusers")
    own = unet.config
    adapter = library.MotionAdapter(  # type: ignore[attr-defined]
        block_out_channels=own.block_out_channels,
        motion_layers_per_block=own.layers_per_block,
        motion_norm_num_groups=own.norm_num_groups,
        motion_num_attention_heads=own.motion_num_attention_heads,
        motion_max_seq_length=own.motion_max_seq_length,
        use_motion_mid_block=own.use_motion_mid_block,
    ).to(unet.dtype)
    adapter.load_state_dict({name: value for name, value in unet.state_dict().items() if "motion_modules" in name})
    return {"motion_adapter": adapter.to(unet.device).eval()}


ANIMATEDIFF = Family(
    "AnimateDiff",
    {"AnimateDiffPipeline": ("text_to_video",)},
    {"text_to_video": Defaults(7.5)},
    UNetMotion,
    (FrameAutoencoder,),
    clip_prompts,
    text_part("", *CLIP),
    model="unet",
    condition={"counted": False},
    settings={"steps_eta": True},
    size=_size,
    shown=("codec.decode_chunk_size",),
    check=_check,
    adapters=AdapterNames("unet", ("unet", "text_encoder"), first_in_kohya=lambda model: False, loader="StableDiffusionLoraLoaderMixin"),
    arguments=_arguments,
    ignored=("motion_adapter", "image_encoder"),
)
