"""Perpendicular negative guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalArguments, IntervalGuidance, per_sample
from wgtorch.core.block import register_block
from wgtorch.core.port import Port


def perpendicular(direction: Tensor, to: Tensor) -> Tensor:
    """The part of ``direction`` [B, C, ...] that is perpendicular to ``to``, sample by sample."""
    dims = list(range(1, to.dim()))
    along = (direction * to).sum(dim=dims, keepdim=True) / (to * to).sum(dim=dims, keepdim=True)
    return direction - along * to


def perp_neg(
    pred_cond: Tensor, pred_uncond: Tensor, pred_negative: Tensor, scale: float | Tensor, negative_scale: float | Tensor
) -> Tensor:
    """uncond + scale (d - negative_scale d_neg), where d_neg is what of the negative direction is perpendicular to d.

    (Armandpour et al. 2023, https://arxiv.org/abs/2304.04968.) The negative prompt so cannot undo the positive one.

    Args:
        pred_cond: prediction with the prompt, [B, C, ...]; d = pred_cond - pred_uncond.
        pred_uncond: prediction with no prompt, like it.
        pred_negative: prediction with the negative prompt, like it.
        scale: strength.
        negative_scale: share of the negative direction, above 0.
    """
    direction = pred_cond - pred_uncond
    return pred_uncond + scale * (direction - negative_scale * perpendicular(pred_negative - pred_uncond, direction))


@register_block("guidance/perp_neg")
class PerpendicularNegative(IntervalGuidance):
    """Guidance with a negative prompt of which only what is perpendicular to the prompt counts; see :func:`perp_neg`.

    Args:
        negative_scale: share of the negative direction where the input ``negative_scale`` is not fed.
    """

    inputs: Mapping[str, Any] = {
        "pred_negative": Port(dtype="latent", description="the prediction with the negative prompt"),
        "negative_scale": Port(dtype="number", description="share of the negative direction"),
    }

    def __init__(self, *, scale: float = 7.5, negative_scale: float = 1.0, **rest: Unpack[IntervalArguments]) -> None:
        super().__init__(scale=scale, **rest)
        self.negative_scale = negative_scale

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        pred_negative: Tensor,
        scale: float | Tensor | None = None,
        negative_scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred_guided``, of the shape of the predictions [B, C, ...]; scales are numbers or one for each sample [B]."""
        if self.is_off(timestep):
            return {"pred_guided": pred_cond}
        share = self.negative_scale if negative_scale is None else per_sample(negative_scale, pred_cond)
        return self.finished(perp_neg(pred_cond, pred_uncond, pred_negative, self.strength(scale, pred_cond), share), pred_cond, timestep)
