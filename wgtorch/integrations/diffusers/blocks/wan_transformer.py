"""The transformer of Wan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import VIDEO_LATENT


@register_block("backbone/wan_transformer")
class WanTransformer(ForeignBackbone):
    """``WanTransformer3DModel`` of diffusers, which predicts the flow of a video (Wan, https://arxiv.org/abs/2503.20314)."""

    model_class = "WanTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "latent": VIDEO_LATENT,
        "image_condition": Port(dtype="latent", description="channels beside the latents [n, C', T, H, W]; n divides B"),
        "image_embeds": Port(dtype="embedding", description="pictures as CLIP sees them [n, K, E], or two each [n, 2 K, E]; n divides B"),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        image_condition: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> dict[str, Any]:
        own, rows = self.model.config, latent.shape[0]
        beside = 0 if image_condition is None else image_condition.shape[1]
        self.check(latent, condition, own.in_channels - beside, own.patch_size)
        if image_condition is not None:
            image_condition = image_condition.repeat(rows // image_condition.shape[0], 1, 1, 1, 1)
            latent = torch.cat([latent, image_condition.to(latent.dtype)], dim=1)
        if image_embeds is not None:
            image_embeds = self._pictures(image_embeds.repeat(rows // image_embeds.shape[0], 1, 1))
        return {"pred": self.model(latent, moments(timestep, latent), condition, image_embeds, return_dict=False)[0]}

    def _pictures(self, embeds: Tensor) -> Tensor:
        """Embeddings as the model takes them: of one that reads the first picture and the last, the two apart [2 B, K, E]."""
        both, found = self.model.config.pos_embed_seq_len, embeds.shape[1]
        if both is None:
            return embeds
        if found != both:
            raise PortError(
                f"{self.block_id}.image_embeds: got {found} tokens; expected {both}, those of the first picture and of the last: "
                "feed last_image too"
            )
        return embeds.reshape(2 * embeds.shape[0], both // 2, -1)
