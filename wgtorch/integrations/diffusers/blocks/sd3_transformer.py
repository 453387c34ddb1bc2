"""The transformer of Stable Diffusion 3, and what it is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution, block_residuals
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import ADAPTED, MAX_SEQUENCE_LENGTH, TEXT_EMBEDS


@register_block("backbone/sd3_transformer")
class SD3Transformer(ForeignBackbone):
    """``SD3Transformer2DModel`` of diffusers, which predicts a flow (Esser et al. 2024, https://arxiv.org/abs/2403.03206)."""

    model_class = "SD3Transformer2DModel"
    inputs: Mapping[str, Any] = {
        "text_embeds": TEXT_EMBEDS,
        "skip_layers": Port(dtype="list", description="numbers of blocks that are left out, for guidance away from what comes then"),
        "adapted": ADAPTED,
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        skip_layers: Sequence[int] | None = None,
        adapted: Sequence[Contribution] | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Raises:
            PortError: the latent has not as many channels as the model takes, its sides are no multiples, the condition has another
                number of rows, or there is no such block.
        """
        own = self.model.config
        if skip_layers and not set(skip_layers) <= set(range(own.num_layers)):
            raise PortError(f"{self.block_id}.skip_layers: got {list(skip_layers)}; expected numbers from 0 to {own.num_layers - 1}")
        self.check(latent, condition, own.in_channels, (own.patch_size, own.patch_size))
        more: dict[str, Any] = {"skip_layers": list(skip_layers)} if skip_layers else {}
        if adapted:
            more["block_controlnet_hidden_states"] = block_residuals(adapted, latent.shape[0])["controlnet_block_samples"]
        pred = self.model(latent, condition, text_embeds, moments(timestep, latent).float(), return_dict=False, **more)[0]
        return {"pred": pred}


@register_block("diffusers/sd3_conditions")
class SD3Conditions(Block):
    """Two CLIP encoders side by side, padded to the width of T5, whose tokens follow; zeros where there is no T5.

    Args:
        width: of the embeddings that the transformer takes.
    """

    uses_global_rng = False
    length = 256
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="embedding of the first CLIP encoder [B, T, D1]"),
        "second_embedding": Port(dtype="embedding", description="embedding of the second CLIP encoder [B, T, D2]"),
        "pooled": Port(dtype="embedding", description="pooled text of the first CLIP encoder [B, P1]"),
        "second_pooled": Port(dtype="embedding", description="pooled text of the second CLIP encoder [B, P2]"),
        "third_embedding": Port(dtype="embedding", description="embedding of T5 [B, L, D]; zeros where left out"),
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="CLIP's tokens, then T5's [B, T + L, D]"),
        "pooled": Port(dtype="embedding", description="both pooled texts side by side [B, P1 + P2]"),
    }

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(
        self,
        embedding: Tensor,
        second_embedding: Tensor,
        pooled: Tensor,
        second_pooled: Tensor,
        third_embedding: Tensor | None = None,
        max_sequence_length: int | None = None,
    ) -> dict[str, Any]:
        """``embedding`` [B, T + L, D] and ``pooled`` [B, P1 + P2]."""
        both = torch.cat([embedding, second_embedding], dim=-1)
        if third_embedding is None:
            length = self.length if max_sequence_length is None else int(max_sequence_length)
            third_embedding = both.new_zeros(both.shape[0], length, self.width)
        both = F.pad(both, (0, third_embedding.shape[-1] - both.shape[-1]))
        return {"embedding": torch.cat([both, third_embedding], dim=-2), "pooled": torch.cat([pooled, second_pooled], dim=-1)}
