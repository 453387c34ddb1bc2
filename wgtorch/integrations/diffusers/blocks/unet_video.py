"""UNets of videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments


@register_block("backbone/unet_3d_condition")
class UNet3DCondition(ForeignBackbone):
    """``UNet3DConditionModel`` of diffusers (ModelScope, https://arxiv.org/abs/2308.06571).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "UNet3DConditionModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {"condition": "embedding"}

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor) -> dict[str, Any]:
        """``pred`` [B, C, T, H, W].

        Args:
            latent: [B, C, T, H, W].
            timestep: of training, a number or [B].
            condition: [B, L, D].

        Raises:
            PortError: the latent has not as many channels as the model takes, or not as many rows as the condition.
        """
        self.check(latent, condition, self.model.config.in_channels)
        return {"pred": self.model(latent, moments(timestep, latent), condition, return_dict=False)[0]}


@register_block("backbone/unet_motion")
class UNetMotion(ForeignBackbone):
    """``UNetMotionModel`` of diffusers: a UNet of pictures that motion modules move (AnimateDiff, https://arxiv.org/abs/2307.04725).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "UNetMotionModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "condition": "embedding",
        "text_embeds": Port(dtype="embedding", optional=True),
        "time_ids": Port(dtype="tensor", optional=True),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, T, H, W].

        Args:
            latent: [B, C, T, H, W].
            timestep: of training, a number or [B].
            condition: [B, L, D], the same for every frame.
            text_embeds: pooled text [B, P], of models that were trained with it (XL).
            time_ids: sizes and crops [B, 6], of the same.

        Raises:
            PortError: the latent has not as many channels as the model takes, or not as many rows as the condition.
        """
        self.check(latent, condition, self.model.config.in_channels)
        added = {name: value for name, value in (("text_embeds", text_embeds), ("time_ids", time_ids)) if value is not None}
        each = condition.repeat_interleave(latent.shape[2], dim=0)
        pred = self.model(latent, moments(timestep, latent), each, added_cond_kwargs=added or None, return_dict=False)[0]
        return {"pred": pred}


@register_block("backbone/unet_spatio_temporal")
class UNetSpatioTemporal(ForeignBackbone):
    """``UNetSpatioTemporalConditionModel`` of diffusers (Stable Video Diffusion, https://arxiv.org/abs/2311.15127).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "UNetSpatioTemporalConditionModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {"condition": "embedding", "image_condition": "latent", "time_ids": "tensor"}

    def forward(
        self, latent: Tensor, timestep: float | Tensor, condition: Tensor, image_condition: Tensor, time_ids: Tensor
    ) -> dict[str, Any]:
        """``pred`` [B, C, T, H, W].

        Args:
            latent: [B, C, T, H, W].
            timestep: as the model takes it, a number or [B].
            condition: [B, L, D].
            image_condition: the picture's latent for each frame, [B, C, T, H, W].
            time_ids: frames in a second less one, how much moves, noise in the picture, [B, 3].

        Raises:
            PortError: the latent has not as many channels as the model takes, or not as many rows as the condition.
        """
        self.check(latent, condition, self.model.config.in_channels - image_condition.shape[1])
        both = torch.cat([latent, image_condition.to(latent.dtype)], dim=1).transpose(1, 2)
        pred = self.model(both, moments(timestep, latent), condition, added_time_ids=time_ids, return_dict=False)[0]
        return {"pred": pred.transpose(1, 2)}
