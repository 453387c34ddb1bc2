"""The transformer of LTX-Video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign import ModelSource
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import ATTENTION_MASK, VIDEO_LATENT


@register_block("backbone/ltx_transformer")
class LTXTransformer(ForeignBackbone):
    """``LTXVideoTransformer3DModel`` of diffusers, which predicts a flow (https://arxiv.org/abs/2501.00103).

    Args:
        frames: frames to a latent's, and
        factor: pixels to a latent's side, of the autoencoder beside it: where a latent lies, the model is told in pixels and seconds.
    """

    model_class = "LTXVideoTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "attention_mask": ATTENTION_MASK,
        "frame_rate": Port(dtype="number", description="frames per second"),
        "latent": VIDEO_LATENT,
    }

    def __init__(self, *, frames: int = 8, factor: int = 32, **source: Unpack[ModelSource]) -> None:
        super().__init__(**source)
        self.frames = frames
        self.factor = factor

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        attention_mask: Tensor | None = None,
        frame_rate: float = 25,
    ) -> dict[str, Any]:
        self.check(latent, condition, self.model.config.in_channels)
        rows, _, frames, height, width = latent.shape
        pred = self.model(
            hidden_states=latent.flatten(2).transpose(1, 2).to(condition.dtype),
            encoder_hidden_states=condition,
            timestep=moments(timestep, latent),
            encoder_attention_mask=attention_mask,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.frames / frame_rate, self.factor, self.factor),
            return_dict=False,
        )[0]
        return {"pred": pred.float().transpose(1, 2).reshape(rows, -1, frames, height, width)}
