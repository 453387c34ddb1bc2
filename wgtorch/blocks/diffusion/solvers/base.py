"""What all solvers share: they walk a grid, and nothing of a walk is kept in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.levels import Level
from wgtorch.blocks.diffusion.predictions import prediction_name, to_x0
from wgtorch.blocks.diffusion.schedules.block import build_schedule
from wgtorch.blocks.diffusion.schedules.grid import Grid, Progress
from wgtorch.blocks.diffusion.solvers.guess import Guess, limit_x0
from wgtorch.blocks.diffusion.solvers.weights import Matrix, Row, Turn, TurnTensors, pair_of, quickened, weigh, weigh_pair, weights_of
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.loop_compiler import Ahead
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.roles import Solver

_QUICK = torch.float32


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
    uses_global_rng = False

    schedule_kind = "diffusion"
    memory = 0
    """How many tensors it remembers from turn to turn."""
    keeps_x0 = False
    """True when x0 is an argument of its own, since it is remembered; else only where it is limited."""
    stochastic = False
    literal = False
    """True when :meth:`take_literally` makes the turns."""
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
        self._key = ""

    # --- what a solver is ---------------------------------------------------------------------------------------------

    def step(self, grid: Grid, turn: int, x: Any, guess: Guess, memory: Sequence[Any], z: Any) -> tuple[Any, ...]:
        """One turn on numbers: the next x, then what is to be remembered."""
        raise NotImplementedError

    def turns_in(self, steps: int) -> int:
        """Turns that it takes to make so many steps."""
        return steps

    def num_turns(self, grid: Grid) -> int:
        """Turns that it takes to walk a grid to its end."""
        return self.turns_in(len(grid))

    def place(self, grid: Grid, turn: int) -> tuple[float, Level]:
        """Where the backbone is called in a turn: the timestep and the level."""
        return grid.timesteps[turn], grid.levels[turn]

    def matrix(self, grid: Grid, turn: int) -> Matrix:
        """The weights of a turn [outputs, arguments]: x0 where it is an argument, the next x, what is remembered."""
        level = self.place(grid, turn)[1]

        def outputs(x: float, pred: float, *rest: float) -> tuple[float, ...]:
            given, rest = (rest[0], rest[1:]) if self.keeps_x0 else (None, rest)
            guess = Guess(self.prediction, x, pred, level, given, self.rederives)
            found = self.step(grid, turn, x, guess, rest[: self.memory], rest[-1] if self.stochastic else 0.0)
            return (to_x0(self.prediction, x, pred, level), *found) if self.keeps_x0 else found

        return weights_of(outputs, 2 + self.keeps_x0 + self.memory + self.stochastic)

    @property
    def num_loop_steps(self) -> int | None:  # type: ignore[override]
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
            PortError: ``timestep`` is not on the solver's own grid, the grid is already walked to its end, or it has another number
                of steps than the solver was told.
        """
        if progress.__class__ is TurnTensors:
            return self.from_tensors(latent, pred, progress, None)
        grid, turn, memory = progress or self.begin(timestep)
        turns = grid.memo.get(self._key)  # planned() again, without its checks where they cannot fail
        plan = turns[turn] if turns is not None and 0 < turn < len(turns) else self.planned(grid, turn)
        row, _, next_timestep, is_last, _, quick, pair = plan
        if pred.shape != latent.shape:
            self.check_shape(latent, pred)
        is_quick = latent.dtype is _QUICK
        if is_quick and pair is not None:
            following = weigh_pair(pair, latent, pred)
        else:
            following, memory = self.take(quick if is_quick else row, latent, pred, memory)
        return {
            "next_latent": following,
            "next_timestep": next_timestep,
            "progress": tuple.__new__(Progress, (grid, turn + 1, memory)),
            "done": is_last,
        }

    # --- compiled loops -------------------------------------------------------------------------------------------------

    turn_port = "progress"
    turn_needs = ("latent", "timestep")

    def before_turn(self, inputs: Mapping[str, Any], rng: Rng) -> Ahead:
        """What a compiled loop body is told of a turn: its weights as a tensor, so that one compilation serves all turns.

        Args:
            inputs: ``latent``, ``timestep``, and ``progress`` where there is any.
            rng: where noise is drawn from.
        """
        latent: Tensor = inputs["latent"]
        grid, turn, memory = inputs.get("progress") or self.begin(inputs["timestep"])
        plan = self.planned(grid, turn)
        tensors = self._turn_tensors(grid, turn, latent)
        if self.memory and not memory:
            memory = tuple([torch.zeros_like(latent) for _ in range(self.memory)])
        if self.stochastic and "noise" not in inputs:
            shape = latent.shape
            noise = rng.normal(shape, dtype=latent.dtype, device=latent.device) if plan.is_noisy else torch.zeros_like(latent)
            tensors = tensors._replace(noise=noise)

        def finish(outputs: Mapping[str, Any]) -> dict[str, Any]:
            following = Progress(grid, turn + 1, outputs.get("progress", ()))
            return {"progress": following, "next_timestep": plan.next_timestep, "done": plan.is_last}

        return Ahead(tensors._replace(memory=memory), finish)

    def _turn_tensors(self, grid: Grid, turn: int, latent: Tensor) -> TurnTensors:
        dtype = torch.float64 if latent.dtype == torch.float64 else torch.float32
        if torch.compiler.is_compiling():  # what is made while compiling must not stay in the grid
            plan = self.turns_over(grid)[turn]
            row = torch.tensor(plan.matrix, dtype=dtype, device=latent.device)
            return TurnTensors(row, torch.tensor(plan.next_timestep), torch.tensor(plan.is_last))
        key = (self._key, dtype, latent.device)
        found = grid.memo.get(key)
        if found is None:
            with torch.inference_mode(False):  # a run with gradients may be the next to need them
                table = self.tensor_table(grid, dtype=dtype, device=latent.device)
                plans = self.turns_over(grid)
                number = torch.float64 if isinstance(plans[0].next_timestep, float) else torch.int64
                timesteps = torch.tensor([plan.next_timestep for plan in plans], dtype=number)
                ends = torch.tensor([plan.is_last for plan in plans])
                found = grid.memo[key] = [TurnTensors(*tensors) for tensors in zip(table, timesteps, ends, strict=True)]
        return found[turn]

    def from_tensors(self, latent: Tensor, pred: Tensor, known: TurnTensors, noise: Tensor | None) -> dict[str, Any]:
        """The tensors' part of a turn, as it is compiled."""
        if pred.shape != latent.shape:
            self.check_shape(latent, pred)
        following, memory = self.take(known.row, latent, pred, known.memory, known.noise if noise is None else noise)
        return {"next_latent": following, "next_timestep": known.next_timestep, "progress": memory, "done": known.is_last}

    def take(
        self, row: Row, latent: Tensor, pred: Tensor, memory: Sequence[Tensor | None], noise: Tensor | None = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """The tensors of one turn: the next latent and what is to be remembered.

        Args:
            row: of :meth:`turns_over`; or of :meth:`tensor_table`, where a loop is compiled.
            latent: [B, C, ...].
            pred: like it.
            memory: what the turn before remembered; empty in the first.
            noise: standard normal and like ``latent``.
        """
        if self.literal:
            return self.take_literally(row, latent, pred, memory, noise)
        if not (self.keeps_x0 or self.memory):
            return weigh(row[0], (latent, pred, noise)), ()
        tensors: list[Any] = [latent, pred, *(memory or (None,) * self.memory)]
        if self.stochastic:
            tensors.append(noise)
        if not self.keeps_x0 and self.memory == 1:
            return weigh(row[0], tensors), (weigh(row[1], tensors),)
        first = 0
        if self.keeps_x0:
            tensors.insert(2, None)
            x0 = weigh(row[0], tensors)
            tensors[2] = limit_x0(x0, self.clip, self.threshold) if self.limits else x0
            first = 1
        following = weigh(row[first], tensors)
        return following, tuple([weigh(row[first + 1 + index], tensors) for index in range(self.memory)])

    def take_literally(
        self, row: Row, latent: Tensor, pred: Tensor, memory: Sequence[Tensor | None], noise: Tensor | None = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """As :meth:`take`, of a solver that does more with the weights than weigh."""
        raise NotImplementedError

    def check_shape(self, latent: Tensor, pred: Tensor) -> None:
        """Called where a prediction has another shape than the latent.

        Raises:
            PortError: always, unless the solver knows what to do with it.
        """
        raise PortError(
            f"{self.block_id}.pred: found shape {list(pred.shape)} for a latent of {list(latent.shape)}; expected the same. "
            "A model that also predicts a variance has twice the channels: take solver/ddpm with variance='learned_range'"
        )

    def planned(self, grid: Grid, turn: int) -> Turn:
        """What was made of the grid for a turn.

        Raises:
            PortError: the grid is walked to its end, or has another number of steps than the solver was told.
        """
        if not turn and self.num_steps is not None and grid.total != self.num_steps:
            raise PortError(
                f"{self.block_id}: the solver was told num_steps = {self.num_steps}, but progress brings a grid of {grid.total} steps; "
                "leave num_steps out of one of them, or make them equal"
            )
        turns = grid.memo.get(self._key) or self.turns_over(grid)
        if turn >= len(turns):
            raise PortError(
                f"{self.block_id}: the grid of {len(turns)} turns is walked to its end; expected the loop to stop at `done`. "
                "Leave num_loop_steps out, or give it at most that"
            )
        return turns[turn]

    def begin(self, timestep: float | Tensor) -> Progress:
        """The start of the solver's own grid at ``timestep``."""
        value = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
        return Progress(self.own_grid.rest_from(value, self.block_id))

    # --- tables -------------------------------------------------------------------------------------------------------

    def turns_over(self, grid: Grid) -> list[Turn]:
        """All turns over a grid, made once."""
        if not self._key:
            self._key = f"{type(self).__module__}.{type(self).__qualname__} {sorted(self.config.items())}"
        if self._key not in grid.memo:
            count, last = self.num_turns(grid), self.turns_in(grid.walked)
            timesteps = [*(self.place(grid, turn)[0] for turn in range(count)), grid.end]
            matrices = [self.matrix(grid, turn) for turn in range(count)]
            rows = [tuple(tuple((k, weight) for k, weight in enumerate(weights) if weight) for weights in matrix) for matrix in matrices]
            is_bare = torch.compiler.is_compiling() or self.literal  # tensors made while compiling must not stay
            quick = rows if is_bare else [quickened(row) for row in rows]
            is_plain = not (is_bare or self.keeps_x0 or self.memory)
            grid.memo[self._key] = [
                Turn(
                    row=rows[turn],
                    matrix=matrix,
                    next_timestep=timesteps[turn + 1],
                    is_last=turn + 1 == last,
                    is_noisy=self.stochastic and matrix[int(self.keeps_x0)][-1] != 0,
                    quick=quick[turn],
                    pair=pair_of(quick[turn]) if is_plain else None,
                )
                for turn, matrix in enumerate(matrices)
            ]
        return grid.memo[self._key]

    def tensor_table(self, grid: Grid, **options: Any) -> Tensor:
        """The weights of all turns as one tensor [turns, outputs, arguments]; ``options`` as for ``torch.tensor``.

        A compiled loop body is given one row of it as an input, for :meth:`take`, and zeros for what is not yet remembered: then one
        compilation serves all turns.
        """
        return torch.tensor([turn.matrix for turn in self.turns_over(grid)], **options)


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
        if progress.__class__ is TurnTensors:
            return self.from_tensors(latent, pred, progress, noise)
        grid, turn, memory = progress or self.begin(timestep)
        row, _, next_timestep, is_last, is_noisy, quick, pair = self.planned(grid, turn)
        if pred.shape != latent.shape:
            self.check_shape(latent, pred)
        is_quick = latent.dtype is _QUICK
        if is_quick and pair is not None:  # without noise
            following = weigh_pair(pair, latent, pred)
        else:
            if not is_noisy:
                noise = None
            elif noise is None:
                noise = (rng or GLOBAL_RNG).normal(latent.shape, dtype=latent.dtype, device=latent.device)
            following, memory = self.take(quick if is_quick else row, latent, pred, memory, noise)
        return {
            "next_latent": following,
            "next_timestep": next_timestep,
            "progress": tuple.__new__(Progress, (grid, turn + 1, memory)),
            "done": is_last,
        }
