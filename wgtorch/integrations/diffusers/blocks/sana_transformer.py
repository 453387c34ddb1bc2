"""The transformer of Sana."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.foreign_backbone import DistilledTransformer, moments, prediction_of


@register_block("backbone/sana_transformer")
class SanaTransformer(DistilledTransformer):
    """``SanaTransformer2DModel`` of diffusers, which predicts a flow with linear attention (https://arxiv.org/abs/2410.10629)."""

    model_class = "SanaTransformer2DModel"

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        own = self.model.config
        output = self.model(
            latent,
            encoder_hidden_states=condition,
            encoder_attention_mask=attention_mask,
            timestep=moment * own.timestep_scale,
            guidance=moments(guidance, latent).to(latent.dtype) if own.guidance_embeds and guidance is not None else None,
            return_dict=False,
        )[0]
        return prediction_of(output, own.in_channels)
