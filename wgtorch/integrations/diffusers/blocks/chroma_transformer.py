"""The transformer of Chroma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH, TRAINED_STEPS, places
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.integrations.diffusers.patches import pack, unpack


@register_block("backbone/chroma_transformer")
class ChromaTransformer(ForeignBackbone):
    """``ChromaTransformer2DModel`` of diffusers, which predicts a flow (Chroma, https://huggingface.co/lodestones/Chroma).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "ChromaTransformer2DModel"
    inputs: Mapping[str, Any] = {"condition": "embedding", "attention_mask": Port(dtype="tokens", optional=True)}

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor, attention_mask: Tensor | None = None) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Args:
            latent: [B, C, H, W]; H and W are even.
            timestep: of training, in [0, 1000], a number or [B].
            condition: [B, L, D].
            attention_mask: [B, L], 0 where nothing of the text is to be seen any more.

        Raises:
            PortError: the latent or the condition does not fit the model.
        """
        self.check(latent, condition, self.model.config.in_channels // PATCH**2, (PATCH, PATCH))
        patches = pack(latent, PATCH)
        mask = None
        if attention_mask is not None:
            mask = torch.cat([attention_mask.to(latent.dtype), latent.new_ones(patches.shape[:2])], dim=1)
        pred = self.model(
            hidden_states=patches,
            timestep=moments(timestep, latent).float().to(latent.dtype) / TRAINED_STEPS,
            encoder_hidden_states=condition,
            txt_ids=condition.new_zeros(condition.shape[1], 3),
            img_ids=places(latent),
            attention_mask=mask,
            return_dict=False,
        )[0]
        return {"pred": unpack(pred, latent.shape[2:], PATCH)}
