"""LCM: a consistency model's jump to the data, and noise to come back to the next level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridArguments, History, Stepped, StochasticSolver
from wgtorch.blocks.diffusion.solvers.formulas import consistency_coefficients, lcm_step
from wgtorch.core.block import register_block


@register_block("solver/lcm")
class LCM(StochasticSolver):
    """Multistep consistency sampling for latent consistency models (Luo et al. 2023, https://arxiv.org/abs/2310.04378).

    Args:
        timestep_scaling: see :func:`~wgtorch.blocks.diffusion.solvers.formulas.consistency_coefficients`; None takes the data as it
            is predicted, as k-diffusion's samplers do.
        schedule: settings of its own grid; of convention ``lcm`` where left out.
    """

    def __init__(self, *, timestep_scaling: float | None = 10.0, **grid: Unpack[GridArguments]) -> None:
        grid["schedule"] = {"convention": "lcm", "num_steps": 4, **(grid.get("schedule") or {})}
        super().__init__(**grid)
        self.timestep_scaling = timestep_scaling

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        timesteps = torch.tensor(grid.timesteps, dtype=torch.float64, device="cpu")
        c_skip, c_out = torch.zeros_like(timesteps), torch.ones_like(timesteps)
        if self.timestep_scaling is not None:
            c_skip, c_out = consistency_coefficients(timesteps, self.timestep_scaling)
        alpha, sigma = grid.ends
        is_last = torch.arange(len(grid), device="cpu") == len(grid) - 1  # which is the jump itself, wherever the grid ends
        alpha, sigma = torch.where(is_last, 1.0, alpha), torch.where(is_last, 0.0, sigma)
        return alpha * c_skip, alpha * c_out, sigma

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return lcm_step(x, model.x0, z, *numbers), ()
