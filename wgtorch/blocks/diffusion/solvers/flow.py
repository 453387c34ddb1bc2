"""Euler's and Heun's methods for flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridSolver, History, Stepped
from wgtorch.blocks.diffusion.solvers.formulas import flow_euler_step, flow_heun_step, heun_coefficients
from wgtorch.blocks.diffusion.solvers.heun import TwoStage
from wgtorch.core.block import register_block


class FlowSolver(GridSolver):
    """A solver of flow models, from noise (sigma 1) to data (0).

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

    def changes(self, grid: TimeGrid) -> Tensor:
        """How far sigma changes in each step, [N].

        Raises:
            ValueError: alpha + sigma is not 1 somewhere.
        """
        for level in grid.levels[:-1]:
            if abs(level.alpha + level.sigma - 1) > 1e-6:
                raise ValueError(
                    f"{self.block_id}: the grid has alpha = {level.alpha:.4g} at sigma = {level.sigma:.4g}, which no flow has "
                    "(alpha + sigma = 1); expected a grid of schedule/flow. For a diffusion model take solver/euler, or another of its kind"
                )
        return grid.ends.sigma - grid.starts.sigma


@register_block("solver/flow_euler")
class FlowEuler(FlowSolver):
    """Euler's method for flow models; arguments as of :class:`FlowSolver`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        return (self.changes(grid),)

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return flow_euler_step(x, model.u, *numbers), ()


@register_block("solver/flow_heun")
class FlowHeun(FlowSolver, TwoStage):
    """Heun's second order method for flow models: Heun's step with the velocity as the slope; arguments as of :class:`FlowSolver`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        changes = self.changes(grid)
        _, change, half = heun_coefficients(torch.ones_like(changes), changes)
        return change + half, -half

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return flow_heun_step(x, model.u, *history, *numbers), (model.u,)
