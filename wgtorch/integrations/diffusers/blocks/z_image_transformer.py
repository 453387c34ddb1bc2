"""The transformer of Z-Image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments

PATCH = 2
TRAINED_STEPS = 1000


@register_block("backbone/z_image_transformer")
class ZImageTransformer(ForeignBackbone):
    """``ZImageTransformer2DModel`` of diffusers, which predicts a flow (https://github.com/Tongyi-MAI/Z-Image).

    The model counts time the other way round, and so predicts the flow with the other sign; here both are as of other flows.

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "ZImageTransformer2DModel"
    inputs: Mapping[str, Any] = {"condition": "embedding", "attention_mask": Port(dtype="tokens", optional=True)}

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor, attention_mask: Tensor | None = None) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Args:
            latent: [B, C, H, W]; H and W are even.
            timestep: of training, in [0, 1000], a number or [B].
            condition: [B, L, D].
            attention_mask: [B, L], 0 where a text has ended.

        Raises:
            PortError: the latent or the condition does not fit the model.
        """
        self.check(latent, condition, self.model.config.in_channels, (PATCH, PATCH))
        texts = list(condition)
        if attention_mask is not None:
            texts = [text[: int(mask.sum())] for text, mask in zip(condition, attention_mask, strict=True)]
        moment = (TRAINED_STEPS - moments(timestep, latent)) / TRAINED_STEPS
        pictures = list(latent.to(self.model.dtype).unsqueeze(2).unbind(dim=0))
        found = self.model(pictures, moment, texts, return_dict=False)[0]
        return {"pred": -torch.stack([one.float() for one in found]).squeeze(2)}
