"""Euler's method on the probability flow ODE, in the sigma of Karras et al."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block


def euler_step(x: Any, d: Any, sigma: float, next_sigma: float) -> Any:
    """One step of dx/dsigma = d (Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1).

    Args:
        x: x0 + sigma eps, [B, C, ...].
        d: (x - x0) / sigma, like it.
        sigma: where x is.
        next_sigma: where to go.
    """
    return x + (next_sigma - sigma) * d


def exploding(x: Any, level: Level, where: str) -> Any:
    """x / alpha = x0 + ratio eps: the latent as Karras et al. have it, whose variance explodes.

    Raises:
        ValueError: the level has no data, so x cannot be scaled to have it once.
    """
    if not level.alpha:
        raise ValueError(
            f"{where}: the grid starts at pure noise (alpha = 0), where sigma / alpha has no value; "
            "use a solver without it (solver/flow_euler for flows, solver/ddim), or another schedule"
        )
    return x / level.alpha


@register_block("solver/euler")
class Euler(GridSolver):
    """Euler's method (Karras et al. 2022, https://arxiv.org/abs/2206.00364).

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
        return (to.alpha * euler_step(exploding(x, now, self.block_id), guess.eps, now.ratio, to.ratio),)
