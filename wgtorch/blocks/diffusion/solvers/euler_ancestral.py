"""Euler's method a little too far down, and noise to come up again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.euler import euler_step, exploding
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block


def euler_ancestral_step(x: Any, d: Any, z: Any, sigma: float, next_sigma: float) -> Any:
    """A step down to sigma_down without noise, and sigma_up of noise on top: together ``next_sigma`` (k-diffusion).

    Args:
        x: x0 + sigma eps, [B, C, ...].
        d: (x - x0) / sigma, like it.
        z: standard normal noise, like it.
        sigma: where x is.
        next_sigma: where to go.
    """
    sigma_up = math.sqrt(next_sigma**2 * (sigma**2 - next_sigma**2) / sigma**2)
    sigma_down = math.sqrt(next_sigma**2 - sigma_up**2)
    return euler_step(x, d, sigma, sigma_down) + sigma_up * z


@register_block("solver/euler_ancestral")
class EulerAncestral(StochasticSolver):
    """Ancestral sampling with Euler steps (https://github.com/crowsonkb/k-diffusion).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=schedule)

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        now, to = grid.levels[turn], grid.targets[turn]
        return (to.alpha * euler_ancestral_step(exploding(x, now, self.block_id), guess.eps, z, now.ratio, to.ratio),)
