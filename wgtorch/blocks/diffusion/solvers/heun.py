"""Heun's method: an Euler step, a look at where it leads, and the mean of both slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.blocks.diffusion.solvers.euler import euler_step, exploding
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block


def heun_step(x: Any, d: Any, next_d: Any, sigma: float, next_sigma: float) -> Any:
    """One step with the mean of the slopes at both ends (Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1).

    Args:
        x: x0 + sigma eps, [B, C, ...].
        d: slope at ``sigma``, like it.
        next_d: slope where :func:`euler_step` leads, like it.
        sigma: where x is.
        next_sigma: where to go.
    """
    return x + (next_sigma - sigma) * (d + next_d) / 2


def mended_step(x: Any, d: Any, next_d: Any, sigma: float, next_sigma: float) -> Any:
    """:func:`heun_step` from where :func:`euler_step` has led.

    Args:
        x: at ``next_sigma``, after the Euler step with ``d``, [B, C, ...].
        d: slope at ``sigma``, like it.
        next_d: slope at x, like it.
        sigma: where the step started.
        next_sigma: where x is.
    """
    return x + (next_sigma - sigma) * (next_d - d) / 2


class TwoStage(GridSolver):
    """A solver that looks twice in each step but the last, which ends at the data: 2 N - 1 turns.

    The first turn of a step is Euler's; the second mends it with the slope found where that has led, and the one remembered.
    """

    memory = 1

    def turns_in(self, steps: int) -> int:
        return 2 * steps - 1

    def place(self, grid: Grid, turn: int) -> tuple[float, Level]:
        step, second = divmod(turn, 2)
        return (grid.timesteps[step + 1], grid.targets[step]) if second else (grid.timesteps[step], grid.levels[step])


@register_block("solver/heun")
class Heun(TwoStage):
    """Heun's second order method (Karras et al. 2022, https://arxiv.org/abs/2206.00364).

    Args:
        num_steps: see :class:`GridSolver`; each but the last takes two turns.
        prediction: what the backbone predicts.
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=schedule)

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        index, second = divmod(turn, 2)
        now, to = grid.levels[index], grid.targets[index]
        if second:
            return x + to.alpha * mended_step(0.0, memory[0], guess.eps, now.ratio, to.ratio), 0.0
        return to.alpha * euler_step(exploding(x, now, self.block_id), guess.eps, now.ratio, to.ratio), guess.eps
