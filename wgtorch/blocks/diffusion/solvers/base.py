"""What all solvers share: they walk a grid, and a turn is a weighted sum of tensors.

The step functions of this folder are linear in their tensors; what multiplies them depends on the levels of noise alone. So a
block evaluates its step on numbers - 1 for one argument and 0 for the others - once for each turn of a grid, and keeps the
weights that come out. A turn is then the least that can be done: one multiplication, and a fused addition for each further
tensor.

    step function    ddim_step(x0, eps, z, now, to, eta)        paper symbols, on tensors or numbers
    weights          turn -> (w_x, w_pred, w_z)                 Python floats, made once for a grid
    a turn           next_latent = w_x latent + w_pred pred + w_z z
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.predictions import epsilon_of, prediction_name, to_epsilon, to_x0
from wgtorch.blocks.diffusion.schedules.block import build_schedule
from wgtorch.blocks.diffusion.schedules.grid import Grid, Progress
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.rng import GLOBAL_RNG, Rng
from wgtorch.roles import Solver

Weights = Sequence[float] | Tensor
Row = Sequence[Weights] | Tensor
"""The weights of one turn, [outputs, arguments]: floats, or a tensor where a compiled loop indexes a table of them."""


def weigh(weights: Weights, tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of weights[k] tensors[k]; None when nothing has a weight.

    Args:
        weights: [K].
        tensors: [K] of [B, C, ...], or None.
    """
    total: Tensor | None = None
    if isinstance(weights, Tensor):
        for weight, tensor in zip(weights.unbind(), tensors, strict=True):
            if tensor is not None:
                total = tensor * weight if total is None else total + tensor * weight
        return total
    for weight, tensor in zip(weights, tensors, strict=True):
        if not weight or tensor is None:
            continue
        if total is None:
            total = tensor if weight == 1 else tensor * weight
        else:
            total = torch.add(total, tensor, alpha=weight)
    return total


def weights_of(function: Callable[..., Sequence[float]], count: int) -> tuple[tuple[float, ...], ...]:
    """The matrix [outputs, count] of a linear function: column k is what it gives for 1 in place k and 0 elsewhere."""
    columns = [function(*[1.0 if k == place else 0.0 for k in range(count)]) for place in range(count)]
    return tuple(tuple(map(float, row)) for row in zip(*columns, strict=True))


def limit_x0(x0: Tensor, clip: float | None, threshold: Mapping[str, float] | None) -> Tensor:
    """x0 [B, C, ...] cut to what data can be.

    Args:
        x0: the predicted data.
        clip: cut to [-clip, clip].
        threshold: dynamic thresholding (Saharia et al. 2022, https://arxiv.org/abs/2205.11487): each sample is cut at its
            own ``ratio`` quantile of |x0|, kept within [1, ``max``], and divided by it.
    """
    if threshold is None:
        return x0 if clip is None else x0.clamp(-clip, clip)
    size = x0.abs().flatten(1)
    size = size if size.dtype in (torch.float32, torch.float64) else size.float()
    limit = torch.quantile(size, threshold["ratio"], dim=1).clamp(1, threshold["max"])
    limit = limit.to(x0.dtype).view(-1, *[1] * (x0.dim() - 1))
    return x0.clamp(-limit, limit) / limit


class Guess:
    """What a prediction says about x at a level: the data and the noise in it, each found when it is asked for."""

    __slots__ = ("_given", "level", "pred", "prediction", "rederived", "x")

    def __init__(self, prediction: str, x: Any, pred: Any, level: Level, x0: Any = None, rederived: bool = False) -> None:
        self.prediction, self.x, self.pred, self.level = prediction, x, pred, level
        self._given = x0
        self.rederived = rederived

    @property
    def x0(self) -> Any:
        """The data; as it was limited, where it was."""
        return to_x0(self.prediction, self.x, self.pred, self.level) if self._given is None else self._given

    @property
    def u(self) -> Any:
        """The velocity eps - x0 of a straight flow."""
        if self.prediction == "flow" and self._given is None:
            return self.pred
        return (self.x - self.x0) / self.level.sigma

    @property
    def eps(self) -> Any:
        """The noise; what a limited x0 leaves of x, where it is to be derived from that."""
        if self.rederived and self._given is not None:
            return epsilon_of(self.x, self._given, self.level)
        return to_epsilon(self.prediction, self.x, self.pred, self.level)


class GridSolver(Solver):
    """A solver that walks a grid.

    The grid comes with ``progress``, from a schedule or noise node, and travels on with the turn it has come to. Nothing of a
    run is kept here, so two runs may share the block. Where no ``progress`` is fed, the block begins a grid of its own at
    ``timestep`` and sends it to itself. Latents are x = alpha x0 + sigma eps throughout: the backbone takes them as they are,
    whatever the solver. (What other libraries call ``scale_model_input`` and ``init_noise_sigma`` is inside the step, and in
    the grid's ``start_scale``.)

    A subclass answers :meth:`step`, and says how much it remembers. Turn by turn its arguments are x, the prediction, x0
    where it ``keeps_x0``, what it remembers, and noise where it is stochastic.

    Args:
        num_steps: of its own grid; the loop then turns for it. Left out, the loop ends when ``done`` says so.
        prediction: what the backbone predicts; see :mod:`~wgtorch.blocks.diffusion.predictions`.
        clip: limit of |x0|; see :func:`limit_x0`.
        threshold: ``{"ratio": 0.995, "max": 1.0}`` for dynamic thresholding.
        schedule: settings of its own grid, as for :func:`build_schedule`.
    """

    inputs: Mapping[str, Any] = {"progress": Port(dtype="any", optional=True)}
    outputs: Mapping[str, Any] = {"progress": "any", "done": "any"}
    draws = False

    schedule_kind = "diffusion"
    memory = 0
    """How many tensors it remembers from turn to turn."""
    keeps_x0 = False
    """True when x0 is an argument of its own, since it is remembered; else only where it is limited."""
    stochastic = False
    rederives = True
    """True when the noise is derived anew from a limited x0."""

    def __init__(
        self,
        *,
        num_steps: int | None,
        prediction: str,
        schedule: Mapping[str, Any] | None,
        clip: float | None = None,
        threshold: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        self.prediction = prediction_name(prediction, f"{where}.prediction")
        if clip is not None and clip <= 0:
            raise ValueError(f"{where}.clip: found {clip}, expected a number above 0")
        if threshold is not None and set(threshold) != {"ratio", "max"}:
            raise ValueError(f"{where}.threshold: found {dict(threshold)}, expected {{'ratio': ..., 'max': ...}}")
        self.clip = clip
        self.threshold = None if threshold is None else dict(threshold)
        self.limits = clip is not None or threshold is not None
        self.keeps_x0 = self.keeps_x0 or self.limits
        self.num_steps = num_steps
        own = {"kind": self.schedule_kind, **(schedule or {})}
        self.own_grid = build_schedule(own if num_steps is None else {**own, "num_steps": num_steps}).grid()
        self._key: Any = None

    # --- what a solver is ---------------------------------------------------------------------------------------------

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        """One turn on numbers: the next x, then what is to be remembered."""
        raise NotImplementedError

    def num_turns(self, grid: Grid) -> int:
        """Turns that it takes to walk a grid."""
        return len(grid)

    def place(self, grid: Grid, turn: int) -> tuple[float, Level]:
        """Where the backbone is called in a turn: the timestep and the level."""
        return grid.timesteps[turn], grid.levels[turn]

    @property
    def num_loop_steps(self) -> int | None:
        """Turns that a sampling loop needs, where the solver was told its number of steps."""
        return None if self.num_steps is None else self.num_turns(self.own_grid)

    # --- walking ------------------------------------------------------------------------------------------------------

    def forward(self, latent: Tensor, timestep: float | Tensor, pred: Tensor, progress: Progress | None = None) -> dict[str, Any]:
        """One turn.

        Args:
            latent: [B, C, ...].
            timestep: what the backbone was called with.
            pred: what it predicted, like ``latent``.
            progress: what this block gave in the turn before, or where a schedule or noise node says to start.

        Returns:
            ``next_latent``, ``next_timestep``, ``progress``, and ``done``: true after the last turn.

        Raises:
            PortError: ``timestep`` is not on the solver's own grid, or the grid is already walked to its end.
        """
        return self.advance(latent, timestep, pred, progress, None, None)

    def advance(
        self, latent: Tensor, timestep: float | Tensor, pred: Tensor, progress: Progress | None, noise: Tensor | None, rng: Rng | None
    ) -> dict[str, Any]:
        """One turn, with noise where the solver is stochastic."""
        grid, turn, memory = progress if progress is not None else self.begin(timestep)
        rows, timesteps = grid.memo.get(self._key) or self.table(grid)
        if turn >= len(rows):
            raise PortError(
                f"{self.block_id}: the grid of {len(rows)} turns is walked to its end; expected the loop to stop at `done`. "
                "Leave num_loop_steps out, or give it at most that"
            )
        row = rows[turn]
        if self.stochastic:
            weight = row[self.keeps_x0][-1]
            noise = None if not weight else self.noise_like(latent, rng) if noise is None else noise
        following, memory = self.take(row, latent, pred, memory, noise)
        turn += 1
        return {
            "next_latent": following,
            "next_timestep": timesteps[turn],
            "progress": Progress(grid, turn, memory),
            "done": turn == len(rows),
        }

    def take(
        self, row: Row, latent: Tensor, pred: Tensor, memory: Sequence[Tensor | None], noise: Tensor | None = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """The tensors of one turn: the next latent and what is to be remembered.

        Args:
            row: the turn's weights, of :meth:`table`; or of :meth:`tensor_table`, where a loop is compiled.
            latent: [B, C, ...].
            pred: like it.
            memory: what the turn before remembered; empty in the first.
            noise: standard normal and like ``latent``.
        """
        tensors: list[Tensor | None] = [latent, pred, *(memory or (None,) * self.memory)]
        if self.stochastic:
            tensors.append(noise)
        first = 0
        if self.keeps_x0:
            tensors.insert(2, None)
            x0 = weigh(row[0], tensors)
            tensors[2] = limit_x0(x0, self.clip, self.threshold) if self.limits and x0 is not None else x0
            first = 1
        following = weigh(row[first], tensors)
        if not self.memory:
            return following, ()
        return following, tuple([weigh(row[first + 1 + index], tensors) for index in range(self.memory)])

    def begin(self, timestep: float | Tensor) -> Progress:
        """The start of the solver's own grid at ``timestep``."""
        value = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
        return Progress(self.own_grid.rest_from(value, self.block_id))

    def noise_like(self, latent: Tensor, rng: Rng | None) -> Tensor:
        """Standard normal noise, each sample's from its own generator."""
        return (rng or GLOBAL_RNG).normal(latent.shape, dtype=latent.dtype, device=latent.device)

    # --- weights ------------------------------------------------------------------------------------------------------

    def table(self, grid: Grid) -> tuple[list[Row], list[float]]:
        """The weights of all turns over a grid; and the timesteps of all turns and of the end."""
        if self._key is None:
            self._key = (type(self), repr(sorted(self.config.items(), key=lambda item: item[0])))
        if self._key not in grid.memo:
            turns = range(self.num_turns(grid))
            rows = [self.row(grid, turn) for turn in turns]
            grid.memo[self._key] = rows, [*(self.place(grid, turn)[0] for turn in turns), grid.end]
        return grid.memo[self._key]

    def tensor_table(self, grid: Grid, **options: Any) -> Tensor:
        """The weights of all turns as one tensor [turns, outputs, arguments]; ``options`` as for ``torch.tensor``.

        A compiled loop takes a row by index and calls :meth:`take` with it, and with zeros for what is not yet remembered.
        """
        return torch.tensor(self.table(grid)[0], **options)

    def row(self, grid: Grid, turn: int) -> Row:
        """The weights of a turn [outputs, arguments]: x0 where it is kept, the next x, what is remembered."""
        level = self.place(grid, turn)[1]

        def outputs(x: float, pred: float, *rest: float) -> tuple[float, ...]:
            given, rest = (rest[:1], rest[1:]) if self.keeps_x0 else ((None,), rest)
            memory, z = rest[: self.memory], rest[-1] if self.stochastic else 0.0
            guess = Guess(self.prediction, x, pred, level, given[0], self.rederives)
            found = self.step(grid, turn, x, guess, memory, z)
            return (to_x0(self.prediction, x, pred, level), *found) if self.keeps_x0 else found

        return weights_of(outputs, 2 + self.keeps_x0 + self.memory + self.stochastic)


class StochasticSolver(GridSolver):
    """A solver that adds noise: what is fed to ``noise``, else drawn for each sample from its own generator."""

    inputs: Mapping[str, Any] = {"noise": Port(dtype="latent", optional=True)}
    stochastic = True

    def forward(  # type: ignore[override]
        self,
        latent: Tensor,
        timestep: float | Tensor,
        pred: Tensor,
        progress: Progress | None = None,
        noise: Tensor | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """One turn, as of every solver; ``noise`` is standard normal and like ``latent``."""
        return self.advance(latent, timestep, pred, progress, noise, rng)
