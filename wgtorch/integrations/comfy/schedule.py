"""The sigmas that ComfyUI walks, by the names of its schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgtorch.blocks.diffusion.noise_level import NoiseLevel, vp_level
from wgtorch.blocks.diffusion.schedules.betas import alpha_bars_of, make_betas
from wgtorch.blocks.diffusion.schedules.block import GridSchedule
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid, time_grid
from wgtorch.blocks.diffusion.schedules.sigmas import beta_quantile, exponential_sigmas, karras_sigmas
from wgtorch.core.block import register_block
from wgtorch.core.errors import ConfigError, PortError, suggest
from wgtorch.core.port import Port

Floats = NDArray[np.float64]
ALL = 10000
"""What ComfyUI says for the last step of all."""
_APART = 1e-3  # two steps of one timestep are told apart by it


def _beta(trained: Floats, steps: int) -> Floats:
    shares = [beta_quantile(1 - step / steps, 0.6, 0.6) for step in range(steps)]
    return trained[list(dict.fromkeys(round(share * (len(trained) - 1)) for share in shares))]


def _kl_optimal(trained: Floats, steps: int) -> Floats:
    share = np.arange(steps) / max(steps - 1, 1)
    return np.tan(share * math.atan(trained[0]) + (1 - share) * math.atan(trained[-1]))


def _between(trained: Floats, timesteps: Floats) -> Floats:
    """Sigmas at timesteps between those of training, even in their logarithm."""
    return np.exp(np.interp(timesteps, np.arange(len(trained)), np.log(trained)))


SCHEDULERS: dict[str, Callable[[Floats, int], Floats]] = {
    "normal": lambda trained, steps: _between(trained, np.linspace(len(trained) - 1, 0, steps)),
    "karras": lambda trained, steps: karras_sigmas(float(trained[0]), float(trained[-1]), steps),
    "exponential": lambda trained, steps: exponential_sigmas(float(trained[0]), float(trained[-1]), steps),
    "sgm_uniform": lambda trained, steps: _between(trained, np.linspace(len(trained) - 1, 0, steps + 1)[:-1]),
    "simple": lambda trained, steps: trained[[len(trained) - 1 - int(step * len(trained) / steps) for step in range(steps)]],
    "ddim_uniform": lambda trained, steps: trained[1 :: max(len(trained) // steps, 1)][::-1],
    "beta": _beta,
    "kl_optimal": _kl_optimal,
}
"""By ComfyUI's name: sigmas [N] that fall, of those of training [T] that rise, for a number of steps; 0 comes after the last."""


@register_block("schedule/comfy")
class ComfySchedule(GridSchedule):
    """Where ComfyUI samples a diffusion model: its schedulers' sigmas, and of each the nearest timestep of training.

    Args:
        scheduler: ``normal``, ``karras``, ``exponential``, ``sgm_uniform``, ``simple``, ``ddim_uniform``, ``beta`` or ``kl_optimal``.
        num_steps: where the input is not fed.
        num_train_timesteps: T.
        beta_schedule: what the model was trained with; see :func:`~wgtorch.blocks.diffusion.schedules.betas.make_betas`.
        beta_start: noise added at timestep 0.
        beta_end: noise added at timestep T - 1.
        rest: sigma at the end of a walk that leaves no noise.
        skips_last: the step before the end leads there at once, which makes room for one more before it.
    """

    inputs: Mapping[str, Any] = {
        "start_at_step": Port(dtype="number", description="steps that another walk has made"),
        "end_at_step": Port(dtype="number", description="the step at which this walk leaves off"),
        "leftover": Port(description="leave the noise in that is left at end_at_step; else the last step leads to the data"),
    }

    def __init__(
        self,
        *,
        scheduler: str = "normal",
        num_steps: int = 20,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "scaled_linear",
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        rest: float = 0.0,
        skips_last: bool = False,
    ) -> None:
        super().__init__(num_steps)
        if scheduler not in SCHEDULERS:
            raise ConfigError(f"ComfySchedule.scheduler: found {scheduler!r}; {suggest(scheduler, SCHEDULERS)}")
        self.scheduler = scheduler
        self.rest = rest
        self.skips_last = skips_last
        self.train_timesteps = num_train_timesteps
        bars = alpha_bars_of(make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end))
        self.trained: Floats = (((1 - bars) / bars) ** 0.5).double().numpy()

    def forward(
        self,
        timestep: float | None = None,
        num_steps: int | None = None,
        strength: float | None = None,
        sigmas: Sequence[float] | None = None,
        start_at_step: int | None = None,
        end_at_step: int | None = None,
        leftover: bool | None = None,
    ) -> dict[str, Any]:
        """The start of a loop, as of every schedule.

        Raises:
            PortError: ``strength`` is out of its range, or not one step is left.
        """
        if sigmas is not None:
            return self.initial_state(self.grid_of("sigmas", sigmas), timestep, strength)
        steps = self.num_steps if num_steps is None else int(num_steps)
        share = 1.0 if strength is None else float(strength)
        first, last = int(start_at_step or 0), ALL if end_at_step is None else int(end_at_step)
        if not 0 < share <= 1:
            raise PortError(f"{self.block_id}.strength: got {share:g}; expected a number above 0, at most 1")
        if not 0 <= first < min(last, steps):
            raise PortError(f"{self.block_id}: steps {first} to {last} of {steps}; expected at least one step")
        return self.initial_state(self.grid(steps, share=share, first=first, last=last, leftover=bool(leftover)), timestep, None)

    def make_grid(self, num_steps: int, **more: Any) -> TimeGrid:
        part = list(more["sigmas"]) if "sigmas" in more else self._part_of(num_steps, **more)
        times: list[float] = []
        for sigma in part[:-1]:
            near = float(np.abs(np.log(sigma) - np.log(self.trained)).argmin())
            times.append(near if not times or near < times[-1] else times[-1] - _APART)
        levels = [*(vp_level(sigma) for sigma in part[:-1]), NoiseLevel(1.0, part[-1] or self.rest)]  # the end is x0 + sigma eps
        is_whole = math.isclose(part[0], self.trained[-1], rel_tol=1e-5) or part[0] > self.trained[-1]
        return time_grid(times, levels, start_scale=1.0 if is_whole else levels[0].sigma)

    def _part_of(self, num_steps: int, share: float = 1.0, first: int = 0, last: int = ALL, leftover: bool = False) -> list[float]:
        """The sigmas from one step to another, the end included."""
        is_whole = share > 0.9999
        steps = num_steps if is_whole else int(num_steps / share)
        sigmas = [*SCHEDULERS[self.scheduler](self.trained, steps + self.skips_last).tolist(), 0.0]
        if self.skips_last:
            del sigmas[-2]
        if not is_whole:
            sigmas = sigmas[-(num_steps + 1) :]
        part = sigmas[: last + 1]
        if len(part) < len(sigmas) and not leftover:
            part[-1] = 0.0
        return part[first:]

    def steps_of(self, name: str, values: Sequence[float]) -> int:
        return len(values) - 1  # the end is among them

    def level_at(self, timestep: Any) -> tuple[Any, Any]:
        """(alpha, sigma) of training at a timestep in [0, T - 1]."""
        return vp_level(float(self.trained[int(timestep)]))
