"""From the sampler's numbers to pixel art: the palette, and whole-number enlargement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.roles import Codec


@register_block("codec/pixel_art")
class PixelArtCodec(Codec):
    """Pictures of models that work on pixels as pixel art: every pixel gets the palette's nearest colour and grows by a whole number.

    Args:
        scale: how often each pixel is repeated in both directions; 8 makes 512 x 512 of 64 x 64.
    """

    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="[B, 3, scale H, scale W] in [0, 1]"),
        "small": Port(dtype="image", description="the same before it grew, [B, 3, H, W]"),
    }
    uses_global_rng = False

    def __init__(self, *, scale: int = 8) -> None:
        super().__init__()
        if scale < 1:
            raise ValueError(f"PixelArtCodec.scale: found {scale}, expected a whole number from 1")
        self.scale = scale

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        """``image`` and ``small`` of ``latent`` [B, 3, H, W] in [-1, 1]; what is outside is cut."""
        small = snap(latent.float() / 2 + 0.5)
        return {"image": small.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2), "small": small}
