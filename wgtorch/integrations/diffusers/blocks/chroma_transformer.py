"""The transformer of Chroma."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH, TRAINED_STEPS, places
from wgtorch.integrations.diffusers.blocks.foreign_backbone import TextTransformer
from wgtorch.integrations.diffusers.patches import pack, unpack


@register_block("backbone/chroma_transformer")
class ChromaTransformer(TextTransformer):
    """``ChromaTransformer2DModel`` of diffusers, which predicts a flow (Chroma, https://huggingface.co/lodestones/Chroma)."""

    model_class = "ChromaTransformer2DModel"
    patch = PATCH
    is_packed = True

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        patches, mask = pack(latent, PATCH), None
        if attention_mask is not None:
            mask = torch.cat([attention_mask.to(latent.dtype), latent.new_ones(patches.shape[:2])], dim=1)
        pred = self.model(
            hidden_states=patches,
            timestep=moment.float().to(latent.dtype) / TRAINED_STEPS,
            encoder_hidden_states=condition,
            txt_ids=condition.new_zeros(condition.shape[1], 3),
            img_ids=places(latent),
            attention_mask=mask,
            return_dict=False,
        )[0]
        return unpack(pred, latent.shape[2:], PATCH)
