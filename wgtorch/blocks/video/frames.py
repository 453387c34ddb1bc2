"""Frames of videos as rows of a batch, and back; and a walk from one condition to another, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.core.port import Port
from wgtorch.ports import NUM_FRAMES, VIDEO


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


@register_block("video/walk")
class Walk(Block):
    """Conditions on the way from one to another: frame k of T is ``start + s (end - start)`` with s = k / (T - 1).

    Args:
        frames: T where the input ``num_frames`` is not fed.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "start": Port(dtype="embedding", description="conditions of the first frame [B or 1, ...]"),
        "end": Port(dtype="embedding", description="conditions of the last frame [B or 1, ...]"),
        "num_frames": NUM_FRAMES,
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="conditions of the frames, those of a video in a row [B T, ...]"),
        "frames": Port(dtype="number", description="T, frames of a video"),
    }

    def __init__(self, *, frames: int = 16) -> None:
        super().__init__()
        if frames < 1:
            raise ConfigError(f"video/walk: {frames} frames; expected at least 1")
        self.frames = frames

    def forward(self, start: Tensor, end: Tensor, num_frames: int | None = None) -> dict[str, Any]:
        """``embedding`` [B T, ...] and ``frames`` T.

        Raises:
            PortError: the rows of the two do not go together, or there are no frames.
        """
        frames = self.frames if num_frames is None else int(num_frames)
        rows = {start.shape[0], end.shape[0]} - {1}
        if len(rows) > 1 or frames < 1:
            raise PortError(
                f"{self.block_id}: from {start.shape[0]} to {end.shape[0]} conditions in {frames} frames; "
                "expected as many at the end as at the start, or one, and at least one frame"
            )
        share = torch.linspace(0, 1, frames, dtype=start.dtype, device=start.device).view(1, frames, *([1] * (start.dim() - 1)))
        walked = torch.lerp(start.unsqueeze(1), end.unsqueeze(1), share)
        return {"embedding": walked.flatten(0, 1), "frames": frames}
