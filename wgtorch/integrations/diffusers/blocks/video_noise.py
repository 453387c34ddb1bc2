"""The latent that a sampling loop of a video model starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.diffusers.blocks.latent_noise import SizeArguments, SizedNoise
from wgtorch.ports import AFTER, NUM_FRAMES


@register_block("noise/video_latents")
class VideoNoise(SizedNoise):
    """Noise for videos of a size in pixels and frames; given, or drawn for each sample by its own generator.

    Args:
        frames: frames to a latent's, after the first, which is one of its own.
        num_frames: of the videos, where the input is not fed.
        any_count: numbers of frames are rounded down to what latents have, instead of refused.
        frames_first: it is drawn frame by frame, as pipelines do whose latents have frames before channels.
    """

    inputs: Mapping[str, Any] = {"num_frames": NUM_FRAMES, "after": AFTER}

    def __init__(
        self, *, frames: int, num_frames: int, frames_first: bool = False, any_count: bool = False, **size: Unpack[SizeArguments]
    ) -> None:
        self.frames_first = frames_first
        self.any_count = any_count
        super().__init__(**size)
        self.frames = frames
        self.num_frames = num_frames

    def forward(
        self,
        condition: Tensor,
        progress: Any,
        latents: Tensor | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        after: Any = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``latent`` to start from and the ``noise`` in it, [B, C, T, h, w].

        Raises:
            PortError: they fit neither each other nor the model.
        """
        if latents is not None and latents.dim() == 5 and num_frames is None and height is None and width is None:
            size = tuple(latents.shape[2:])
        else:
            size = (self._count(num_frames), self.side("height", height), self.side("width", width))
        shape = [self.channels, *size]
        if self.frames_first and latents is None:
            noise = self.noise(condition, None, [shape[1], shape[0], *shape[2:]], "", rng).transpose(1, 2)
        else:
            noise = self.noise(condition, latents, shape, f"{condition.shape[0]} prompts", rng)
        return {"latent": progress.start(noise), "noise": noise}

    def _count(self, given: int | None) -> int:
        count = self.num_frames if given is None else int(given)
        if count < 1 or ((count - 1) % self.frames and not self.any_count):
            near = max(count - 1, 0) // self.frames * self.frames + 1
            raise PortError(
                f"{self.block_id}.num_frames: got {count}; expected 1 + a multiple of {self.frames}, such as {near} or {near + self.frames}"
            )
        return (count - 1) // self.frames + 1
