"""DDPM: the reverse process, one draw from the posterior at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.levels import Level, variance_from
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.guess import Guess, limit_x0
from wgtorch.blocks.diffusion.solvers.weights import Matrix, Row, numbers_of, weigh
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError

VARIANCES = ("fixed_small", "fixed_large", "learned_range")
SMALLEST = 1e-20  # what a variance of 0 counts as


def posterior_mean(x: Any, x0: Any, now: Level, to: Level) -> Any:
    """The mean of q(x_s | x_t, x0), [B, C, ...] (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 7).

    Args:
        x: x_t at ``now``.
        x0: data.
        now: t.
        to: s, nearer to the data.
    """
    left, fresh = (to.sigma / now.sigma) ** 2, variance_from(to, now) / now.sigma**2
    return to.alpha * fresh * x0 + now.alpha / to.alpha * left * x


def posterior_variance(now: Level, to: Level) -> float:
    """The variance of q(x_s | x_t, x0): sigma_s^2 / sigma_t^2 of what is added from s to t (``fixed_small``)."""
    return (to.sigma / now.sigma) ** 2 * variance_from(to, now)


def ddpm_step(x: Any, x0: Any, z: Any, now: Level, to: Level, variance: float) -> Any:
    """x_s = mean of q(x_s | x_t, x0) + sqrt(variance) z."""
    return posterior_mean(x, x0, now, to) + math.sqrt(variance) * z


@register_block("solver/ddpm")
class DDPM(StochasticSolver):
    """Ancestral sampling (Ho et al. 2020, https://arxiv.org/abs/2006.11239).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        variance: of the noise: ``fixed_small``, the posterior's; ``fixed_large``, all that is added between the two levels; or
            ``learned_range``, between them where ``pred``, then [B, 2 C, ...], says in its second half (Nichol & Dhariwal
            2021, https://arxiv.org/abs/2102.09672, eq. 15).
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        variance: str = "fixed_small",
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=schedule)
        if variance not in VARIANCES:
            raise ValueError(f"DDPM.variance: found {variance!r}, expected one of {', '.join(VARIANCES)}")
        self.variance = variance
        self.literal = variance == "learned_range"

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        now, to = grid.levels[turn], grid.targets[turn]
        if not grid.timesteps[turn] > 0:
            variance = 0.0
        elif self.variance == "learned_range":
            variance = 1.0  # weighted by what the model says
        else:
            variance = max(posterior_variance(now, to), SMALLEST) if self.variance == "fixed_small" else variance_from(to, now)
        return (ddpm_step(x, guess.x0, z, now, to, variance),)

    def matrix(self, grid: Grid, turn: int) -> Matrix:
        """As of every solver; for a learned variance also (log of the smallest, log of the largest, 0...)."""
        matrix = super().matrix(grid, turn)
        if self.variance != "learned_range":
            return matrix
        now, to = grid.levels[turn], grid.targets[turn]
        small, large = math.log(max(posterior_variance(now, to), SMALLEST)), math.log(variance_from(to, now))
        return (*matrix, (small, large, *[0.0] * (len(matrix[0]) - 2)))

    def check_shape(self, latent: Tensor, pred: Tensor) -> None:
        if self.variance != "learned_range":
            super().check_shape(latent, pred)

    def take_literally(
        self, row: Row, latent: Tensor, pred: Tensor, memory: Sequence[Tensor | None], noise: Tensor | None = None
    ) -> tuple[Any, tuple[Any, ...]]:
        expected = (latent.shape[0], 2 * latent.shape[1], *latent.shape[2:])
        if pred.shape != expected:
            raise PortError(
                f"{self.block_id}.pred: found shape {list(pred.shape)} for a latent of {list(latent.shape)}; expected {list(expected)}, "
                "of which the second half of the channels is the variance (variance='learned_range')"
            )
        pred, between = pred.chunk(2, dim=1)
        if noise is not None:
            small, large = numbers_of(row[-1], 2)
            share = (between + 1) / 2
            noise = (0.5 * (share * large + (1 - share) * small)).exp() * noise
        if not self.keeps_x0:
            return weigh(row[0], (latent, pred, noise)), ()
        x0 = limit_x0(weigh(row[0], (latent, pred)), self.clip, self.threshold)
        return weigh(row[1], (latent, pred, x0, noise)), ()
