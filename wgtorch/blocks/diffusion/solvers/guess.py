"""What a prediction says about a latent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.predictions import epsilon_of, to_epsilon, to_x0


class Guess:
    """What a prediction says about x at a level: the data and the noise in it, each found when it is asked for."""

    __slots__ = ("_given", "level", "pred", "prediction", "rederived", "x")

    def __init__(self, prediction: str, x: Any, pred: Any, level: Level, x0: Any = None, rederived: bool = False) -> None:
        self.prediction, self.x, self.pred, self.level = prediction, x, pred, level
        self._given = x0
        self.rederived = rederived

    @property
    def x0(self) -> Any:
        """The data; as it was limited, where it was."""
        return to_x0(self.prediction, self.x, self.pred, self.level) if self._given is None else self._given

    @property
    def u(self) -> Any:
        """The velocity eps - x0 of a straight flow."""
        if self.prediction == "flow" and self._given is None:
            return self.pred
        return (self.x - self.x0) / self.level.sigma

    @property
    def eps(self) -> Any:
        """The noise; what a limited x0 leaves of x, where it is to be derived from that."""
        if self.rederived and self._given is not None:
            return epsilon_of(self.x, self._given, self.level)
        return to_epsilon(self.prediction, self.x, self.pred, self.level)


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
    size = x0.abs().flatten(1)
    size = size if size.dtype in (torch.float32, torch.float64) else size.float()
    limit = torch.quantile(size, threshold["ratio"], dim=1).clamp(1, threshold["max"])
    limit = limit.to(x0.dtype).view(-1, *[1] * (x0.dim() - 1))
    return x0.clamp(-limit, limit) / limit
