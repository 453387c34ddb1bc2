"""Any scheduler of diffusers as a schedule and a solver."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.predictions import PREDICTIONS, prediction_name
from wgtorch.blocks.diffusion.schedules.block import GridSchedule, build_schedule, cuts
from wgtorch.blocks.diffusion.schedules.grid import none_between
from wgtorch.core.block import register_block
from wgtorch.core.errors import ConfigError, PortError, UnknownNameError, require, suggest
from wgtorch.core.port import Port
from wgtorch.core.run.active_call import drawing_from
from wgtorch.core.run.rng import GeneratorRng, Rng
from wgtorch.integrations.diffusers.patches import pack, unpack
from wgtorch.ports import DONE, END, FIRST_TIMESTEP, NUM_STEPS, PROGRESS, RUN_SIGMAS, RUN_TIMESTEPS, START, STRENGTH
from wgtorch.roles import Schedule, Solver

SEQUENCES = ("karras", "exponential", "beta")
"""Of sigmas, that schedulers take by a setting ``use_..._sigmas``."""
TRAINING = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
"""Settings that say how a model of diffusion is noised in training."""


def scheduler_names() -> list[str]:
    """Class names of diffusers' own schedulers, as it lists them."""
    schedulers: Any = require("diffusers.schedulers", "diffusers")
    return sorted(name for name in dir(schedulers) if name.endswith("Scheduler"))


def scheduler_class(name: str) -> type:
    """The class of one of diffusers' own schedulers.

    Raises:
        UnknownNameError: diffusers lists no scheduler of this name, or it needs a package that is not installed.
        ConfigError: its steps take something else than a prediction, a timestep and a latent.
        MissingExtraError: diffusers is not installed.
    """
    known = scheduler_names()
    schedulers: Any = require("diffusers.schedulers", "diffusers")
    if name not in known:
        raise UnknownNameError(f"solver/diffusers.scheduler: diffusers has no scheduler {name!r}; {suggest(name, known)}")
    found = getattr(schedulers, name)
    if not (isinstance(found, type) and issubclass(found, schedulers.SchedulerMixin)):
        raise UnknownNameError(f"solver/diffusers.scheduler: {name!r} cannot be had; diffusers says that a package it needs is missing")
    wanted = inspect.signature(found.step).parameters if hasattr(found, "step") else {}
    others = [p.name for p in list(wanted.values())[4:] if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if list(wanted)[1:4] != ["model_output", "timestep", "sample"] or others or not hasattr(found, "set_timesteps"):
        raise ConfigError(
            f"solver/diffusers.scheduler: {name} steps from {list(wanted)[1:] or 'nothing'}; "
            "expected (model_output, timestep, sample) and nothing else that it needs. Such a scheduler wants a block of its own"
        )
    return found


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new scheduler.

    Raises:
        ConfigError: the config has keys that it does not take.
    """
    found: Any = scheduler_class(name)
    known = default_settings(name, config)
    for key in config:
        if key not in known:
            raise ConfigError(f"solver/diffusers.config.{key}: {name} takes no such setting; {suggest(key, known)}")
    taken = inspect.signature(found.__init__).parameters
    made = found(**{key: value for key, value in config.items() if key in taken})
    made.register_to_config(**{key: value for key, value in config.items() if key not in taken})
    return made


def default_settings(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler reads of a config, with defaults: what its constructor takes, and the ends of a sequence of sigmas.

    Many read those from the config alone, where ``from_config`` has left them of a scheduler whose constructor does take them.
    """
    parameters = inspect.signature(scheduler_class(name).__init__).parameters  # type: ignore[misc]
    found = {key: parameter.default for key, parameter in parameters.items() if parameter.default is not parameter.empty}
    if any(config.get(f"use_{sequence}_sigmas") for sequence in SEQUENCES if f"use_{sequence}_sigmas" in found):
        found = {"sigma_min": None, "sigma_max": None, **found}
    return found


def draws_in_steps(name: str, config: Mapping[str, Any], num_steps: int = 10) -> bool:
    """Whether what a scheduler's steps give depends on PyTorch's generator, found by making them twice.

    Raises:
        ValueError: its steps give no numbers; what they raise themselves is raised on.
    """
    ends = []
    for seed in range(2):
        scheduler, sample = make_scheduler(name, config), torch.ones(1, 1, 2, 2)
        scheduler.set_timesteps(num_steps)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            for now in scheduler.timesteps:
                sample = scheduler.step(shown(scheduler, sample, now), now, sample, return_dict=False)[0]
        if not bool(sample.isfinite().all()):
            raise ValueError("its latents are not finite")
        ends.append(sample)
    return not torch.equal(*ends)


def apart(scheduler: Any) -> Any:
    """A copy whose steps leave the original as it was. Schedulers replace their tensors; the lists they change are copied."""
    made = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, list):
            setattr(made, name, list(value))
    return made


@dataclass(frozen=True)
class SchedulerProgress:
    """What travels from iteration to iteration: a scheduler that has come so far. No step changes it; each gives a new one.

    Args:
        scheduler: with its timesteps set.
        iteration: iterations made.
        sample: the latent as the scheduler keeps it, where it is known; else it is found from what the model was shown.
        last: iterations after which the walk ends; all where left out.
        is_continuation: it starts from a latent that another walk has left, as the scheduler keeps it.
    """

    scheduler: Any
    iteration: int = 0
    sample: Tensor | None = None
    last: int | None = None
    is_continuation: bool = False

    @property
    def timestep(self) -> float:
        """The timestep of this iteration, 0 after the last."""
        timesteps = self.scheduler.timesteps
        return timesteps[self.iteration].item() if self.iteration < len(timesteps) else 0

    @property
    def noise_level(self) -> NoiseLevel:
        """How much data and noise the model is shown in this iteration: shown = alpha x0 + sigma eps."""
        scheduler, now = self.scheduler, self.scheduler.timesteps[self.iteration]
        if type(scheduler).__name__.startswith("FlowMatch"):
            sigma = float(scheduler.sigmas[self.iteration])
            return NoiseLevel(1 - sigma, sigma)
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[self.iteration])
            return NoiseLevel(float(alpha), float(sigma))
        alpha = float(shown(apart(scheduler), torch.ones((), dtype=torch.float64), now))  # 1 / sqrt(sigma^2 + 1) of those that scale
        if alpha == 1.0:
            alpha = float(scheduler.alphas_cumprod[int(now)]) ** 0.5
        return NoiseLevel(alpha, (1 - alpha * alpha) ** 0.5)

    def start(self, noise: Tensor, image_latent: Tensor | None = None) -> Tensor:
        """What the model is shown first: see :meth:`~wgtorch.blocks.diffusion.schedules.grid.SamplerState.start`."""
        scheduler = apart(self.scheduler)
        timesteps = scheduler.timesteps[self.iteration : self.iteration + 1]
        if self.is_continuation and image_latent is not None:
            return self.resumed(image_latent)
        if image_latent is None:
            sample = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            sample = noised(scheduler, image_latent, noise, timesteps)
        return shown(scheduler, sample.to(noise.dtype), timesteps[0])

    def resumed(self, latent: Tensor) -> Tensor:
        """The latent that a loop goes on from, as the model is shown it, of one that another has left here."""
        return shown(apart(self.scheduler), latent, self.scheduler.timesteps[self.iteration])


def noised(scheduler: Any, image_latent: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """A clean latent as it is at a timestep [1], in a scheduler's own scale."""
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(image_latent, noise, timestep)
    return scheduler.scale_noise(image_latent, timestep, noise)


def shown(scheduler: Any, sample: Tensor, timestep: Tensor) -> Tensor:
    """The latent as the model is to see it."""
    return scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample


@register_block("schedule/diffusers")
class DiffusersSchedule(Schedule):
    """The start of a loop with a scheduler of diffusers; a new scheduler for each run.

    Args:
        scheduler: class name of one of diffusers' schedulers, as in ``scheduler_config.json``.
        config: its settings.
        num_steps: where the input ``num_steps`` is not fed.
        set_timesteps: further arguments of ``set_timesteps``, such as ``mu``.
    """

    inputs: Mapping[str, Any] = {
        "num_steps": NUM_STEPS,
        "strength": STRENGTH,
        "settings": Port(dtype="dict", description="further arguments of the scheduler's set_timesteps, for this run"),
        "timesteps": RUN_TIMESTEPS,
        "sigmas": RUN_SIGMAS,
        "start": START,
        "end": END,
    }
    outputs = {"progress": PROGRESS, "timestep": FIRST_TIMESTEP}
    uses_global_rng = False

    def __init__(
        self,
        *,
        scheduler: str,
        config: dict[str, Any] | None = None,
        num_steps: int = 20,
        set_timesteps: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.scheduler, self.scheduler_config = scheduler, dict(config or {})
        self.num_steps, self.set_timesteps = num_steps, dict(set_timesteps or {})
        make_scheduler(scheduler, self.scheduler_config)  # says now what is wrong

    @cached_property
    def trained_schedule(self) -> GridSchedule | None:
        """How the scheduler's model is noised in training, by its betas or as a flow; None where it says neither."""
        known = {**default_settings(self.scheduler, self.scheduler_config), **self.scheduler_config}
        if self.scheduler.startswith("Flow") or known.get("use_flow_sigmas"):
            shift = known.get("shift", known.get("flow_shift")) or 1.0
            return build_schedule({"kind": "flow", "num_train_timesteps": known["num_train_timesteps"], "shift": shift})
        if "beta_start" not in known:
            return None
        return build_schedule({"kind": "diffusion", **{name: known[name] for name in TRAINING if known.get(name) is not None}})

    @cached_property
    def prediction(self) -> str:
        """What the backbone predicts, as the scheduler takes it.

        Raises:
            ConfigError: a prediction is no noise, data, velocity or flow to it, or it is scaled in a way of its own.
        """
        found = (
            None
            if self.scheduler.startswith("EDM")
            else make_scheduler(self.scheduler, self.scheduler_config).config.get("prediction_type")
        )
        if self.scheduler.startswith("FlowMatch"):
            found = "flow"
        if found not in (*PREDICTIONS, "flow_prediction"):
            raise ConfigError(
                f"schedule/diffusers: {self.scheduler} does not say which picture a prediction comes from (prediction_type={found!r}); "
                f"expected a scheduler with one of {', '.join(PREDICTIONS)}, or one of wgtorch's own solvers (set_solver)"
            )
        return prediction_name(found, "schedule/diffusers.prediction_type")

    def forward(
        self,
        timestep: float | Tensor | None = None,
        num_steps: int | None = None,
        strength: float | None = None,
        settings: Mapping[str, Any] | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> dict[str, Any]:
        """``progress`` for noise and solver, and the first ``timestep``."""
        lists = {name: list(given) for name, given in (("timesteps", timesteps), ("sigmas", sigmas)) if given is not None}
        if lists:
            settings = {**(settings or {}), **lists}
        scheduler = make_scheduler(self.scheduler, self.scheduler_config)
        progress = self.begun(scheduler, timestep, num_steps, None if start is not None else strength, settings)
        if start is not None or end is not None:
            progress = self._part(progress, start, end)
        return {"progress": progress, "timestep": progress.timestep}

    def begun(
        self,
        scheduler: Any,
        timestep: float | Tensor | None,
        num_steps: int | None,
        strength: float | None,
        settings: Mapping[str, Any] | None,
    ) -> SchedulerProgress:
        """The start, with the timesteps set."""
        arguments = {**self.set_timesteps, **(settings or {})}
        steps = self.num_steps if num_steps is None else int(num_steps)
        given = {"timesteps", "sigmas"} & set(arguments)
        scheduler.set_timesteps(**(arguments if given else {"num_inference_steps": steps, **arguments}))
        iterations, first = len(scheduler.timesteps), 0
        if strength is not None:
            order = getattr(scheduler, "order", 1)
            # A share of the steps asked for: PNDM makes more iterations than those.
            total = (iterations + order - 1) // order if given else steps
            made = min(int(total * float(strength)), total)
            if not 0 < strength <= 1 or made < 1:
                raise ValueError(f"strength: found {strength} with {steps} steps, expected a number from {1 / steps:.3g} to 1")
            first = (total - made) * order
        if timestep is not None:
            value = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
            found = (scheduler.timesteps.double() - value).abs() <= 1e-4 * max(1.0, abs(value))
            if not bool(found.any()):
                known = ", ".join(f"{t:g}" for t in scheduler.timesteps[:4].tolist())
                raise PortError(f"{self.block_id}.timestep: found {value:g}, expected one of the {iterations} timesteps {known}, ...")
            first = int(found.nonzero()[0])
        if first and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        return SchedulerProgress(scheduler, first)

    def _part(self, progress: SchedulerProgress, start: float | None, end: float | None) -> SchedulerProgress:
        """The walk over a part of the way."""
        scheduler = progress.scheduler
        first, last = cuts(scheduler.config.num_train_timesteps, start, end, self.block_id)
        timesteps, iteration = scheduler.timesteps.tolist(), progress.iteration
        if first is not None:
            left = sum(t < first for t in timesteps)
            if getattr(scheduler, "order", 1) == 2 and left % 2 == 0:
                left += 1  # not between the two iterations of a step
            iteration = len(timesteps) - left
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(iteration)
        stop = len(timesteps) if last is None else iteration + sum(t >= last for t in timesteps[iteration:])
        if iteration >= stop:
            raise ValueError(f"{self.block_id}: {none_between(first, last, timesteps)}")
        return replace(progress, iteration=iteration, last=stop, is_continuation=first is not None)


@register_block("solver/diffusers")
class DiffusersSolver(Solver):
    """A step of any scheduler of diffusers.

    The scheduler comes with ``progress`` from a ``schedule/diffusers`` node, so another one needs a change there only. Where no
    ``progress`` is fed, the block makes a scheduler of its own at the first iteration. Either way it travels through ``progress``, each
    iteration's apart from the last: nothing of a run is kept here. The latent on the edges is what the model is shown
    (``scale_model_input``); the last one is the scheduler's own.

    Args:
        scheduler: class name of one of diffusers' schedulers; may be left out where ``progress`` is fed.
        config: its settings.
        num_steps: of a scheduler of its own.
        step: further arguments of ``step``, such as ``eta``.
        patch: latents [B, C, h, w] are stepped as patches of this side in a row, so that noise falls as in Flux's pipeline.
    """

    inputs: Mapping[str, Any] = {
        "progress": PROGRESS,
        "eta": Port(dtype="number", description="noise of a step, in [0, 1], for schedulers that take it (DDIM, TCD)"),
    }
    outputs: Mapping[str, Any] = {"progress": PROGRESS, "done": DONE}
    uses_global_rng = False  # but what ``rng`` gives
    walks_schedule = True
    compiles = False  # schedulers count their steps in Python

    def __init__(
        self,
        *,
        scheduler: str | None = None,
        config: dict[str, Any] | None = None,
        num_steps: int = 20,
        step: dict[str, Any] | None = None,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.start = None if scheduler is None else DiffusersSchedule(scheduler=scheduler, config=config, num_steps=num_steps)
        self.step_options = dict(step or {})

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        pred: Tensor,
        progress: SchedulerProgress | None = None,
        eta: float | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """One iteration.

        Raises:
            PortError: nothing says which scheduler, ``timestep`` is not one of its timesteps, or all iterations are made.
        """
        if progress is None:
            if self.start is None:
                raise PortError(
                    f"{self.block_id}: which scheduler? Give it scheduler='...', or feed progress from a schedule/diffusers node"
                )
            progress = self.start(timestep=timestep)["progress"]
        iteration, timesteps = progress.iteration, progress.scheduler.timesteps
        if iteration >= len(timesteps):
            raise PortError(f"{self.block_id}: all {len(timesteps)} iterations are made; expected the loop to stop at `done`")
        scheduler, now = apart(progress.scheduler), timesteps[iteration]
        sample = progress.sample
        first = shown(scheduler, torch.ones((), dtype=latent.dtype) if sample is None else sample, now)
        if sample is None:
            sample = latent / first.to(latent.device)
        options: dict[str, Any] = dict(self.step_options)
        if eta is not None and "eta" in inspect.signature(scheduler.step).parameters:
            options.setdefault("eta", float(eta))
        drawing: Any = nullcontext()
        if isinstance(rng, GeneratorRng) and "generator" in inspect.signature(scheduler.step).parameters:
            options["generator"] = rng.generators[0] if len(rng.generators) == 1 else rng.generators
        if rng is not None and rng.keyed:
            # Flow matching with noise takes a generator and draws from the global one all the same.
            is_deaf = scheduler.config.get("stochastic_sampling", False)
            if "generator" in inspect.signature(scheduler.step).parameters and not is_deaf:
                options["generator"] = [rng.generator(index, len(latent)) for index in range(len(latent))]
            else:
                drawing = drawing_from(rng)
        size = sample.shape[2:]
        if self.patch > 1:
            pred, sample = pack(pred, self.patch), pack(sample, self.patch)
        with drawing:
            sample = scheduler.step(pred, now, sample, return_dict=False, **options)[0]
        if self.patch > 1:
            sample = unpack(sample, size, self.patch)
        following = replace(progress, scheduler=scheduler, iteration=iteration + 1, sample=sample)
        is_last = iteration + 1 == (progress.last or len(timesteps))
        return {
            "next_latent": sample if is_last else shown(scheduler, sample, timesteps[iteration + 1]),
            "next_timestep": following.timestep,
            "progress": following,
            "done": is_last,
        }
