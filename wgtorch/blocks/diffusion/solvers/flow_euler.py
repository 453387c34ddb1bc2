"""Euler's method for flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.blocks.diffusion.solvers.weights import Matrix, Row, numbers_of
from wgtorch.core.block import register_block


def flow_euler_step(x: Any, u: Any, sigma: float, next_sigma: float) -> Any:
    """One step of dx/dsigma = u along a straight flow x = (1 - sigma) x0 + sigma eps.

    (Liu et al. 2022, https://arxiv.org/abs/2209.03003; Lipman et al. 2023, https://arxiv.org/abs/2210.02747.)

    Args:
        x: at ``sigma``, [B, C, ...].
        u: eps - x0, like it.
        sigma: where x is, in (0, 1].
        next_sigma: where to go, in [0, sigma).
    """
    return x + (next_sigma - sigma) * u


def check_flow(level: Level, where: str) -> None:
    """Refuses levels of other grids.

    Raises:
        ValueError: alpha + sigma is not 1.
    """
    if abs(level.alpha + level.sigma - 1) > 1e-6:
        raise ValueError(
            f"{where}: the grid has alpha = {level.alpha:.4g} at sigma = {level.sigma:.4g}, which no flow has (alpha + sigma = 1); "
            "expected a grid of schedule/flow. For a diffusion model take solver/euler, or another of its kind"
        )


@register_block("solver/flow_euler")
class FlowEuler(GridSolver):
    """Euler's method for flow models, from noise (sigma 1) to data (0).

    Args:
        num_steps: see :class:`GridSolver`.
        shift: of its own grid; see :func:`shift_sigma`.
        prediction: what the backbone predicts.
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid; timesteps are sigmas where left out.
    """

    schedule_kind = "flow"

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        shift: float = 1.0,
        prediction: str = "flow",
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        own = {"num_train_timesteps": 1, "shift": shift, **(schedule or {})}
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=own)
        self.literal = self.prediction == "sample" and not self.limits

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        return (flow_euler_step(x, guess.u, grid.levels[turn].sigma, grid.targets[turn].sigma),)

    def matrix(self, grid: Grid, turn: int) -> Matrix:
        """As of every solver; of a model that predicts data, the sigma and how far it changes: see :meth:`take_literally`."""
        check_flow(grid.levels[turn], self.block_id)
        sigma, next_sigma = grid.levels[turn].sigma, grid.targets[turn].sigma
        return ((sigma, next_sigma - sigma),) if self.literal else super().matrix(grid, turn)

    def take_literally(
        self, row: Row, latent: Tensor, pred: Tensor, memory: Sequence[Tensor | None], noise: Tensor | None = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """With predicted data the formula is taken as it is written, for which small painters were trained."""
        sigma, change = numbers_of(row[0], 2)
        return latent + change * ((latent - pred) / sigma), ()
