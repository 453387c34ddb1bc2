"""What a prediction says about a latent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.levels import NoiseLevel
from wgtorch.blocks.diffusion.predictions import epsilon_of, to_epsilon, to_x0


class ModelPrediction:
    """The data, the noise and the velocity that a prediction says are in x, each found when it is asked for.

    Args:
        kind: what the model predicts; see :mod:`~wgtorch.blocks.diffusion.predictions`.
        x: what the model was shown, [B, C, ...].
        pred: what it predicted, like x.
        level: where x is.
        clip: limit of |x0|; see :func:`limit_x0`.
        threshold: likewise.
        rederives: the noise is what a limited x0 leaves of x, instead of the predicted one.
    """

    __slots__ = ("_x0", "clip", "kind", "level", "pred", "rederives", "threshold", "x")

    def __init__(
        self,
        kind: str,
        x: Tensor,
        pred: Tensor,
        level: NoiseLevel,
        clip: float | None = None,
        threshold: Mapping[str, float] | None = None,
        rederives: bool = True,
    ) -> None:
        self.kind, self.x, self.pred, self.level = kind, x, pred, level
        self.clip, self.threshold, self.rederives = clip, threshold, rederives
        self._x0: Tensor | None = None

    @property
    def is_limited(self) -> bool:
        """True when x0 is kept within what data can be."""
        return self.clip is not None or self.threshold is not None

    @property
    def x0(self) -> Tensor:
        """The data, within its limits."""
        if self._x0 is None:
            x0 = to_x0(self.kind, self.x, self.pred, self.level)
            self._x0 = limit_x0(x0, self.clip, self.threshold) if self.is_limited else x0
        return self._x0

    @property
    def u(self) -> Tensor:
        """The velocity eps - x0 of a straight flow."""
        if self.kind == "flow" and not self.is_limited:
            return self.pred
        return (self.x - self.x0) / self.level.sigma

    @property
    def eps(self) -> Tensor:
        """The noise."""
        if self.rederives and self.is_limited:
            return epsilon_of(self.x, self.x0, self.level)
        return to_epsilon(self.kind, self.x, self.pred, self.level)


def limit_x0(x0: Tensor, clip: float | None, threshold: Mapping[str, float] | None) -> Tensor:
    """x0 [B, C, ...] cut to what data can be.

    Args:
        x0: the predicted data.
        clip: cut to [-clip, clip].
        threshold: dynamic thresholding (Saharia et al. 2022, https://arxiv.org/abs/2205.11487): each sample is cut at its
            own ``ratio`` quantile of |x0|, kept within [1, ``max``], and divided by it.
    """
    if threshold is None:
        return x0 if clip is None else x0.clamp(-clip, clip)
    limit = torch.quantile(x0.abs().flatten(1), threshold["ratio"], dim=1).clamp(1, threshold["max"])
    limit = limit.view(-1, *[1] * (x0.dim() - 1))
    return x0.clamp(-limit, limit) / limit
