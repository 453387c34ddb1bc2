"""Guidance: predictions with and without the condition, combined."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.roles import Guidance


@register_block("guidance/cfg")
class ClassifierFreeGuidance(Guidance):
    """pred = uncond + scale (cond - uncond) (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598).

    Guidance may be kept to an interval of timesteps; outside it the conditional prediction passes unchanged
    (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
        interval: [low, high] of the timesteps that are guided; all of them when left out.
    """

    inputs = {"timestep": "number"}
    draws = False

    def __init__(self, *, scale: float = 2.0, interval: list[float] | None = None) -> None:
        super().__init__()
        if interval is not None and not (len(interval) == 2 and interval[0] <= interval[1]):
            raise ValueError(f"ClassifierFreeGuidance.interval: found {interval}, expected [low, high]")
        self.scale = scale
        self.interval = interval

    def forward(
        self, pred_cond: Tensor, pred_uncond: Tensor, scale: float | None = None, timestep: float | Tensor | None = None
    ) -> dict[str, Any]:
        """``pred_guided``, of the shape of the predictions [B, C, ...]."""
        if self.interval is not None and timestep is not None and not self.interval[0] <= float(timestep) <= self.interval[1]:
            return {"pred_guided": pred_cond}
        strength = self.scale if scale is None else scale
        return {"pred_guided": pred_uncond + strength * (pred_cond - pred_uncond)}
