"""The autoencoder of latent diffusion models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError, require
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, GeneratorRng, Rng
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.integrations.diffusers.blocks.noise import starts_whole
from wgtorch.integrations.diffusers.blocks.pictures import OUTPUT_INPUTS, as_output, batch_of, given_latent
from wgtorch.ports import IMAGE
from wgtorch.roles import Codec


@register_block("codec/autoencoder_kl")
class AutoencoderKL(ForeignModel, Codec):
    """``AutoencoderKL`` of diffusers, both ways: ``latent`` to ``image``, and ``image`` to ``latent``.

    One block stands at two places of an image-to-image graph - where it decodes and where it encodes - so that the model is
    there once, in memory as in a checkpoint::

        graph.add_node(vae, "codec")
        graph.add_node(vae, "encoder", auto_connect=False)
        graph.add_edge("encoder.latent", "noise.image_latent")

    Latents are those that the diffusion model works on: ``(z - shift) * scale`` with the numbers of the model's config, or
    ``(z - mean) * scale / deviation`` channel by channel where it has ``latents_mean``.

    Args:
        sample: encoding draws from the posterior; False takes its mean.
    """

    model_class = "AutoencoderKL"
    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "image": IMAGE,
        "noise": Port(dtype="latent", description="standard normal [B, C, h, w]: which sample of the posterior is taken"),
        "progress": Port(description="of a schedule; where its loop starts from noise alone, latents are zeros and nothing is encoded"),
        "unneeded": Port(description="where something is given, latents are zeros and nothing is encoded"),
        "draws": Port(
            description="False takes the mode of the posterior; of generators for several samples the first ones draw, or, with "
            "'each', all of them, each a latent of its own"
        ),
        "size": Port(dtype="list", description="(height, width) in pixels that decoded pictures are resized and cut to"),
        **OUTPUT_INPUTS,
    }
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", optional=True, description="decoded pictures [B, 3, H, W] in [0, 1], or as output_type says"),
        "latent": Port(dtype="latent", optional=True, description="encoded pictures [B, C, h, w], scaled as the backbone takes them"),
    }

    def __init__(self, *, sample: bool = True, **source: Unpack[ModelSource]) -> None:
        super().__init__(**source)
        self.sample = sample

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return 2 ** (len(self.model.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Of latents."""
        return self.model.config.latent_channels

    @property
    def shift(self) -> float:
        """What is subtracted from latents after they are scaled."""
        return (self.model.config.get("shift_factor") or 0) * self.model.config.scaling_factor

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
    ) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of ``latent``, or ``latent`` [B, C, h, w] of ``image``.

        Raises:
            PortError: both or none of the two are given, or the latent has another number of channels.
        """
        if (latent is None) == (image is None):
            raise PortError(f"{self.block_id}: got {'neither' if latent is None else 'both'} latent and image; expected one of them")
        if latent is None:
            image = batch_of(image, f"{self.block_id}.image")
            if image.shape[1] == self.channels != 3:
                return {"latent": image}
            if draws is False:
                return {"latent": self.posterior(image)["mean"]}
            if unneeded is not None or (progress is not None and starts_whole(progress)):
                sides = [side // self.factor for side in image.shape[-2:]]
                return {"latent": image.new_zeros(image.shape[0], self.channels, *sides, dtype=self.weights_dtype)}
            return {"latent": self.encode(image, noise, rng, for_each=draws == "each")}
        if output_type == "latent":
            return {"image": given_latent(latent, latent_form)}
        return {"image": as_output(self.decode(latent, size), output_type, self.block_id)}

    def decode(self, latent: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The image of a latent, of a size where that is given."""
        settings = self.model.config
        if latent.dim() != 4 or latent.shape[1] != settings.latent_channels:
            raise PortError(f"{self.block_id}.latent: got shape {list(latent.shape)}; expected [B, {settings.latent_channels}, h, w]")
        mean, deviation = self._normal(latent)
        z = latent.to(self.weights_dtype) * deviation / settings.scaling_factor + mean
        decoded = self.model.decode(z, return_dict=False)[0]
        if size is not None and list(decoded.shape[2:]) != list(size):
            processors: Any = require("diffusers.image_processor", "diffusers")
            decoded = processors.PixArtImageProcessor.resize_and_crop_tensor(decoded, int(size[1]), int(size[0]))
        return (decoded / 2 + 0.5).clamp(0, 1)

    def encode(self, image: Any, noise: Tensor | None, rng: Rng | None, *, for_each: bool = False) -> Tensor:
        """The latent of an image; ``for_each`` of several generators one, else by the first."""
        if isinstance(rng, GeneratorRng):
            count = len(rng.generators)
            if for_each and image.shape[0] < count and count % image.shape[0] == 0:
                image = image.repeat(count // image.shape[0], 1, 1, 1)
            rng = rng.first(image.shape[0])
        posterior = self._posterior(image)
        if not self.sample:
            z = posterior.mode()
        else:
            shape, like = posterior.mean.shape, posterior.mean
            drawn = (rng or GLOBAL_RNG).normal(shape, dtype=like.dtype, device=like.device) if noise is None else noise.view(shape)
            z = posterior.mean + posterior.std * drawn
        return self._as_latent(z)

    def posterior(self, image: Tensor) -> dict[str, Tensor]:
        """``mean`` and ``deviation`` [B, C, h, w] of the latents of an image, which are mean + deviation n with n standard normal."""
        found = self._posterior(image)
        return {"mean": self._as_latent(found.mean), "deviation": self._as_latent(found.std, is_deviation=True) * self.sample}

    def _as_latent(self, z: Tensor, *, is_deviation: bool = False) -> Tensor:
        """What the model's encoder gives as the latents [B, C, h, w] that its backbones know; deviations are scaled alone."""
        mean, deviation = self._normal(z)
        return (z if is_deviation else z - mean) * self.model.config.scaling_factor / deviation

    def _posterior(self, image: Tensor) -> Any:
        batch = batch_of(image, f"{self.block_id}.image")
        return self.model.encode(batch.to(self.weights_dtype) * 2 - 1, return_dict=False)[0]

    def _normal(self, like: Tensor) -> tuple[Any, Any]:
        """Mean and deviation of latents: of each channel [1, C, 1, 1], or of all of them."""
        settings = self.model.config
        if settings.get("latents_mean") is None:
            return settings.get("shift_factor") or 0, 1
        values = (settings.latents_mean, settings.latents_std or [1.0] * settings.latent_channels)
        mean, deviation = (torch.tensor(each, dtype=self.weights_dtype, device=like.device).view(1, -1, 1, 1) for each in values)
        return mean, deviation


@register_block("codec/autoencoder_tiny")
class AutoencoderTiny(AutoencoderKL):
    """``AutoencoderTiny`` of diffusers (https://github.com/madebyollin/taesd): small and fast, and it draws nothing when it encodes."""

    model_class = "AutoencoderTiny"

    def __init__(self, **source: Unpack[ModelSource]) -> None:
        super().__init__(sample=False, **source)

    def _posterior(self, image: Tensor) -> Any:
        latent = super()._posterior(image)
        return SimpleNamespace(mean=latent, std=torch.zeros_like(latent), mode=lambda: latent)


@register_block("codec/autoencoder_dc")
class AutoencoderDC(AutoencoderTiny):
    """``AutoencoderDC`` of diffusers, 32 pixels to a latent's side (https://arxiv.org/abs/2410.10733); it draws nothing when it encodes."""

    model_class = "AutoencoderDC"

    @property
    def factor(self) -> int:
        return 2 ** (len(self.model.config.encoder_block_out_channels) - 1)
