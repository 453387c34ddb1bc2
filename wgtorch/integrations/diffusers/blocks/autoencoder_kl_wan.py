"""The autoencoder of Wan's videos."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.integrations.diffusers.blocks.foreign import ModelSource
from wgtorch.integrations.diffusers.blocks.video_autoencoders import VideoDecoder

_ONE_AT_A_TIME = threading.Lock()  # the model keeps the frames before in itself while it works


@register_block("codec/autoencoder_kl_wan")
class AutoencoderKLWan(VideoDecoder):
    """``AutoencoderKLWan`` of diffusers, both ways: ``latent`` to ``video``, and ``video`` to ``latent``.

    Latents are those that the diffusion model works on: normalised channel by channel with the numbers of the model's config.

    Args:
        sample: encoding draws from the posterior; False takes its mode.
    """

    model_class = "AutoencoderKLWan"
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="latents [B, C, T, h, w] to decode"),
        "video": Port(dtype="video", description="videos [B, F, 3, H, W] in [0, 1] to encode; F is 1 + n times the frames of a latent's"),
    }
    outputs: Mapping[str, Any] = {
        "video": Port(dtype="video", optional=True, description="decoded videos [B, F, 3, H, W] in [0, 1]"),
        "latent": Port(dtype="latent", optional=True, description="encoded videos [B, C, T, h, w]"),
    }

    def __init__(self, *, sample: bool = False, **source: Unpack[ModelSource]) -> None:
        super().__init__(**source)
        self.sample = sample

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return self.model.config.scale_factor_spatial

    @property
    def frames(self) -> int:
        """Frames to a latent's, after the first, which is one of its own."""
        return self.model.config.scale_factor_temporal

    @property
    def channels(self) -> int:
        return self.model.config.z_dim

    def forward(  # type: ignore[override]
        self,
        latent: Tensor | None = None,
        video: Tensor | None = None,
        output_type: str | None = None,
        latent_form: int | str | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``video`` [B, F, 3, H, W] in [0, 1] of ``latent``, or ``latent`` [B, C, T, h, w] of ``video``.

        Raises:
            PortError: both or none of the two are given, or one has another shape.
        """
        if (latent is None) == (video is None):
            raise PortError(f"{self.block_id}: got {'neither' if latent is None else 'both'} latent and video; expected one of them")
        return {"latent": self.encode(video, rng)} if latent is None else super().forward(latent, output_type, latent_form)

    def decode(self, latent: Tensor) -> Tensor:
        """The video of a latent."""
        self.check(latent)
        latent = latent.to(self.weights_dtype)
        mean, scale = self._normal(latent)
        with _ONE_AT_A_TIME:
            return self.frames_of(latent / scale + mean)

    def encode(self, video: Any, rng: Rng | None) -> Tensor:
        """The latent of a video."""
        if video.dim() != 5 or video.shape[2] != 3 or video.shape[1] % self.frames != 1 % self.frames:
            raise PortError(
                f"{self.block_id}.video: got shape {list(video.shape)}; expected [B, F, 3, H, W], where F is 1 + n times {self.frames}"
            )
        with _ONE_AT_A_TIME:
            posterior = self.model.encode(video.to(self.weights_dtype).transpose(1, 2) * 2 - 1, return_dict=False)[0]
        z = posterior.mode()
        if self.sample:
            z = z + posterior.std * (rng or GLOBAL_RNG).normal(z.shape, dtype=z.dtype, device=z.device)
        mean, scale = self._normal(z)
        return (z - mean) * scale

    def _normal(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / deviation of each channel [1, C, 1, 1, 1]."""
        settings = self.model.config
        mean, deviation = (
            torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)
            for values in (settings.latents_mean, settings.latents_std)
        )
        return mean, 1.0 / deviation
