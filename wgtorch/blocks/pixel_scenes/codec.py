"""From the sampler's numbers to pixel art: the palette, and whole-number enlargement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from wgtorch.blocks.pixel_scenes.layout import SIZE
from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.roles import Codec, Encoder


@register_block("codec/pixel_art")
class PixelArtCodec(Codec):
    """Pictures of models that work on pixels as pixel art: every pixel gets the palette's nearest colour and grows by a whole number.

    Args:
        scale: how often each pixel is repeated in both directions; 8 makes 512 x 512 of 64 x 64.
    """

    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", shape=("B", 3, "H", "W"), description="pictures in [-1, 1]; what is outside is cut")
    }
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


@register_block("encoder/pixel_art")
class PixelArtEncoder(Encoder):
    """The way back: pictures [0, 1] of any size to 64 x 64 pixels in [-1, 1]; of pixel art that grew, exactly what it grew from."""

    uses_global_rng = False

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``latent`` [B, 3, 64, 64] in [-1, 1] of ``image`` [B, 3, H, W] in [0, 1]; one picture [3, H, W] is a batch of one."""
        batch = image if image.dim() == 4 else image.unsqueeze(0)
        small = batch if batch.shape[-2:] == (SIZE, SIZE) else F.interpolate(batch, (SIZE, SIZE), mode="area")
        return {"latent": small * 2 - 1}
