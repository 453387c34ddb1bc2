"""The transformer of FLUX.2, its autoencoder, and how its schedule is shifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError, require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.foreign import ModelSource
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.ports import GUIDANCE, HEIGHT, MU, NUM_STEPS, NUM_TOKENS, WIDTH

PATCH = 2
TRAINED_STEPS = 1000
_APART = 10  # moments between the places of one picture and the next
_MOST_PIXELS = 1024**2


@register_block("backbone/flux2_transformer")
class Flux2Transformer(ForeignBackbone):
    """``Flux2Transformer2DModel`` of diffusers, which predicts a flow (FLUX.2, https://github.com/black-forest-labs/flux2).

    A latent has a channel for each of those of a patch, so that the model takes each place of it as one.
    """

    model_class = "Flux2Transformer2DModel"
    inputs: Mapping[str, Any] = {
        "guidance": GUIDANCE,
        "image_condition": Port(description="latents of pictures that the prompts are about, a list of [1, C, h, w] of any size"),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        guidance: float | Tensor | None = None,
        image_condition: Sequence[Tensor] | None = None,
    ) -> dict[str, Any]:
        own = self.model.config
        self.check(latent, condition, own.in_channels)
        (rows, _), (height, width) = latent.shape[:2], latent.shape[2:]
        tokens, lie = [latent.flatten(2).transpose(1, 2)], [_places(height, width, 1, latent)]
        for number, picture in enumerate(image_condition or (), start=1):
            tokens.append(picture.to(latent.dtype).flatten(2).transpose(1, 2).expand(rows, -1, -1))
            lie.append(_places(picture.shape[2], picture.shape[3], 1, latent, moment=_APART * number))
        pred = self.model(
            hidden_states=torch.cat(tokens, dim=1).to(self.weights_dtype),
            timestep=moments(timestep, latent).float().to(latent.dtype) / TRAINED_STEPS,
            guidance=moments(guidance, latent).float() if own.guidance_embeds and guidance is not None else None,
            encoder_hidden_states=condition,
            txt_ids=_places(1, 1, condition.shape[1], latent),
            img_ids=torch.cat(lie),
            return_dict=False,
        )[0][:, : height * width]
        return {"pred": pred.transpose(1, 2).unflatten(2, (height, width))}


def _places(rows: int, columns: int, length: int, like: Tensor, moment: int = 0) -> Tensor:
    """Where tokens lie: (time, row, column, place in a text), [rows columns length, 4]."""
    times = torch.arange(moment, moment + 1, device=like.device)
    return torch.cartesian_prod(times, *(torch.arange(count, device=like.device) for count in (rows, columns, length)))


@register_block("diffusers/flux2_pictures")
class Flux2Pictures(Block):
    """Pictures that FLUX.2 looks at, cut to sides that it can work at, and the size that is painted.

    Pictures are rounded to 8 bits first, as files have them; those of more than a million pixels are made smaller.

    Args:
        multiple: of pixels that sides have.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(
            dtype="image",
            raw=True,
            description="a picture [3, H, W] in [0, 1], several [n, 3, H, W], of Pillow, or a list of such",
        ),
        "height": HEIGHT,
        "width": WIDTH,
    }
    outputs: Mapping[str, Any] = {
        "images": Port(dtype="list", description="the pictures, each [1, 3, h, w] in [0, 1]"),
        "height": HEIGHT,
        "width": WIDTH,
    }

    def __init__(self, *, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, image: Any, height: int | None = None, width: int | None = None) -> dict[str, Any]:
        """``images``, each [1, 3, h, w] in [0, 1], ``height`` and ``width`` in pixels.

        Raises:
            PortError: a picture is smaller than 64 pixels, or longer than 8 times its width.
        """
        pillow: Any = require("PIL.Image", "diffusers")
        processors: Any = require("diffusers.pipelines.flux2.image_processor", "diffusers")
        processor, found = processors.Flux2ImageProcessor(vae_scale_factor=self.multiple), []
        given = image if isinstance(image, (list, tuple)) else [image]
        for picture in [one for some in given for one in batch_of(some, f"{self.block_id}.image")]:
            bytes_ = (picture.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu()
            shown = pillow.fromarray(bytes_.numpy())
            try:
                processor.check_image_input(shown)
            except ValueError as error:
                raise PortError(f"{self.block_id}.image: {error}") from error
            if shown.width * shown.height > _MOST_PIXELS:
                shown = processor._resize_to_target_area(shown, _MOST_PIXELS)
            sides = [side // self.multiple * self.multiple for side in (shown.height, shown.width)]
            seen = processor.preprocess(shown, height=sides[0], width=sides[1], resize_mode="crop").to(picture.device)
            found.append(seen / 2 + 0.5)
        first = found[0].shape[2:]
        return {"images": found, "height": height or int(first[0]), "width": width or int(first[1])}


@register_block("codec/autoencoder_kl_flux2")
class AutoencoderKLFlux2(AutoencoderKL):
    """``AutoencoderKLFlux2`` of diffusers. Its latents have four channels for each of the model's, and half as long sides.

    Args:
        sample: encoding draws from the posterior; False takes its mode, as the pipelines do.
    """

    model_class = "AutoencoderKLFlux2"

    def __init__(self, *, sample: bool = False, **source: Unpack[ModelSource]) -> None:
        super().__init__(sample=sample, **source)

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
        z = (latent.to(self.weights_dtype) * deviation + mean).reshape(rows, channels // PATCH**2, PATCH, PATCH, height, width)
        z = z.permute(0, 1, 4, 2, 5, 3).reshape(rows, channels // PATCH**2, height * PATCH, width * PATCH)
        return (self.model.decode(z, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)

    def _as_latent(self, z: Tensor, *, is_deviation: bool = False) -> Tensor:
        rows, channels, height, width = z.shape
        z = z.reshape(rows, channels, height // PATCH, PATCH, width // PATCH, PATCH).permute(0, 1, 3, 5, 2, 4)
        z = z.reshape(rows, channels * PATCH**2, height // PATCH, width // PATCH)
        mean, deviation = self._normal(z)
        return (z if is_deviation else z - mean) / deviation

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
    inputs: Mapping[str, Any] = {"tokens": NUM_TOKENS, "num_steps": NUM_STEPS}
    outputs: Mapping[str, Any] = {"mu": MU}

    def __init__(self, *, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps

    def forward(self, tokens: int, num_steps: int | None = None) -> dict[str, Any]:
        """``mu``, the log of the shift, of a picture of so many ``tokens`` in ``num_steps`` steps."""
        pipeline: Any = require("diffusers.pipelines.flux2.pipeline_flux2", "diffusers")
        steps = self.num_steps if num_steps is None else int(num_steps)
        return {"mu": pipeline.compute_empirical_mu(image_seq_len=int(tokens), num_steps=steps)}
