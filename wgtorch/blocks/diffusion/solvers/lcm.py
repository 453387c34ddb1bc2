"""LCM: a consistency model's jump to the data, and noise to come back to the next level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.schedules.grid import Grid
from wgtorch.blocks.diffusion.solvers.base import StochasticSolver
from wgtorch.blocks.diffusion.solvers.guess import Guess
from wgtorch.core.block import register_block

SIGMA_DATA = 0.5  # the deviation of data that the model was distilled with


def consistency(x: Any, x0: Any, timestep: float, timestep_scaling: float) -> Any:
    """f(x, t) = c_skip x + c_out x0, which is x at t = 0 (Song et al. 2023, https://arxiv.org/abs/2303.01469, app. C).

    Args:
        x: [B, C, ...].
        x0: data predicted from it, like it.
        timestep: t.
        timestep_scaling: by which t is multiplied.
    """
    scaled = timestep * timestep_scaling
    c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    c_out = scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5
    return c_out * x0 + c_skip * x


def lcm_step(denoised: Any, z: Any, to: Level) -> Any:
    """x_s = alpha_s denoised + sigma_s z (Luo et al. 2023, https://arxiv.org/abs/2310.04378)."""
    return to.alpha * denoised + to.sigma * z


@register_block("solver/lcm")
class LCM(StochasticSolver):
    """Multistep consistency sampling for latent consistency models (Luo et al. 2023, https://arxiv.org/abs/2310.04378).

    Args:
        num_steps: see :class:`GridSolver`.
        prediction: what the backbone predicts.
        timestep_scaling: see :func:`consistency`.
        clip: limit of |x0|.
        threshold: for dynamic thresholding.
        schedule: settings of its own grid; of convention ``lcm`` where left out.
    """

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        timestep_scaling: float = 10.0,
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        own = {"convention": "lcm", "num_steps": 4, **(schedule or {})}
        super().__init__(num_steps=num_steps, prediction=prediction, clip=clip, threshold=threshold, schedule=own)
        self.timestep_scaling = timestep_scaling

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        denoised = consistency(x, guess.x0, grid.timesteps[turn], self.timestep_scaling)
        return (denoised if turn == len(grid) - 1 else lcm_step(denoised, z, grid.targets[turn]),)
