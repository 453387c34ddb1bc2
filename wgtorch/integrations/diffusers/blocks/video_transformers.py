"""Transformers of videos: CogVideoX, HunyuanVideo, LTX-Video and Wan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError, require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign import ModelSource
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import ATTENTION_MASK, GUIDANCE, TEXT_EMBEDS, VIDEO_LATENT

OFFSET = 2.0  # that image-to-video models of version 1.5 were trained with


@register_block("backbone/cogvideox_transformer")
class CogVideoXTransformer(ForeignBackbone):
    """``CogVideoXTransformer3DModel`` of diffusers, which predicts v (https://arxiv.org/abs/2408.06072).

    Channels come before frames here, as everywhere; where the patches lie is told to the model inside.
    """

    model_class = "CogVideoXTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "latent": VIDEO_LATENT,
        "image_condition": Port(dtype="latent", description="latent of the first frame, then zeros [n, C', T, H, W]; n divides B"),
    }

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor, image_condition: Tensor | None = None) -> dict[str, Any]:
        own, rows = self.model.config, latent.shape[0]
        beside = 0 if image_condition is None else image_condition.shape[1]
        self.check(latent, condition, own.in_channels - beside, (own.patch_size_t or 1, own.patch_size, own.patch_size))
        if image_condition is not None:
            latent = torch.cat([latent, image_condition.repeat(rows // image_condition.shape[0], 1, 1, 1, 1)], dim=1)
        pred = self.model(
            latent.transpose(1, 2),
            condition,
            moments(timestep, latent),
            ofs=None if own.ofs_embed_dim is None else latent.new_full((1,), OFFSET),
            image_rotary_emb=self._places(latent) if own.use_rotary_positional_embeddings else None,
            return_dict=False,
        )[0]
        return {"pred": pred.transpose(1, 2)}

    def _places(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary embeddings of the patches: of version 1 stretched to the size of training, of 1.5 as they are."""
        embeddings: Any = require("diffusers.models.embeddings", "diffusers")
        own, (frames, height, width) = self.model.config, latent.shape[2:]
        grid, trained = (
            (height // own.patch_size, width // own.patch_size),
            (own.sample_height // own.patch_size, own.sample_width // own.patch_size),
        )
        shared = {"embed_dim": own.attention_head_dim, "grid_size": grid, "device": latent.device}
        if own.patch_size_t is None:
            return embeddings.get_3d_rotary_pos_embed(crops_coords=_crop(grid, trained), temporal_size=frames, **shared)
        steps = -(-frames // own.patch_size_t)
        return embeddings.get_3d_rotary_pos_embed(crops_coords=None, temporal_size=steps, grid_type="slice", max_size=trained, **shared)


def _crop(grid: tuple[int, int], trained: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The part of the grid of training that a grid of other sides covers: as large as fits, in the middle."""
    (height, width), (most_height, most_width) = grid, trained
    if height / width > most_height / most_width:
        size = (most_height, round(most_height / height * width))
    else:
        size = (round(most_width / width * height), most_width)
    top, left = round((most_height - size[0]) / 2), round((most_width - size[1]) / 2)
    return (top, left), (top + size[0], left + size[1])


TRAINED_STEPS = 1000.0


@register_block("backbone/hunyuan_video_transformer")
class HunyuanVideoTransformer(ForeignBackbone):
    """``HunyuanVideoTransformer3DModel`` of diffusers, which predicts the flow of a video (https://arxiv.org/abs/2412.03603)."""

    model_class = "HunyuanVideoTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {"text_embeds": TEXT_EMBEDS, "attention_mask": ATTENTION_MASK, "guidance": GUIDANCE, "latent": VIDEO_LATENT}

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        attention_mask: Tensor | None = None,
        guidance: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, T, H, W].

        Raises:
            PortError: the latent or the condition does not fit the model, or a distilled model is not told its scale.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels, (own.patch_size_t, own.patch_size, own.patch_size))
        if own.guidance_embeds and guidance is None:
            raise PortError(f"{self.block_id}.guidance: this model was distilled with a guidance scale; feed one, such as 6")
        scale = moments(guidance, latent).to(latent.dtype) * TRAINED_STEPS if own.guidance_embeds and guidance is not None else None
        mask = condition.new_ones(condition.shape[:2]) if attention_mask is None else attention_mask.to(condition.dtype)
        pred = self.model(
            hidden_states=latent,
            timestep=moments(timestep, latent).to(latent.dtype),
            encoder_hidden_states=condition,
            encoder_attention_mask=mask,
            pooled_projections=text_embeds,
            guidance=scale,
            return_dict=False,
        )[0]
        return {"pred": pred}


@register_block("backbone/ltx_transformer")
class LTXTransformer(ForeignBackbone):
    """``LTXVideoTransformer3DModel`` of diffusers, which predicts a flow (https://arxiv.org/abs/2501.00103).

    Args:
        frames: frames to a latent's, and
        factor: pixels to a latent's side, of the autoencoder beside it: where a latent lies, the model is told in pixels and seconds.
    """

    model_class = "LTXVideoTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "attention_mask": ATTENTION_MASK,
        "frame_rate": Port(dtype="number", description="frames per second"),
        "latent": VIDEO_LATENT,
    }

    def __init__(self, *, frames: int = 8, factor: int = 32, **source: Unpack[ModelSource]) -> None:
        super().__init__(**source)
        self.frames = frames
        self.factor = factor

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        attention_mask: Tensor | None = None,
        frame_rate: float = 25,
    ) -> dict[str, Any]:
        self.check(latent, condition, self.model.config.in_channels)
        rows, _, frames, height, width = latent.shape
        pred = self.model(
            hidden_states=latent.flatten(2).transpose(1, 2).to(condition.dtype),
            encoder_hidden_states=condition,
            timestep=moments(timestep, latent),
            encoder_attention_mask=attention_mask,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.frames / frame_rate, self.factor, self.factor),
            return_dict=False,
        )[0]
        return {"pred": pred.float().transpose(1, 2).reshape(rows, -1, frames, height, width)}


@register_block("backbone/wan_transformer")
class WanTransformer(ForeignBackbone):
    """``WanTransformer3DModel`` of diffusers, which predicts the flow of a video (Wan, https://arxiv.org/abs/2503.20314)."""

    model_class = "WanTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "latent": VIDEO_LATENT,
        "image_condition": Port(dtype="latent", description="channels beside the latents [n, C', T, H, W]; n divides B"),
        "image_embeds": Port(dtype="embedding", description="pictures as CLIP sees them [n, K, E], or two each [n, 2 K, E]; n divides B"),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        image_condition: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> dict[str, Any]:
        own, rows = self.model.config, latent.shape[0]
        beside = 0 if image_condition is None else image_condition.shape[1]
        self.check(latent, condition, own.in_channels - beside, own.patch_size)
        if image_condition is not None:
            image_condition = image_condition.repeat(rows // image_condition.shape[0], 1, 1, 1, 1)
            latent = torch.cat([latent, image_condition.to(latent.dtype)], dim=1)
        if image_embeds is not None:
            image_embeds = self._pictures(image_embeds.repeat(rows // image_embeds.shape[0], 1, 1))
        return {"pred": self.model(latent, moments(timestep, latent), condition, image_embeds, return_dict=False)[0]}

    def _pictures(self, embeds: Tensor) -> Tensor:
        """Embeddings as the model takes them: of one that reads the first picture and the last, the two apart [2 B, K, E]."""
        both, found = self.model.config.pos_embed_seq_len, embeds.shape[1]
        if both is None:
            return embeds
        if found != both:
            raise PortError(
                f"{self.block_id}.image_embeds: got {found} tokens; expected {both}, those of the first picture and of the last: "
                "feed last_image too"
            )
        return embeds.reshape(2 * embeds.shape[0], both // 2, -1)
