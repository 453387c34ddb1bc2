"""Euler's method on the probability flow ODE, in the sigma of Karras et al.; and a little too far down, with noise to come up again."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridSolver, History, Stepped, StochasticSolver, check_data
from wgtorch.blocks.diffusion.solvers.formulas import euler_ancestral_coefficients, euler_ancestral_step, euler_coefficients, euler_step
from wgtorch.core.block import register_block


@register_block("solver/euler")
class Euler(GridSolver):
    """Euler's method (Karras et al. 2022, https://arxiv.org/abs/2206.00364); arguments as of :class:`GridSolver`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        check_data(grid, self.block_id)
        return euler_coefficients(grid.starts, grid.ends, of_data=self.is_of_data)

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return euler_step(x, model.x0 if self.is_of_data else model.eps, *numbers), ()


@register_block("solver/euler_ancestral")
class EulerAncestral(StochasticSolver):
    """Ancestral sampling with Euler steps (https://github.com/crowsonkb/k-diffusion); arguments as of :class:`GridSolver`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        check_data(grid, self.block_id)
        return euler_ancestral_coefficients(grid.starts, grid.ends, of_data=self.is_of_data)

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return euler_ancestral_step(x, model.x0 if self.is_of_data else model.eps, z, *numbers), ()
