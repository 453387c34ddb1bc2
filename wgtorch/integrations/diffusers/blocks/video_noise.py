"""The latent that a sampling loop of a video model starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.roles import Noise


@register_block("noise/video_latents")
class VideoNoise(Noise):
    """Noise for videos of a size in pixels and frames; given, or drawn for each sample by its own generator.

    Args:
        channels: of the latents.
        factor: pixels to a latent's side.
        frames: frames to a latent's, after the first, which is one of its own.
        patch: latents to a side of what the backbone takes as one.
        num_frames: of the videos, where the input is not fed.
        height: of the videos in pixels, likewise.
        width: likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "condition": "embedding",
        "progress": "any",
        "latents": Port(dtype="latent", optional=True),
        **{name: Port(dtype="number", optional=True) for name in ("num_frames", "height", "width")},
    }
    outputs: Mapping[str, Any] = {"noise": "latent"}

    def __init__(self, *, channels: int, factor: int, frames: int, patch: int = 1, num_frames: int, height: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.factor = factor
        self.frames = frames
        self.patch = patch
        self.num_frames = num_frames
        self.height = height
        self.width = width

    def forward(
        self,
        condition: Tensor,
        progress: Any,
        latents: Tensor | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``latent`` to start from and the ``noise`` in it, [B, C, T, h, w].

        Args:
            condition: [B, ...]; says how many rows, their dtype and device.
            progress: of the schedule node.
            latents: the noise itself, standard normal, [B, C, T, h, w].
            num_frames: 1 + n times ``frames``.
            height: pixels; a multiple of the factor, and of the patch.
            width: likewise.

        Raises:
            PortError: they fit neither each other nor the model.
        """
        rows = condition.shape[0]
        if latents is not None and latents.dim() == 5 and num_frames is None and height is None and width is None:
            size = tuple(latents.shape[2:])
        else:
            size = (self._count(num_frames), self._side("height", height, self.height), self._side("width", width, self.width))
        shape = (rows, self.channels, *size)
        if latents is None:
            dtype = condition.dtype if condition.is_floating_point() else None
            noise = (rng or GLOBAL_RNG).normal(shape, dtype=dtype, device=condition.device)
        elif tuple(latents.shape) != shape:
            raise PortError(f"{self.block_id}.latents: got shape {list(latents.shape)}; expected {list(shape)} for {rows} prompts")
        else:
            noise = latents.to(condition.device)
        return {"latent": progress.start(noise), "noise": noise}

    def _count(self, given: int | None) -> int:
        count = self.num_frames if given is None else int(given)
        if count < 1 or (count - 1) % self.frames:
            near = max(count - 1, 0) // self.frames * self.frames + 1
            raise PortError(
                f"{self.block_id}.num_frames: got {count}; expected 1 + a multiple of {self.frames}, such as {near} or {near + self.frames}"
            )
        return (count - 1) // self.frames + 1

    def _side(self, name: str, given: int | None, own: int) -> int:
        pixels, multiple = own if given is None else int(given), self.factor * self.patch
        if pixels < multiple or pixels % multiple:
            raise PortError(f"{self.block_id}.{name}: got {pixels} pixels; expected a multiple of {multiple}")
        return pixels // self.factor
