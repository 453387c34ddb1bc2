"""DPM-Solver++ (2M): second order from the data predicted in this turn and the one before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block

VARIANTS = ("midpoint", "heun")
FEW_STEPS = 15  # with fewer, the last step is better taken with first order


def dpmpp_1_step(x: Any, x0: Any, now: Level, to: Level) -> Any:
    """First order (Lu et al. 2022, https://arxiv.org/abs/2211.01095); the same as DDIM.

    Args:
        x: x_s at ``now``, [B, C, ...].
        x0: data predicted there, like it.
        now: s.
        to: t.
    """
    h = to.log_snr - now.log_snr
    return to.sigma / now.sigma * x - to.alpha * math.expm1(-h) * x0


def dpmpp_2m_step(x: Any, x0: Any, before_x0: Any, before: Level, now: Level, to: Level, variant: str = "midpoint") -> Any:
    """Second order, multistep (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2).

    Args:
        x: x_s at ``now``, [B, C, ...].
        x0: data predicted there, like it.
        before_x0: data predicted at ``before``, like it.
        before: where the step before started.
        now: s.
        to: t.
        variant: how the slope of x0 enters: ``midpoint`` as in the paper, or ``heun``.
    """
    h = to.log_snr - now.log_snr
    slope = slope_of(x0, before_x0, before, now, to)
    if variant == "heun":
        return dpmpp_1_step(x, x0, now, to) + to.alpha * (math.expm1(-h) / h + 1) * slope
    return dpmpp_1_step(x, x0, now, to) - 0.5 * to.alpha * math.expm1(-h) * slope


def slope_of(x0: Any, before_x0: Any, before: Level, now: Level, to: Level) -> Any:
    """D1 = (x0 - x0 before) / r: how x0 changes over the step, in log SNR; 0 after a step from pure noise."""
    h, before_h = to.log_snr - now.log_snr, now.log_snr - before.log_snr
    return h / before_h * (x0 - before_x0)


class MultistepDPM(GridSolver):
    """What the two solvers of this family share: they remember x0, and know when first order is better.

    Args:
        variant: ``midpoint`` or ``heun``.
        lower_order_final: the last of fewer than 15 steps is of first order.
        euler_at_final: the last step always is. (A step that ends at the data is in any case.)
    """

    memory = 1
    keeps_x0 = True

    def __init__(self, *, variant: str, lower_order_final: bool, euler_at_final: bool, **common: Any) -> None:
        super().__init__(**common)
        if variant not in VARIANTS:
            raise ValueError(f"{type(self).__name__}.variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.lower_order_final = lower_order_final
        self.euler_at_final = euler_at_final

    def is_first_order(self, grid: Grid, turn: int) -> bool:
        """True for the first step, and for the last where that is better."""
        to = grid.targets[turn]
        is_last = turn == len(grid) - 1
        early = self.euler_at_final or (self.lower_order_final and grid.total < FEW_STEPS)
        return turn == 0 or not to.sigma or (is_last and early)


@register_block("solver/dpmpp_2m")
class DPMpp2M(MultistepDPM):
    """DPM-Solver++ (2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        variant: ``midpoint`` or ``heun``; see :func:`dpmpp_2m_step`.
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
            return dpmpp_1_step(x, x0, now, to), x0
        return dpmpp_2m_step(x, x0, memory[0], grid.levels[turn - 1], now, to, self.variant), x0
