"""Autoencoders of videos: LTX's, CogVideoX's and HunyuanVideo's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.roles import Codec


class VideoDecoder(ForeignModel, Codec):
    """A video's autoencoder, latents to frames.

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"latent": "latent"}
    outputs: Mapping[str, Any] = {"video": "video"}

    def __init__(self, *, model: dict[str, Any] | None = None, checkpoint_ref: str | None = None, dtype: str | None = None) -> None:
        super().__init__(model=model, checkpoint_ref=checkpoint_ref, dtype=dtype)

    def frames_of(self, z: Tensor, *more: Any) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1] of what the model itself decodes, [B, C, t, h, w]."""
        if z.dim() != 5 or z.shape[1] != self.model.config.latent_channels:
            raise PortError(
                f"{self.block_id}.latent: got shape {list(z.shape)}; expected [B, {self.model.config.latent_channels}, t, h, w]"
            )
        decoded = self.model.decode(z.to(self.model.dtype), *more, return_dict=False)[0]
        return {"video": (decoded / 2 + 0.5).clamp(0, 1).transpose(1, 2)}


@register_block("codec/autoencoder_kl_ltx_video")
class AutoencoderKLLTXVideo(VideoDecoder):
    """``AutoencoderKLLTXVideo`` of diffusers (https://arxiv.org/abs/2501.00103).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "AutoencoderKLLTXVideo"
    inputs: Mapping[str, Any] = {
        "decode_timestep": Port(dtype="number", optional=True),
        "decode_noise_scale": Port(dtype="number", optional=True),
    }

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return self.model.spatial_compression_ratio

    @property
    def frames(self) -> int:
        """Frames to a latent's, after the first."""
        return self.model.temporal_compression_ratio

    def forward(
        self, latent: Tensor, decode_timestep: float | None = None, decode_noise_scale: float | None = None, rng: Rng | None = None
    ) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1].

        Args:
            latent: [B, C, t, h, w].
            decode_timestep: of a decoder that takes the last step itself, in [0, 1]; 0 where left out.
            decode_noise_scale: share of noise that is mixed in before, for the same; ``decode_timestep`` where left out.
        """
        own = self.model
        mean, deviation = (value.view(1, -1, 1, 1, 1).to(latent.device, latent.dtype) for value in (own.latents_mean, own.latents_std))
        z = latent * deviation / own.config.scaling_factor + mean
        if not own.config.timestep_conditioning:
            return self.frames_of(z, None)
        moment = 0.0 if decode_timestep is None else float(decode_timestep)
        share = moment if decode_noise_scale is None else float(decode_noise_scale)
        noise = (rng or GLOBAL_RNG).normal(z.shape, dtype=z.dtype, device=z.device)
        return self.frames_of((1 - share) * z + share * noise, torch.full((z.shape[0],), moment, device=z.device, dtype=z.dtype))


@register_block("codec/autoencoder_kl_cogvideox")
class AutoencoderKLCogVideoX(VideoDecoder):
    """``AutoencoderKLCogVideoX`` of diffusers (https://arxiv.org/abs/2408.06072).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "AutoencoderKLCogVideoX"

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return 2 ** (len(self.model.config.block_out_channels) - 1)

    @property
    def frames(self) -> int:
        """Frames to a latent's, after the first."""
        return int(self.model.config.temporal_compression_ratio)

    def forward(self, latent: Tensor) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1] of ``latent`` [B, C, t, h, w]."""
        return self.frames_of(latent / self.model.config.scaling_factor)


@register_block("codec/autoencoder_kl_hunyuan_video")
class AutoencoderKLHunyuanVideo(VideoDecoder):
    """``AutoencoderKLHunyuanVideo`` of diffusers (https://arxiv.org/abs/2412.03603).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "AutoencoderKLHunyuanVideo"

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return self.model.spatial_compression_ratio

    @property
    def frames(self) -> int:
        """Frames to a latent's, after the first."""
        return self.model.temporal_compression_ratio

    def forward(self, latent: Tensor) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1] of ``latent`` [B, C, t, h, w]."""
        return self.frames_of(latent / self.model.config.scaling_factor)
