"""Whole trajectories of every solver, equal to diffusers' schedulers of the same settings: timesteps, what the model is shown, the end.

In float64 both compute from the same float32 tables and differ by at most 1e-9 of the largest value, in float32 by 1e-5. Where
theirs in float32 is itself farther than that from theirs in float64 - latents whose sigma starts at 20000, as a cosine schedule's
does; a velocity that is taken from x and then divided by a small sigma - ours must be within 1e-5 of theirs in float64.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from tests.blocks.diffusion.against_diffusers import (
    SHAPE,
    Trajectory,
    largest_difference,
    make_model,
    noises_for,
    run_ours,
    run_theirs,
    scheduler_of,
)
from wgtorch.core.block import BlockRegistry

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "linspace", "trailing")
EXACT, CLOSE = 1e-9, 1e-5

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Case:
    """The same settings in both libraries."""

    scheduler: str
    solver: str
    schedule: dict[str, Any]
    their: dict[str, Any] = field(default_factory=dict)
    our: dict[str, Any] = field(default_factory=dict)
    kind: str = "diffusion"
    steps: int = 8
    set_timesteps: dict[str, Any] | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = SHAPE[1]
    strength: float | None = None


def trajectories(case: Case, dtype: torch.dtype) -> tuple[Trajectory, Trajectory]:
    """(theirs, ours)."""
    scheduler = scheduler_of(case.scheduler, **case.their)
    scheduler.set_timesteps(**({"num_inference_steps": case.steps} if case.set_timesteps is None else case.set_timesteps))
    schedule: Any = BlockRegistry.build({"block_type": f"schedule/{case.kind}", "config": {"num_steps": case.steps, **case.schedule}})
    solver: Any = BlockRegistry.build({"block_type": case.solver, "config": case.our})
    model, noises = make_model(dtype, case.channels), noises_for(2 * case.steps + 2, dtype)
    start, image, begin = noises[-1], None, 0
    if case.strength is not None:
        image = torch.tanh(noises[-2])
        begin = (case.steps - int(case.steps * case.strength)) * getattr(scheduler, "order", 1)
    theirs = run_theirs(scheduler, model, start, noises, begin=begin, image=image, **case.options)
    ours = run_ours(schedule, solver, model, start, noises, strength=case.strength, image=image, **case.inputs)
    return theirs, ours


def check(case: Case) -> None:
    exact_theirs, exact_ours = trajectories(case, torch.float64)
    assert exact_theirs.end.dtype == torch.float64
    assert largest_difference(exact_ours, exact_theirs) <= EXACT
    theirs, ours = trajectories(case, torch.float32)
    assert ours.end.dtype == torch.float32
    if largest_difference(theirs, exact_theirs) <= CLOSE / 2:
        assert largest_difference(ours, theirs) <= CLOSE
    else:
        assert largest_difference(ours, exact_theirs) <= CLOSE


# --- every solver, prediction, schedule and spacing -------------------------------------------------------------------

SOLVERS = {
    "ddpm": ("DDPMScheduler", "ddpm", {"clip_sample": False}),
    "ddim": ("DDIMScheduler", "ddim", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", "euler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", "euler", {}),
    "heun": ("HeunDiscreteScheduler", "euler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "dpm_solver", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", "dpm_solver", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", "unipc", {}),
    "lcm": ("LCMScheduler", "lcm", {}),
}


def case_of(
    name: str,
    prediction: str = "epsilon",
    betas: dict[str, Any] = BETAS,
    *,
    spacing: str = "leading",
    offset: int = 1,
    their: dict[str, Any] | None = None,
    our: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    **more: Any,
) -> Case:
    scheduler, convention, common = SOLVERS[name]
    spaced = {} if name == "lcm" else {"timestep_spacing": spacing, "steps_offset": offset}
    return Case(
        scheduler,
        f"solver/{name}",
        {"convention": convention, **betas, **spaced, **(schedule or {})},
        {**common, **betas, **spaced, "prediction_type": prediction, **(their or {})},
        {"prediction": prediction, **(our or {})},
        **more,
    )


GRID = [
    pytest.param(name, prediction, beta_schedule, spacing, id=f"{name}-{prediction}-{beta_schedule}-{spacing}")
    for name in SOLVERS
    for prediction in PREDICTIONS
    for beta_schedule in BETA_SCHEDULES
    for spacing in SPACINGS
    if not (name == "lcm" and spacing != "leading")  # it has timesteps of its own
    if not (name == "euler_ancestral" and prediction == "sample")  # theirs does not know it
    # A step of Heun's method from a sigma of 20000 cancels most digits, in either library.
    if not (name == "heun" and prediction != "epsilon" and beta_schedule == "squaredcos_cap_v2" and spacing != "leading")
]


@pytest.mark.parametrize(("name", "prediction", "beta_schedule", "spacing"), GRID)
@pytest.mark.parametrize("steps", [6, 20])  # 1000 timesteps divide by the second only
def test_trajectories(name: str, prediction: str, beta_schedule: str, spacing: str, steps: int) -> None:
    check(case_of(name, prediction, {**BETAS, "beta_schedule": beta_schedule}, spacing=spacing, steps=steps))


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 15, 16])
@pytest.mark.parametrize("name", list(SOLVERS))
def test_few_steps_and_the_count_at_which_the_last_one_changes(name: str, steps: int) -> None:
    check(case_of(name, steps=steps, spacing="trailing"))


@pytest.mark.parametrize("strength", [0.3, 0.75])
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "lcm"])
def test_from_an_image(name: str, strength: float) -> None:
    """The rest of a grid, and a start that is an image noised to where it begins."""
    check(case_of(name, "v_prediction", steps=9, strength=strength))


# --- sigmas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("sigmas", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_sequences_of_sigmas(name: str, sigmas: str, beta_schedule: str, prediction: str) -> None:
    if sigmas == "beta":
        pytest.importorskip("scipy")
    betas = {**BETAS, "beta_schedule": beta_schedule}
    check(case_of(name, prediction, betas, their={f"use_{sigmas}_sigmas": True}, schedule={"sigmas": sigmas}, spacing="linspace"))


@pytest.mark.parametrize("sigmas", ["trained", "karras", "exponential"])
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_grids_that_end_above_the_data(name: str, sigmas: str) -> None:
    their = {"final_sigmas_type": "sigma_min"} | ({} if sigmas == "trained" else {f"use_{sigmas}_sigmas": True})
    schedule = {"final_sigmas_type": "sigma_min", "sigmas": sigmas}
    for steps in (8, 14, 15, 17):  # the last step of fewer than 15 is of first order; here nothing else makes it so
        check(case_of(name, their=their, schedule=schedule, steps=steps))


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_zero_terminal_snr(name: str, prediction: str) -> None:
    if (name, prediction) != ("euler_ancestral", "sample"):
        zero = {"rescale_betas_zero_snr": True}
        check(case_of(name, prediction, their=zero, schedule=zero, spacing="trailing"))


def test_betas_that_a_model_was_trained_with() -> None:
    betas = torch.linspace(0.001, 0.02, 200).tolist()
    given = {"trained_betas": betas, "num_train_timesteps": 200}
    for name in ("ddim", "euler", "dpmpp_2m"):
        check(case_of(name, their=given, schedule=given))


AYS_TIMESTEPS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
AYS_SIGMAS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]


@pytest.mark.parametrize("name", ["ddpm", "euler", "heun", "dpmpp_2m", "dpmpp_2m_sde"])
def test_given_timesteps(name: str) -> None:
    given = {"timesteps": AYS_TIMESTEPS}
    check(case_of(name, schedule=given, set_timesteps=given, steps=10))


def test_given_sigmas() -> None:
    given = {"sigmas": AYS_SIGMAS}
    check(case_of("euler", schedule=given, set_timesteps=given, steps=10))


def test_timesteps_of_continuous_models() -> None:
    """Stable Video Diffusion's settings."""
    common = {"timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}
    check(case_of("euler", "v_prediction", their={"use_karras_sigmas": True, **common}, schedule={"sigmas": "karras", **common}))


# --- what solvers can be told -----------------------------------------------------------------------------------------

LIMITS = {
    "clip": ({"clip_sample": True, "clip_sample_range": 0.8}, {"clip": 0.8}),
    "threshold": (
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
        {"threshold": {"ratio": 0.9, "max": 1.5}},
    ),
}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("name", "limit"),
    [(name, "clip") for name in ("ddpm", "ddim", "lcm", "heun")]
    + [(name, "threshold") for name in ("ddpm", "ddim", "lcm", "dpmpp_2m", "dpmpp_2m_sde", "unipc")],
)
def test_limited_x0(name: str, limit: str, prediction: str) -> None:
    their, our = LIMITS[limit]
    check(case_of(name, prediction, their=their, our=our))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise(eta: float, prediction: str) -> None:
    check(case_of("ddim", prediction, our={"eta": eta}, options={"eta": eta}))


def test_ddim_with_the_noise_that_a_limited_x0_leaves() -> None:
    their, our = LIMITS["clip"]
    check(case_of("ddim", their=their, our={**our, "rederive_epsilon": True}, options={"use_clipped_model_output": True}))


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_an_end_at_the_first_timestep(name: str) -> None:
    check(case_of(name, their={"set_alpha_to_one": False}, schedule={"final_sigmas_type": "sigma_min"}))


@pytest.mark.parametrize(("variance", "channels"), [("fixed_large", SHAPE[1]), ("learned_range", 2 * SHAPE[1])])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm_variances(prediction: str, variance: str, channels: int) -> None:
    check(case_of("ddpm", prediction, their={"variance_type": variance}, our={"variance": variance}, channels=channels))
    check(case_of("ddpm", prediction, their={"variance_type": variance}, our={"variance": variance}, channels=channels, offset=0))
    if prediction != "epsilon":  # of pure noise at first, where the largest variance is 1 and its log 0
        zero = {"rescale_betas_zero_snr": True}
        their, our = {"variance_type": variance, **zero}, {"variance": variance}
        check(case_of("ddpm", prediction, their=their, our=our, schedule=zero, spacing="trailing", channels=channels))


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde"])
def test_variants_of_dpm_solver(name: str) -> None:
    above = {"final_sigmas_type": "sigma_min"}
    check(case_of(name, their={"solver_type": "heun"}, our={"variant": "heun"}))
    for options in ({"lower_order_final": False}, {"euler_at_final": True}, {"euler_at_final": True, "lower_order_final": False}):
        for steps in (8, 17):
            check(case_of(name, their={**options, **above}, our=options, schedule=above, steps=steps))


def test_dpm_solver_without_the_noisiest_timesteps() -> None:
    cosine = {**BETAS, "beta_schedule": "squaredcos_cap_v2"}
    for spacing in SPACINGS:
        check(case_of("dpmpp_2m", betas=cosine, their={"lambda_min_clipped": -5.1}, schedule={"min_log_snr": -5.1}, spacing=spacing))


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_variants_of_unipc(order: int, variant: str) -> None:
    their, our = {"solver_type": variant, "solver_order": order}, {"variant": variant, "order": order}
    above = {"final_sigmas_type": "sigma_min"}
    if variant == "bh2":  # a step to the data is nan in theirs otherwise
        check(case_of("unipc", "v_prediction", their=their, our=our))
    their, common = {**their, **above}, {"schedule": above}
    check(case_of("unipc", their={**their, "lower_order_final": False}, our={**our, "lower_order_final": False}, **common))
    check(case_of("unipc", their={**their, "disable_corrector": [0, 2]}, our={**our, "without_corrector": [0, 2]}, **common))
    later = {"steps": 9, "strength": 0.7, **common}
    check(case_of("unipc", their={**their, "disable_corrector": [4]}, our={**our, "without_corrector": [4]}, **later))


def test_settings_of_lcm() -> None:
    check(case_of("lcm", their={"timestep_scaling": 3.0}, our={"timestep_scaling": 3.0}, steps=4))
    check(case_of("lcm", their={"original_inference_steps": 25}, schedule={"original_inference_steps": 25}, steps=4))


# --- flows ------------------------------------------------------------------------------------------------------------


def flow(scheduler: str, solver: str, their: dict[str, Any], schedule: dict[str, Any], prediction: str = "flow", **more: Any) -> Case:
    return Case(scheduler, solver, schedule, their, {"prediction": prediction}, kind="flow", **more)


@pytest.mark.parametrize("steps", [1, 2, 9, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_flows(solver: str, shift: float, steps: int) -> None:
    name = f"FlowMatch{solver.capitalize()}DiscreteScheduler"
    check(flow(name, f"solver/flow_{solver}", {"shift": shift}, {"shift": shift, "convention": "trained"}, steps=steps))


@pytest.mark.parametrize("strength", [0.4, 0.9])
def test_flows_from_an_image(strength: float) -> None:
    name = "FlowMatchEulerDiscreteScheduler"
    check(flow(name, "solver/flow_euler", {"shift": 3.0}, {"shift": 3.0, "convention": "trained"}, strength=strength))


def test_flows_with_a_shift_for_each_picture() -> None:
    name, solver, their = "FlowMatchEulerDiscreteScheduler", "solver/flow_euler", {"use_dynamic_shifting": True}
    for mu in (0.5, 1.15):
        given, set_timesteps = {"mu": mu}, {"num_inference_steps": 8, "mu": mu}
        check(flow(name, solver, their, {"dynamic_shift": True, "convention": "trained"}, inputs=given, set_timesteps=set_timesteps))
    # FLUX.1: even sigmas, and a shift by the number of tokens
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    sigmas = torch.linspace(1.0, 1 / 8, 8, dtype=torch.float64).tolist()
    for tokens in (256, 1024, 4096):
        set_timesteps = {"sigmas": sigmas, "mu": calculate_shift(tokens)}
        ours = {"dynamic_shift": True, "sigmas": sigmas}
        check(flow(name, solver, their, ours, inputs={"tokens": tokens}, set_timesteps=set_timesteps))


@pytest.mark.parametrize("sequence", [None, "karras", "exponential", "beta"])
def test_flows_on_other_sigmas(sequence: str | None) -> None:
    if sequence == "beta":
        pytest.importorskip("scipy")
    their = {"shift": 2.0} | ({} if sequence is None else {f"use_{sequence}_sigmas": True})
    ours = {"shift": 2.0, "sequence": sequence}
    name, solver = "FlowMatchEulerDiscreteScheduler", "solver/flow_euler"
    check(flow(name, solver, their, {**ours, "convention": "trained"}))
    check(flow(name, solver, {**their, "shift_terminal": 0.1}, {**ours, "convention": "trained", "shift_terminal": 0.1}))
    given = {"sigmas": [1.0, 0.8, 0.55, 0.2]}
    check(flow(name, solver, their, {**ours, **given}, set_timesteps=given, steps=4))


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "sample"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_flows_with_multistep_solvers(solver: str, shift: float, prediction: str) -> None:
    scheduler, convention, common = SOLVERS[solver]
    named = "flow_prediction" if prediction == "flow" else prediction
    their = {**common, "use_flow_sigmas": True, "flow_shift": shift, "prediction_type": named}
    ours = {"shift": shift, "convention": convention}
    check(flow(scheduler, f"solver/{solver}", their, ours, prediction))
    above = {"final_sigmas_type": "sigma_min"}
    if solver == "unipc":  # the other takes the end of a diffusion schedule
        check(flow(scheduler, f"solver/{solver}", {**their, **above}, {**ours, **above}, prediction))


def test_the_harness_sees_a_wrong_weight() -> None:
    """What all of the above rests on: a change of one part in a hundred million of one weight is found."""
    case = case_of("dpmpp_2m")
    theirs, ours = trajectories(case, torch.float64)
    assert largest_difference(ours, theirs) <= EXACT
    ours.inputs[3] = ours.inputs[3] * (1 + 1e-8)
    assert largest_difference(ours, theirs) > EXACT
    assert isinstance(theirs.end, Tensor) and theirs.end.shape == SHAPE
