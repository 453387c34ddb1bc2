"""A picture at twice its size: a small residual network over a smooth enlargement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port

FACTOR = 2


@register_block("upscaler/scene")
class SceneUpscaler(Block):
    """Doubles the sides of a picture of a scene: bicubic enlargement, and what a residual network adds to it.

    After EDSR (Lim et al. 2017) with sub-pixel convolution (Shi et al. 2016). It was trained on drawings that were made small,
    blurred and given noise, so that it also sharpens generated pictures. It is convolutional: any size goes in.

    Args:
        width: channels.
        depth: residual blocks.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"image": Port(dtype="image", shape=("B", 3, "H", "W"), description="pictures in [0, 1]")}
    outputs: Mapping[str, Any] = {"image": Port(dtype="image", description="pictures [B, 3, 2 H, 2 W] in [0, 1]")}

    def __init__(self, *, width: int = 32, depth: int = 5) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(_Residual(width) for _ in range(depth))
        self.leave = nn.Conv2d(width, 3 * FACTOR**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)  # before any training it is the bicubic enlargement
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """``image`` [B, 3, 2 H, 2 W] of [B, 3, H, W], both in [0, 1].

        Raises:
            PortError: it is no batch of pictures with three channels.
        """
        if image.dim() != 4 or image.shape[1] != 3:
            raise PortError(f"{self.block_id}.image: got shape {list(image.shape)}; expected [B, 3, H, W]")
        entered = hidden = self.enter(image)
        for block in self.body:
            hidden = block(hidden)
        enlarged = F.interpolate(image, scale_factor=FACTOR, mode="bicubic", align_corners=False)
        return (enlarged + F.pixel_shuffle(self.leave(hidden + entered), FACTOR)).clamp(0, 1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return x + self.second(F.silu(self.first(x)))
