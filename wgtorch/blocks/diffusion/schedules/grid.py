"""The grid that a solver walks, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.core.encoding import register_stored_type
from wgtorch.core.errors import PortError


@dataclass(frozen=True, eq=False, slots=True)
class TimeGrid:
    """Steps from noise to data: what the model is called with at each, and the levels between which it leads.

    Latents are kept as x = alpha x0 + sigma eps, so they are what the model is to be called with, whatever the solver.

    Args:
        timesteps: what the backbone is called with in each step, [N].
        levels: where each step starts, and the end, [N + 1].
        targets: where each step leads, [N]; where the next one starts unless told otherwise.
        start_scale: by which standard normal noise is multiplied to start from.
        total: steps of the whole grid that this one is the rest of; N when it is whole.
        stop: steps after which a loop ends, before the data where they are fewer than N.
        is_continuation: the loop starts from a latent that another one has left here, to which no noise is added.
        is_karras: what one loop leaves to another on the way is x0 + sigma / alpha eps, as samplers in that sigma keep it (Karras et al.).
    """

    timesteps: tuple[float, ...]
    levels: tuple[NoiseLevel, ...]
    targets: tuple[NoiseLevel, ...] = ()
    start_scale: float = 1.0
    total: int = 0
    stop: int = 0
    is_continuation: bool = False
    is_karras: bool = False
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What was computed from this grid: coefficients of solvers by their settings, and slices of it."""

    def __post_init__(self) -> None:
        if not self.timesteps or len(self.levels) != len(self.timesteps) + 1:
            raise ValueError(f"TimeGrid: {len(self.timesteps)} timesteps and {len(self.levels)} levels; expected N >= 1 and N + 1")
        if not self.targets:
            object.__setattr__(self, "targets", self.levels[1:])
        if not self.total:
            object.__setattr__(self, "total", len(self.timesteps))
        if not self.stop:
            object.__setattr__(self, "stop", len(self.timesteps))

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def starts(self) -> NoiseLevel:
        """Where each step starts, as tensors [N], float64 on the CPU."""
        return stacked(self.levels[:-1])

    @property
    def ends(self) -> NoiseLevel:
        """Where each step leads, likewise."""
        return stacked(self.targets)

    @property
    def end_scale(self) -> float:
        """What the latent at the end of a loop is multiplied by to be what another one takes over."""
        return 1 / self.targets[self.stop - 1].alpha if self.is_karras and self.stop < len(self) else 1.0

    @property
    def end(self) -> float:
        """The timestep that stands for the end."""
        return type(self.timesteps[0])(0)

    def slice(self, start: int) -> TimeGrid:
        """The grid from step ``start`` on; the same object each time it is asked for."""
        return self._part(start, self.stop, self.is_continuation) if start else self

    def between(self, first: float | None, last: float | None) -> TimeGrid:
        """The part from the first timestep below ``first``, where another walk has left off, while timesteps are at least ``last``.

        Raises:
            ValueError: not one step is left.
        """
        start = 0 if first is None else next((k for k, t in enumerate(self.timesteps) if t < first), len(self))
        stop = len(self) if last is None else sum(t >= last for t in self.timesteps)
        if start >= stop:
            raise PortError(none_between(first, last, self.timesteps))
        return self._part(start, stop, first is not None)

    def _part(self, start: int, stop: int, is_continuation: bool) -> TimeGrid:
        key = ("part", start, stop, is_continuation)
        if key not in self.memo:
            scale = self.start_scale * (self.levels[start].alpha / self.levels[0].alpha if self.is_karras else 1)
            own = (self.timesteps[start:], self.levels[start:], self.targets[start:], scale, self.total)
            self.memo[key] = TimeGrid(*own, stop - start, is_continuation, self.is_karras)
        return self.memo[key]

    def slice_for(self, strength: float) -> TimeGrid:
        """The last ``strength`` of the grid, in (0, 1]: where an image that is to be changed so much is noised to.

        Raises:
            ValueError: not one step is left.
        """
        steps = min(int(len(self) * strength), len(self))
        if not 0 < strength <= 1 or steps < 1:
            raise PortError(f"strength: found {strength} with {len(self)} steps, expected a number from {1 / len(self):.3g} to 1")
        return self.slice(len(self) - steps)

    def slice_from(self, timestep: float, where: str) -> TimeGrid:
        """The grid from the step whose timestep this is.

        Raises:
            PortError: no step has this timestep.
        """
        gaps = [abs(known - timestep) for known in self.timesteps]
        near = gaps.index(min(gaps))
        if abs(self.timesteps[near] - timestep) > 1e-6 * max(1.0, abs(timestep)):
            shown = ", ".join(f"{known:g}" for known in self.timesteps[:4])
            raise PortError(
                f"{where}.timestep: found {timestep:g}, expected one of this solver's own {len(self)} timesteps {shown}, ... "
                f"Start the loop at {self.timesteps[0]:g}, or feed `progress` from a noise or schedule node, so that both agree."
            )
        return self.slice(near)


class SamplerState(NamedTuple):
    """What travels from iteration to iteration of a sampling loop: a value of the run, never kept in a module.

    Args:
        grid: the grid that is walked.
        iteration: iterations made, a number; a tensor [] where the loop is one operation of a compiled graph. A solver with two
            stages takes two iterations for a step.
        history: what a multistep solver keeps of the iterations before, tensors [B, C, ...].
        coefficients: of the solver's formula, in the latents' precision; the solver adds them in its first iteration.
    """

    grid: TimeGrid
    iteration: Any = 0
    history: tuple[Tensor, ...] = ()
    coefficients: Any = None

    @property
    def timestep(self) -> float:
        """The timestep that the grid starts at."""
        return self.grid.timesteps[0]

    @property
    def is_continuation(self) -> bool:
        """The loop starts from what another walk has left; see :class:`TimeGrid`."""
        return self.grid.is_continuation

    def start(self, noise: Tensor, image_latent: Tensor | None = None) -> Tensor:
        """The latent a loop starts from.

        Args:
            noise: standard normal, [B, C, ...].
            image_latent: a clean latent of the same shape to start near, instead of from noise alone; where the grid goes on, the
                latent itself.
        """
        if image_latent is not None and self.grid.is_continuation:
            return self.resumed(image_latent)
        if image_latent is None:
            return noise if self.grid.start_scale == 1 else noise * self.grid.start_scale
        alpha, sigma = self.grid.levels[0]
        return alpha * image_latent + sigma * noise

    def resumed(self, latent: Tensor) -> Tensor:
        """The latent that a loop goes on from, of one that another has left here."""
        return latent * self.grid.levels[0].alpha if self.grid.is_karras else latent


def stacked(levels: Sequence[NoiseLevel]) -> NoiseLevel:
    """Levels as one of tensors [N], float64 on the CPU."""
    numbers = [number for level in levels for number in level]  # a compiled graph has no other constants
    return NoiseLevel(*torch.tensor(numbers, dtype=torch.float64, device="cpu").view(-1, 2).unbind(1))


def time_grid(timesteps: Sequence[float], levels: Sequence[NoiseLevel], **more: Any) -> TimeGrid:
    """A grid of any sequences; timesteps become Python numbers."""
    return TimeGrid(tuple(timesteps), tuple(levels), **more)


def none_between(first: float | None, last: float | None, timesteps: Sequence[float]) -> str:
    """What to say where a part of the way has no step in it."""
    bounds = [f"{words} {t:g}" for words, t in (("below", first), ("at least", last)) if t is not None]
    return f"no timestep {' and '.join(bounds)} among {', '.join(f'{t:g}' for t in timesteps)}; take more steps, or a larger part"


def _grid_as_plain(grid: TimeGrid) -> dict[str, Any]:
    """A grid without its memo, which follows from the rest."""
    pairs = {"levels": [list(level) for level in grid.levels], "targets": [list(level) for level in grid.targets]}
    numbers = {name: getattr(grid, name) for name in ("start_scale", "total", "stop", "is_continuation", "is_karras")}
    return {"timesteps": list(grid.timesteps), **pairs, **numbers}


def _grid_of_plain(plain: dict[str, Any]) -> TimeGrid:
    levels = {name: tuple(NoiseLevel(*level) for level in plain[name]) for name in ("levels", "targets")}
    return TimeGrid(**{**plain, "timesteps": tuple(plain["timesteps"]), **levels})


register_stored_type("sampling/grid", TimeGrid, _grid_as_plain, _grid_of_plain)
register_stored_type(
    "sampling/state",
    SamplerState,
    lambda state: [state.grid, state.iteration, list(state.history)],  # coefficients follow from the grid and the solver
    lambda plain: SamplerState(plain[0], plain[1], tuple(plain[2])),
)
