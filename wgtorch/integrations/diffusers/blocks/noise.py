"""The latent that a sampling loop of a latent diffusion model starts from: of a picture, of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict, Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise import noise_for
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GeneratorRng, Rng
from wgtorch.integrations.diffusers.patches import packed_shape, unpack
from wgtorch.ports import AFTER, HEIGHT, NOISE, NUM_FRAMES, PROGRESS, ROWS, WIDTH
from wgtorch.roles import Noise


def starts_whole(progress: Any) -> bool:
    """A loop goes over the whole grid, as without an image to start near."""
    if progress.is_continuation:
        return False
    grid = getattr(progress, "grid", None)
    return progress.iteration == 0 if grid is None else len(grid) == grid.total


class SizeArguments(TypedDict, total=False):
    """Arguments of :class:`SizedNoise`, which blocks of noise pass on to it."""

    channels: Required[int]
    factor: Required[int]
    patch: int
    height: Required[int]
    width: Required[int]


class SizedNoise(Noise):
    """Noise for what is so many pixels large.

    Args:
        channels: of the latents.
        factor: pixels to a latent's side.
        patch: latents to a side of what the backbone takes as one.
        height: in pixels, where the input is not fed.
        width: likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "condition": ROWS,
        "progress": PROGRESS,
        "latents": Port(
            dtype="latent",
            optional=True,
            description="the noise itself, standard normal [B, C, ...], or as patches [B, N, C patch^2]; drawn where left out",
        ),
        "height": HEIGHT,
        "width": WIDTH,
    }
    outputs: Mapping[str, Any] = {"noise": NOISE}

    def __init__(self, *, channels: int, factor: int, patch: int = 1, height: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.factor = factor
        self.patch = patch
        self.height = height
        self.width = width

    def side(self, name: str, given: float | None) -> int:
        """``height`` or ``width`` in latents, of pixels.

        Raises:
            PortError: they are no multiple of the factor, and of the patch.
        """
        pixels, multiple = getattr(self, name) if given is None else int(given), self.factor * self.patch
        if pixels < multiple or pixels % multiple:
            raise PortError(f"{self.block_id}.{name}: got {pixels} pixels; expected a multiple of {multiple}")
        return pixels // self.factor

    def noise(self, condition: Tensor, latents: Tensor | None, shape: Sequence[Any], words: str, rng: Rng | None) -> Tensor:
        """The noise that is given, or drawn for each sample by its own generator, [B, *shape].

        Raises:
            PortError: what is given has another shape than is expected for ``words``.
        """
        if latents is None:
            return noise_for(condition, shape, rng)
        expected = [condition.shape[0], *shape]
        if list(latents.shape) != expected:
            raise PortError(f"{self.block_id}.latents: got shape {list(latents.shape)}; expected {expected} for {words}")
        return latents.to(condition.device)


@register_block("noise/latents")
class LatentNoise(SizedNoise):
    """Noise for pictures of a size in pixels, or an image noised to where the loop starts.

    The noise is given, or drawn for each sample by its own generator.

    Args:
        whole_from_noise: a loop over the whole grid starts from noise alone, whatever the image (inpainting).
        patch: latents to a side of what the backbone takes as one; sides are multiples of it, and ``latents`` may come as such
            patches too.
        starts_at_latents: ``latents`` are what the loop starts from, and not the noise that is added to the image; with
            ``whole_from_noise`` the noise that it starts from alone. So the pipelines of diffusers take them.
        draws_for_masked: pipelines that inpaint encode the masked picture also for a model that never sees it, and draw for that: so
            that what is drawn after comes from the same place of PyTorch's global generator, it is drawn here too.
    """

    inputs: Mapping[str, Any] = {
        "image_latent": Port(dtype="latent", description="clean latents to start near, or noisy ones to go on from [1 or B, C, h, w]"),
        "picture": Port(dtype="image", description="what was encoded; latents in its place are never masked, so nothing is drawn for it"),
        "after": AFTER,
    }

    def __init__(
        self,
        *,
        whole_from_noise: bool = False,
        draws_for_masked: bool = False,
        starts_at_latents: bool = False,
        **size: Unpack[SizeArguments],
    ) -> None:
        super().__init__(**size)
        self.whole_from_noise = whole_from_noise
        self.draws_for_masked = draws_for_masked
        self.starts_at_latents = starts_at_latents

    def forward(
        self,
        condition: Tensor,
        progress: Any,
        image_latent: Tensor | None = None,
        latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        picture: Tensor | None = None,
        after: Any = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``latent`` to start from and the ``noise`` in it, [B, C, h, w].

        Raises:
            PortError: ``latents``, ``height`` or ``width`` fit neither each other nor the model.
        """
        rows, image_rows = condition.shape[0], 0 if image_latent is None else image_latent.shape[0]
        if image_latent is not None:
            if image_latent.shape[0] not in (1, rows):
                raise PortError(f"{self.block_id}.image_latent: got {image_latent.shape[0]} rows for {rows} prompts; expected 1 or {rows}")
            image_latent = image_latent.expand(rows, *image_latent.shape[1:])
            size = tuple(image_latent.shape[2:])
        elif latents is not None and latents.dim() > 3 and height is None and width is None:
            size = tuple(latents.shape[2:])
        else:
            size = (self.side("height", height), self.side("width", width))
        shape = (rows, self.channels, *size)
        if latents is not None and self.patch > 1 and tuple(latents.shape) == packed_shape(shape, self.patch):
            latents = unpack(latents, size, self.patch)
        words = "the image" if image_latent is not None else f"{rows} prompts"
        is_told = self.starts_at_latents and latents is not None
        if image_latent is not None and not self.whole_from_noise and (progress.is_continuation or is_told):
            own = self.noise(condition, latents, [self.channels, *size], words, rng) if is_told else image_latent
            return {"latent": progress.resumed(own), "noise": torch.zeros_like(own)}
        sides = size if latents is None or len(size) == 2 else ("h", "w")
        noise = self.noise(condition, latents, [self.channels, *sides], words, rng)
        is_pixels = picture is None or picture.shape[1] != self.channels
        if self.draws_for_masked and image_rows and is_pixels and (rng is None or not rng.keyed):
            own_rng = rng.first(image_rows) if isinstance(rng, GeneratorRng) else rng
            noise_for(condition[:1].expand(image_rows, *condition.shape[1:]), [self.channels, *size], own_rng)
        near = None if self.whole_from_noise and (starts_whole(progress) or is_told) else image_latent
        return {"latent": progress.start(noise, near), "noise": noise}


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
