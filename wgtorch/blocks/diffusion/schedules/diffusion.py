"""Where to sample a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.schedules.betas import alpha_bars_of, make_betas, rescale_to_zero_snr
from wgtorch.blocks.diffusion.schedules.block import GridSchedule
from wgtorch.blocks.diffusion.schedules.conventions import CONVENTIONS, Layout
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.blocks.diffusion.schedules.sigmas import SIGMAS
from wgtorch.blocks.diffusion.schedules.spacing import SPACINGS
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.ports import END, RUN_TIMESTEPS, START

NEARLY_PURE_NOISE = 2**-24  # alpha_bar that stands for 0 where sigma / alpha has to be finite
SIGMA_SEQUENCES = ("trained", *SIGMAS)


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

    inputs: Mapping[str, Any] = {"timesteps": RUN_TIMESTEPS, "start": START, "end": END}

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
        if num_train_timesteps < 1:
            raise ValueError(f"DiffusionSchedule.num_train_timesteps: found {num_train_timesteps}, expected at least 1")
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
        self.train_timesteps = num_train_timesteps if trained_betas is None else len(trained_betas)
        given = None if trained_betas is None else torch.tensor(trained_betas, dtype=torch.float32, device="cpu")
        betas = make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end) if given is None else given
        bars = alpha_bars_of(rescale_to_zero_snr(betas) if rescale_betas_zero_snr else betas)
        self.layout = Layout(
            alpha_bars=bars.numpy(),
            ratios=_ratios(bars).numpy(),
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

    def forward(
        self,
        timestep: float | Tensor | None = None,
        num_steps: int | None = None,
        strength: float | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> dict[str, Any]:
        """The start of a loop, and ``alpha`` and ``sigma`` there.

        Raises:
            PortError: both are given, they do not fall, or the convention takes timesteps only.
        """
        if sigmas is not None and (timesteps is not None or self.convention != "euler"):
            beside = "timesteps beside them" if timesteps is not None else f"convention {self.convention!r}, which takes timesteps"
            raise PortError(f"{self.block_id}.sigmas: got sigmas with {beside}; expected convention 'euler' and one of the two")
        if timesteps is not None:
            grid = self.grid_of("timesteps", timesteps)
        else:
            grid = self.grid(num_steps) if sigmas is None else self.grid_of("sigmas", sigmas)
        return self.initial_state(grid, timestep, strength, start, end)

    def steps_of(self, name: str, values: Sequence[float]) -> int:
        return len(values) - (name == "sigmas")  # the end is among them

    def make_grid(self, num_steps: int, **more: Any) -> TimeGrid:
        """A new grid; a schedule of given timesteps or sigmas has one only, but for those of a run.

        Raises:
            ValueError: another number of steps is asked of one that has its own.
        """
        own = {} if more else self._own
        if own and num_steps != self.num_steps:
            raise PortError(
                f"{self.block_id}.num_steps: found {num_steps}, but the {next(iter(self._own))} it was given are {self.num_steps} steps; "
                "leave num_steps out"
            )
        return CONVENTIONS[self.convention](self.layout, num_steps, **own, **more)

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
    if len(values) < 1 or any(later >= earlier for earlier, later in pairwise(values)):
        raise ValueError(f"DiffusionSchedule.{name}: found {list(values)}, expected numbers that fall")
    return values


def _ratios(alpha_bars: Tensor) -> Tensor:
    """sigma / alpha, with a last level that is nearly pure noise where training's is."""
    known = alpha_bars.clone()
    if not known[-1]:
        known[-1] = NEARLY_PURE_NOISE
    return ((1 - known) / known) ** 0.5
