"""The schedule block: says where a sampling loop starts and which grid it walks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.schedules.grid import SamplerState, TimeGrid
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError, PortError, suggest
from wgtorch.core.port import Port
from wgtorch.ports import FIRST_TIMESTEP, NUM_STEPS, PROGRESS, RUN_SIGMAS, STRENGTH
from wgtorch.roles import Schedule

KEPT_GRIDS = 64


class GridSchedule(Schedule):
    """A schedule that lays out grids. Subclasses answer :meth:`make_grid` and :meth:`level_at`.

    The block stands before the loop: ``progress`` goes to the solver (and to the noise, whose scale it tells), ``timestep``
    to backbone and solver, in their first iteration.

    Args:
        num_steps: where the input ``num_steps`` is not fed.
    """

    inputs: Mapping[str, Any] = {"num_steps": NUM_STEPS, "strength": STRENGTH, "sigmas": RUN_SIGMAS}
    outputs: Mapping[str, Any] = {
        "progress": PROGRESS,
        "timestep": FIRST_TIMESTEP,
        "alpha": Port(dtype="number", description="share of the data at the timestep: x = alpha x0 + sigma noise"),
        "sigma": Port(dtype="number", description="deviation of the noise at the timestep"),
    }
    uses_global_rng = False
    train_timesteps = 1
    """T, of which parts are counted."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.num_steps = _count(num_steps, f"{type(self).__name__}.num_steps")
        self._grids: dict[Any, TimeGrid] = {}  # what make_grid gave, by its arguments

    def make_grid(self, num_steps: int, **more: Any) -> TimeGrid:
        """A new grid of so many steps."""
        raise NotImplementedError

    def level_at(self, timestep: float | Tensor) -> tuple[Any, Any]:
        """(alpha, sigma) of training at a timestep, or at each of a batch of them [B]."""
        raise NotImplementedError

    def grid(self, num_steps: int | None = None, **more: Any) -> TimeGrid:
        """The grid of so many steps: the same object while it is kept, so that solvers find what they made of it."""
        steps = self.num_steps if num_steps is None else _count(num_steps, f"{self.block_id}.num_steps")
        key = (steps, tuple(sorted(more.items())))
        found = self._grids.get(key)
        if found is None:
            found = self.make_grid(steps, **more)
            if len(self._grids) >= KEPT_GRIDS:
                self._grids.clear()
            self._grids[key] = found
        return found

    def grid_of(self, name: str, values: Sequence[float], **more: Any) -> TimeGrid:
        """The grid of timesteps or sigmas that a run gives.

        Raises:
            PortError: they do not fall.
        """
        known = tuple(map(float, values))
        if not known or any(later >= earlier for earlier, later in pairwise(known)):
            raise PortError(f"{self.block_id}.{name}: got {list(known)}; expected numbers that fall")
        return self.grid(self.steps_of(name, known), **{name: known}, **more)

    def steps_of(self, name: str, values: Sequence[float]) -> int:
        """Steps of a grid of such values."""
        return len(values)

    def initial_state(
        self, grid: TimeGrid, timestep: float | Tensor | None, strength: float | None, start: float | None = None, end: float | None = None
    ) -> dict[str, Any]:
        """The outputs of the block for a loop over this grid."""
        if strength is not None and start is None:
            grid = grid.slice_for(float(strength))
        if start is not None or end is not None:
            grid = grid.between(*cuts(self.train_timesteps, start, end, self.block_id))
        progress = SamplerState(grid)
        alpha, sigma = progress.grid.levels[0] if timestep is None else self.level_at(timestep)
        return {"progress": progress, "timestep": progress.timestep, "alpha": alpha, "sigma": sigma}


def build_schedule(settings: Mapping[str, Any]) -> GridSchedule:
    """A schedule from plain settings: ``{"kind": "flow", "num_steps": 28, "shift": 3.0}`` is ``schedule/flow``.

    Raises:
        ConfigError: ``kind`` is missing, or names what is not a registered schedule.
    """
    rest = dict(settings)
    kind = rest.pop("kind", None)
    known = [name.removeprefix("schedule/") for name in BlockRegistry.names() if name.startswith("schedule/")]
    if kind not in known:
        raise ConfigError(f"schedule.kind: found {kind!r}, expected one of {', '.join(known)}; {suggest(kind, known)}")
    built = BlockRegistry.build({"block_type": f"schedule/{kind}", "config": rest})
    assert isinstance(built, GridSchedule), built
    return built


def cuts(train_timesteps: int, start: float | None, end: float | None, where: str) -> tuple[int | None, int | None]:
    """The timesteps that parts of the way from noise (0) to data (1) are cut at.

    Raises:
        ValueError: they are no shares, or the end is not after the start.
    """
    for name, share in (("start", start), ("end", end)):
        if share is not None and not 0 < share < 1:
            raise PortError(f"{where}.{name}: found {share}, expected a number between 0 and 1; leave it out for the whole way")
    if start is not None and end is not None and start >= end:
        raise PortError(f"{where}.end: found {end} with a start of {start}, expected a number above it")
    first, last = (None if share is None else round(train_timesteps - share * train_timesteps) for share in (start, end))
    return first, last


def _count(value: Any, where: str) -> int:
    if int(value) != value or value < 1:
        raise PortError(f"{where}: found {value}, expected a whole number of at least 1")
    return int(value)
