"""Heun's method for flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.flow_euler import check_flow, flow_euler_step
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.blocks.diffusion.solvers.heun import TwoStage, mended_step
from wgtorch.core.block import register_block


@register_block("solver/flow_heun")
class FlowHeun(TwoStage):
    """Heun's second order method for flow models: Heun's step with the velocity as the slope.

    Args:
        num_steps: see :class:`GridSolver`; each but the last takes two turns.
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

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        index, second = divmod(turn, 2)
        sigma, next_sigma = grid.levels[index].sigma, grid.targets[index].sigma
        check_flow(grid.levels[index], self.block_id)
        if second:
            return mended_step(x, memory[0], guess.u, sigma, next_sigma), 0.0
        return flow_euler_step(x, guess.u, sigma, next_sigma), guess.u
