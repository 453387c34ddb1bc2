"""Inpainting: what is masked is painted, the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.integrations.diffusers.schedulers import SchedulerProgress, apart, noised, shown
from wgtorch.ports import AFTER, CLEAN_LATENT, DONE, LATENT, LATENT_MASK, MASK, NOISE, PICTURES, PROGRESS

HALF = 0.5


@register_block("diffusers/latent_mask")
class LatentMask(Block):
    """A mask of 0 and 1 at the size of the picture, and at that of its latent.

    Args:
        factor: pixels to a latent's side.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "mask_image": Port(
            dtype="image", raw=True, description="masks [1 or 3, H, W] or [B, 1 or 3, H, W], or of Pillow; painted anew from 0.5"
        ),
        "image": Port(dtype="image", description="pictures [B, 3, H, W], or latents [B, C, h, w], that say the size"),
    }
    outputs: Mapping[str, Any] = {"mask": MASK, "latent_mask": LATENT_MASK}

    def __init__(self, *, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, mask_image: Any, image: Tensor) -> dict[str, Any]:
        """``mask`` [B, 1, H, W] and ``latent_mask`` [B, 1, h, w]: 1 where ``mask_image`` is at least a half."""
        scale = 1 if image.shape[1] == 3 else self.factor
        sides = (image.shape[2] * scale, image.shape[3] * scale)
        mask = batch_of(mask_image, f"{self.block_id}.mask_image", sides, mode="L")
        mask = (mask.mean(dim=1, keepdim=True) >= HALF).to(image.dtype)
        size = (sides[0] // self.factor, sides[1] // self.factor)
        return {"mask": mask, "latent_mask": F.interpolate(mask, size=size)}


@register_block("diffusers/masked_image")
class MaskedImage(Block):
    """A picture that is grey where the mask is 1."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"image": PICTURES, "mask": MASK, "after": AFTER}
    outputs: Mapping[str, Any] = {"image": Port(dtype="image", description="pictures [B, 3, H, W] in [0, 1], grey where the mask is 1")}

    def forward(self, image: Tensor, mask: Tensor, after: Any = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of one like it and ``mask`` [B, 1, H, W]."""
        return {"image": torch.where(mask < HALF, image, HALF)}


@register_block("diffusers/blend")
class Blend(Block):
    """Puts the picture that is to stay back into the latent after each step, noised as the rest is then.

    (For models that know nothing of masks; Lugmayr et al. 2022, https://arxiv.org/abs/2201.09865, without resampling.)
    """

    uses_global_rng = False
    compiles = False  # where the loop is, it asks the grid
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="what the solver gave [B, C, h, w]"),
        "image_latent": CLEAN_LATENT,
        "noise": NOISE,
        "mask": LATENT_MASK,
        "timestep": Port(dtype="number", description="where the solver has come to"),
        "progress": PROGRESS,
        "done": DONE,
    }
    outputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="the latents with the known picture where the mask is 0"),
        "progress": PROGRESS,
    }

    def forward(
        self, latent: Tensor, image_latent: Tensor, noise: Tensor, mask: Tensor, timestep: float, progress: Any, done: bool
    ) -> dict[str, Any]:
        """``latent`` [B, C, h, w], and the solver's ``progress`` for the next turn."""
        if isinstance(progress, SchedulerProgress):
            return self._in_scheduler(image_latent, noise, mask, progress, done)
        known = image_latent
        if not done:
            level = progress.grid.levels[progress.grid.timesteps.index(timestep)]
            known = level.alpha * image_latent + level.sigma * noise
        return {"latent": (1 - mask) * known + mask * latent, "progress": progress}

    def _in_scheduler(self, image_latent: Tensor, noise: Tensor, mask: Tensor, progress: SchedulerProgress, done: bool) -> dict[str, Any]:
        """The same in the latent as a scheduler of diffusers keeps it, which travels with the progress."""
        scheduler, sample = apart(progress.scheduler), progress.sample
        assert sample is not None, "the solver has made a turn"
        known = image_latent
        if not done:
            now = scheduler.timesteps[progress.iteration]
            known = noised(scheduler, image_latent, noise, now.reshape(1))
        sample = (1 - mask) * known + mask * sample
        latent = sample if done else shown(scheduler, sample, now)
        return {"latent": latent, "progress": replace(progress, sample=sample)}


@register_block("diffusers/mask_patches")
class MaskPatches(Block):
    """A mask whose pixels stand at their latent as channels (FLUX.1 Fill).

    Args:
        factor: pixels to a latent's side.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"mask": MASK}
    outputs: Mapping[str, Any] = {
        "patches": Port(dtype="tensor", description="the mask's pixels as channels of the latents [B, factor^2, h, w]")
    }

    def __init__(self, *, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, mask: Tensor) -> dict[str, Any]:
        """``patches`` [B, factor^2, h, w] of ``mask`` [B, 1, H, W]."""
        return {"patches": F.pixel_unshuffle(mask, self.factor)}


@register_block("diffusers/inpaint_channels")
class InpaintChannels(Block):
    """What an inpainting model sees beside the latent: the mask, and the latent of the masked picture.

    Args:
        mask_last: the mask comes after the masked picture (FLUX.1 Fill).
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "latent": LATENT,
        "mask": Port(dtype="tensor", description="the mask at the latents' size [n, M, h, w]; n divides B"),
        "masked_latent": Port(dtype="latent", description="latents of the masked picture [n, C, h, w]; n divides B"),
    }
    outputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="the latents with the other two beside them as channels [B, 2 C + M, h, w]")
    }

    def __init__(self, *, mask_last: bool = False) -> None:
        super().__init__()
        self.mask_last = mask_last

    def forward(self, latent: Tensor, mask: Tensor, masked_latent: Tensor) -> dict[str, Any]:
        """``latent`` [B, C + M + C, h, w] of [B, C, h, w] and ``mask`` [n, M, h, w]; the others are repeated to its rows."""
        order = (masked_latent, mask) if self.mask_last else (mask, masked_latent)
        beside = [value.repeat(latent.shape[0] // value.shape[0], 1, 1, 1) for value in order]
        return {"latent": torch.cat([latent, *beside], dim=1)}


@register_block("diffusers/without_shift")
class WithoutShift(Block):
    """A latent whose decoding leaves the autoencoder's shift out.

    ``StableDiffusion3InpaintPipeline`` of diffusers decodes so. A graph that is to use the shift does without this node.

    Args:
        shift: ``shift_factor * scaling_factor`` of the autoencoder.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="latents as the loop leaves them [B, C, h, w]")}
    outputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="latents less the shift")}

    def __init__(self, *, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, latent: Tensor) -> Tensor:
        """``latent`` - shift, [B, C, h, w]."""
        return latent - self.shift
