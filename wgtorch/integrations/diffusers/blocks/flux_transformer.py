"""The transformer of FLUX.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution, block_residuals
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.integrations.diffusers.patches import pack, unpack
from wgtorch.ports import ADAPTED, GUIDANCE, TEXT_EMBEDS

PATCH = 2
TRAINED_STEPS = 1000


@register_block("backbone/flux_transformer")
class FluxTransformer(ForeignBackbone):
    """``FluxTransformer2DModel`` of diffusers, which predicts a flow (FLUX.1, https://github.com/black-forest-labs/flux).

    Latents are pictures on both sides; the patches that the model takes, and where they lie, are made inside.
    """

    model_class = "FluxTransformer2DModel"
    inputs: Mapping[str, Any] = {
        "text_embeds": TEXT_EMBEDS,
        "guidance": GUIDANCE,
        "image_condition": Port(dtype="latent", description="latents of pictures to change (Kontext) [n, C, h, w]; n divides B"),
        "adapted": ADAPTED,
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        guidance: float | Tensor | None = None,
        image_condition: Tensor | None = None,
        adapted: Sequence[Contribution] | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Raises:
            PortError: the latent has not as many channels as the model takes, its sides are odd, or the condition has another
                number of rows; or a distilled model is not told its scale.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels // PATCH**2, (PATCH, PATCH))
        if own.guidance_embeds and guidance is None:
            raise PortError(f"{self.block_id}.guidance: this model was distilled with a guidance scale; feed one, such as 3.5")
        scale = moments(guidance, latent).float() if own.guidance_embeds and guidance is not None else None
        patches, lie = pack(latent, PATCH), places(latent)
        count = patches.shape[1]
        if image_condition is not None:
            beside = image_condition.repeat(latent.shape[0] // image_condition.shape[0], 1, 1, 1).to(latent.dtype)
            patches = torch.cat([patches, pack(beside, PATCH)], dim=1)
            lie = torch.cat([lie, places(beside, first=1)])
        pred = self.model(
            patches,
            encoder_hidden_states=condition,
            pooled_projections=text_embeds,
            timestep=moments(timestep, latent).float().to(latent.dtype) / TRAINED_STEPS,
            img_ids=lie,
            txt_ids=condition.new_zeros(condition.shape[1], 3),
            guidance=scale,
            return_dict=False,
            **(block_residuals(adapted, latent.shape[0]) if adapted else {}),
        )[0][:, :count]
        return {"pred": unpack(pred, latent.shape[2:], PATCH)}


def places(latent: Tensor, first: int = 0) -> Tensor:
    """Where each patch lies, (first, row, column) [h w, 3]."""
    height, width = (side // PATCH for side in latent.shape[2:])
    rows = torch.arange(height, device=latent.device).repeat_interleave(width)
    columns = torch.arange(width, device=latent.device).repeat(height)
    return torch.stack([torch.full_like(rows, first), rows, columns], dim=1).to(latent.dtype)
