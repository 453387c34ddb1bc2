"""SDE-DPM-Solver++ (2M): the same with noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.dpmpp_2m import MultistepDPM, slope_of
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block


def dpmpp_1_sde_step(x: Any, x0: Any, z: Any, now: Level, to: Level) -> Any:
    """First order on the SDE (Lu et al. 2022, https://arxiv.org/abs/2211.01095).

    Args:
        x: x_s at ``now``, [B, C, ...].
        x0: data predicted there, like it.
        z: standard normal noise, like it.
        now: s.
        to: t.
    """
    h = to.log_snr - now.log_snr
    fresh = -math.expm1(-2 * h)  # 1 - e^-2h
    return to.sigma / now.sigma * math.exp(-h) * x + to.alpha * fresh * x0 + to.sigma * math.sqrt(fresh) * z


def dpmpp_2m_sde_step(x: Any, x0: Any, before_x0: Any, z: Any, before: Level, now: Level, to: Level, variant: str = "midpoint") -> Any:
    """Second order on the SDE, multistep (Lu et al. 2022, https://arxiv.org/abs/2211.01095).

    Args:
        x: x_s at ``now``, [B, C, ...].
        x0: data predicted there, like it.
        before_x0: data predicted at ``before``, like it.
        z: standard normal noise, like it.
        before: where the step before started.
        now: s.
        to: t.
        variant: ``midpoint`` or ``heun``.
    """
    h = to.log_snr - now.log_snr
    fresh = -math.expm1(-2 * h)
    slope = slope_of(x0, before_x0, before, now, to)
    weight = 0.5 * fresh if variant == "midpoint" else fresh / (-2 * h) + 1
    return dpmpp_1_sde_step(x, x0, z, now, to) + to.alpha * weight * slope


@register_block("solver/dpmpp_2m_sde")
class DPMpp2MSDE(MultistepDPM, StochasticSolver):
    """SDE-DPM-Solver++ (2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        variant: ``midpoint`` or ``heun``; see :func:`dpmpp_2m_sde_step`.
        lower_order_final: the last of fewer than 15 steps is of first order.
        euler_at_final: the last step always is.
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        variant: str = "midpoint",
        lower_order_final: bool = True,
        euler_at_final: bool = False,
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            variant=variant,
            lower_order_final=lower_order_final,
            euler_at_final=euler_at_final,
            num_steps=num_steps,
            prediction=prediction,
            clip=clip,
            threshold=threshold,
            schedule=schedule,
        )

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        now, to, x0 = grid.levels[turn], grid.targets[turn], guess.x0
        if self.is_first_order(grid, turn):
            return dpmpp_1_sde_step(x, x0, z, now, to), x0
        return dpmpp_2m_sde_step(x, x0, memory[0], z, grid.levels[turn - 1], now, to, self.variant), x0
