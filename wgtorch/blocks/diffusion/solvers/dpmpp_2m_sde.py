"""SDE-DPM-Solver++ (2M): the same with noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.dpmpp_2m import MultistepDPM
from wgtorch.blocks.diffusion.solvers.formulas import dpmpp_2m_sde_coefficients, dpmpp_2m_sde_step
from wgtorch.core.block import register_block


@register_block("solver/dpmpp_2m_sde")
class DPMpp2MSDE(MultistepDPM, StochasticSolver):
    """SDE-DPM-Solver++ (2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095); arguments as of :class:`MultistepDPM`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        return dpmpp_2m_sde_coefficients(*self.arguments(grid))

    def step(
        self, x: Tensor, model: ModelPrediction, history: tuple[Tensor, ...], z: Tensor | None, numbers: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return dpmpp_2m_sde_step(x, model.x0, history[0], z, *numbers), (model.x0,)
