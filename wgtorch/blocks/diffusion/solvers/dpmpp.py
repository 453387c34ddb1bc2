"""DPM-Solver++: of second order from two predictions of the data (2M), of third from three (3M), and both with noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridArguments, GridSolver, History, Stepped, StochasticSolver, one_before
from wgtorch.blocks.diffusion.solvers.formulas import (
    dpmpp_2m_coefficients,
    dpmpp_2m_sde_coefficients,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    dpmpp_3m_sde_coefficients,
    dpmpp_3m_sde_step,
)
from wgtorch.core.block import register_block

VARIANTS = ("midpoint", "heun")
FEW_STEPS = 15  # with fewer, the last step is better taken with first order


class MultistepDPM(GridSolver):
    """What the solvers of this family share: they remember x0, and know when first order is better.

    Args:
        variant: ``midpoint`` or ``heun``; see :func:`~wgtorch.blocks.diffusion.solvers.formulas.dpmpp_2m_coefficients`.
        lower_order_final: the last of fewer than 15 steps is of first order.
        euler_at_final: the last step always is. (A step that ends at the data is in any case.)
    """

    memory = 1

    def __init__(
        self, *, variant: str = "midpoint", lower_order_final: bool = True, euler_at_final: bool = False, **grid: Unpack[GridArguments]
    ) -> None:
        super().__init__(**grid)
        if variant not in VARIANTS:
            raise ValueError(f"{type(self).__name__}.variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.lower_order_final = lower_order_final
        self.euler_at_final = euler_at_final

    def arguments(self, grid: TimeGrid) -> tuple[NoiseLevel, NoiseLevel, NoiseLevel, Tensor, str]:
        """Levels before, now and to, where first order is better [N], and the variant."""
        now, to = grid.starts, grid.ends
        is_first_order = to.sigma == 0
        is_first_order[0] = True
        if self.euler_at_final or (self.lower_order_final and grid.total < FEW_STEPS):
            is_first_order[-1] = True
        return one_before(now), now, to, is_first_order, self.variant


@register_block("solver/dpmpp_2m")
class DPMpp2M(MultistepDPM):
    """DPM-Solver++ (2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095); arguments as of :class:`MultistepDPM`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        return dpmpp_2m_coefficients(*self.arguments(grid))

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return dpmpp_2m_step(x, model.x0, *history, *numbers), (model.x0,)


@register_block("solver/dpmpp_2m_sde")
class DPMpp2MSDE(MultistepDPM, StochasticSolver):
    """SDE-DPM-Solver++ (2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095); arguments as of :class:`MultistepDPM`."""

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        return dpmpp_2m_sde_coefficients(*self.arguments(grid))

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return dpmpp_2m_sde_step(x, model.x0, history[0], z, *numbers), (model.x0,)


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

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return dpmpp_3m_sde_step(x, model.x0, history, z, *numbers), (model.x0, history[0])
