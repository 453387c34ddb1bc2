"""Heun's method: an Euler step, a look at where it leads, and the mean of both slopes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridSolver, History, Stepped, check_data
from wgtorch.blocks.diffusion.solvers.formulas import euler_coefficients, heun_coefficients, heun_step
from wgtorch.core.block import register_block


class TwoStage(GridSolver):
    """A solver that looks twice in each step but the last, which ends at the data: 2 N - 1 iterations.

    The first iteration of a step is Euler's; the second corrects it with the slope found where that has led, and the one remembered.
    """

    memory = 1

    def iterations_in(self, steps: int) -> int:
        return 2 * steps - 1

    def places(self, grid: TimeGrid) -> tuple[Sequence[float], Sequence[NoiseLevel]]:
        following = (*grid.timesteps[1:], grid.end)
        timesteps = [t for pair in zip(grid.timesteps, following, strict=True) for t in pair]
        levels = [level for pair in zip(grid.levels[:-1], grid.targets, strict=True) for level in pair]
        return timesteps[:-1], levels[:-1]


@register_block("solver/heun")
class Heun(TwoStage):
    """Heun's second order method (Karras et al. 2022, https://arxiv.org/abs/2206.00364); arguments as of :class:`GridSolver`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        check_data(grid, self.block_id)
        return heun_coefficients(*euler_coefficients(grid.starts, grid.ends))

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return heun_step(x, model.eps, *history, *numbers), (model.eps,)
