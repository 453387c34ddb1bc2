"""The transformer of Lumina-Image 2, and its guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance.cfg import cfg
from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalGuidance
from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.controlnet import is_within
from wgtorch.integrations.diffusers.blocks.foreign_backbone import TextTransformer
from wgtorch.ports import PROGRESS

TRAINED_STEPS = 1000


@register_block("backbone/lumina2_transformer")
class Lumina2Transformer(TextTransformer):
    """``Lumina2Transformer2DModel`` of diffusers, which predicts a flow (Lumina-Image 2, https://arxiv.org/abs/2503.21758).

    The model counts time the other way round, and so predicts the flow with the other sign; here both are as of other flows.
    """

    model_class = "Lumina2Transformer2DModel"

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        mask = condition.new_ones(condition.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
        return -self.model(
            hidden_states=latent,
            timestep=1 - moment / TRAINED_STEPS,
            encoder_hidden_states=condition,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]


@register_block("guidance/lumina2")
class Lumina2Guidance(IntervalGuidance):
    """Classifier-free guidance that may end early, and whose rows of latents are as long as those with the prompt (Lumina-Image 2).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
    """

    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "timestep": Port(dtype="number", description="not read; progress says where the loop is"),
        "cfg_normalization": Port(description="keep each row of the result, along W, as long as pred_cond's; True where left out"),
        "cfg_trunc_ratio": Port(dtype="number", description="share of the steps, in [0, 1], after which nothing is guided"),
        "progress": PROGRESS,
    }

    def __init__(self, *, scale: float = 4.0) -> None:
        super().__init__(scale=scale)

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
        cfg_normalization: bool | None = None,
        cfg_trunc_ratio: float | None = None,
        progress: Any = None,
    ) -> dict[str, Any]:
        """``pred_guided`` [B, C, H, W] of predictions like it."""
        ends = cfg_trunc_ratio is not None and progress is not None and not is_within(progress, 0.0, float(cfg_trunc_ratio))
        if pred_cond is pred_uncond or ends:
            return {"pred_guided": pred_cond}
        guided = cfg(pred_cond, pred_uncond, self.strength(scale, pred_cond))
        if cfg_normalization is None or cfg_normalization:
            guided = guided * (pred_cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return {"pred_guided": guided}
