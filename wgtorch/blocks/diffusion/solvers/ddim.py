"""DDIM: the same marginals as DDPM with less noise on the way, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.ddpm import posterior_variance
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block


def ddim_step(x0: Any, eps: Any, z: Any, now: Level, to: Level, eta: float = 0.0) -> Any:
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - s^2) eps + s z, with s = eta times the posterior's deviation.

    (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 12 and 16.)

    Args:
        x0: data, [B, C, ...].
        eps: noise, like it.
        z: new standard normal noise, like it.
        now: where x = alpha x0 + sigma eps is.
        to: s, nearer to the data.
        eta: 0 is deterministic, 1 is DDPM.
    """
    variance = eta**2 * posterior_variance(now, to) if eta else 0.0
    return to.alpha * x0 + math.sqrt(max(to.sigma**2 - variance, 0.0)) * eps + math.sqrt(variance) * z


@register_block("solver/ddim")
class DDIM(StochasticSolver):
    """Denoising diffusion implicit models (Song et al. 2020, https://arxiv.org/abs/2010.02502).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        eta: share of DDPM's noise that is added, in [0, 1].
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        rederive_epsilon: with a limited x0, eps is what that leaves of x, instead of the predicted one.
        schedule: settings of its own grid.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        eta: float = 0.0,
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        rederive_epsilon: bool = False,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=schedule)
        if not 0 <= eta <= 1:
            raise ValueError(f"DDIM.eta: found {eta}, expected a number from 0 to 1")
        self.eta = eta
        self.rederives = rederive_epsilon
        self.wants_rng = eta > 0

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        return (ddim_step(guess.x0, guess.eps, z, grid.levels[turn], grid.targets[turn], self.eta),)
