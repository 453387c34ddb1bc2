"""Stable Video Diffusion, which goes on from a picture (Blattmann et al. 2023, https://arxiv.org/abs/2311.15127)."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.unets import UNetSpatioTemporal
from wgtorch.integrations.diffusers.blocks.video_autoencoders import AutoencoderKLTemporalDecoder
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.source import Source


def _check(source: Source, task: str) -> None:
    if "feature_extractor" not in source.classes:
        raise ConfigError(f"from_diffusers: {source.name!r} has no feature_extractor, which says how CLIP sees pictures")


def _size(parts: Parts) -> dict[str, int]:
    return {"num_frames": parts.backbone.model.config.num_frames, "height": 576, "width": 1024}


def _picture(parts: Parts) -> bool:
    """The picture as CLIP sees it, and its latent, noised a little, for each frame."""
    graph, factor = parts.graph, parts.vae.factor
    sizes = _size(parts)
    processor = parts.source.processor("feature_extractor")
    add(graph, "image_encoder", parts.source.model("image_encoder", "conditioner/clip_picture", processor=processor))
    add(graph, "picture", "diffusers/fit_picture", {"multiple": factor, "height": sizes["height"], "width": sizes["width"]})
    add(graph, "noised_picture", "diffusers/noised_picture")
    add(graph, "encoder", parts.vae, inputs={"draws": False})
    unscaled = 1 / parts.vae.model.config.scaling_factor
    add(graph, "motion", "diffusers/motion", {"unscaled": unscaled, "num_frames": sizes["num_frames"], "batched": parts.batched})
    join(
        graph,
        ("picture.image", "noised_picture.image"),
        ("noised_picture.image", "encoder.image"),
        ("encoder.latent", "motion.image_latent"),
    )
    for node, ports in {
        "image_encoder": ("image",), "picture": ("image", "height", "width"), "noised_picture": ("noise_aug_strength",),
        "motion": ("num_frames", "fps", "motion_bucket_id", "noise_aug_strength"),
    }.items():  # fmt: skip
        for port in ports:
            graph.expose_input(node, port)
    return True


def _finish(parts: Parts) -> None:
    graph = parts.graph
    join(graph, ("conditions.prompt_embeds", "motion.condition"), ("conditions.scale", "motion.scale"), ("encoder.latent", "noise.after"))


def _arguments(graph: Graph) -> dict[str, Any]:
    block: Any = graph.nodes["image_encoder"]
    return {"feature_extractor": block.processor}


STABLE_VIDEO_DIFFUSION = Family(
    "Stable Video Diffusion",
    {"StableVideoDiffusionPipeline": ("image_to_video",)},
    {"image_to_video": Defaults(3.0, steps=25)},
    UNetSpatioTemporal,
    (AutoencoderKLTemporalDecoder,),
    _picture,
    {"image_encoder": Part("image_encoder", ("CLIPVisionModelWithProjection",))},
    model="unet",
    condition={
        "embedding": "image_encoder.embedding", "scale": "max_guidance_scale", "zero_negative": True, "negated": False,
    },
    settings={"guidance": "guidance/frames", "latent_form": "frames_first"},
    size=_size,
    extra={"image_condition": "motion", "time_ids": "motion"},
    noise={"frames_first": True},
    shown=("guidance.min_guidance_scale", "schedule.sigmas", "codec.decode_chunk_size"),
    check=_check,
    finish=_finish,
    arguments=_arguments,
)  # fmt: skip
