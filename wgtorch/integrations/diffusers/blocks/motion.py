"""What Stable Video Diffusion is told of the picture that it goes on from, and how it is guided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalGuidance
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError, require
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.integrations.diffusers.blocks.image_encoders import VisionModel
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.ports import GUIDANCE_SCALE, IMAGE, NOISE_AUG_STRENGTH, NUM_FRAMES, PICTURES, ROWS


@register_block("conditioner/clip_picture")
class CLIPPicture(VisionModel):
    """``CLIPVisionModelWithProjection`` of transformers: what a picture shows, as one token."""

    model_class = "CLIPVisionModelWithProjection"
    inputs: Mapping[str, Any] = {"image": IMAGE}

    def forward(self, image: Any) -> dict[str, Any]:
        """``embedding`` [B, 1, D] of ``image`` [B, 3, H, W] or [3, H, W] in [0, 1]; one of another size than the model's is blurred and
        resized before."""
        pipeline: Any = require("diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion", "diffusers")
        batch = batch_of(image, f"{self.block_id}.image")
        size = (self.model.config.image_size,) * 2
        small = batch
        if tuple(batch.shape[2:]) != size:
            small = (pipeline._resize_with_antialiasing(batch * 2 - 1, size) + 1) / 2
        mean, deviation = (small.new_tensor(value).view(1, 3, 1, 1) for value in (self.processor.image_mean, self.processor.image_std))
        pixels = (small - mean) / deviation
        return {"embedding": self.model(pixels.to(self.model.device, self.model.dtype)).image_embeds.unsqueeze(1)}


@register_block("diffusers/noised_picture")
class NoisedPicture(Block):
    """A picture with a little noise in it, so that a video of it may move.

    Args:
        strength: deviation of the noise, where the input is not fed; pixels count from -1 to 1.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"image": PICTURES, "noise_aug_strength": NOISE_AUG_STRENGTH}
    outputs: Mapping[str, Any] = {"image": Port(dtype="image", description="pictures [B, 3, H, W], about in [0, 1]")}

    def __init__(self, *, strength: float = 0.02) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, image: Tensor, noise_aug_strength: float | None = None, rng: Rng | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] of one in [0, 1]."""
        noise = (rng or GLOBAL_RNG).normal(image.shape, dtype=image.dtype, device=image.device)
        return {"image": image + noise * (self.strength if noise_aug_strength is None else float(noise_aug_strength)) / 2}


@register_block("diffusers/motion")
class Motion(Block):
    """What a UNet of videos is told in a whole run: the picture's latent beside each frame, how fast and how much things move.

    Args:
        unscaled: by which the picture's latent is multiplied, so that the model sees it as the autoencoder gave it.
        num_frames: of the video, where the input is not fed.
        batched: guidance is one batch, of which the half without the picture comes first.
        fps: frames in a second, where the input is not fed.
        motion_bucket_id: how much things move, likewise.
        strength: of noise in the picture, likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image_latent": Port(dtype="latent", description="the pictures' latents [n, C, h, w]; n divides B"),
        "condition": ROWS,
        "scale": GUIDANCE_SCALE,
        "num_frames": NUM_FRAMES,
        "fps": Port(dtype="number", description="frames per second"),
        "motion_bucket_id": Port(dtype="number", description="how much moves; 127 is usual"),
        "noise_aug_strength": NOISE_AUG_STRENGTH,
    }
    outputs: Mapping[str, Any] = {
        "image_condition": Port(dtype="latent", description="the picture's latents for each frame [B or 2 B, C, T, h, w], zeros first"),
        "negative_image_condition": Port(dtype="latent", description="zeros with guidance, else as image_condition [B, C, T, h, w]"),
        "time_ids": Port(dtype="tensor", description="fps - 1, motion_bucket_id and noise_aug_strength [B or 2 B, 3]"),
        "negative_time_ids": Port(dtype="tensor", description="the same for the negative half [B, 3]"),
    }

    def __init__(
        self,
        *,
        unscaled: float,
        num_frames: int,
        batched: bool = True,
        fps: int = 7,
        motion_bucket_id: int = 127,
        strength: float = 0.02,
    ) -> None:
        super().__init__()
        self.unscaled = unscaled
        self.num_frames = num_frames
        self.batched = batched
        self.fps = fps
        self.motion_bucket_id = motion_bucket_id
        self.strength = strength

    def forward(
        self,
        image_latent: Tensor,
        condition: Tensor,
        scale: float | Tensor,
        num_frames: int | None = None,
        fps: int | None = None,
        motion_bucket_id: int | None = None,
        noise_aug_strength: float | None = None,
    ) -> dict[str, Any]:
        """``image_condition`` [B, C, T, h, w] and ``time_ids`` [B, 3], and both without the picture; with guidance in one batch [2 B, ...].

        Raises:
            PortError: the pictures cannot be divided among the rows.
        """
        rows, frames = condition.shape[0], self.num_frames if num_frames is None else int(num_frames)
        if rows % image_latent.shape[0]:
            raise PortError(f"{self.block_id}.image_latent: got {image_latent.shape[0]} pictures for {rows} rows; expected a divisor")
        seen = (image_latent * self.unscaled).to(condition.dtype).repeat(rows // image_latent.shape[0], 1, 1, 1)
        seen = seen.unsqueeze(2).expand(-1, -1, frames, -1, -1)
        own = (
            (self.fps if fps is None else int(fps)) - 1,  # as the model was trained
            self.motion_bucket_id if motion_bucket_id is None else int(motion_bucket_id),
            self.strength if noise_aug_strength is None else float(noise_aug_strength),
        )
        told, nothing = condition.new_tensor([own]).repeat(rows, 1), torch.zeros_like(seen)
        is_guided = float(scale) > 1
        both = self.batched and is_guided
        return {
            "image_condition": torch.cat([nothing, seen]) if both else seen,
            "negative_image_condition": nothing if is_guided else seen,
            "time_ids": torch.cat([told, told]) if both else told,
            "negative_time_ids": told,
        }


@register_block("guidance/frames")
class FrameGuidance(IntervalGuidance):
    """Classifier-free guidance that grows from the first frame of a video to the last.

    Args:
        scale: strength at the last frame, where the input ``scale`` is not fed; 1 is no guidance.
    """

    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "scale": Port(dtype="number", description="strength at the last frame, a number"),
        "timestep": Port(dtype="number", description="not read"),
        "min_guidance_scale": Port(dtype="number", description="strength at the first frame; 1 where left out"),
    }

    def __init__(self, *, scale: float = 3.0) -> None:
        super().__init__(scale=scale)

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
        min_guidance_scale: float | None = None,
    ) -> dict[str, Any]:
        """``pred_guided`` [B, C, T, H, W] of predictions like it."""
        if pred_cond is pred_uncond:
            return {"pred_guided": pred_cond}
        first, last = 1.0 if min_guidance_scale is None else float(min_guidance_scale), float(self.scale if scale is None else scale)
        grows = torch.linspace(first, last, pred_cond.shape[2], device=pred_cond.device, dtype=pred_cond.dtype).view(1, 1, -1, 1, 1)
        return {"pred_guided": pred_uncond + grows * (pred_cond - pred_uncond)}
