"""Frames of videos as rows of a batch, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.ports import VIDEO


@register_block("video/repeat")
class RepeatFrames(Block):
    """Each row of a batch once for each frame, one row's frames after the other's."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="one row for each video [B, ...]"),
        "frames": Port(dtype="number", description="T, frames of a video"),
    }
    outputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="one row for each frame, those of a video in a row [B T, ...]")
    }

    def forward(self, latent: Tensor, frames: int) -> Tensor:
        """``latent`` [B T, ...] of [B, ...], with T = ``frames``."""
        return latent.repeat_interleave(frames, dim=0)


@register_block("video/join")
class JoinFrames(Block):
    """Pictures in a row to videos."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="frames [B T, 3, H, W], those of a video in a row"),
        "frames": Port(dtype="number", description="T, frames of a video"),
    }
    outputs: Mapping[str, Any] = {"video": VIDEO}

    def forward(self, image: Tensor, frames: int) -> Tensor:
        """``video`` [B, T, 3, H, W] of ``image`` [B T, 3, H, W].

        Raises:
            PortError: the pictures make no whole videos.
        """
        if frames < 1 or image.shape[0] % frames:
            raise PortError(f"{self.block_id}.image: {image.shape[0]} pictures make no whole videos of {frames} frames")
        return image.unflatten(0, (-1, frames))


@register_block("video/split")
class SplitFrames(Block):
    """Videos to pictures in a row."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"video": VIDEO}
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="frames [B T, 3, H, W], those of a video in a row"),
        "frames": Port(dtype="number", description="T, frames of a video"),
    }

    def forward(self, video: Tensor) -> dict[str, Any]:
        """``image`` [B T, 3, H, W] of ``video`` [B, T, 3, H, W], and ``frames`` T."""
        return {"image": video.flatten(0, 1), "frames": video.shape[1]}
