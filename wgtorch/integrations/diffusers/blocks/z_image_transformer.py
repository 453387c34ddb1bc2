"""The transformer of Z-Image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance.cfg import cfg
from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalGuidance
from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import TextTransformer

PATCH = 2
TRAINED_STEPS = 1000


@register_block("backbone/z_image_transformer")
class ZImageTransformer(TextTransformer):
    """``ZImageTransformer2DModel`` of diffusers, which predicts a flow (https://github.com/Tongyi-MAI/Z-Image).

    The model counts time the other way round, and so predicts the flow with the other sign; here both are as of other flows.
    """

    model_class = "ZImageTransformer2DModel"
    patch = PATCH

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        texts = list(condition)
        if attention_mask is not None:
            texts = [text[: int(mask.sum())] for text, mask in zip(condition, attention_mask, strict=True)]
        pictures = list(latent.to(self.weights_dtype).unsqueeze(2).unbind(dim=0))
        found = self.model(pictures, (TRAINED_STEPS - moment) / TRAINED_STEPS, texts, return_dict=False)[0]
        return -torch.stack([one.float() for one in found]).squeeze(2)


@register_block("guidance/z_image")
class ZImageGuidance(IntervalGuidance):
    """Classifier-free guidance that may end early, and whose result may be kept from growing (Z-Image).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
    """

    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "cfg_normalization": Port(description="most length of a sample's result, in lengths of its pred_cond; 0 is no limit"),
        "cfg_truncation": Port(dtype="number", description="share of the way to the data, in [0, 1], after which nothing is guided"),
    }

    def __init__(self, *, scale: float = 6.0) -> None:
        super().__init__(scale=scale)

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
        cfg_normalization: float | bool | None = None,
        cfg_truncation: float | None = None,
    ) -> dict[str, Any]:
        """``pred_guided`` [B, C, H, W] of predictions like it."""
        done = 0.0 if timestep is None else (TRAINED_STEPS - float(torch.as_tensor(timestep).flatten()[0])) / TRAINED_STEPS
        if pred_cond is pred_uncond or (cfg_truncation is not None and cfg_truncation <= 1 and done > cfg_truncation):
            return {"pred_guided": pred_cond}
        guided = cfg(pred_cond, pred_uncond, self.strength(scale, pred_cond))
        if cfg_normalization and float(cfg_normalization) > 0:
            sides = (-1, *[1] * (guided.dim() - 1))
            most = pred_cond.flatten(1).norm(dim=1) * float(cfg_normalization)
            guided = guided * (most / guided.flatten(1).norm(dim=1)).clamp(max=1).view(sides)
        return {"pred_guided": guided}
