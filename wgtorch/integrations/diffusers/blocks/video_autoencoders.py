"""Autoencoders of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.integrations.diffusers.blocks.pictures import OUTPUT_INPUTS, as_output, given_latent
from wgtorch.ports import VIDEO


class VideoDecoder(ForeignModel, Block):
    """A video's autoencoder, latents to frames."""

    role = "codec"
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="latents [B, C, t, h, w], as the loop leaves them"),
        **OUTPUT_INPUTS,
    }
    outputs: Mapping[str, Any] = {"video": VIDEO}

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return self.model.spatial_compression_ratio

    @property
    def frames(self) -> int:
        """Frames to a latent's, after the first."""
        return self.model.temporal_compression_ratio

    @property
    def channels(self) -> int:
        """Of latents."""
        return self.model.config.latent_channels

    def forward(self, latent: Tensor, output_type: str | None = None, latent_form: int | str | None = None) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1] of ``latent`` [B, C, t, h, w], or as ``output_type`` says."""
        if output_type == "latent":
            return {"video": given_latent(latent, latent_form)}
        return {"video": as_output(self.decode(latent), output_type, self.block_id)}

    def decode(self, latent: Tensor) -> Tensor:
        """``video`` [B, T, 3, H, W] in [0, 1] of ``latent``."""
        return self.frames_of(latent / self.model.config.scaling_factor)

    def check(self, latent: Tensor) -> None:
        """Refuses what is no latent of this model."""
        if latent.dim() != 5 or latent.shape[1] != self.channels:
            raise PortError(f"{self.block_id}.latent: got shape {list(latent.shape)}; expected [B, {self.channels}, T, h, w]")

    def frames_of(self, z: Tensor, *more: Any) -> Tensor:
        """``video`` [B, T, 3, H, W] in [0, 1] of what the model itself decodes, [B, C, t, h, w]."""
        self.check(z)
        decoded = self.model.decode(z.to(self.weights_dtype), *more, return_dict=False)[0]
        return (decoded / 2 + 0.5).clamp(0, 1).transpose(1, 2)


@register_block("codec/autoencoder_kl_ltx_video")
class AutoencoderKLLTXVideo(VideoDecoder):
    """``AutoencoderKLLTXVideo`` of diffusers (https://arxiv.org/abs/2501.00103)."""

    model_class = "AutoencoderKLLTXVideo"
    inputs: Mapping[str, Any] = {
        "decode_timestep": Port(dtype="number", description="for a decoder that takes the last step itself, in [0, 1]; 0 where left out"),
        "decode_noise_scale": Port(dtype="number", description="share of noise mixed in before, for the same; else decode_timestep"),
    }

    def forward(  # type: ignore[override]
        self,
        latent: Tensor,
        decode_timestep: float | None = None,
        decode_noise_scale: float | None = None,
        output_type: str | None = None,
        latent_form: int | str | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1], or as ``output_type`` says."""
        if output_type == "latent":
            return {"video": given_latent(latent, latent_form)}
        return {"video": as_output(self._decoded(latent, decode_timestep, decode_noise_scale, rng), output_type, self.block_id)}

    def _decoded(self, latent: Tensor, decode_timestep: float | None, decode_noise_scale: float | None, rng: Rng | None) -> Tensor:
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
    """``AutoencoderKLCogVideoX`` of diffusers (https://arxiv.org/abs/2408.06072)."""

    model_class = "AutoencoderKLCogVideoX"

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return 2 ** (len(self.model.config.block_out_channels) - 1)

    @property
    def frames(self) -> int:
        """Frames to a latent's, after the first."""
        return int(self.model.config.temporal_compression_ratio)


@register_block("codec/autoencoder_kl_hunyuan_video")
class AutoencoderKLHunyuanVideo(VideoDecoder):
    """``AutoencoderKLHunyuanVideo`` of diffusers (https://arxiv.org/abs/2412.03603)."""

    model_class = "AutoencoderKLHunyuanVideo"


@register_block("codec/autoencoder_kl_frames")
class FrameAutoencoder(AutoencoderKL):
    """``AutoencoderKL`` of diffusers on the frames of a video, each for itself."""

    frames = 1
    inputs: Mapping[str, Any] = {
        "decode_chunk_size": Port(dtype="number", description="frames decoded at once; all of a video where left out"),
        "size": Port(dtype="list", description="of no effect on videos"),
    }
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", optional=True, description="never given; see video"),
        "video": Port(dtype="video", optional=True, description="decoded videos [B, T, 3, H, W] in [0, 1], of latents [B, C, T, h, w]"),
    }

    def forward(
        self,
        latent: Tensor | None = None,
        image: Any = None,
        noise: Tensor | None = None,
        progress: Any = None,
        unneeded: Any = None,
        draws: bool | str | None = None,
        size: Sequence[int] | None = None,
        output_type: str | None = None,
        latent_form: int | str | None = None,
        rng: Rng | None = None,
        decode_chunk_size: int | None = None,
    ) -> dict[str, Any]:
        """``video`` [B, T, 3, H, W] in [0, 1] of ``latent`` [B, C, T, h, w]; the rest as for pictures.

        Raises:
            PortError: both or none of the two are given, or the latent has another shape.
        """
        if latent is None or image is not None or output_type == "latent":
            found = super().forward(latent, image, noise, progress, unneeded, draws, size, output_type, latent_form, rng)
            return found if latent is None else {"video": found["image"]}
        if latent.dim() != 5:
            raise PortError(f"{self.block_id}.latent: got shape {list(latent.shape)}; expected [B, C, T, h, w]")
        chunk = latent.shape[2] if decode_chunk_size is None else int(decode_chunk_size)
        rows = latent.transpose(1, 2).flatten(0, 1)
        pictures = torch.cat([self.decode(some) for some in rows.split(chunk)])
        return {"video": as_output(pictures.unflatten(0, (latent.shape[0], -1)), output_type, self.block_id)}


@register_block("codec/autoencoder_kl_temporal_decoder")
class AutoencoderKLTemporalDecoder(FrameAutoencoder):
    """``AutoencoderKLTemporalDecoder`` of diffusers, which sees the frames of a video beside each other when it decodes them."""

    model_class = "AutoencoderKLTemporalDecoder"

    def decode(self, latent: Tensor, size: Sequence[int] | None = None) -> Tensor:
        z = latent.to(self.weights_dtype) / self.model.config.scaling_factor
        return (self.model.decode(z, num_frames=latent.shape[0], return_dict=False)[0] / 2 + 0.5).clamp(0, 1)
