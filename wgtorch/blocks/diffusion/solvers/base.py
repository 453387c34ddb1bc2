"""What all solvers share: they walk a grid, and nothing of a run is kept in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import Limits, ModelPrediction
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.predictions import prediction_name
from wgtorch.blocks.diffusion.schedules.block import build_schedule
from wgtorch.blocks.diffusion.schedules.grid import SamplerState, TimeGrid, stacked
from wgtorch.core.errors import PortError
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import DONE, NOISE, PROGRESS
from wgtorch.roles import Solver

Timestep = float | Tensor
History = tuple[Tensor, ...]
"""What a solver remembers from iteration to iteration."""
Stepped = tuple[Tensor, History]
"""The next x, and what is to be remembered."""


class Iteration(NamedTuple):
    """What a solver needs to know of one iteration.

    Args:
        level: where the backbone is called, numbers or tensors [].
        numbers: the coefficients of the step's formula, tensors [].
        next_timestep: what the backbone is to be called with next; 0 after the last iteration.
        is_last: the iteration arrives at the end.
        is_noisy: noise has a weight.
    """

    level: NoiseLevel
    numbers: Sequence[Tensor]
    next_timestep: Timestep
    is_last: Any
    is_noisy: bool


class Coefficients:
    """The coefficients of a solver's formula over all iterations of a grid, for latents of one dtype on one device.

    Args:
        owner: the solver's settings.
        table: alpha, sigma and the coefficients, float64 [N, K]; of a solver that is stochastic the last one is the noise's.
        timesteps: what the backbone is called with in each iteration, and the end, [N + 1].
        stop: iterations after which a loop ends.
        latent: says the dtype and the device.
        end_scale: of what a loop leaves that ends on the way.
    """

    def __init__(
        self, owner: str, table: Tensor, timesteps: Sequence[float], stop: int, latent: Tensor, is_stochastic: bool, end_scale: float = 1.0
    ) -> None:
        self.owner, self.stop, self.count, self.end_scale = owner, stop, len(table), end_scale
        self.is_stochastic = is_stochastic
        self.step_dtype = torch.float64 if latent.dtype == torch.float64 else torch.float32
        self.table = table.to(self.step_dtype).to(latent.device)
        number = torch.float64 if isinstance(timesteps[0], float) else torch.int64
        self.timesteps = torch.tensor(timesteps, dtype=number, device="cpu")
        self.iterations: list[Iteration] = []
        if not torch.compiler.is_compiling():
            noisy = (table[:, -1] != 0).tolist() if is_stochastic else [False] * len(table)
            self.iterations = [
                Iteration(NoiseLevel(*row[:2]), row[2:], timesteps[k + 1], k + 1 == stop, noisy[k])
                for k, row in enumerate(tuple(row.unbind()) for row in self.table)
            ]

    def at(self, iteration: Any, solver: Solver) -> Iteration:
        """One iteration's, by its number or a tensor [] of it.

        Raises:
            PortError: the grid is walked to its end.
        """
        if isinstance(iteration, Tensor):
            row = self.table.index_select(0, iteration.view(1).to(self.table.device))[0].unbind()
            following = self.timesteps.index_select(0, (iteration + 1).view(1))[0]
        elif iteration >= self.count:
            raise PortError(
                f"{solver.block_id}: the grid of {self.count} iterations is walked to its end; expected the loop to stop at `done`. "
                "Leave num_loop_steps out"
            )
        elif self.iterations:
            return self.iterations[iteration]
        else:  # where a loop is unrolled into a compiled graph
            row, following = self.table[iteration].unbind(), self.timesteps[iteration + 1]
        return Iteration(NoiseLevel(*row[:2]), row[2:], following, iteration + 1 == self.stop, self.is_stochastic)


class GridArguments(TypedDict, total=False):
    """Arguments of :class:`GridSolver`, which solvers pass on to it."""

    num_steps: int | None
    prediction: str
    clip: float | None
    threshold: dict[str, float] | None
    schedule: dict[str, Any] | None


class GridSolver(Solver):
    """A solver that walks a grid.

    The grid comes with ``progress``, from a schedule or noise node, and travels on with the iteration it has come to. Nothing of a
    run is kept here, so two runs may share the block. Where no ``progress`` is fed, the block begins a grid of its own at
    ``timestep`` and sends it to itself. Latents are x = alpha x0 + sigma eps throughout: the backbone takes them as they are,
    whatever the solver. (What other libraries call ``scale_model_input`` and ``init_noise_sigma`` is inside the step, and in
    the grid's ``start_scale``.)

    A subclass answers :meth:`coefficients`, once for a grid, and :meth:`step`, with a formula of
    :mod:`~wgtorch.blocks.diffusion.solvers.formulas`.

    Args:
        num_steps: of its own grid; the loop then runs for it. Left out, the loop ends when ``done`` says so.
        prediction: what the backbone predicts; see :mod:`~wgtorch.blocks.diffusion.predictions`.
        clip: limit of |x0|; see :class:`~wgtorch.blocks.diffusion.model_prediction.Limits`.
        threshold: ``{"ratio": 0.995, "max": 1.0}`` for dynamic thresholding.
        schedule: settings of its own grid, as for :func:`build_schedule`.
    """

    inputs: Mapping[str, Any] = {"progress": PROGRESS}
    outputs: Mapping[str, Any] = {"progress": PROGRESS, "done": DONE}
    uses_global_rng = False
    rows_are_samples = True
    walks_schedule = True
    compiles_alone = False  # a step is a few operations; its counters stay Python's

    schedule_kind = "diffusion"
    memory = 0
    """How many tensors it remembers from iteration to iteration."""
    stochastic = False
    learns_variance = False
    """True when a prediction is of twice the latent's channels."""

    def __init__(
        self,
        *,
        num_steps: int | None = None,
        prediction: str = "epsilon",
        clip: float | None = None,
        threshold: dict[str, float] | None = None,
        schedule: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        self.prediction = prediction_name(prediction, f"{where}.prediction")
        if clip is not None and clip <= 0:
            raise ValueError(f"{where}.clip: found {clip}, expected a number above 0")
        if threshold is not None and set(threshold) != {"ratio", "max"}:
            raise ValueError(f"{where}.threshold: found {dict(threshold)}, expected {{'ratio': ..., 'max': ...}}")
        self.limits = None if clip is None and threshold is None else Limits(clip, None if threshold is None else dict(threshold))
        self.is_of_data = self.prediction != "epsilon" or self.limits is not None
        self.num_steps = num_steps
        own = self.own_schedule = {"kind": self.schedule_kind, **(schedule or {})}
        self.own_grid = build_schedule(own if num_steps is None else {**own, "num_steps": num_steps}).grid()
        self._key = f"{type(self).__module__}.{type(self).__qualname__} {sorted(self.config.items())}"

    # --- what a solver is ---------------------------------------------------------------------------------------------

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        """What the step's formula multiplies by, one for each iteration [N], float64 on the CPU; the noise's last."""
        raise NotImplementedError

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        """The formula: the next x, and what is to be remembered."""
        raise NotImplementedError

    def iterations_in(self, steps: int) -> int:
        """Iterations that it takes to make so many steps."""
        return steps

    def places(self, grid: TimeGrid) -> tuple[Sequence[float], Sequence[NoiseLevel]]:
        """Where the backbone is called in each iteration: timesteps and levels."""
        return grid.timesteps, grid.levels[:-1]

    @property
    def num_loop_steps(self) -> int | None:  # type: ignore[override]
        """Iterations that a sampling loop needs, where the solver was told its number of steps."""
        return None if self.num_steps is None else self.iterations_in(len(self.own_grid))

    # --- walking ------------------------------------------------------------------------------------------------------

    def forward(self, latent: Tensor, timestep: Timestep, pred: Tensor, progress: SamplerState | None = None) -> dict[str, Any]:
        """One iteration.

        Returns:
            ``next_latent``, ``next_timestep``, ``progress``, and ``done``: true after the last iteration.

        Raises:
            PortError: ``timestep`` is not on the solver's own grid, the grid is already walked to its end, or it has another number
                of steps than the solver was told.
        """
        return self.iterate(latent, timestep, pred, progress, None, GLOBAL_RNG)

    def iterate(
        self, latent: Tensor, timestep: Timestep, pred: Tensor, progress: SamplerState | None, noise: Tensor | None, rng: Rng
    ) -> dict[str, Any]:
        """As :meth:`forward`, with the noise of a stochastic solver, or where it is drawn from."""
        known = None if progress is None else progress.coefficients
        if known is None or known.owner != self._key:
            progress = self.initial_state(latent, timestep, progress)
        grid, iteration, history, known = progress  # type: ignore[misc]
        level, numbers, next_timestep, is_last, is_noisy = known.at(iteration, self)
        if pred.shape != latent.shape or self.learns_variance:
            self.check_shape(latent, pred)
        if not is_noisy:
            noise = None
        elif noise is None:
            noise = rng.normal(latent.shape, dtype=latent.dtype, device=latent.device)
        dtype = latent.dtype
        is_narrow = dtype is not known.step_dtype  # half precision would round the coefficients
        if is_narrow:
            latent, pred = latent.to(known.step_dtype), pred.to(known.step_dtype)
        model = ModelPrediction(self.prediction, latent, pred, level, self.limits)
        following, history = self.step(latent, model, history, noise, numbers)
        if known.end_scale != 1:
            following = torch.where(torch.as_tensor(is_last, device=following.device), following * known.end_scale, following)
        if is_narrow:
            following, history = following.to(dtype), tuple([past.to(dtype) for past in history])
        return {
            "next_latent": following,
            "next_timestep": next_timestep,
            "progress": tuple.__new__(SamplerState, (grid, iteration + 1, history, known)),
            "done": is_last,
        }

    def initial_state(self, latent: Tensor, timestep: Timestep, progress: SamplerState | None = None) -> SamplerState:
        """Where a loop starts: ``progress``, or its own grid at ``timestep``; with the coefficients, and zeros for what is not yet
        remembered.

        Raises:
            PortError: the grid has another number of steps than the solver was told, or no such timestep.
        """
        if progress is None:
            value = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
            progress = SamplerState(self.own_grid.slice_from(value, self.block_id))
        grid = progress.grid
        if self.num_steps is not None and grid.total != self.num_steps:
            raise PortError(
                f"{self.block_id}: the solver was told num_steps = {self.num_steps}, but progress brings a grid of {grid.total} steps; "
                "leave num_steps out of one of them, or make them equal"
            )
        history = progress.history or tuple([torch.zeros_like(latent) for _ in range(self.memory)])
        return SamplerState(grid, progress.iteration, history, self.coefficients_over(grid, latent))

    def iterations_left(self, state: SamplerState) -> int:
        """Iterations until ``done``, of a state that :meth:`initial_state` gave."""
        return state.coefficients.stop - state.iteration

    def coefficients_over(self, grid: TimeGrid, latent: Tensor) -> Coefficients:
        """The coefficients of all iterations over a grid, for such latents; made once."""
        key = (self._key, latent.dtype, latent.device)
        found = grid.memo.get(key)
        if found is None:
            with torch.inference_mode(False):  # a run with gradients may be the next to need them
                found = self._tabulated(grid, latent)
            if not torch.compiler.is_compiling():  # what is made while compiling must not stay
                grid.memo[key] = found
        return found

    def _tabulated(self, grid: TimeGrid, latent: Tensor) -> Coefficients:
        timesteps, levels = self.places(grid)
        level = stacked(levels)
        columns = [*level, *self.coefficients(grid)]
        table = torch.stack(columns, dim=1)
        for k in [k for k, (alpha, sigma) in enumerate(levels) if not (alpha and sigma)]:
            # The formula on zeros says whether it can be had where there is no data, or no noise.
            zeros = torch.zeros(1, 2, dtype=torch.float64)
            model = ModelPrediction(self.prediction, zeros, zeros, levels[k], self.limits)
            self.step(zeros, model, (zeros,) * self.memory, zeros, table[k, 2:].unbind())
        stop = self.iterations_in(grid.stop)
        return Coefficients(self._key, table, [*timesteps, grid.end], stop, latent, self.stochastic, grid.end_scale)

    def check_shape(self, latent: Tensor, pred: Tensor) -> None:
        """Called where a prediction has another shape than the latent, or a variance is predicted.

        Raises:
            PortError: it is not what the solver takes.
        """
        mend = "A model that also predicts a variance has twice the channels: take solver/ddpm with variance='learned_range'"
        if pred.shape[0] != latent.shape[0]:
            mend = "A guided batch holds more rows than the latent: its halves are joined by a guidance node, behind diffusers/split"
        raise PortError(
            f"{self.block_id}.pred: found shape {list(pred.shape)} for a latent of {list(latent.shape)}; expected the same. {mend}"
        )


class StochasticSolver(GridSolver):
    """A solver that adds noise: what is fed to ``noise``, else drawn for each sample from its own generator."""

    inputs: Mapping[str, Any] = {"noise": NOISE}
    stochastic = True

    def forward(  # type: ignore[override]
        self,
        latent: Tensor,
        timestep: Timestep,
        pred: Tensor,
        progress: SamplerState | None = None,
        noise: Tensor | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """One iteration, as of every solver; ``noise`` is standard normal and like ``latent``."""
        return self.iterate(latent, timestep, pred, progress, noise, rng or GLOBAL_RNG)


def one_before(level: NoiseLevel) -> NoiseLevel:
    """The levels [N] of the step before; the first one's own, where there is none."""
    return NoiseLevel(*[torch.cat([value[:1], value[:-1]]) for value in level])


def check_data(grid: TimeGrid, where: str) -> None:
    """Refuses grids that start at pure noise, for solvers in sigma / alpha.

    Raises:
        ValueError: a level has no data, so x cannot be scaled to have it once.
    """
    if not all(level.alpha for level in grid.levels[:-1]):
        raise ValueError(
            f"{where}: the grid starts at pure noise (alpha = 0), where sigma / alpha has no value; "
            "use a solver without it (solver/flow_euler for flows, solver/ddim), or another schedule"
        )
