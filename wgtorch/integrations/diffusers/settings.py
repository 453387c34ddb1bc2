"""Settings of diffusers' schedulers in the words of our schedules and solvers, one scheduler after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from wgtorch.blocks.diffusion.schedules.betas import BETA_SCHEDULES
from wgtorch.blocks.diffusion.solvers.ddpm import VARIANCES
from wgtorch.integrations.diffusers.schedulers import SEQUENCES, TRAINING, default_settings

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
_SPACING = ("timestep_spacing", "steps_offset")


class Unknown(Exception):
    """A setting that our solvers do not have."""


class Settings:
    """A scheduler's settings, defaults filled in, of which each is taken once."""

    def __init__(self, scheduler: str, config: Mapping[str, Any]) -> None:
        self.defaults = default_settings(scheduler, config)
        self.given = {name: value for name, value in config.items() if name in self.defaults}
        self._left = {**self.defaults, **self.given}

    def take(self, name: str, *known: Any) -> Any:
        """One setting.

        Raises:
            Unknown: it is none of ``known``.
        """
        value = self._left.pop(name, None)
        if known and value not in known:
            raise Unknown(name)
        return value

    def taken(self, *names: str) -> dict[str, Any]:
        """Several, by name, where the scheduler has them."""
        return {name: self._left.pop(name) for name in names if name in self._left}

    def done(self) -> None:
        """Refuses what nobody took and is not as diffusers has it."""
        for name, value in self._left.items():
            if value != self.defaults[name]:
                raise Unknown(name)


def translated(scheduler: str, settings: Settings) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(solver's name, settings of the schedule, of the solver) of a scheduler; what is left in ``settings`` has no translation.

    Raises:
        Unknown: our solvers do not have that.
    """
    if scheduler not in _TRANSLATIONS:
        raise Unknown(scheduler)
    convention, translate = _TRANSLATIONS[scheduler]
    schedule = {"convention": convention, **settings.taken(*TRAINING), **settings.taken(*_SPACING)}
    if schedule["beta_schedule"] not in BETA_SCHEDULES and schedule["trained_betas"] is None:
        raise Unknown("beta_schedule")
    schedule["trained_betas"] = None if schedule["trained_betas"] is None else [float(beta) for beta in schedule["trained_betas"]]
    known = PREDICTIONS if settings.given.get("use_flow_sigmas") else PREDICTIONS[:-1]
    prediction = settings.take("prediction_type", *known)
    solver = {"prediction": "flow" if prediction == "flow_prediction" else prediction}
    return translate(settings, schedule, solver), schedule, solver


def _limits(settings: Settings, solver: dict[str, Any]) -> None:
    ratio, most = settings.take("dynamic_thresholding_ratio"), settings.take("sample_max_value")
    if settings.take("thresholding"):
        solver["threshold"] = {"ratio": ratio, "max": most}
    largest = settings.take("clip_sample_range")
    if settings.take("clip_sample") and "threshold" not in solver:
        solver["clip"] = largest


def _sigmas(settings: Settings, schedule: dict[str, Any]) -> None:
    named = [name for name in SEQUENCES if settings.take(f"use_{name}_sigmas")]
    if named:
        schedule["sigmas"] = named[0]
    schedule |= settings.taken("sigma_min", "sigma_max", "final_sigmas_type", "timestep_type")


def _end(settings: Settings, schedule: dict[str, Any]) -> None:
    schedule["final_sigmas_type"] = "zero" if settings.take("set_alpha_to_one") else "sigma_min"


def _ddpm(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    solver["variance"] = settings.take("variance_type", *VARIANCES)
    return "ddpm"


def _ddim(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _end(settings, schedule)
    return "ddim"


def _lcm(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _end(settings, schedule)
    schedule |= settings.taken("original_inference_steps")
    solver |= settings.taken("timestep_scaling")
    return "lcm"


def _euler(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _sigmas(settings, schedule)
    return "euler"


def _heun(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _sigmas(settings, schedule)
    return "heun"


def _dpm_solver(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _sigmas(settings, schedule)
    settings.take("solver_order", 2)
    smallest = settings.take("lambda_min_clipped")
    schedule["min_log_snr"] = None if smallest is None or math.isinf(smallest) else smallest
    solver["variant"] = settings.take("solver_type", "midpoint", "heun")
    solver |= settings.taken("lower_order_final", "euler_at_final")
    return "dpmpp_2m" if settings.take("algorithm_type", "dpmsolver++", "sde-dpmsolver++") == "dpmsolver++" else "dpmpp_2m_sde"


def _unipc(settings: Settings, schedule: dict[str, Any], solver: dict[str, Any]) -> str:
    _limits(settings, solver)
    _sigmas(settings, schedule)
    solver["order"] = settings.take("solver_order", 1, 2, 3)
    solver["variant"] = settings.take("solver_type", "bh1", "bh2")
    solver["without_corrector"] = list(settings.take("disable_corrector") or [])
    solver |= settings.taken("lower_order_final")
    return "unipc"


_Translate = Callable[[Settings, dict[str, Any], dict[str, Any]], str]
_TRANSLATIONS: dict[str, tuple[str, _Translate]] = {
    "DDPMScheduler": ("ddpm", _ddpm),
    "DDIMScheduler": ("ddim", _ddim),
    "LCMScheduler": ("lcm", _lcm),
    "EulerDiscreteScheduler": ("euler", _euler),
    "EulerAncestralDiscreteScheduler": ("euler", lambda settings, schedule, solver: "euler_ancestral"),
    "HeunDiscreteScheduler": ("euler", _heun),
    "DPMSolverMultistepScheduler": ("dpm_solver", _dpm_solver),
    "UniPCMultistepScheduler": ("unipc", _unipc),
}
