"""Stable Diffusion XL, and its refiner."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.families.family import CLIP, CLIP_PROJECTED, Family, tasks_of, text_part
from wgtorch.integrations.diffusers.families.stable_diffusion import UNET, check_unet, prepare_unet
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import encoders, is_told, second_prompt

_SIZES = ("original_size", "crops_coords_top_left", "target_size")


def is_scored(source: Source) -> bool:
    """It is told how pleasing a picture is to be."""
    return bool(source.settings.get("requires_aesthetics_score"))


def is_refiner(source: Source) -> bool:
    """It reads prompts through the second text encoder alone: its UNet is as wide as that."""
    if "text_encoder" in source.classes or "text_encoder_2" not in source.classes:
        return False
    return source.config_of("unet").get("cross_attention_dim") == source.config_of("text_encoder_2").get("hidden_size")


def _check(source: Source, task: str) -> None:
    if task == "text_to_image" and (is_scored(source) or is_refiner(source)):
        raise ConfigError(f"from_diffusers: {source.name!r} is a refiner, which starts from a picture; take task='image_to_image'")
    check_unet(source, task)


def _prepare(parts: Parts) -> None:
    prepare_unet(parts)
    parts.rescales = parts.inpaints_latents = True
    if parts.task == "inpaint" and parts.vae.model.config.get("latents_mean") is not None:
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has an autoencoder with latents_mean, with which diffusers encodes otherwise than it "
            "decodes when it inpaints; expected text_to_image or image_to_image"
        )
    _sizes(parts)


def _prompts(parts: Parts) -> bool:
    """Two tokenizers and text encoders, whose embeddings stand side by side; of a refiner the second alone."""
    graph, refines = parts.graph, is_refiner(parts.source)
    if not is_told(parts, *(("_2",) if refines else ("", "_2"))):
        return False
    if refines:
        encoders(parts, "_2", layer="penultimate", projection=True)
        for prefix in ("", "negative_"):
            graph.expose_input(f"{prefix}tokenizer_2", "text", f"{prefix}prompt")
        graph.configure_node("negative_tokenizer_2", inputs={"text": ""})
        return True
    encoders(parts, layer="penultimate")
    encoders(parts, "_2", layer="penultimate", projection=True)
    second_prompt(parts, "_2")
    for prefix in ("", "negative_"):
        both = f"{prefix}text_encoders"
        add(graph, both, "diffusers/joined_conditions")
        join(
            graph,
            (f"{prefix}text_encoder.embedding", f"{both}.embedding"),
            (f"{prefix}text_encoder_2.embedding", f"{both}.second_embedding"),
        )
    return True


def _sizes(parts: Parts) -> None:
    """The sizes that the model is told."""
    how = {"on_pictures": parts.task != "text_to_image", "scored": is_scored(parts.source)}
    add(parts.graph, "sizes", "diffusers/picture_sizes", {"factor": parts.vae.factor, "batched": parts.batched, **how})
    names = (*_SIZES, "aesthetic_score") if how["scored"] else _SIZES
    for name in (*names, *(f"negative_{name}" for name in names)):
        parts.graph.expose_input("sizes", name)


def _condition(parts: Parts) -> dict[str, Any]:
    """Without a negative prompt the published model is given zeros."""
    embedding = "text_encoder_2.embedding" if is_refiner(parts.source) else "text_encoders.embedding"
    zeros = bool(parts.source.settings.get("force_zeros_for_empty_prompt", True))
    return {"embedding": embedding, "pooled": "text_encoder_2.pooled", "zero_negative": zeros}


def _finish(parts: Parts) -> None:
    if parts.task != "text_to_image":
        parts.graph.expose_input("schedule", "start", "denoising_start")
    parts.graph.expose_input("schedule", "end", "denoising_end")
    join(parts.graph, ("noise.latent", "sizes.latent"), ("conditions.scale", "sizes.scale"))


def _arguments(graph: Graph) -> dict[str, Any]:
    zeros, scored = graph.nodes["conditions"].config.get("zero_negative"), graph.nodes["sizes"].config.get("scored")
    aesthetics = {"requires_aesthetics_score": True} if scored else {}  # text to image has no such setting
    return {"force_zeros_for_empty_prompt": bool(zeros), "add_watermarker": False, **aesthetics}


STABLE_DIFFUSION_XL = Family(
    "Stable Diffusion XL",
    tasks_of("StableDiffusionXL"),
    {"text_to_image": Defaults(5.0), "image_to_image": Defaults(5.0, 0.3), "inpaint": Defaults(7.5, 0.9999)},
    prompts=_prompts,
    others={**text_part("", *CLIP), **text_part("_2", *CLIP_PROJECTED)},
    condition=_condition,
    extra={"time_ids": "sizes"},
    prepare=_prepare,
    finish=_finish,
    arguments=_arguments,
    marks="sizes",
    **{**UNET, "check": _check},
)
