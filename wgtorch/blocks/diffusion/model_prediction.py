"""What a prediction says about a latent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.predictions import epsilon_of, to_epsilon, to_x0


class Limits(NamedTuple):
    """What data can be: predicted data outside is cut.

    Args:
        clip: cut to [-clip, clip].
        threshold: dynamic thresholding (Saharia et al. 2022, https://arxiv.org/abs/2205.11487): each sample is cut at its
            own ``ratio`` quantile of |x0|, kept within [1, ``max``], and divided by it.
        rederives: the noise is what limited data leave of x, instead of the predicted one.
    """

    clip: float | None = None
    threshold: Mapping[str, float] | None = None
    rederives: bool = True

    def applied(self, x0: Tensor) -> Tensor:
        """x0 [B, C, ...] within the limits."""
        if self.threshold is None:
            return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)
        limit = torch.quantile(x0.abs().flatten(1), self.threshold["ratio"], dim=1).clamp(1, self.threshold["max"])
        limit = limit.view(-1, *[1] * (x0.dim() - 1))
        return x0.clamp(-limit, limit) / limit


class ModelPrediction:
    """The data, the noise and the velocity that a prediction says are in x, each found when it is asked for.

    Args:
        kind: what the model predicts; see :mod:`~wgtorch.blocks.diffusion.predictions`.
        x: what the model was shown, [B, C, ...].
        pred: what it predicted, like x.
        level: where x is.
        limits: of the data.
    """

    __slots__ = ("_x0", "kind", "level", "limits", "pred", "x")

    def __init__(self, kind: str, x: Tensor, pred: Tensor, level: NoiseLevel, limits: Limits | None = None) -> None:
        self.kind = kind
        self.x = x
        self.pred = pred
        self.level = level
        self.limits = limits
        self._x0: Tensor | None = None

    @property
    def x0(self) -> Tensor:
        """The data, within its limits."""
        if self._x0 is None:
            x0 = to_x0(self.kind, self.x, self.pred, self.level)
            self._x0 = x0 if self.limits is None else self.limits.applied(x0)
        return self._x0

    @property
    def u(self) -> Tensor:
        """The velocity eps - x0 of a straight flow."""
        if self.kind == "flow" and self.limits is None:
            return self.pred
        return (self.x - self.x0) / self.level.sigma

    @property
    def eps(self) -> Tensor:
        """The noise."""
        if self.limits is not None and self.limits.rederives:
            return epsilon_of(self.x, self.x0, self.level)
        return to_epsilon(self.kind, self.x, self.pred, self.level)
