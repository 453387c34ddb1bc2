"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalArguments, IntervalGuidance
from wgtorch.core.block import register_block
from wgtorch.core.port import Port


def cfg(pred_cond: Tensor, pred_uncond: Tensor, scale: float | Tensor) -> Tensor:
    """uncond + scale (cond - uncond) (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598), all [B, C, ...]."""
    return pred_uncond + scale * (pred_cond - pred_uncond)


@register_block("guidance/cfg")
class ClassifierFreeGuidance(IntervalGuidance):
    """pred = uncond + scale (cond - uncond) (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
        rescale: share of the added deviation that is taken back, in [0, 1], where the input ``rescale`` is not fed; see
            :func:`rescale_to`.
    """

    rows_are_samples = True
    inputs: Mapping[str, Any] = {"rescale": Port(dtype="number", description="share of the added deviation that is taken back, in [0, 1]")}

    def __init__(self, *, scale: float = 2.0, **rest: Unpack[IntervalArguments]) -> None:
        super().__init__(scale=scale, **rest)

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
        rescale: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred_guided``, of the shape of the predictions [B, C, ...]; ``scale`` is a number or one for each sample [B]."""
        if self.is_off(timestep):
            return {"pred_guided": pred_cond}
        return self.finished(self.guided(pred_cond, pred_uncond, self.strength(scale, pred_cond)), pred_cond, timestep, rescale)

    def guided(self, pred_cond: Tensor, pred_uncond: Tensor, strength: float | Tensor) -> Tensor:
        """The formula."""
        return cfg(pred_cond, pred_uncond, strength)
