"""What blocks around backbones of diffusers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortError
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.ports import ATTENTION_MASK, GUIDANCE, PICTURE_LATENT
from wgtorch.roles import Backbone


class ForeignBackbone(ForeignModel, Backbone):
    """A backbone that a library holds; what it is called with is looked at before."""

    rows_are_samples = True
    axes: Sequence[str] = ("H", "W")
    inputs: Mapping[str, Any] = {"latent": PICTURE_LATENT}

    def forward(self, latent: Tensor, timestep: float | Tensor, *args: Any, **inputs: Any) -> dict[str, Any]:
        """``pred`` [B, C, H, W], or [B, C, T, H, W] of a video.

        Raises:
            PortError: the latent has not as many channels as the model takes, its sides are no multiples of its patches, or the condition
                has another number of rows.
        """
        raise NotImplementedError

    def check(self, latent: Tensor, condition: Tensor | None, channels: int, multiples: Sequence[int] = ()) -> None:
        """Refuses what does not fit the model.

        Args:
            latent: [B, C, *axes].
            condition: [B, ...].
            channels: C that the model takes.
            multiples: that sides must be of, for each axis.

        Raises:
            PortError: the latent or the condition does not fit.
        """
        sides = latent.shape[2:]
        fits = latent.dim() == 2 + len(self.axes) and latent.shape[1] == channels
        if not fits or any(side % multiple for side, multiple in zip(sides, multiples, strict=False)):
            of = sorted({multiple for multiple in multiples if multiple > 1})
            words = "" if not of else f" with sides that are multiples of {of[0] if len(set(multiples)) == 1 else tuple(multiples)}"
            expected = ", ".join(("B", str(channels), *self.axes))
            raise PortError(f"{self.block_id}.latent: got shape {list(latent.shape)}; expected [{expected}]{words}")
        if condition is not None and condition.shape[0] != latent.shape[0]:
            raise PortError(f"{self.block_id}.condition: got {condition.shape[0]} rows for {latent.shape[0]} latents; expected as many")


class TextTransformer(ForeignBackbone):
    """A transformer of pictures that is told a text, and where that ends."""

    patch: int | None = None
    """Latents to a side of what the model takes as one; its config says so where None."""
    is_packed = False
    """The model takes patches in a row, each with its channels first."""
    inputs: Mapping[str, Any] = {"attention_mask": ATTENTION_MASK}

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor, attention_mask: Tensor | None = None) -> dict[str, Any]:
        return {"pred": self._checked(latent, timestep, condition, attention_mask)}

    def _checked(self, latent: Tensor, timestep: float | Tensor, condition: Tensor, *told: Any) -> Tensor:
        own = self.model.config
        patch = own.patch_size if self.patch is None else self.patch
        self.check(latent, condition, own.in_channels // patch**2 if self.is_packed else own.in_channels, (patch, patch))
        return self.predict(latent, moments(timestep, latent), condition, *told)

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        """The prediction [B, C, H, W] of what was checked; ``moment`` is the timestep of each row, [B]."""
        raise NotImplementedError


class DistilledTransformer(TextTransformer):
    """One that may have been distilled, and then takes the scale of guidance as an input."""

    inputs: Mapping[str, Any] = {"guidance": GUIDANCE}

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        attention_mask: Tensor | None = None,
        guidance: float | Tensor | None = None,
    ) -> dict[str, Any]:
        return {"pred": self._checked(latent, timestep, condition, attention_mask, guidance)}


def moments(timestep: float | Tensor, latent: Tensor) -> Tensor:
    """A number for each row of a latent, [B]: of one, or of [n] where n divides B; whole numbers stay whole. Of [n, L] it is [B, L]."""
    value = torch.as_tensor(timestep, device=latent.device)
    if value.dim() == 2:
        return value.repeat(latent.shape[0] // len(value), 1)
    if value.dim() == 1 and 1 < len(value) < latent.shape[0]:
        return value.repeat(latent.shape[0] // len(value))
    return value.expand(latent.shape[0])


def prediction_of(output: Tensor, channels: int) -> Tensor:
    """The prediction without the variance that some models give beside it, [B, C, ...] of [B, C or 2 C, ...]."""
    return output[:, :channels] if output.shape[1] == 2 * channels else output
