"""The ways that samplers' authors lay out their grids over the timesteps of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wgtorch.blocks.diffusion.noise_level import DATA, NoiseLevel, vp_level
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid, time_grid
from wgtorch.blocks.diffusion.schedules.sigmas import SIGMAS, sigma_to_timestep
from wgtorch.blocks.diffusion.schedules.spacing import spaced_timesteps
from wgtorch.core.errors import PortError


@dataclass(frozen=True, eq=False)
class Layout:
    """What the grids below are made from.

    Args:
        alpha_bars: by training timestep, falling, float32 [T].
        ratios: sigma / alpha by training timestep, rising, float32 [T].
        spacing: see :func:`spaced_timesteps`.
        offset: added to ``leading`` timesteps.
        sigmas: ``trained``, or the name of a sequence of :mod:`~wgtorch.blocks.diffusion.schedules.sigmas`.
        sigma_range: smallest and largest sigma of that sequence, where it is not to be found from the training's.
        to_data: the grid ends at the data, instead of at the first training timestep.
        min_log_snr: timesteps with less than this are left out.
        original_steps: steps that a consistency model was distilled from.
        continuous: timesteps are 0.25 log sigma (EDM), instead of training timesteps.
    """

    alpha_bars: NDArray[np.float32]
    ratios: NDArray[np.float32]
    spacing: str
    offset: int
    sigmas: str
    sigma_range: tuple[float | None, float | None]
    to_data: bool
    min_log_snr: float
    original_steps: int
    continuous: bool

    @property
    def total(self) -> int:
        """T."""
        return len(self.alpha_bars)

    def level(self, timestep: int) -> NoiseLevel:
        """The level of training at a timestep; before the first one, the end of the grid."""
        if timestep < 0:
            return DATA if self.to_data else self.level(0)
        # With an offset a walk over all steps begins one after the last that was trained, which is left out where it starts near an image.
        bar = float(self.alpha_bars[min(timestep, len(self.alpha_bars) - 1)])
        return NoiseLevel(bar**0.5, (1 - bar) ** 0.5)

    def spaced(self, num_steps: int, **more: Any) -> NDArray[np.float64]:
        """:func:`spaced_timesteps` of these settings."""
        if num_steps > self.total:
            raise PortError(f"num_steps: found {num_steps}, expected at most the {self.total} timesteps of training")
        return spaced_timesteps(self.spacing, num_steps, self.total, offset=self.offset, **more)


def ddpm_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> TimeGrid:
    """Whole timesteps; each step leads to the next one (Ho et al. 2020)."""
    whole = [int(t) for t in (layout.spaced(num_steps).round() if timesteps is None else timesteps)]
    return time_grid(whole, [*(layout.level(t) for t in whole), layout.level(-1)])


def ddim_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> TimeGrid:
    """Whole timesteps; each step leads T // num_steps timesteps down, wherever the next one starts (Song et al. 2020)."""
    grid = ddpm_grid(layout, num_steps, timesteps)
    stride = layout.total // len(grid)
    targets = tuple(layout.level(int(t) - stride) for t in grid.timesteps)
    return TimeGrid(grid.timesteps, grid.levels, targets)


def lcm_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> TimeGrid:
    """Timesteps that the model was distilled at, as evenly as they allow (Luo et al. 2023)."""
    if timesteps is None:
        original = (np.arange(1, layout.original_steps + 1) * (layout.total // layout.original_steps) - 1)[::-1]
        if num_steps > len(original):
            raise PortError(f"num_steps: found {num_steps}, expected at most original_steps, {layout.original_steps}")
        timesteps = original[np.floor(np.linspace(0, len(original), num_steps, endpoint=False)).astype(np.int64)].tolist()
    return ddpm_grid(layout, num_steps, timesteps)


def euler_grid(layout: Layout, num_steps: int, timesteps: Sequence[float] | None = None, sigmas: Sequence[float] | None = None) -> TimeGrid:
    """Timesteps between those of training where they fall there; sigmas go with them (Karras et al. 2022, k-diffusion)."""
    trained = layout.ratios
    ratios: Any
    if sigmas is not None:
        given = np.array(sigmas, dtype=np.float32)
        ratios, last = given[:-1], given[-1]
        times = np.array([sigma_to_timestep(ratio, np.log(trained)) for ratio in ratios])
    else:
        times = np.array(layout.spaced(num_steps) if timesteps is None else timesteps, dtype=np.float32)
        ratios = np.interp(times, np.arange(len(trained)), trained)
        if layout.sigmas != "trained":
            ratios = _sequence(layout, float(ratios[-1]), float(ratios[0]), num_steps)
            times = np.array([sigma_to_timestep(ratio, np.log(trained)) for ratio in ratios])
        last = 0.0 if layout.to_data else trained[0]
    rounded = np.array([*ratios, last], dtype=np.float32)
    if layout.continuous:
        shown = (0.25 * torch.from_numpy(rounded[:-1]).log()).tolist()
    else:
        shown = times.astype(np.float32).tolist()
    levels = [vp_level(ratio) for ratio in rounded[:-1].tolist()]
    end = NoiseLevel(1.0, float(rounded[-1]))  # x0 + sigma eps, as Karras et al. have it
    scale = 1.0 if layout.spacing == "leading" else levels[0].sigma
    return time_grid(shown, [*levels, end], start_scale=scale, is_karras=True)


def dpm_solver_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> TimeGrid:
    """Whole timesteps, of which the data stands for the last (Lu et al. 2022)."""
    return _dpm_solver_grid(layout, num_steps, timesteps)


def unipc_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> TimeGrid:
    """As for DPM-Solver; other sequences of sigmas end at their own smallest (Zhao et al. 2023)."""
    return _dpm_solver_grid(layout, num_steps, timesteps, own_end=True)


def _dpm_solver_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None, *, own_end: bool = False) -> TimeGrid:
    trained = layout.ratios
    last = 0.0 if layout.to_data else float(trained[0])
    if layout.sigmas == "trained" or timesteps is not None:
        count = int((-np.log(trained) >= layout.min_log_snr).sum())
        times = (layout.spaced(num_steps, open_end=True, last=count).round() if timesteps is None else np.array(timesteps)).astype(np.int64)
        ratios = np.interp(times, np.arange(len(trained)), trained)
    else:
        ratios = _sequence(layout, float(trained[0]), float(trained[-1]), num_steps)
        between = np.array([sigma_to_timestep(ratio, np.log(trained)) for ratio in ratios])
        times = (between.round() if layout.sigmas == "karras" else between).astype(np.int64)
        last = float(ratios[-1]) if own_end and not layout.to_data else last
    rounded = np.array([*ratios, last], dtype=np.float32)
    return time_grid(times.tolist(), [vp_level(ratio) for ratio in rounded.tolist()])


def _sequence(layout: Layout, smallest: float, largest: float, count: int) -> NDArray[np.float64]:
    low, high = layout.sigma_range
    return SIGMAS[layout.sigmas](smallest if low is None else low, largest if high is None else high, count)


CONVENTIONS: dict[str, Callable[..., TimeGrid]] = {
    "ddpm": ddpm_grid,
    "ddim": ddim_grid,
    "lcm": lcm_grid,
    "euler": euler_grid,
    "dpm_solver": dpm_solver_grid,
    "unipc": unipc_grid,
}
