"""InstructPix2Pix, which changes a picture as it is told (Brooks et al. 2023, https://arxiv.org/abs/2211.09800)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.families.family import CLIP, CLIP_WORDS, Family, Part
from wgtorch.integrations.diffusers.families.stable_diffusion import UNCHECKED, UNET, clip_prompts
from wgtorch.integrations.diffusers.sampling import scheduling
from wgtorch.ports import HEIGHT, LATENT, NUM_IMAGES, PRED, WIDTH

_IMAGE_SCALE = 1.5
_SCALES = {
    "scale": Port(dtype="number", description="strength of guidance by the prompt"),
    "image_scale": Port(dtype="number", description="strength of guidance by the picture"),
}


@register_block("diffusers/edit")
class Edit(Block):
    """What the backbone is told in a run, three times in one batch: prompt and picture, the picture alone, neither.

    Args:
        factor: pixels to a latent's side.
        unscaled: by which the picture's latent is multiplied, so that the model sees it as the autoencoder gave it.
        scale: of the prompt, where the input ``guidance_scale`` is not fed.
        image_scale: of the picture, likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="the prompts' embedding [P, T, D]"),
        "negative_embedding": Port(dtype="embedding", description="the negative prompts' embedding [1 or P, T, D]"),
        "image_latent": Port(dtype="latent", description="the pictures' latents [n, C, h, w]; n divides B"),
        "guidance_scale": Port(dtype="number", description="strength of guidance by the prompt; at most 1 is none"),
        "image_guidance_scale": Port(dtype="number", description="strength of guidance by the picture, from 1"),
        "num_images_per_prompt": NUM_IMAGES,
    }
    outputs: Mapping[str, Any] = {
        "condition": Port(dtype="embedding", description="of prompt and picture, picture alone, neither [3 B, T, D], or [B, T, D]"),
        "prompt_embeds": Port(dtype="embedding", description="the prompts' embedding, a row for each picture [B, T, D]"),
        "image_condition": Port(dtype="latent", description="the pictures' latents, in rows as of the condition, zeros for neither"),
        "height": HEIGHT,
        "width": WIDTH,
        **_SCALES,
    }

    def __init__(self, *, factor: int, unscaled: float, scale: float = 7.5, image_scale: float = 1.5) -> None:
        super().__init__()
        self.factor = factor
        self.unscaled = unscaled
        self.scale = scale
        self.image_scale = image_scale

    def forward(
        self,
        embedding: Tensor,
        negative_embedding: Tensor,
        image_latent: Tensor,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        num_images_per_prompt: int | None = None,
    ) -> dict[str, Any]:
        """``condition`` [3 B, T, D] and ``image_condition`` [3 B, C, h, w], or [B, ...] without guidance.

        Raises:
            PortError: the pictures cannot be divided among the prompts.
        """
        scale = self.scale if guidance_scale is None else float(guidance_scale)
        image_scale = self.image_scale if image_guidance_scale is None else float(image_guidance_scale)
        one = embedding.repeat_interleave(int(num_images_per_prompt or 1), dim=0)
        if one.shape[0] % image_latent.shape[0]:
            raise PortError(
                f"{self.block_id}.image_latent: got {image_latent.shape[0]} pictures for {one.shape[0]} rows; expected a divisor"
            )
        image = image_latent.repeat(one.shape[0] // image_latent.shape[0], 1, 1, 1) * self.unscaled
        sizes = {name: side * self.factor for name, side in zip(("height", "width"), image.shape[2:], strict=True)}
        shared = {"prompt_embeds": one, **sizes, "scale": scale, "image_scale": image_scale}
        if not (scale > 1 and image_scale >= 1):
            return {"condition": one, "image_condition": image, **shared}
        other = negative_embedding.expand(embedding.shape[0], -1, -1).repeat_interleave(int(num_images_per_prompt or 1), dim=0)
        seen = torch.cat([image, image, torch.zeros_like(image)])
        return {"condition": torch.cat([one, other, other]), "image_condition": seen, **shared}


@register_block("diffusers/edit_channels")
class EditChannels(Block):
    """The latent, as often as the picture is there, and the picture beside it as channels."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "latent": LATENT,
        "image_condition": Port(dtype="latent", description="the pictures' latents [n B, C, h, w]"),
    }
    outputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="the latents n times, with the pictures beside them as channels [n B, 2 C, h, w]")
    }

    def forward(self, latent: Tensor, image_condition: Tensor) -> Tensor:
        """``latent`` [n B, 2 C, h, w] of [B, C, h, w] and [n B, C, h, w]."""
        return torch.cat([latent.repeat(image_condition.shape[0] // latent.shape[0], 1, 1, 1), image_condition.to(latent.dtype)], dim=1)


@register_block("guidance/edit")
class EditGuidance(Block):
    """Guidance by two scales: none + image_scale (picture - none) + scale (both - picture)."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "pred": Port(dtype="latent", description="of prompt and picture, picture alone, neither [3 B, C, h, w], or [B, C, h, w]"),
        "prompt_embeds": Port(dtype="embedding", description="the prompts' embedding [B, T, D], which says how many rows"),
        **_SCALES,
    }
    outputs: Mapping[str, Any] = {"pred_guided": PRED}

    def forward(self, pred: Tensor, prompt_embeds: Tensor, scale: float, image_scale: float) -> dict[str, Any]:
        """``pred_guided`` [B, C, h, w] of ``pred`` [3 B, C, h, w]; without guidance [B, C, h, w] as it is."""
        if pred.shape[0] == prompt_embeds.shape[0]:
            return {"pred_guided": pred}
        both, picture, none = pred.chunk(3)
        return {"pred_guided": none + scale * (both - picture) + image_scale * (picture - none)}


def _prepare(parts: Parts) -> None:
    if (found := parts.backbone.model.config.in_channels) != 2 * parts.vae.channels:
        raise ConfigError(f"from_diffusers: {parts.source.name!r} has a UNet of {found} input channels; expected {2 * parts.vae.channels}")


def _loop(parts: Parts) -> None:
    """Guidance is one batch of three."""
    scheduling(parts)
    graph, factor = parts.graph, parts.vae.factor
    graph.hide_input("clip_skip")
    add(graph, "picture", "diffusers/fit_picture", {"multiple": factor})
    add(graph, "encoder", parts.vae, inputs={"draws": False})
    unscaled = 1 / parts.vae.model.config.scaling_factor
    add(
        graph,
        "edit",
        "diffusers/edit",
        {"factor": factor, "unscaled": unscaled, "scale": parts.defaults.guidance_scale, "image_scale": _IMAGE_SCALE},
    )
    add(graph, "noise", "noise/latents", {"channels": parts.vae.channels, "factor": factor, "height": 512, "width": 512})
    for name, block in (
        ("channels", "diffusers/edit_channels"),
        ("backbone", parts.backbone),
        ("guidance", "guidance/edit"),
        ("codec", parts.vae),
    ):
        add(graph, name, block)
    join(
        graph,
        ("picture.image", "encoder.image"),
        ("encoder.latent", "edit.image_latent"),
        ("text_encoder.embedding", "edit.embedding"),
        ("negative_text_encoder.embedding", "edit.negative_embedding"),
        ("edit.prompt_embeds", "noise.condition"),
        ("edit.height", "noise.height"),
        ("edit.width", "noise.width"),
        *(("schedule.progress", f"{node}.progress") for node in ("noise", "solver")),
        *(("noise.latent", f"{node}.latent") for node in ("solver", "channels")),
        *(("solver.next_latent", f"{node}.latent") for node in ("solver", "channels", "codec")),
        *((source, f"{node}.timestep") for source in ("schedule.timestep", "solver.next_timestep") for node in ("solver", "backbone")),
        ("solver.progress", "solver.progress"),
        ("edit.image_condition", "channels.image_condition"),
        ("channels.latent", "backbone.latent"),
        ("edit.condition", "backbone.condition"),
        ("backbone.pred", "guidance.pred"),
        *((f"edit.{name}", f"guidance.{name}") for name in ("prompt_embeds", "scale", "image_scale")),
        ("guidance.pred_guided", "solver.pred"),
    )
    shown = {"picture": ("image",), "noise": ("latents",), "edit": ("guidance_scale", "image_guidance_scale", "num_images_per_prompt")}
    for node, ports in {**shown, "codec": ("output_type",)}.items():
        for port in ports:
            graph.expose_input(node, port)
    graph.metadata["input_aliases"] = {f"{end}prompt_embeds": f"{end}text_encoder.embedding" for end in ("", "negative_")}
    graph.expose_output("codec", "image")


INSTRUCT_PIX2PIX = Family(
    "InstructPix2Pix",
    {"StableDiffusionInstructPix2PixPipeline": ("image_to_image",)},
    {"image_to_image": Defaults(7.5, steps=100)},
    prompts=clip_prompts,
    others={"text_encoder": Part("text_encoder", CLIP), "tokenizer": Part("tokenizer", CLIP_WORDS, is_tokenizer=True)},
    loop=_loop,
    prepare=_prepare,
    arguments=lambda graph: UNCHECKED,
    marks="edit",
    **UNET,
)
