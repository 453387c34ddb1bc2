"""ControlNets of Stable Diffusion 3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.contribution import Contribution
from wgtorch.integrations.diffusers.blocks.controlnet import rows_for, scale_within
from wgtorch.integrations.diffusers.blocks.flux_controlnet import TransformerControlNet
from wgtorch.integrations.diffusers.blocks.foreign_backbone import moments


@register_block("adapter/sd3_controlnet")
class SD3ControlNet(TransformerControlNet):
    """``SD3ControlNetModel`` of diffusers: a control picture beside a Stable Diffusion 3."""

    model_class = "SD3ControlNetModel"

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        image: Tensor,
        conditioning_scale: float | None = None,
        start: float | None = None,
        end: float | None = None,
        progress: Any = None,
    ) -> dict[str, Any]:
        """``adapted``: residuals of the transformer's blocks."""
        own = self.model.config
        found = self.model(
            hidden_states=latent,
            controlnet_cond=rows_for(image, latent.shape[0], f"{self.block_id}.image").to(latent),
            conditioning_scale=scale_within(conditioning_scale, start, end, progress),
            encoder_hidden_states=None if own.joint_attention_dim is None else condition,
            pooled_projections=torch.zeros_like(text_embeds) if own.force_zeros_for_pooled_projection else text_embeds,
            timestep=moments(timestep, latent).float(),
            return_dict=False,
        )[0]
        return {"adapted": Contribution(down=tuple(found))}
