"""Schedulers of diffusers in our own words: a schedule and a solver, or the wrapper where we have no such solver."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from wgtorch.blocks.diffusion.schedules.betas import BETA_SCHEDULES
from wgtorch.blocks.diffusion.solvers.ddpm import VARIANCES
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.schedulers import scheduler_class

_TRAINING = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
_SPACING = ("timestep_spacing", "steps_offset")
_SEQUENCES = ("karras", "exponential", "beta")


class _Unknown(Exception):
    """A setting that our solvers do not have."""


class _Settings:
    """A scheduler's settings, defaults filled in, of which each is taken once."""

    def __init__(self, scheduler: str, config: Mapping[str, Any]) -> None:
        parameters = inspect.signature(scheduler_class(scheduler).__init__).parameters  # type: ignore[misc]
        self.defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        self.given = {name: value for name, value in config.items() if name in self.defaults}
        self._left = {**self.defaults, **self.given}

    def take(self, name: str, *known: Any) -> Any:
        value = self._left.pop(name, None)
        if known and value not in known:
            raise _Unknown(name)
        return value

    def taken(self, *names: str) -> dict[str, Any]:
        return {name: self._left.pop(name) for name in names if name in self._left}

    def done(self) -> None:
        """Refuses what nobody took and is not as diffusers has it."""
        for name, value in self._left.items():
            if value != self.defaults[name]:
                raise _Unknown(name)


def blocks_for(scheduler: str, config: Mapping[str, Any], num_steps: int) -> tuple[Block, Block]:
    """(schedule, solver) that walk as a scheduler of diffusers does.

    Args:
        scheduler: its class name.
        config: its settings, as in ``scheduler_config.json``.
        num_steps: of a run that says nothing else.

    Raises:
        UnknownNameError: diffusers has no such scheduler.
    """
    settings = _Settings(scheduler, config)
    if scheduler == "FlowMatchEulerDiscreteScheduler":
        return _flow(settings, num_steps)
    try:
        name, schedule, solver = _translated(scheduler, settings)
        settings.done()
    except _Unknown:
        return _wrapped(scheduler, settings, num_steps)
    return _built("schedule/diffusion", {**schedule, "num_steps": num_steps}), _built(f"solver/{name}", solver)


def _wrapped(scheduler: str, settings: _Settings, num_steps: int) -> tuple[Block, Block]:
    config = {"scheduler": scheduler, "config": {**settings.given}, "num_steps": num_steps}
    return _built("schedule/diffusers", config), _built("solver/diffusers", {})


def _flow(settings: _Settings, num_steps: int) -> tuple[Block, Block]:
    schedule = {"convention": "trained", "num_steps": num_steps, **settings.taken("num_train_timesteps", "shift")}
    try:
        settings.done()
    except _Unknown:
        return _wrapped("FlowMatchEulerDiscreteScheduler", settings, num_steps)
    return _built("schedule/flow", schedule), _built("solver/flow_euler", {})


def _built(block_type: str, config: Mapping[str, Any]) -> Block:
    return BlockRegistry.build({"block_type": block_type, "config": dict(config)})


def _translated(scheduler: str, settings: _Settings) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if scheduler not in _TRANSLATIONS:
        raise _Unknown(scheduler)
    convention, translate = _TRANSLATIONS[scheduler]
    schedule = {"convention": convention, **settings.taken(*_TRAINING), **settings.taken(*_SPACING)}
    if schedule["beta_schedule"] not in BETA_SCHEDULES and schedule["trained_betas"] is None:
        raise _Unknown("beta_schedule")
    schedule["trained_betas"] = None if schedule["trained_betas"] is None else [float(beta) for beta in schedule["trained_betas"]]
    solver = {"prediction": settings.take("prediction_type", "epsilon", "sample", "v_prediction")}
    return translate(settings, schedule, solver), schedule, solver


def _limits(settings: _Settings, solver: dict[str, Any]) -> None:
    ratio, most = settings.take("dynamic_thresholding_ratio"), settings.take("sample_max_value")
    if settings.take("thresholding"):
        solver["threshold"] = {"ratio": ratio, "max": most}
    largest = settings.take("clip_sample_range")
    if settings.take("clip_sample") and "threshold" not in solver:
        solver["clip"] = largest


def _sigmas(settings: _Settings, schedule: dict[str, Any]) -> None:
    named = [name for name in _SEQUENCES if settings.take(f"use_{name}_sigmas")]
    if named:
        schedule["sigmas"] = named[0]
    schedule |= settings.taken("sigma_min", "sigma_max", "final_sigmas_type", "timestep_type")


def _end(settings: _Settings, schedule: dict[str, Any]) -> None:
    schedule["final_sigmas_type"] = "zero" if settings.take("set_alpha_to_one") else "sigma_min"


def _ddpm(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    solver["variance"] = settings.take("variance_type", *VARIANCES)
    return "ddpm"


def _ddim(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _end(settings, schedule)
    return "ddim"


def _lcm(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _end(settings, schedule)
    schedule |= settings.taken("original_inference_steps")
    solver |= settings.taken("timestep_scaling")
    return "lcm"


def _euler(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _sigmas(settings, schedule)
    return "euler"


def _euler_ancestral(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    return "euler_ancestral"


def _heun(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _sigmas(settings, schedule)
    return "heun"


def _dpm_solver(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _sigmas(settings, schedule)
    settings.take("solver_order", 2)
    smallest = settings.take("lambda_min_clipped")
    schedule["min_log_snr"] = None if smallest is None or math.isinf(smallest) else smallest
    solver["variant"] = settings.take("solver_type", "midpoint", "heun")
    solver |= settings.taken("lower_order_final", "euler_at_final")
    return "dpmpp_2m" if settings.take("algorithm_type", "dpmsolver++", "sde-dpmsolver++") == "dpmsolver++" else "dpmpp_2m_sde"


def _unipc(settings: _Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _sigmas(settings, schedule)
    solver["order"] = settings.take("solver_order", 1, 2)
    solver["variant"] = settings.take("solver_type", "bh1", "bh2")
    solver["without_corrector"] = list(settings.take("disable_corrector") or [])
    solver |= settings.taken("lower_order_final")
    return "unipc"


_Translate = Callable[[_Settings, dict[str, Any], dict[str, Any]], str]
_TRANSLATIONS: dict[str, tuple[str, _Translate]] = {
    "DDPMScheduler": ("ddpm", _ddpm),
    "DDIMScheduler": ("ddim", _ddim),
    "LCMScheduler": ("lcm", _lcm),
    "EulerDiscreteScheduler": ("euler", _euler),
    "EulerAncestralDiscreteScheduler": ("euler", _euler_ancestral),
    "HeunDiscreteScheduler": ("euler", _heun),
    "DPMSolverMultistepScheduler": ("dpm_solver", _dpm_solver),
    "UniPCMultistepScheduler": ("unipc", _unipc),
}


# --- the way back -----------------------------------------------------------------------------------------------------

_RENAMED = {"variance": "variance_type", "variant": "solver_type", "order": "solver_order", "without_corrector": "disable_corrector"}
_CLASSES = {
    "solver/ddpm": ("DDPMScheduler", {}),
    "solver/ddim": ("DDIMScheduler", {}),
    "solver/lcm": ("LCMScheduler", {}),
    "solver/euler": ("EulerDiscreteScheduler", {}),
    "solver/euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "solver/heun": ("HeunDiscreteScheduler", {}),
    "solver/dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "solver/dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "solver/unipc": ("UniPCMultistepScheduler", {}),
}
_OF_A_RUN = ("num_steps", "schedule")


def scheduler_for(schedule: Block, solver: Block) -> tuple[str, dict[str, Any]]:
    """(class name, settings) of the scheduler of diffusers that walks as these two do.

    Raises:
        ConfigError: diffusers has none.
    """
    if (schedule.block_type, solver.block_type) == ("schedule/diffusers", "solver/diffusers"):
        return schedule.config["scheduler"], dict(schedule.config["config"] or {})
    if schedule.block_type != "schedule/diffusion" or solver.block_type not in _CLASSES:
        raise ConfigError(f"to_diffusers: diffusers has no scheduler that walks {schedule.block_type} with {solver.block_type}")
    name, config = _CLASSES[solver.block_type]
    known = inspect.signature(scheduler_class(name).__init__).parameters  # type: ignore[misc]
    config = {**config, **{key: value for key, value in _settings_of(schedule.config, solver.config).items() if key in known}}
    again = blocks_for(name, config, schedule.config["num_steps"])
    wrong = [
        f"{ours.block_type}.{key} = {value!r}"
        for ours, theirs in zip((schedule, solver), again, strict=True)
        for key, value in ours.config.items()
        if key not in _OF_A_RUN and theirs.config.get(key) != value
    ]
    if wrong:
        raise ConfigError(f"to_diffusers: {name} has no place for {', '.join(wrong)}; change that, or keep the graph with save(folder)")
    return name, config


def _settings_of(schedule: Mapping[str, Any], solver: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in the words of diffusers."""
    found = {_RENAMED.get(key, key): value for key, value in {**schedule, **solver}.items() if value is not None}
    found["prediction_type"] = solver["prediction"]
    found["set_alpha_to_one"] = schedule["final_sigmas_type"] == "zero"
    found["clip_sample"] = solver.get("clip") is not None
    if found["clip_sample"]:
        found["clip_sample_range"] = solver["clip"]
    if isinstance(schedule["sigmas"], str) and schedule["sigmas"] != "trained":
        found[f"use_{schedule['sigmas']}_sigmas"] = True
    if solver.get("threshold"):
        ratio, most = solver["threshold"]["ratio"], solver["threshold"]["max"]
        found |= {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": most}
    if schedule["min_log_snr"] is not None:
        found["lambda_min_clipped"] = schedule["min_log_snr"]
    return found
