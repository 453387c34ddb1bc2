"""The UNet of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution, residuals
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.roles import Backbone


@register_block("backbone/unet_2d_condition")
class UNet2DCondition(ForeignModel, Backbone):
    """``UNet2DConditionModel`` of diffusers: Stable Diffusion 1, 2 and XL.

    Example:
        >>> UNet2DCondition(checkpoint_ref="stable-diffusion-v1-5/unet")

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "UNet2DConditionModel"
    draws = False
    inputs: Mapping[str, Any] = {
        "text_embeds": Port(dtype="embedding", optional=True),
        "time_ids": Port(dtype="tensor", optional=True),
        "adapted": Port(dtype="any", optional=True, aggregation="list"),
    }

    def __init__(self, *, model: dict[str, Any] | None = None, checkpoint_ref: str | None = None, dtype: str | None = None) -> None:
        super().__init__(model=model, checkpoint_ref=checkpoint_ref, dtype=dtype)
        self._looking = 0  # which model has processors that can look at pictures

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor | None = None,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        adapted: Sequence[Contribution] | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Args:
            latent: [B, C, H, W].
            timestep: of training, a number or [B].
            condition: [B, T, D].
            text_embeds: pooled text [B, P], of models that were trained with it (XL).
            time_ids: sizes and crops [B, 6], of the same.
            adapted: what ControlNets, T2I-Adapters and IP-Adapters contribute; contributions of one sort are added up.

        Raises:
            PortError: the latent has not as many channels as the model takes, or not as many rows as the condition.
        """
        channels = self.model.config.in_channels
        if latent.dim() != 4 or latent.shape[1] != channels:
            raise PortError(f"{self.block_id}.latent: got shape {list(latent.shape)}; expected [B, {channels}, H, W], as the UNet takes it")
        if condition is not None and condition.shape[0] != latent.shape[0]:
            raise PortError(
                f"{self.block_id}.condition: got {condition.shape[0]} rows for {latent.shape[0]} latents; expected as many. "
                "Guidance in one batch repeats the latents (guidance/repeat)"
            )
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        added = {name: value for name, value in added.items() if value is not None}
        pred = self.model(
            latent,
            timestep,
            encoder_hidden_states=self._looked_at(condition, adapted or ()),
            added_cond_kwargs=added or None,
            return_dict=False,
            **residuals(adapted or ()),
        )[0]
        return {"pred": pred}

    def _looked_at(self, condition: Tensor | None, adapted: Sequence[Contribution]) -> Any:
        """The condition, with what pictures add to it."""
        images = [each.image for each in adapted if each.image is not None]
        if not images or condition is None:
            return condition
        from wgtorch.integrations.diffusers.blocks.cross_attention import cross_attentions, let_look, looked

        if self._looking != id(self.model):
            let_look(self.model)
            self._looking = id(self.model)
        layers = len(cross_attentions(self.model)) if not torch.compiler.is_compiling() else len(images[0])
        if any(len(image) != layers for image in images):
            raise PortError(
                f"{self.block_id}.adapted: an IP-Adapter brings {[len(image) for image in images]} layers, and the UNet has "
                f"{layers} cross-attentions; it was made for another model"
            )
        return looked(condition, images)
