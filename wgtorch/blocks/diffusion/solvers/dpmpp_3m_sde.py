"""SDE-DPM-Solver++ (3M): third order from three predictions of the data, with noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver, one_before
from wgtorch.blocks.diffusion.solvers.formulas import dpmpp_3m_sde_coefficients, dpmpp_3m_sde_step
from wgtorch.core.block import register_block


@register_block("solver/dpmpp_3m_sde")
class DPMpp3MSDE(StochasticSolver):
    """SDE-DPM-Solver++ (3M) of k-diffusion (https://github.com/crowsonkb/k-diffusion); arguments as of :class:`GridSolver`.

    The first step is of first order, the second of second; one that ends at the data is the jump there.
    """

    memory = 2

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        now, to = grid.starts, grid.ends
        before = one_before(now)
        order = (torch.arange(len(grid), device="cpu") + 1).clamp(max=3)
        return dpmpp_3m_sde_coefficients(one_before(before), before, now, to, torch.where(to.sigma == 0, 1, order))

    def step(
        self, x: Tensor, model: ModelPrediction, history: tuple[Tensor, ...], z: Tensor | None, numbers: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return dpmpp_3m_sde_step(x, model.x0, history, z, *numbers), (model.x0, history[0])
