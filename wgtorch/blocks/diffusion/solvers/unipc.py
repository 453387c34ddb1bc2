"""UniPC: a predictor, and a corrector that costs no further look at the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridArguments, GridSolver, History, Stepped, one_before
from wgtorch.blocks.diffusion.solvers.formulas import (
    linear_combination,
    unipc_correct,
    unipc_corrector_coefficients,
    unipc_predict,
    unipc_predictor_coefficients,
)
from wgtorch.core.block import register_block

VARIANTS = ("bh1", "bh2")


@register_block("solver/unipc")
class UniPC(GridSolver):
    """Unified predictor-corrector (Zhao et al. 2023, https://arxiv.org/abs/2302.04867).

    An iteration first corrects x with the prediction made there, then predicts the next x. It remembers the corrected x and as
    many predictions of the data as its order.

    Args:
        order: 1, 2 or 3.
        variant: ``bh1`` or ``bh2``.
        lower_order_final: the last step is of first order, the one before of second. (One that ends at the data is of first in any case.)
        without_corrector: steps after which x is not corrected.
    """

    def __init__(
        self,
        *,
        order: int = 2,
        variant: str = "bh2",
        lower_order_final: bool = True,
        without_corrector: list[int] | None = None,
        **grid: Unpack[GridArguments],
    ) -> None:
        super().__init__(**grid)
        if order not in (1, 2, 3):
            raise ValueError(f"UniPC.order: found {order}, expected 1, 2 or 3")
        if variant not in VARIANTS:
            raise ValueError(f"UniPC.variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
        self.order = order
        self.memory = order + 1
        self.variant = variant
        self.lower_order_final = lower_order_final
        self.without_corrector = frozenset(without_corrector or ())

    def orders(self, grid: TimeGrid) -> Tensor:
        """The order of each step [N]: what is remembered allows no more at the start, nor does the end."""
        left = torch.arange(len(grid), 0, -1, device="cpu")
        is_bounded = grid.ends.sigma == 0 if not self.lower_order_final else torch.ones(len(grid), dtype=torch.bool, device="cpu")
        ahead = torch.where(is_bounded, left, self.order)
        return torch.minimum(left.flip(0), ahead).clamp(max=self.order)

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        """Of an x that is not corrected; of the corrector; of the predictor."""
        past, orders = [grid.starts], self.orders(grid)
        while len(past) <= self.order:
            past.append(one_before(past[-1]))
        made = range(grid.total - len(grid) - 1, grid.total - 1)  # steps of the whole grid before the one that leads to x
        skipped = torch.tensor([not k or step in self.without_corrector for k, step in enumerate(made)], device="cpu")
        corrector = unipc_corrector_coefficients(past[1:], past[0], orders.roll(1), self.variant)
        return (
            skipped.double(),
            *[torch.where(skipped, 0.0, value) for value in corrector],
            *unipc_predictor_coefficients(past[:-1], grid.ends, orders, self.variant),
        )

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        last_x, *m = history
        skipped, corrector, predictor = numbers[0], numbers[1 : 3 + self.order], numbers[3 + self.order :]
        x = linear_combination(unipc_correct(model.x0, last_x, m, *corrector), (skipped, x))
        return unipc_predict(x, model.x0, m[:-1], *predictor), (x, model.x0, *m[:-1])
