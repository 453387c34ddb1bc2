"""DDIM: the same marginals as DDPM with less noise on the way, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.formulas import ddim_coefficients, ddim_step
from wgtorch.core.block import register_block


@register_block("solver/ddim")
class DDIM(StochasticSolver):
    """Denoising diffusion implicit models (Song et al. 2020, https://arxiv.org/abs/2010.02502).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        eta: share of DDPM's noise that is added, in [0, 1].
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        rederive_epsilon: with a limited x0, eps is what that leaves of x, instead of the predicted one.
        schedule: settings of its own grid.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        eta: float = 0.0,
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        rederive_epsilon: bool = False,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=schedule)
        if not 0 <= eta <= 1:
            raise ValueError(f"DDIM.eta: found {eta}, expected a number from 0 to 1")
        self.eta = eta
        if self.limits is not None:
            self.limits = self.limits._replace(rederives=rederive_epsilon)
        self.wants_rng = self.stochastic = eta > 0

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        return ddim_coefficients(grid.starts, grid.ends, self.eta)

    def step(
        self, x: Tensor, model: ModelPrediction, history: tuple[Tensor, ...], z: Tensor | None, numbers: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return ddim_step(model.x0, model.eps, z, *numbers), ()
