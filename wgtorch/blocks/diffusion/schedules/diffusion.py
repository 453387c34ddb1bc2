"""Grids over the timesteps of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wgtorch.blocks.diffusion.levels import DATA, Level, vp_level
from wgtorch.blocks.diffusion.schedules.betas import alpha_bars_of, make_betas, rescale_to_zero_snr
from wgtorch.blocks.diffusion.schedules.block import GridSchedule
from wgtorch.blocks.diffusion.schedules.grid import Grid, as_grid
from wgtorch.blocks.diffusion.schedules.sigmas import SIGMAS, sigma_to_timestep
from wgtorch.blocks.diffusion.schedules.spacing import SPACINGS, spaced_timesteps
from wgtorch.core.block import register_block

NEARLY_PURE_NOISE = 2**-24  # alpha_bar that stands for 0 where sigma / alpha has to be finite
SIGMA_SEQUENCES = ("trained", *SIGMAS)


@dataclass(frozen=True, eq=False)
class Layout:
    """What the layouts below are made from.

    Args:
        alpha_bars: by training timestep, falling, float32 [T].
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

    def ratios(self) -> NDArray[np.float32]:
        """sigma / alpha by training timestep, rising, float32 [T]."""
        known = self.alpha_bars.copy()
        if not known[-1]:
            known[-1] = NEARLY_PURE_NOISE
        return np.sqrt((1 - known) / known)

    def level(self, timestep: int) -> Level:
        """The level of training at a timestep; before the first one, the end of the grid."""
        if timestep < 0:
            return DATA if self.to_data else self.level(0)
        bar = float(self.alpha_bars[timestep])
        return Level(bar**0.5, (1 - bar) ** 0.5)

    def spaced(self, num_steps: int, **more: Any) -> NDArray[np.float64]:
        """:func:`spaced_timesteps` of these settings."""
        if num_steps > self.total:
            raise ValueError(f"num_steps: found {num_steps}, expected at most the {self.total} timesteps of training")
        return spaced_timesteps(self.spacing, num_steps, self.total, offset=self.offset, **more)


# --- the ways that samplers' authors lay out their grids --------------------------------------------------------------


def ddpm_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> Grid:
    """Whole timesteps; each step leads to the next one (Ho et al. 2020)."""
    whole = [int(t) for t in (layout.spaced(num_steps).round() if timesteps is None else timesteps)]
    return as_grid(whole, [*(layout.level(t) for t in whole), layout.level(-1)])


def ddim_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> Grid:
    """Whole timesteps; each step leads T // num_steps timesteps down, wherever the next one starts (Song et al. 2020)."""
    grid = ddpm_grid(layout, num_steps, timesteps)
    stride = layout.total // len(grid)
    targets = tuple(layout.level(int(t) - stride) for t in grid.timesteps)
    return Grid(grid.timesteps, grid.levels, targets)


def lcm_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> Grid:
    """Timesteps that the model was distilled at, as evenly as they allow (Luo et al. 2023)."""
    if timesteps is None:
        original = (np.arange(1, layout.original_steps + 1) * (layout.total // layout.original_steps) - 1)[::-1]
        if num_steps > len(original):
            raise ValueError(f"num_steps: found {num_steps}, expected at most original_steps, {layout.original_steps}")
        timesteps = original[np.floor(np.linspace(0, len(original), num_steps, endpoint=False)).astype(np.int64)].tolist()
    return ddpm_grid(layout, num_steps, timesteps)


def euler_grid(
    layout: Layout, num_steps: int, timesteps: Sequence[float] | None = None, sigmas: Sequence[float] | None = None
) -> Grid:
    """Timesteps between those of training where they fall there; sigmas go with them (Karras et al. 2022, k-diffusion)."""
    trained = layout.ratios()
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
    levels = [vp_level(ratio) for ratio in rounded.tolist()]
    scale = 1.0 if layout.spacing == "leading" else levels[0].sigma
    return as_grid(shown, levels, start_scale=scale)


def dpm_solver_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> Grid:
    """Whole timesteps, of which the data stands for the last (Lu et al. 2022)."""
    return _dpm_solver_grid(layout, num_steps, timesteps)


def unipc_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None = None) -> Grid:
    """As for DPM-Solver; other sequences of sigmas end at their own smallest (Zhao et al. 2023)."""
    return _dpm_solver_grid(layout, num_steps, timesteps, own_end=True)


def _dpm_solver_grid(layout: Layout, num_steps: int, timesteps: Sequence[int] | None, *, own_end: bool = False) -> Grid:
    trained = layout.ratios()
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
    return as_grid(times.tolist(), [vp_level(ratio) for ratio in rounded.tolist()])


def _sequence(layout: Layout, smallest: float, largest: float, count: int) -> NDArray[np.float64]:
    low, high = layout.sigma_range
    return SIGMAS[layout.sigmas](smallest if low is None else low, largest if high is None else high, count)


CONVENTIONS: dict[str, Callable[..., Grid]] = {
    "ddpm": ddpm_grid,
    "ddim": ddim_grid,
    "lcm": lcm_grid,
    "euler": euler_grid,
    "dpm_solver": dpm_solver_grid,
    "unipc": unipc_grid,
}


@register_block("schedule/diffusion")
class DiffusionSchedule(GridSchedule):
    """Where to sample a diffusion model that was trained with noise in T timesteps.

    What the model was trained with belongs here; the solver may be changed without a word about it. Any solver walks any
    grid. ``convention`` only says how its points are chosen: each sampler's authors had a way of their own, and a picture
    is the same as theirs to the last digit only on their grid.

    Args:
        num_steps: steps of the grid.
        num_train_timesteps: T.
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2``; see :func:`make_betas`.
        beta_start: noise added at timestep 0.
        beta_end: noise added at timestep T - 1.
        trained_betas: the betas themselves [T], instead of the three above.
        rescale_betas_zero_snr: the last timestep is pure noise; see :func:`rescale_to_zero_snr`.
        convention: ``ddpm``, ``ddim``, ``lcm``, ``euler``, ``dpm_solver`` or ``unipc``.
        timestep_spacing: ``linspace``, ``leading`` or ``trailing``.
        steps_offset: added to ``leading`` timesteps.
        timesteps: the timesteps themselves, falling (Align Your Steps: Sabour et al. 2024, https://arxiv.org/abs/2404.14507).
        sigmas: ``trained``, ``karras``, ``exponential`` or ``beta`` for the conventions from ``euler`` on; or, for ``euler``,
            the sigmas themselves, falling, the end included.
        sigma_min: smallest sigma of such a sequence; training's, where left out.
        sigma_max: its largest.
        final_sigmas_type: ``zero`` ends at the data, ``sigma_min`` at the first training timestep.
        min_log_snr: ``dpm_solver`` leaves out timesteps below it.
        original_inference_steps: steps that a model for ``lcm`` was distilled from.
        timestep_type: ``discrete``, or ``continuous`` for models that take 0.25 log sigma.
    """

    def __init__(
        self,
        *,
        num_steps: int = 20,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "scaled_linear",
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        trained_betas: list[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        convention: str = "ddpm",
        timestep_spacing: str = "trailing",
        steps_offset: int = 0,
        timesteps: list[float] | None = None,
        sigmas: str | list[float] = "trained",
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        final_sigmas_type: str = "zero",
        min_log_snr: float | None = None,
        original_inference_steps: int = 50,
        timestep_type: str = "discrete",
    ) -> None:
        own = timesteps if timesteps is not None else sigmas[:-1] if isinstance(sigmas, (list, tuple)) else None
        super().__init__(num_steps if own is None else len(own))
        _one_of("convention", convention, tuple(CONVENTIONS))
        _one_of("timestep_spacing", timestep_spacing, SPACINGS)
        _one_of("final_sigmas_type", final_sigmas_type, ("zero", "sigma_min"))
        _one_of("timestep_type", timestep_type, ("discrete", "continuous"))
        self._own: dict[str, Any] = {}
        if isinstance(sigmas, str):
            _one_of("sigmas", sigmas, SIGMA_SEQUENCES)
        elif convention != "euler" or timesteps is not None:
            raise ValueError("DiffusionSchedule.sigmas: a list of sigmas needs convention 'euler', and no timesteps beside it")
        else:
            self._own = {"sigmas": tuple(_falling("sigmas", sigmas))}
        if timesteps is not None:
            self._own = {"timesteps": tuple(_falling("timesteps", timesteps))}
        if sigmas != "trained" and convention in ("ddpm", "ddim", "lcm"):
            raise ValueError(
                f"DiffusionSchedule.sigmas: found {sigmas!r} with convention {convention!r}, which keeps to timesteps of training; "
                "expected convention 'euler', 'dpm_solver' or 'unipc'"
            )
        self.convention = convention
        betas = torch.tensor(trained_betas) if trained_betas is not None else make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        bars = alpha_bars_of(rescale_to_zero_snr(betas) if rescale_betas_zero_snr else betas)
        self.layout = Layout(
            alpha_bars=bars.numpy(),
            spacing=timestep_spacing,
            offset=steps_offset,
            sigmas=sigmas if isinstance(sigmas, str) else "trained",
            sigma_range=(sigma_min, sigma_max),
            to_data=final_sigmas_type == "zero",
            min_log_snr=-float("inf") if min_log_snr is None else min_log_snr,
            original_steps=original_inference_steps,
            continuous=timestep_type == "continuous",
        )
        self.grid()

    def make_grid(self, num_steps: int, **more: Any) -> Grid:
        """A new grid; a schedule of given timesteps or sigmas has one only.

        Raises:
            ValueError: another number of steps is asked of one that has its own.
        """
        if self._own and num_steps != self.num_steps:
            raise ValueError(
                f"{self.block_id}.num_steps: found {num_steps}, but the {next(iter(self._own))} it was given are {self.num_steps} steps; "
                "leave num_steps out"
            )
        return CONVENTIONS[self.convention](self.layout, num_steps, **self._own, **more)

    def level_at(self, timestep: float | Tensor) -> tuple[Any, Any]:
        """(alpha, sigma) of training at a timestep in [0, T - 1], or at each of [B]."""
        if not isinstance(timestep, Tensor):
            return self.layout.level(int(timestep))
        bars = torch.from_numpy(self.layout.alpha_bars).to(timestep.device)[timestep.long()]
        return bars.sqrt(), (1 - bars).sqrt()


def _one_of(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"DiffusionSchedule.{name}: found {value!r}, expected one of {', '.join(known)}")


def _falling(name: str, values: Sequence[float]) -> Sequence[float]:
    if len(values) < 1 or any(later >= earlier for earlier, later in zip(values, values[1:], strict=False)):
        raise ValueError(f"DiffusionSchedule.{name}: found {list(values)}, expected numbers that fall")
    return values
