"""The transformer of Sana."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments, prediction_of


@register_block("backbone/sana_transformer")
class SanaTransformer(ForeignBackbone):
    """``SanaTransformer2DModel`` of diffusers, which predicts a flow with linear attention (https://arxiv.org/abs/2410.10629).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "SanaTransformer2DModel"
    inputs: Mapping[str, Any] = {
        "condition": "embedding",
        "attention_mask": Port(dtype="tokens", optional=True),
        "guidance": Port(dtype="number", optional=True),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        attention_mask: Tensor | None = None,
        guidance: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Args:
            latent: [B, C, H, W]; H and W are multiples of the patch size.
            timestep: of training, a number or [B].
            condition: [B, L, D].
            attention_mask: [B, L], 0 where the text is padded.
            guidance: the scale that a distilled model (Sprint) takes, as the model takes it, a number or [B].

        Raises:
            PortError: the latent has not as many channels as the model takes, its sides are no multiples, or the condition has
                another number of rows.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels, (own.patch_size, own.patch_size))
        scale = None
        if guidance is not None and own.guidance_embeds:
            scale = torch.as_tensor(guidance, dtype=latent.dtype, device=latent.device).expand(latent.shape[0])
        output = self.model(
            latent,
            encoder_hidden_states=condition,
            encoder_attention_mask=attention_mask,
            timestep=moments(timestep, latent) * own.timestep_scale,
            guidance=scale,
            return_dict=False,
        )[0]
        return {"pred": prediction_of(output, own.in_channels)}
