"""The transformer of FLUX.2, its autoencoder, and how its schedule is shifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments

PATCH = 2
TRAINED_STEPS = 1000


@register_block("backbone/flux2_transformer")
class Flux2Transformer(ForeignBackbone):
    """``Flux2Transformer2DModel`` of diffusers, which predicts a flow (FLUX.2, https://github.com/black-forest-labs/flux2).

    A latent has a channel for each of those of a patch, so that the model takes each place of it as one.

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "Flux2Transformer2DModel"
    inputs: Mapping[str, Any] = {"condition": "embedding", "guidance": Port(dtype="number", optional=True)}

    def forward(
        self, latent: Tensor, timestep: float | Tensor, condition: Tensor, guidance: float | Tensor | None = None
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Args:
            latent: [B, C, H, W].
            timestep: of training, in [0, 1000], a number or [B].
            condition: [B, L, D].
            guidance: the scale that a distilled model takes, a number or [B].

        Raises:
            PortError: the latent or the condition does not fit the model.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels)
        height, width = latent.shape[2:]
        pred = self.model(
            hidden_states=latent.flatten(2).transpose(1, 2).to(self.model.dtype),
            timestep=moments(timestep, latent).float().to(latent.dtype) / TRAINED_STEPS,
            guidance=moments(guidance, latent).float() if own.guidance_embeds and guidance is not None else None,
            encoder_hidden_states=condition,
            txt_ids=_places(1, 1, condition.shape[1], latent),
            img_ids=_places(height, width, 1, latent),
            return_dict=False,
        )[0]
        return {"pred": pred.transpose(1, 2).unflatten(2, (height, width))}


def _places(rows: int, columns: int, length: int, like: Tensor) -> Tensor:
    """Where tokens lie: (time, row, column, place in a text), [rows columns length, 4]."""
    return torch.cartesian_prod(*(torch.arange(count, device=like.device) for count in (1, rows, columns, length)))


@register_block("codec/autoencoder_kl_flux2")
class AutoencoderKLFlux2(AutoencoderKL):
    """``AutoencoderKLFlux2`` of diffusers. Its latents have four channels for each of the model's, and half as long sides.

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
        sample: encoding draws from the posterior; False takes its mode, as the pipelines do.
    """

    model_class = "AutoencoderKLFlux2"

    def __init__(
        self, *, model: dict[str, Any] | None = None, checkpoint_ref: str | None = None, dtype: str | None = None, sample: bool = False
    ) -> None:
        super().__init__(model=model, checkpoint_ref=checkpoint_ref, dtype=dtype, sample=sample)

    @property
    def factor(self) -> int:
        return super().factor * PATCH

    @property
    def channels(self) -> int:
        return self.model.config.latent_channels * PATCH**2

    def decode(self, latent: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The image of a latent [B, C, h, w]; its size is the latent's."""
        mean, deviation = self._normal(latent)
        rows, channels, height, width = latent.shape
        z = (latent.to(self.model.dtype) * deviation + mean).reshape(rows, channels // PATCH**2, PATCH, PATCH, height, width)
        z = z.permute(0, 1, 4, 2, 5, 3).reshape(rows, channels // PATCH**2, height * PATCH, width * PATCH)
        return (self.model.decode(z, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)

    def encode(self, image: Any, noise: Tensor | None, rng: Any) -> Tensor:
        """The latent of an image."""
        posterior = self._posterior(image)
        z = posterior.mode() if not self.sample else posterior.sample() if noise is None else posterior.mean + posterior.std * noise
        rows, channels, height, width = z.shape
        z = z.reshape(rows, channels, height // PATCH, PATCH, width // PATCH, PATCH).permute(0, 1, 3, 5, 2, 4)
        z = z.reshape(rows, channels * PATCH**2, height // PATCH, width // PATCH)
        mean, deviation = self._normal(z)
        return (z - mean) / deviation

    def _normal(self, like: Tensor) -> tuple[Any, Any]:
        norm = self.model.bn
        mean, variance = (value.view(1, -1, 1, 1).to(like.device, like.dtype) for value in (norm.running_mean, norm.running_var))
        return mean, torch.sqrt(variance + self.model.config.batch_norm_eps)


@register_block("diffusers/flux2_shift")
class Flux2Shift(Block):
    """How much FLUX.2 shifts its schedule: by the size of the picture, and by the number of steps.

    Args:
        num_steps: where the input is not fed.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"tokens": "number", "num_steps": Port(dtype="number", optional=True)}
    outputs: Mapping[str, Any] = {"mu": "number"}

    def __init__(self, *, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps

    def forward(self, tokens: int, num_steps: int | None = None) -> dict[str, Any]:
        """``mu``, the log of the shift, of a picture of so many ``tokens`` in ``num_steps`` steps."""
        pipeline: Any = require("diffusers.pipelines.flux2.pipeline_flux2", "diffusers")
        steps = self.num_steps if num_steps is None else int(num_steps)
        return {"mu": pipeline.compute_empirical_mu(image_seq_len=int(tokens), num_steps=steps)}
