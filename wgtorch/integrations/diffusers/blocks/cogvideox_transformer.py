"""The transformer of CogVideoX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import VIDEO_LATENT

OFFSET = 2.0  # that image-to-video models of version 1.5 were trained with


@register_block("backbone/cogvideox_transformer")
class CogVideoXTransformer(ForeignBackbone):
    """``CogVideoXTransformer3DModel`` of diffusers, which predicts v (https://arxiv.org/abs/2408.06072).

    Channels come before frames here, as everywhere; where the patches lie is told to the model inside.
    """

    model_class = "CogVideoXTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "latent": VIDEO_LATENT,
        "image_condition": Port(dtype="latent", description="latent of the first frame, then zeros [n, C', T, H, W]; n divides B"),
    }

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor, image_condition: Tensor | None = None) -> dict[str, Any]:
        own, rows = self.model.config, latent.shape[0]
        beside = 0 if image_condition is None else image_condition.shape[1]
        self.check(latent, condition, own.in_channels - beside, (own.patch_size_t or 1, own.patch_size, own.patch_size))
        if image_condition is not None:
            latent = torch.cat([latent, image_condition.repeat(rows // image_condition.shape[0], 1, 1, 1, 1)], dim=1)
        pred = self.model(
            latent.transpose(1, 2),
            condition,
            moments(timestep, latent),
            ofs=None if own.ofs_embed_dim is None else latent.new_full((1,), OFFSET),
            image_rotary_emb=self._places(latent) if own.use_rotary_positional_embeddings else None,
            return_dict=False,
        )[0]
        return {"pred": pred.transpose(1, 2)}

    def _places(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary embeddings of the patches: of version 1 stretched to the size of training, of 1.5 as they are."""
        embeddings: Any = require("diffusers.models.embeddings", "diffusers")
        own, (frames, height, width) = self.model.config, latent.shape[2:]
        grid, trained = (
            (height // own.patch_size, width // own.patch_size),
            (own.sample_height // own.patch_size, own.sample_width // own.patch_size),
        )
        shared = {"embed_dim": own.attention_head_dim, "grid_size": grid, "device": latent.device}
        if own.patch_size_t is None:
            return embeddings.get_3d_rotary_pos_embed(crops_coords=_crop(grid, trained), temporal_size=frames, **shared)
        steps = -(-frames // own.patch_size_t)
        return embeddings.get_3d_rotary_pos_embed(crops_coords=None, temporal_size=steps, grid_type="slice", max_size=trained, **shared)


def _crop(grid: tuple[int, int], trained: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The part of the grid of training that a grid of other sides covers: as large as fits, in the middle."""
    (height, width), (most_height, most_width) = grid, trained
    if height / width > most_height / most_width:
        size = (most_height, round(most_height / height * width))
    else:
        size = (round(most_width / width * height), most_width)
    top, left = round((most_height - size[0]) / 2), round((most_width - size[1]) / 2)
    return (top, left), (top + size[0], left + size[1])
