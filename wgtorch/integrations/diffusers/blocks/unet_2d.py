"""The UNet of models without text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments


@register_block("backbone/unet_2d")
class UNet2D(ForeignBackbone):
    """``UNet2DModel`` of diffusers: DDPM, score matching, and others that at most are told a class."""

    model_class = "UNet2DModel"
    inputs: Mapping[str, Any] = {
        "class_labels": Port(dtype="tensor", description="numbers of classes [B], of a model trained with them"),
        "condition": Port(dtype="embedding", description="not read: the model has no condition"),
    }

    def forward(
        self, latent: Tensor, timestep: float | Tensor, condition: Tensor | None = None, class_labels: Tensor | None = None
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Raises:
            PortError: the latent has not as many channels as the model takes.
        """
        self.check(latent, None, self.model.config.in_channels)
        return {"pred": self.model(latent, moments(timestep, latent), class_labels=class_labels, return_dict=False)[0]}
