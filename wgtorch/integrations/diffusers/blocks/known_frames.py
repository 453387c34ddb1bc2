"""What a video is to go on from: its first frame, and its last where that is known too.

::

    picture --image--> known_frames --video--> encoder --latent--> frames_condition --condition--> backbone
                                   \\--known-----------------------^
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.ports import NUM_FRAMES, VIDEO

GREY = 0.5


@register_block("diffusers/known_frames")
class KnownFrames(Block):
    """A video that is grey but for its first frame, and its last where there is one.

    Args:
        num_frames: where the input is not fed.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="the first frame [B, 3, H, W] in [0, 1]"),
        "last_image": Port(dtype="image", raw=True, description="the last frame [B, 3, H, W] or [3, H, W], or of Pillow; resized"),
        "num_frames": NUM_FRAMES,
    }
    outputs: Mapping[str, Any] = {
        "video": VIDEO,
        "known": Port(dtype="tensor", shape=("F",), description="1 for a frame that is known, 0 for a grey one"),
    }

    def __init__(self, *, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames

    def forward(self, image: Tensor, last_image: Any = None, num_frames: int | None = None) -> dict[str, Any]:
        """``video`` [B, F, 3, H, W] in [0, 1], and ``known`` [F], 1 where a frame is."""
        count = self.num_frames if num_frames is None else int(num_frames)
        known = torch.zeros(count, dtype=image.dtype, device=image.device)
        video = image.new_full((image.shape[0], count, *image.shape[1:]), GREY)
        frames = {0: image}
        if last_image is not None:
            frames[count - 1] = batch_of(last_image, f"{self.block_id}.last_image", (image.shape[2], image.shape[3]))
        for index, frame in frames.items():
            video[:, index] = frame
            known[index] = 1
        return {"video": video, "known": known}


@register_block("diffusers/frames_condition")
class FramesCondition(Block):
    """What Wan sees beside the latent: which frames are known, and the latent of those.

    Args:
        frames: frames to a latent's, after the first, which stands for as many.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="the video's latents [B, C, T, h, w]"),
        "known": Port(dtype="tensor", shape=("F",), description="1 for a frame that is known, 0 for a grey one"),
    }
    outputs: Mapping[str, Any] = {
        "condition": Port(dtype="latent", description="the mask and the latents as channels [B, frames + C, T, h, w]")
    }

    def __init__(self, *, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, latent: Tensor, known: Tensor) -> dict[str, Any]:
        """``condition`` [B, frames + C, T, h, w] of ``latent`` [B, C, T, h, w] and ``known`` [F]."""
        rows, _, _, height, width = latent.shape
        mask = torch.cat([known[:1].expand(self.frames), known[1:]]).view(-1, self.frames).T.to(latent.dtype)
        mask = mask.view(1, *mask.shape, 1, 1).expand(rows, -1, -1, height, width)
        return {"condition": torch.cat([mask, latent], dim=1)}
