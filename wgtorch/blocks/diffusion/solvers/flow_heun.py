"""Heun's method for flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.flow_euler import FlowSolver
from wgtorch.blocks.diffusion.solvers.formulas import flow_heun_step, heun_coefficients
from wgtorch.blocks.diffusion.solvers.heun import TwoStage
from wgtorch.core.block import register_block


@register_block("solver/flow_heun")
class FlowHeun(FlowSolver, TwoStage):
    """Heun's second order method for flow models: Heun's step with the velocity as the slope; arguments as of :class:`FlowSolver`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        changes = self.changes(grid)
        _, change, half = heun_coefficients(torch.ones_like(changes), changes)
        return change + half, -half

    def step(
        self, x: Tensor, model: ModelPrediction, history: tuple[Tensor, ...], z: Tensor | None, numbers: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return flow_heun_step(x, model.u, *history, *numbers), (model.u,)
