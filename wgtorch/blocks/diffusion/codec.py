"""Codecs: between latents and pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.roles import Codec, Encoder


@register_block("codec/pixels")
class PixelCodec(Codec):
    """Pictures of models that work on pixels: [-1, 1] to [0, 1]."""

    uses_global_rng = False
    rows_are_samples = True

    def forward(self, latent: Tensor) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of ``latent`` [B, 3, H, W] in [-1, 1]; what is outside is cut."""
        return {"image": (latent / 2 + 0.5).clamp(0, 1)}


@register_block("encoder/pixels")
class PixelEncoder(Encoder):
    """The way back: pictures [0, 1] to [-1, 1]."""

    uses_global_rng = False

    def forward(self, image: Tensor) -> dict[str, Any]:
        """``latent`` [B, 3, H, W] in [-1, 1] of ``image`` in [0, 1]; one picture [3, H, W] is a batch of one."""
        batch = image if image.dim() == 4 else image.unsqueeze(0)
        return {"latent": batch * 2 - 1}
