"""Runs a scheduler of diffusers and a solver of ours over the same steps, with the same model and the same noise."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.schedules.block import GridSchedule
from wgtorch.blocks.diffusion.solvers.base import GridSolver, StochasticSolver

SHAPE = (2, 3, 4, 4)
SIZE = SHAPE[1] * SHAPE[2] * SHAPE[3]
Model = Callable[[Tensor, float], Tensor]


def make_model(dtype: torch.dtype, channels: int = SHAPE[1]) -> Model:
    """tanh of a fixed linear map of the latent and the timestep; [B, C, H, W] to [B, ``channels``, H, W]."""
    generator = torch.Generator().manual_seed(3)
    weight = (torch.randn(channels * SIZE // SHAPE[1], SIZE, generator=generator, dtype=torch.float64) / SIZE**0.5).to(dtype)
    shift = torch.randn(len(weight), generator=generator, dtype=torch.float64).to(dtype)

    def model(latent: Tensor, timestep: float) -> Tensor:
        return torch.tanh(latent.flatten(1) @ weight.T + shift * (float(timestep) / 700 - 1)).view(len(latent), -1, *latent.shape[2:])

    return model


@dataclass
class Trajectory:
    """What a loop did: the model's timesteps and inputs, and where it ended."""

    timesteps: list[float] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    end: Tensor = field(default_factory=lambda: torch.empty(0))


class _Double:
    """A module in whose eyes float32 is float64."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@contextmanager
def stepping(scheduler: Any, noises: Sequence[Tensor], dtype: torch.dtype) -> Iterator[None]:
    """The scheduler's module draws ``noises`` in turn. In float64 its tables keep their (float32) values, but are computed with in
    float64, also where the code of a step casts to float32."""
    module: Any = sys.modules[type(scheduler).__module__]
    drawn = iter(noises)
    patches: dict[str, Any] = {}
    if hasattr(module, "randn_tensor"):
        patches["randn_tensor"] = lambda *args, **kwargs: next(drawn)
    before = torch.get_default_dtype()
    if dtype == torch.float64:
        patches["torch"] = _Double(torch)
        for name, value in vars(scheduler).items():
            if isinstance(value, Tensor) and value.dtype == torch.float32:
                setattr(scheduler, name, value.double())
        torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.multiple(module, **patches) if patches else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


def run_theirs(
    scheduler: Any, model: Model, start: Tensor, noises: Sequence[Tensor], *, begin: int = 0, image: Tensor | None = None, **options: Any
) -> Trajectory:
    """The loop of diffusers' pipelines, over timesteps that are set already."""
    found = Trajectory()
    timesteps = scheduler.timesteps[begin:]
    with stepping(scheduler, noises, start.dtype):
        if begin and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        if image is None:
            latent = start * getattr(scheduler, "init_noise_sigma", 1.0)
        elif hasattr(scheduler, "add_noise"):
            latent = scheduler.add_noise(image, start, timesteps[:1])
        else:
            latent = scheduler.scale_noise(image, timesteps[:1], start)
        latent = latent.to(start.dtype)
        for t in timesteps:
            shown = scheduler.scale_model_input(latent, t) if hasattr(scheduler, "scale_model_input") else latent
            found.timesteps.append(float(t))
            found.inputs.append(shown)
            latent = scheduler.step(model(shown, t), t, latent, return_dict=False, **options)[0]
    found.end = latent
    return found


def run_ours(
    schedule: GridSchedule,
    solver: GridSolver,
    model: Model,
    start: Tensor,
    noises: Sequence[Tensor],
    *,
    strength: float | None = None,
    image: Tensor | None = None,
    **options: Any,
) -> Trajectory:
    """The same loop, by the blocks' ports."""
    found = Trajectory()
    begun = schedule(strength=strength, **options)
    progress, timestep = begun["progress"], begun["timestep"]
    latent = progress.start(start, image)
    drawn, done = iter(noises), False
    while not done:
        found.timesteps.append(timestep)
        found.inputs.append(latent)
        more = {"noise": next(drawn)} if isinstance(solver, StochasticSolver) else {}
        gave = solver(latent, timestep, model(latent, timestep), progress=progress, **more)
        latent, timestep, progress, done = gave["next_latent"], gave["next_timestep"], gave["progress"], gave["done"]
    found.end = latent
    return found


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def largest_difference(ours: Trajectory, theirs: Trajectory) -> float:
    """Over all inputs of the model and the end; infinite when the loops called the model at other timesteps."""
    if (
        len(ours.timesteps) != len(theirs.timesteps)
        or max(abs(a - b) for a, b in zip(ours.timesteps, theirs.timesteps, strict=True)) > 1e-3
    ):
        return float("inf")
    if not bool(theirs.end.isfinite().all()):
        return float("nan")
    pairs = [*zip(ours.inputs, theirs.inputs, strict=True), (ours.end, theirs.end)]
    return max(relative(a, b) for a, b in pairs)


def scheduler_of(name: str, **config: Any) -> Any:
    """A scheduler of diffusers by class name."""
    return getattr(importlib.import_module("diffusers"), name)(**config)


def noises_for(count: int, dtype: torch.dtype) -> list[Tensor]:
    """Standard normal noise for each turn."""
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]
