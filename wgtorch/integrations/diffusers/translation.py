"""Schedulers of diffusers in our own words: a schedule and a solver, or the wrapper where we have no such solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.signature import takes_argument
from wgtorch.integrations.diffusers.schedulers import default_settings, scheduler_class
from wgtorch.integrations.diffusers.settings import PREDICTIONS, SEQUENCES, Settings, Unknown, translated

_EULER = "FlowMatchEulerDiscreteScheduler"
_FLOWS = {_EULER: "flow_euler", "FlowMatchHeunDiscreteScheduler": "flow_heun"}
DYNAMIC = {
    "base_tokens": "base_image_seq_len",
    "max_tokens": "max_image_seq_len",
    "base_shift": "base_shift",
    "max_shift": "max_shift",
}
"""Settings of a shift by the size of the picture, by our names; see :func:`~wgtorch.blocks.diffusion.schedules.shift.dynamic_mu`."""


def blocks_for(
    scheduler: str,
    config: Mapping[str, Any],
    num_steps: int,
    *,
    is_flow: bool | None = None,
    is_even: bool = False,
    patch: int = 1,
    asked_by: str = "from_diffusers",
) -> tuple[Block, Block]:
    """(schedule, solver) that walk as a scheduler of diffusers does.

    Args:
        scheduler: its class name.
        config: its settings, as in ``scheduler_config.json``.
        num_steps: of a run that says nothing else.
        is_flow: what the model that it is for predicts is a flow; of any model where left out.
        is_even: the pipeline asks for even sigmas, instead of the scheduler's own (Flux).
        patch: the pipeline steps latents as patches of this side in a row (Flux), which a scheduler that draws noise may tell.
        asked_by: who asks, for messages.

    Raises:
        UnknownNameError: diffusers has no such scheduler.
        ConfigError: it does not fit the model, or knows no such prediction.
    """
    settings = Settings(scheduler, config)
    _check_fit(scheduler, config, is_flow, asked_by)
    try:
        if scheduler in _FLOWS:
            kind, name, schedule, solver = "flow", *_flow(scheduler, settings, is_even)
        elif config.get("use_flow_sigmas"):
            kind, name, schedule, solver = "flow", *_flow_multistep(scheduler, settings)
        else:
            kind, name, schedule, solver = "diffusion", *translated(scheduler, settings)
        settings.done()
    except Unknown:
        return _wrapped(scheduler, settings, num_steps, patch)
    return _built(f"schedule/{kind}", {**schedule, "num_steps": num_steps}), _built(f"solver/{name}", solver)


def told_eta(solver: Block) -> tuple[Block, dict[str, Any]]:
    """The same solver, whose ``eta`` a call says, and what its place is to give it where the call does not: 0, as pipelines do."""
    if solver.block_type == "solver/ddim":  # takes 0 by itself, and a place's value would be looked up in each step
        return _built(solver.block_type, {**solver.config, "eta": None}), {}
    return solver, {"eta": 0.0}


def _check_fit(scheduler: str, config: Mapping[str, Any], is_flow: bool | None, asked_by: str) -> None:
    prediction = config.get("prediction_type", PREDICTIONS[0])
    if prediction not in PREDICTIONS:
        raise ConfigError(
            f"{asked_by}: {scheduler}.prediction_type: found {prediction!r}, expected one of {', '.join(PREDICTIONS)}; "
            f"{suggest(prediction, PREDICTIONS)}"
        )
    init: Any = scheduler_class(scheduler).__init__  # type: ignore[misc]
    walks_flow = config.get("use_flow_sigmas") and takes_argument(init, "use_flow_sigmas")  # of another scheduler's, it does nothing
    if is_flow is True and not (scheduler.startswith("Flow") or walks_flow):
        raise ConfigError(
            f"{asked_by}: {scheduler} does not fit a model that predicts a flow; expected FlowMatchEulerDiscreteScheduler, "
            "or another that walks a flow's sigmas (use_flow_sigmas)"
        )
    if is_flow is False and scheduler.startswith("Flow"):
        raise ConfigError(
            f"{asked_by}: {scheduler} walks a flow and does not fit a model of diffusion; "
            "expected DDIMScheduler, EulerDiscreteScheduler, or another of their kind"
        )


def _wrapped(scheduler: str, settings: Settings, num_steps: int, patch: int) -> tuple[Block, Block]:
    config = {"scheduler": scheduler, "config": {**settings.given}, "num_steps": num_steps}
    return _built("schedule/diffusers", config), _built("solver/diffusers", {"patch": patch} if patch > 1 else {})


def _flow(scheduler: str, settings: Settings, is_even: bool) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if is_even and scheduler != _EULER:
        raise Unknown("sigmas")
    schedule = {"convention": "even" if is_even else "trained", **settings.taken("num_train_timesteps", "shift", "shift_terminal")}
    dynamic = {ours: settings.take(theirs) for ours, theirs in DYNAMIC.items()}
    settings.take("time_shift_type", "exponential", None)
    if settings.take("use_dynamic_shifting"):
        schedule["dynamic_shift"] = dynamic
    named = [name for name in SEQUENCES if settings.take(f"use_{name}_sigmas")]
    if named:
        schedule["sequence"] = named[0]
    return _FLOWS[scheduler], schedule, {}


def _flow_multistep(scheduler: str, settings: Settings) -> tuple[str, dict[str, Any], dict[str, Any]]:
    name, found, solver = translated(scheduler, settings)
    if name not in ("dpmpp_2m", "dpmpp_2m_sde", "unipc") or found.get("sigmas") or settings.take("use_dynamic_shifting"):
        raise Unknown("use_flow_sigmas")
    settings.take("use_flow_sigmas")
    schedule = {"convention": found["convention"], "shift": settings.take("flow_shift")}
    return name, {**schedule, **{key: found[key] for key in ("num_train_timesteps", "final_sigmas_type") if key in found}}, solver


def _built(block_type: str, config: Mapping[str, Any]) -> Block:
    return BlockRegistry.build({"block_type": block_type, "config": dict(config)})


# --- the way back -----------------------------------------------------------------------------------------------------

_RENAMED = {"variance": "variance_type", "variant": "solver_type", "order": "solver_order", "without_corrector": "disable_corrector"}
_MULTISTEP: dict[str, tuple[str, dict[str, Any]]] = {
    "solver/dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "solver/dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "solver/unipc": ("UniPCMultistepScheduler", {}),
}
CLASSES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "schedule/diffusion": {
        "solver/ddpm": ("DDPMScheduler", {}),
        "solver/ddim": ("DDIMScheduler", {}),
        "solver/lcm": ("LCMScheduler", {}),
        "solver/euler": ("EulerDiscreteScheduler", {}),
        "solver/euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
        "solver/heun": ("HeunDiscreteScheduler", {}),
        **_MULTISTEP,
    },
    "schedule/flow": {
        **{f"solver/{ours}": (theirs, {}) for theirs, ours in _FLOWS.items()},
        **{ours: (theirs, {**config, "use_flow_sigmas": True}) for ours, (theirs, config) in _MULTISTEP.items()},
    },
}
"""For each kind of schedule, which scheduler of diffusers walks as a solver of ours, with the settings that make it so."""
_OF_A_RUN = ("num_steps", "schedule")


def scheduler_for(schedule: Block, solver: Block, *, is_even: bool = False, asked_by: str = "to_diffusers") -> tuple[str, dict[str, Any]]:
    """(class name, settings) of the scheduler of diffusers that walks as these two do.

    Args:
        schedule: of a graph.
        solver: beside it.
        is_even: as for :func:`blocks_for`.
        asked_by: for messages.

    Raises:
        ConfigError: diffusers has none.
    """
    if (schedule.block_type, solver.block_type) == ("schedule/diffusers", "solver/diffusers"):
        return schedule.config["scheduler"], dict(schedule.config["config"] or {})
    known = CLASSES.get(schedule.block_type, {})
    if solver.block_type not in known:
        raise ConfigError(f"{asked_by}: diffusers has no scheduler that walks {schedule.block_type} with {solver.block_type}")
    name, config = known[solver.block_type]
    in_their_words = _flow_settings_of if schedule.block_type == "schedule/flow" else _settings_of
    words = in_their_words(schedule.config, solver.config)
    taken = default_settings(name, words)
    config = {**config, **{key: value for key, value in words.items() if key in taken}}
    again = blocks_for(name, config, schedule.config["num_steps"], is_even=is_even)
    wrong = [
        f"{ours.block_type}.{key} = {value!r}"
        for ours, theirs in zip((schedule, solver), again, strict=True)
        for key, value in ours.config.items()
        if key not in _OF_A_RUN and theirs.config.get(key) != value and not (key == "eta" and value is None)  # which a call says
    ]
    if wrong:
        otherwise = ", or keep the graph with save(folder)" if asked_by == "to_diffusers" else ""
        raise ConfigError(f"{asked_by}: {name} has no place for {', '.join(wrong)}; change that{otherwise}")
    return name, config


def _settings_of(schedule: Mapping[str, Any], solver: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in the words of diffusers."""
    found = {_RENAMED.get(key, key): value for key, value in {**schedule, **solver}.items() if value is not None}
    found["set_alpha_to_one"] = schedule["final_sigmas_type"] == "zero"
    if isinstance(schedule["sigmas"], str) and schedule["sigmas"] != "trained":
        found[f"use_{schedule['sigmas']}_sigmas"] = True
    if schedule["min_log_snr"] is not None:
        found["lambda_min_clipped"] = schedule["min_log_snr"]
    return found | _prediction_of(solver)


def _flow_settings_of(schedule: Mapping[str, Any], solver: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a flow."""
    # Last the schedule: a solver's own shift is of a grid that it walks without one.
    found = {_RENAMED.get(key, key): value for key, value in {**solver, **schedule}.items() if value is not None}
    found["flow_shift"] = schedule["shift"]
    if schedule["sequence"] is not None:
        found[f"use_{schedule['sequence']}_sigmas"] = True
    if schedule["dynamic_shift"]:
        own = schedule["dynamic_shift"] if isinstance(schedule["dynamic_shift"], Mapping) else {}
        found |= {"use_dynamic_shifting": True, **{DYNAMIC[key]: value for key, value in own.items()}}
    return found | _prediction_of(solver)


def _prediction_of(solver: Mapping[str, Any]) -> dict[str, Any]:
    """What is predicted, and its limits."""
    found: dict[str, Any] = {"prediction_type": "flow_prediction" if solver["prediction"] == "flow" else solver["prediction"]}
    found["clip_sample"] = solver.get("clip") is not None
    if found["clip_sample"]:
        found["clip_sample_range"] = solver["clip"]
    if solver.get("threshold"):
        ratio, most = solver["threshold"]["ratio"], solver["threshold"]["max"]
        found |= {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": most}
    return found
