"""The transformer of PixArt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments, prediction_of
from wgtorch.ports import ATTENTION_MASK


@register_block("backbone/pixart_transformer")
class PixArtTransformer(ForeignBackbone):
    """``PixArtTransformer2DModel`` of diffusers, which predicts noise (PixArt-alpha, https://arxiv.org/abs/2310.00426, and sigma)."""

    model_class = "PixArtTransformer2DModel"
    inputs: Mapping[str, Any] = {
        "attention_mask": ATTENTION_MASK,
        "resolution": Port(dtype="tensor", description="height and width in pixels [B, 2], for models of 1024 pixels, which are told them"),
        "aspect_ratio": Port(dtype="tensor", description="height / width [B, 1], for the same models"),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        attention_mask: Tensor | None = None,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W], without the variance that the model gives beside it.

        Raises:
            PortError: the latent has not as many channels as the model takes, its sides are no multiples, or the condition has
                another number of rows.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels, (own.patch_size, own.patch_size))
        output = self.model(
            latent,
            encoder_hidden_states=condition,
            encoder_attention_mask=attention_mask,
            timestep=moments(timestep, latent),
            added_cond_kwargs={"resolution": resolution, "aspect_ratio": aspect_ratio},
            return_dict=False,
        )[0]
        return {"pred": prediction_of(output, own.in_channels)}
