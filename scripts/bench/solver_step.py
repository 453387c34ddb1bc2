#!/usr/bin/env python
"""What a solver's step costs: CPU microseconds, beside the diffusers scheduler of the same settings.

    python scripts/bench/solver_step.py                          # all solvers, on a latent of 4x32x32; about half a minute
    python scripts/bench/solver_step.py --only euler unipc       # some of them
    python scripts/bench/solver_step.py --shape 1 4 64 64 --steps 50

Both walk whole trajectories with a model that costs nothing (its answer is a tensor that is there already), in one process, in
interleaved rounds, and only the calls of the step are timed; a figure is the least of its rounds, per turn. Theirs is
``scheduler.step``; where the scheduler scales the model's input, that call is its own column, since here the step does it.
Ours is the block's call, with its ports, and the step as a pure function of tensors, without module, ports and the walk over
the grid. Both are set against a quarter of theirs. Before that both must arrive at the same latent.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wgtorch import BlockRegistry
from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules import SamplerState

TARGET = 0.25
SETTINGS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Pair:
    """A solver and the scheduler that it is equal to."""

    solver: str
    scheduler: str
    schedule: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    noisy: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def diffusion(convention: str, spacing: str = "leading") -> dict[str, Any]:
    return {"kind": "diffusion", "convention": convention, "timestep_spacing": spacing, **SETTINGS}


def flow() -> dict[str, Any]:
    return {"kind": "flow", "convention": "trained", "shift": 3.0}


PAIRS = {
    "ddpm": Pair("solver/ddpm", "DDPMScheduler", diffusion("ddpm"), {**SETTINGS, "clip_sample": False}, noisy=True),
    "ddim": Pair("solver/ddim", "DDIMScheduler", diffusion("ddim"), {**SETTINGS, "clip_sample": False}),
    "euler": Pair("solver/euler", "EulerDiscreteScheduler", diffusion("euler", "linspace"), SETTINGS),
    "euler_ancestral": Pair(
        "solver/euler_ancestral", "EulerAncestralDiscreteScheduler", diffusion("euler", "linspace"), SETTINGS, noisy=True
    ),
    "heun": Pair("solver/heun", "HeunDiscreteScheduler", diffusion("euler", "linspace"), SETTINGS),
    "dpmpp_2m": Pair("solver/dpmpp_2m", "DPMSolverMultistepScheduler", diffusion("dpm_solver", "linspace"), SETTINGS),
    "dpmpp_2m_sde": Pair(
        "solver/dpmpp_2m_sde",
        "DPMSolverMultistepScheduler",
        diffusion("dpm_solver", "linspace"),
        {**SETTINGS, "algorithm_type": "sde-dpmsolver++"},
        noisy=True,
    ),
    "unipc": Pair("solver/unipc", "UniPCMultistepScheduler", diffusion("unipc", "linspace"), SETTINGS),
    "lcm": Pair("solver/lcm", "LCMScheduler", diffusion("lcm"), SETTINGS, noisy=True),
    "flow_euler": Pair("solver/flow_euler", "FlowMatchEulerDiscreteScheduler", flow(), {"shift": 3.0}),
    "flow_heun": Pair("solver/flow_heun", "FlowMatchHeunDiscreteScheduler", flow(), {"shift": 3.0}),
}


class Race:
    """One pair, ready to run.

    Noise is drawn beforehand and handed to both, so that a step is timed and not the generator.
    """

    def __init__(self, pair: Pair, shape: Sequence[int], steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.start = torch.randn(*shape, generator=generator)
        self.pred = torch.randn(*shape, generator=generator)
        self.noise = torch.randn(*shape, generator=generator)
        self.pair, self.steps = pair, steps
        self.scheduler = getattr(importlib.import_module("diffusers"), pair.scheduler)(**pair.config)
        module: Any = sys.modules[type(self.scheduler).__module__]
        if pair.noisy:
            module.randn_tensor = lambda *args, **kwargs: self.noise
        prediction = "flow" if pair.schedule["kind"] == "flow" else "epsilon"
        self.solver: Any = BlockRegistry.build({"block_type": pair.solver, "config": {"prediction": prediction}})
        settings = {key: value for key, value in pair.schedule.items() if key != "kind"}
        kind = f"schedule/{pair.schedule['kind']}"
        self.schedule: Any = BlockRegistry.build({"block_type": kind, "config": {**settings, "num_steps": steps}})
        self.grid = self.schedule.grid()

    def theirs(self) -> tuple[Tensor, float, float]:
        """The end, and nanoseconds per turn of ``step`` and of ``scale_model_input``."""
        scheduler, pred, clock = self.scheduler, self.pred, time.perf_counter_ns
        scheduler.set_timesteps(self.steps)
        latent, stepping, scaling = self.start * getattr(scheduler, "init_noise_sigma", 1.0), 0, 0
        scale = getattr(scheduler, "scale_model_input", None)
        for t in scheduler.timesteps:
            begun = clock()
            if scale is not None:
                scale(latent, t)
            scaled = clock()
            latent = scheduler.step(pred, t, latent, return_dict=False)[0]
            stepping += clock() - scaled
            scaling += scaled - begun
        turns = len(scheduler.timesteps)
        return latent, stepping / turns, scaling / turns

    def ours(self) -> tuple[Tensor, float]:
        """The end, and nanoseconds per turn of the block's call."""
        solver, pred, clock = self.solver, self.pred, time.perf_counter_ns
        progress = SamplerState(self.grid)
        latent, timestep, spent, turns, done = progress.start(self.start), progress.timestep, 0, 0, False
        more = {"noise": self.noise} if self.pair.noisy else {}
        while not done:
            begun = clock()
            gave = solver(latent, timestep, pred, progress, **more)
            spent += clock() - begun
            latent, timestep, progress, done = gave["next_latent"], gave["next_timestep"], gave["progress"], gave["done"]
            turns += 1
        return latent, spent / turns

    def bare(self) -> tuple[Tensor, float]:
        """The end, and nanoseconds per turn of the formula alone."""
        solver, pred, clock = self.solver, self.pred, time.perf_counter_ns
        state = solver.initial_state(SamplerState(self.grid).start(self.start), self.grid.timesteps[0], SamplerState(self.grid))
        latent, history, spent = SamplerState(self.grid).start(self.start), state.history, 0
        for at in state.coefficients.iterations:
            begun = clock()
            model = ModelPrediction(solver.prediction, latent, pred, at.level)
            latent, history = solver.step(latent, model, history, self.noise if at.is_noisy else None, at.numbers)
            spent += clock() - begun
        return latent, spent / state.coefficients.count


@dataclass
class Row:
    """Microseconds per turn."""

    step: float = float("inf")
    scaling: float = float("inf")
    block: float = float("inf")
    pure: float = float("inf")


def measure(names: Sequence[str], shape: Sequence[int], steps: int, rounds: int) -> dict[str, Row]:
    races = {name: Race(PAIRS[name], shape, steps) for name in names}
    rows = {name: Row() for name in names}
    for name, race in races.items():
        theirs, ours, bare = race.theirs()[0], race.ours()[0], race.bare()[0]
        far = float((theirs - ours).abs().max() / theirs.abs().max())
        assert far < 1e-5 and torch.equal(ours, bare), f"{name}: the ends differ by {far:.1e} of the largest value"
    for _ in range(rounds):
        for name, race in races.items():
            row = rows[name]
            _, step, scaling = race.theirs()
            row.step, row.scaling = min(row.step, step / 1000), min(row.scaling, scaling / 1000)
            row.block = min(row.block, race.ours()[1] / 1000)
            row.pure = min(row.pure, race.bare()[1] / 1000)
    return rows


def show(rows: dict[str, Row], write: Callable[[str], Any] = print) -> None:
    write(f"{'':16}{'diffusers':>20}{'wgtorch':>20}{'pure step':>12}{'block call':>12}{'block call':>12}")
    write(f"{'':16}{'step':>10}{'scaling':>10}{'pure':>10}{'block':>10}{'/ step':>12}{'/ step':>12}{'/ both':>12}")
    for name, row in rows.items():
        figures = f"{name:16}{row.step:10.1f}{row.scaling:10.1f}{row.pure:10.1f}{row.block:10.1f}"
        pure, block, both = row.pure / row.step, row.block / row.step, row.block / (row.step + row.scaling)
        write(f"{figures}{pure:12.2f}{block:12.2f}{both:12.2f}   {verdict(row)}".rstrip())


def verdict(row: Row) -> str:
    """In words, which of the two is within a quarter of their step."""
    if row.block <= TARGET * row.step:
        return ""
    return "pure step within a quarter, block call not" if row.pure <= TARGET * row.step else "neither within a quarter"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(PAIRS), default=tuple(PAIRS))
    parser.add_argument("--shape", nargs="+", type=int, default=[1, 4, 32, 32])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = measure(given.only, given.shape, given.steps, given.rounds)
    print(f"microseconds per turn on {given.shape}, {given.steps} steps; {platform.processor() or platform.machine()}, one thread")
    show(rows)


if __name__ == "__main__":
    main()
