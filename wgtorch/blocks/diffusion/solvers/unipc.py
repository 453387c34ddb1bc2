"""UniPC: a predictor, and a corrector that costs no further look at the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.predictions import to_x0
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.blocks.diffusion.solvers.guess import limit_x0
from wgtorch.blocks.diffusion.solvers.weights import Matrix, Row, weigh, weights_of
from wgtorch.core.block import register_block

VARIANTS = ("bh1", "bh2")


def unipc_predict(x: Any, m: Sequence[Any], levels: Sequence[Level], to: Level, variant: str = "bh2") -> Any:
    """UniP of order len(m), data prediction (Zhao et al. 2023, https://arxiv.org/abs/2302.04867, algorithm 2).

    Args:
        x: x_s at ``levels[0]``, [B, C, ...].
        m: data predicted at ``levels``, the latest first; one or two, like x.
        levels: where they were predicted.
        to: t.
        variant: B(h) = h (``bh1``) or e^h - 1 (``bh2``).
    """
    x = _first_order(x, m[0], levels[0], to)
    if len(m) == 1:
        return x
    slope = (m[1] - m[0]) / _share(levels, to)
    return x - to.alpha * _b(levels[0], to, variant) * 0.5 * slope


def unipc_correct(x: Any, next_m: Any, m: Sequence[Any], levels: Sequence[Level], to: Level, variant: str = "bh2") -> Any:
    """UniC of order len(m), data prediction (Zhao et al. 2023, https://arxiv.org/abs/2302.04867, algorithm 1).

    Args:
        x: x_s at ``levels[0]``, [B, C, ...].
        next_m: data predicted at ``to``, like it.
        m: data predicted at ``levels``, the latest first; one or two, like x.
        levels: where they were predicted.
        to: t, which the predictor has already reached.
        variant: as of the predictor.
    """
    h = to.log_snr - levels[0].log_snr
    b = _b(levels[0], to, variant)
    x = _first_order(x, m[0], levels[0], to)
    if len(m) == 1:
        return x - to.alpha * b * 0.5 * (next_m - m[0])
    # rho solves [[1, 1], [r, 1]] rho = [b1, b2], eq. 5 with the data's h -> -h
    phi1 = math.expm1(-h) / -h - 1
    phi2 = phi1 / -h - 0.5
    b1, b2 = phi1 / b, 2 * phi2 / b
    r = _share(levels, to)
    rho1 = (b1 - b2) / (1 - r)
    rho2 = b1 - rho1
    return x - to.alpha * b * (rho1 / r * (m[1] - m[0]) + rho2 * (next_m - m[0]))


def _first_order(x: Any, m: Any, now: Level, to: Level) -> Any:
    return to.sigma / now.sigma * x - to.alpha * math.expm1(now.log_snr - to.log_snr) * m


def _share(levels: Sequence[Level], to: Level) -> float:
    """r_1 = (lambda_before - lambda_s) / h, below 0."""
    return (levels[1].log_snr - levels[0].log_snr) / (to.log_snr - levels[0].log_snr)


def _b(now: Level, to: Level, variant: str) -> float:
    """B(-h)."""
    h = to.log_snr - now.log_snr
    return -h if variant == "bh1" else math.expm1(-h)


@register_block("solver/unipc")
class UniPC(GridSolver):
    """Unified predictor-corrector (Zhao et al. 2023, https://arxiv.org/abs/2302.04867).

    A turn first corrects x with the prediction made there, then predicts the next x. It remembers the corrected x and the
    data predicted in this turn and the one before.

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        order: 1 or 2.
        variant: ``bh1`` or ``bh2``.
        lower_order_final: the last step is of first order. (One that ends at the data is in any case.)
        without_corrector: steps after which x is not corrected.
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid.
    """

    memory = 3
    keeps_x0 = True

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        order: int = 2,
        variant: str = "bh2",
        lower_order_final: bool = True,
        without_corrector: list[int] | None = None,
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=schedule)
        if order not in (1, 2):
            raise ValueError(f"UniPC.order: found {order}, expected 1 or 2")
        if variant not in VARIANTS:
            raise ValueError(f"UniPC.variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
        self.order = order
        self.variant = variant
        self.lower_order_final = lower_order_final
        self.without_corrector = frozenset(without_corrector or ())

    def order_at(self, grid: Grid, turn: int) -> int:
        """The order of a step: what is remembered allows no more at the start, nor does the end."""
        left = len(grid) - turn if self.lower_order_final or not grid.targets[turn].sigma else self.order
        return min(self.order, turn + 1, left)

    def matrix(self, grid: Grid, turn: int) -> Matrix:
        """Weights over (x, pred, x0, corrected x, and what is remembered: corrected x, x0, x0 before): of x0, the corrected x,
        the next x; the memory needs none."""
        now, to, levels = grid.levels[turn], grid.targets[turn], grid.levels
        skipped = grid.total - len(grid) + turn - 1 in self.without_corrector

        def outputs(
            x: float, pred: float, x0: float, corrected: float, last_x: float, last_x0: float, older_x0: float
        ) -> tuple[float, ...]:
            better = x
            if turn and not skipped:
                count = self.order_at(grid, turn - 1)
                before = (levels[turn - 1], levels[turn - 2])[:count]
                better = unipc_correct(last_x, x0, (last_x0, older_x0)[:count], before, now, self.variant)
            count = self.order_at(grid, turn)
            following = unipc_predict(corrected, (x0, last_x0)[:count], (now, levels[turn - 1])[:count], to, self.variant)
            return to_x0(self.prediction, x, pred, now), better, following

        return weights_of(outputs, 7)

    def take(
        self, row: Row, latent: Tensor, pred: Tensor, memory: Sequence[Tensor | None], noise: Tensor | None = None
    ) -> tuple[Any, tuple[Any, ...]]:
        tensors: list[Any] = [latent, pred, None, None, *(memory or (None,) * 3)]
        x0 = weigh(row[0], tensors)
        tensors[2] = x0 = limit_x0(x0, self.clip, self.threshold) if self.limits else x0
        tensors[3] = corrected = weigh(row[1], tensors)
        return weigh(row[2], tensors), (corrected, x0, tensors[5])
