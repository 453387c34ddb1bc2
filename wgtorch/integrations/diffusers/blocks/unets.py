"""UNets of models without text, and of videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import TEXT_EMBEDS, TIME_IDS, VIDEO_LATENT


@register_block("backbone/unet_2d")
class UNet2D(ForeignBackbone):
    """``UNet2DModel`` of diffusers: DDPM, score matching, and others that at most are told a class."""

    model_class = "UNet2DModel"
    inputs: Mapping[str, Any] = {
        "class_labels": Port(dtype="tensor", description="numbers of classes [B], of a model trained with them"),
        "condition": Port(dtype="embedding", description="not read: the model has no condition"),
    }

    def forward(
        self, latent: Tensor, timestep: float | Tensor, condition: Tensor | None = None, class_labels: Tensor | None = None
    ) -> dict[str, Any]:
        self.check(latent, None, self.model.config.in_channels)
        return {"pred": self.model(latent, moments(timestep, latent), class_labels=class_labels, return_dict=False)[0]}


@register_block("backbone/unet_3d_condition")
class UNet3DCondition(ForeignBackbone):
    """``UNet3DConditionModel`` of diffusers (ModelScope, https://arxiv.org/abs/2308.06571)."""

    model_class = "UNet3DConditionModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {"latent": VIDEO_LATENT}

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor) -> dict[str, Any]:
        self.check(latent, condition, self.model.config.in_channels)
        return {"pred": self.model(latent, moments(timestep, latent), condition, return_dict=False)[0]}


@register_block("backbone/unet_motion")
class UNetMotion(ForeignBackbone):
    """``UNetMotionModel`` of diffusers: a UNet of pictures that motion modules move (AnimateDiff, https://arxiv.org/abs/2307.04725)."""

    model_class = "UNetMotionModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {"text_embeds": TEXT_EMBEDS, "time_ids": TIME_IDS, "latent": VIDEO_LATENT}

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> dict[str, Any]:
        self.check(latent, condition, self.model.config.in_channels)
        added = {name: value for name, value in (("text_embeds", text_embeds), ("time_ids", time_ids)) if value is not None}
        each = condition.repeat_interleave(latent.shape[2], dim=0)
        pred = self.model(latent, moments(timestep, latent), each, added_cond_kwargs=added or None, return_dict=False)[0]
        return {"pred": pred}


@register_block("backbone/unet_spatio_temporal")
class UNetSpatioTemporal(ForeignBackbone):
    """``UNetSpatioTemporalConditionModel`` of diffusers (Stable Video Diffusion, https://arxiv.org/abs/2311.15127)."""

    model_class = "UNetSpatioTemporalConditionModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "image_condition": Port(dtype="latent", description="the picture's latents for each frame [B, C, T, H, W]"),
        "time_ids": Port(dtype="tensor", description="fps - 1, motion_bucket_id and noise_aug_strength [B, 3]"),
        "latent": VIDEO_LATENT,
    }

    def forward(
        self, latent: Tensor, timestep: float | Tensor, condition: Tensor, image_condition: Tensor, time_ids: Tensor
    ) -> dict[str, Any]:
        self.check(latent, condition, self.model.config.in_channels - image_condition.shape[1])
        both = torch.cat([latent, image_condition.to(latent.dtype)], dim=1).transpose(1, 2)
        pred = self.model(both, moments(timestep, latent), condition, added_time_ids=time_ids, return_dict=False)[0]
        return {"pred": pred.transpose(1, 2)}
