"""The transformer of PixArt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments, prediction_of


@register_block("backbone/pixart_transformer")
class PixArtTransformer(ForeignBackbone):
    """``PixArtTransformer2DModel`` of diffusers, which predicts noise (PixArt-alpha, https://arxiv.org/abs/2310.00426, and sigma).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "PixArtTransformer2DModel"
    inputs: Mapping[str, Any] = {
        "condition": "embedding",
        "attention_mask": Port(dtype="tokens", optional=True),
        "resolution": Port(dtype="tensor", optional=True),
        "aspect_ratio": Port(dtype="tensor", optional=True),
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

        Args:
            latent: [B, C, H, W]; H and W are multiples of the patch size.
            timestep: of training, a number or [B].
            condition: [B, L, D].
            attention_mask: [B, L], 0 where the text is padded.
            resolution: height and width in pixels [B, 2], of models for 1024 pixels that are told it.
            aspect_ratio: height / width [B, 1], of the same.

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
