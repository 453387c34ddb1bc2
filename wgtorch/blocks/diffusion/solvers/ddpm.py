"""DDPM: the reverse process, one draw from the posterior at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.noise_level import variance_from
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridArguments, History, Stepped, StochasticSolver
from wgtorch.blocks.diffusion.solvers.formulas import SMALLEST_VARIANCE, ddpm_step, posterior_mean_coefficients, posterior_variance
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError

VARIANCES = ("fixed_small", "fixed_large", "learned_range")


@register_block("solver/ddpm")
class DDPM(StochasticSolver):
    """Ancestral sampling (Ho et al. 2020, https://arxiv.org/abs/2006.11239).

    Args:
        variance: of the noise: ``fixed_small``, the posterior's; ``fixed_large``, all that is added between the two levels; or
            ``learned_range``, between them where ``pred``, then [B, 2 C, ...], says in its second half (Nichol & Dhariwal
            2021, https://arxiv.org/abs/2102.09672, eq. 15).
    """

    def __init__(self, *, variance: str = "fixed_small", **grid: Unpack[GridArguments]) -> None:
        super().__init__(**grid)
        if variance not in VARIANCES:
            raise ValueError(f"DDPM.variance: found {variance!r}, expected one of {', '.join(VARIANCES)}")
        self.variance = variance
        self.learns_variance = variance == "learned_range"

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        """Of x, x0 and noise; for a learned variance before the last also the logs of the smallest and the largest."""
        now, to = grid.starts, grid.ends
        mean = posterior_mean_coefficients(now, to)
        small, large = posterior_variance(now, to).clamp(min=SMALLEST_VARIANCE), variance_from(to, now)
        is_noisy = torch.tensor(grid.timesteps, device="cpu") > 0
        if self.learns_variance:
            return *mean, small.log(), large.log(), is_noisy.double()
        return *mean, torch.where(is_noisy, small if self.variance == "fixed_small" else large, 0.0).sqrt()

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        if not self.learns_variance:
            return ddpm_step(x, model.x0, z, *numbers), ()
        model.pred, between = model.pred.chunk(2, dim=1)
        of_x, of_x0, small, large, is_noisy = numbers
        if z is not None:
            share = (between + 1) / 2
            z = (0.5 * (share * large + (1 - share) * small)).exp() * z
        return ddpm_step(x, model.x0, z, of_x, of_x0, is_noisy), ()

    def check_shape(self, latent: Tensor, pred: Tensor) -> None:
        expected = (latent.shape[0], 2 * latent.shape[1], *latent.shape[2:])
        if not self.learns_variance:
            super().check_shape(latent, pred)
        elif pred.shape != expected:
            raise PortError(
                f"{self.block_id}.pred: found shape {list(pred.shape)} for a latent of {list(latent.shape)}; expected {list(expected)}, "
                "of which the second half of the channels is the variance (variance='learned_range')"
            )
