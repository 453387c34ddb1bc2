"""Each step function by itself, on random tensors, against the formula of diffusers' scheduler at the same place of a grid."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from tests.blocks.diffusion.against_diffusers import SHAPE, noises_for, scheduler_of, stepping
from wgtorch.blocks.diffusion.noise_level import DATA, NoiseLevel, flow_level, vp_level
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule
from wgtorch.blocks.diffusion.solvers import DPMpp3MSDE
from wgtorch.blocks.diffusion.solvers.formulas import (
    consistency_coefficients,
    ddim_coefficients,
    ddim_step,
    ddpm_step,
    dpmpp_1_coefficients,
    dpmpp_2m_coefficients,
    dpmpp_2m_sde_coefficients,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    euler_ancestral_coefficients,
    euler_ancestral_step,
    euler_coefficients,
    euler_step,
    flow_euler_step,
    heun_coefficients,
    heun_correction,
    heun_step,
    lcm_step,
    linear_combination,
    posterior_mean_coefficients,
    posterior_variance,
    unipc_correct,
    unipc_corrector_coefficients,
    unipc_predict,
    unipc_predictor_coefficients,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

X, PRED, OTHER, OLDER, Z = noises_for(5, torch.float64)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.dtype == torch.float64 and ours.shape == torch.Size(SHAPE)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def exact(level: NoiseLevel) -> NoiseLevel:
    """The level of tensors []."""
    return NoiseLevel(*torch.tensor(level, dtype=torch.float64))


def exploded(sigma: float) -> NoiseLevel:
    """x0 + sigma eps."""
    return exact(NoiseLevel(1.0, sigma))


def bar(scheduler: Any, timestep: int) -> NoiseLevel:
    if timestep < 0:
        return exact(DATA)
    found = float(scheduler.alphas_cumprod[timestep])
    return exact(NoiseLevel(found**0.5, (1 - found) ** 0.5))


def stepped(scheduler: Any, index: int, x: Tensor, pred: Tensor, **options: Any) -> Tensor:
    """Their step at one place of the grid."""
    with stepping(scheduler, [Z], torch.float64):
        t = scheduler.timesteps[index]
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        return scheduler.step(pred, t, x, return_dict=False, **options)[0]


@pytest.mark.parametrize("index", [0, 3, 8, 9])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(index: int, eta: float) -> None:
    scheduler = scheduler_of("DDIMScheduler", clip_sample=False, prediction_type="sample")
    scheduler.set_timesteps(10)
    t = int(scheduler.timesteps[index])
    now, to = bar(scheduler, t), bar(scheduler, t - 100)
    eps = (X - now.alpha * PRED) / now.sigma
    close(ddim_step(PRED, eps, Z, *ddim_coefficients(now, to, eta)), stepped(scheduler, index, X, PRED, eta=eta))


@pytest.mark.parametrize("index", [0, 3, 8])
def test_ddpm(index: int) -> None:
    scheduler = scheduler_of("DDPMScheduler", clip_sample=False, prediction_type="sample")
    scheduler.set_timesteps(10)
    now, to = bar(scheduler, int(scheduler.timesteps[index])), bar(scheduler, int(scheduler.timesteps[index + 1]))
    close(
        ddpm_step(X, PRED, Z, *posterior_mean_coefficients(now, to), posterior_variance(now, to).sqrt()), stepped(scheduler, index, X, PRED)
    )


def test_ddim_with_all_its_noise_is_ddpm() -> None:
    now, to = exact(vp_level(3.0)), exact(vp_level(1.1))
    eps = (X - now.alpha * PRED) / now.sigma
    ddpm = ddpm_step(X, PRED, Z, *posterior_mean_coefficients(now, to), posterior_variance(now, to).sqrt())
    torch.testing.assert_close(ddim_step(PRED, eps, Z, *ddim_coefficients(now, to, 1.0)), ddpm)


@pytest.mark.parametrize("index", [0, 5, 9])
def test_euler(index: int) -> None:
    scheduler = scheduler_of("EulerDiscreteScheduler", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    numbers = euler_coefficients(exploded(sigmas[index]), exploded(sigmas[index + 1]))
    close(euler_step(X, PRED, *numbers), stepped(scheduler, index, X, PRED))


@pytest.mark.parametrize("index", [0, 5, 9])
def test_euler_ancestral(index: int) -> None:
    scheduler = scheduler_of("EulerAncestralDiscreteScheduler", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    numbers = euler_ancestral_coefficients(exploded(sigmas[index]), exploded(sigmas[index + 1]))
    close(euler_ancestral_step(X, PRED, Z, *numbers), stepped(scheduler, index, X, PRED))


def test_heun() -> None:
    scheduler = scheduler_of("HeunDiscreteScheduler", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    sigma, following = float(scheduler.sigmas[0]), float(scheduler.sigmas[1])
    led = stepped(scheduler, 0, X, PRED)
    scale, change = euler_coefficients(exploded(sigma), exploded(following))
    close(euler_step(X, PRED, scale, change), led)
    corrected = stepped(scheduler, 1, led, OTHER)
    close(heun_correction(led, OTHER, PRED, change / 2), corrected)
    first, second = zip(*[column[:2] for column in heun_coefficients(scale.repeat(2), change.repeat(2))], strict=True)
    close(heun_step(X, PRED, OTHER, *first), led)
    close(heun_step(led, OTHER, PRED, *second), corrected)


@pytest.mark.parametrize("index", [0, 5, 9])
def test_flow_euler(index: int) -> None:
    scheduler = scheduler_of("FlowMatchEulerDiscreteScheduler", shift=3.0)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    close(
        flow_euler_step(X, PRED, torch.tensor(sigmas[index + 1] - sigmas[index], dtype=torch.float64)), stepped(scheduler, index, X, PRED)
    )


@pytest.mark.parametrize("index", [0, 2])
def test_lcm(index: int) -> None:
    scheduler = scheduler_of("LCMScheduler", prediction_type="sample")
    scheduler.set_timesteps(4)
    t, following = scheduler.timesteps[index].item(), scheduler.timesteps[index + 1].item()
    alpha, sigma = bar(scheduler, following)
    c_skip, c_out = consistency_coefficients(torch.tensor(t, dtype=torch.float64), 10.0)
    close(lcm_step(X, PRED, Z, alpha * c_skip, alpha * c_out, sigma), stepped(scheduler, index, X, PRED))


def multistep(name: str, flow: bool, **config: Any) -> tuple[Any, list[NoiseLevel]]:
    """A scheduler in the middle of its grid, with two predictions made, and its levels."""
    scheduler = scheduler_of(name, prediction_type="sample", use_flow_sigmas=flow, **config)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    return scheduler, [exact(flow_level(sigma) if flow else vp_level(sigma)) for sigma in sigmas]


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_dpm_solver(algorithm: str, variant: str, flow: bool) -> None:
    scheduler, levels = multistep("DPMSolverMultistepScheduler", flow, algorithm_type=algorithm, solver_type=variant)
    for index in (3, 6):
        before, now, to = levels[index - 1 : index + 2]
        with stepping(scheduler, [], torch.float64):
            scheduler._step_index = index
            first = scheduler.dpm_solver_first_order_update(PRED, sample=X, noise=Z)
            second = scheduler.multistep_dpm_solver_second_order_update([OTHER, PRED], sample=X, noise=Z)
        if algorithm == "dpmsolver++":
            for order, theirs in ((1, first), (2, second)):
                close(dpmpp_2m_step(X, PRED, OTHER, *dpmpp_2m_coefficients(before, now, to, torch.tensor(order == 1), variant)), theirs)
            close(linear_combination(*zip(dpmpp_1_coefficients(now, to), (X, PRED), strict=True)), first)
        else:
            for order, theirs in ((1, first), (2, second)):
                numbers = dpmpp_2m_sde_coefficients(before, now, to, torch.tensor(order == 1), variant)
                close(dpmpp_2m_sde_step(X, PRED, OTHER, Z, *numbers), theirs)


def test_three_predictions_of_the_data_with_noise() -> None:
    """As ``sample_dpmpp_3m_sde`` of k-diffusion, over x0 + sigma eps, with eta and s_noise of 1."""
    solver, grid = DPMpp3MSDE(), DiffusionSchedule(num_steps=6).grid(6)
    numbers, sigmas = solver.coefficients(grid), [float(level.sigma / level.alpha) for level in grid.levels]
    guesses, noises = noises_for(6, torch.float64), noises_for(7, torch.float64)[1:]
    x, history = X, (torch.zeros_like(X), torch.zeros_like(X))
    theirs, h_1, h_2, x0_1, x0_2 = X / grid.levels[0].alpha, None, None, None, None
    for k in range(6):
        x0, z = guesses[k], noises[k]
        x, history = solver.step(x, SimpleNamespace(x0=x0), history, z, [each[k] for each in numbers])  # type: ignore[arg-type, assignment]
        if sigmas[k + 1] == 0:
            theirs = x0
        else:
            t, s = -torch.tensor(sigmas[k], dtype=torch.float64).log(), -torch.tensor(sigmas[k + 1], dtype=torch.float64).log()
            h = s - t
            h_eta = h * 2
            theirs = torch.exp(-h_eta) * theirs + (-h_eta).expm1().neg() * x0
            phi_2 = h_eta.neg().expm1() / h_eta + 1
            if h_2 is not None:
                r0, r1 = h_1 / h, h_2 / h
                d1_0, d1_1 = (x0 - x0_1) / r0, (x0_1 - x0_2) / r1
                d1, d2 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1), (d1_0 - d1_1) / (r0 + r1)
                theirs = theirs + phi_2 * d1 - (phi_2 / h_eta - 0.5) * d2
            elif h_1 is not None:
                theirs = theirs + phi_2 * (x0 - x0_1) / (h_1 / h)
            theirs = theirs + z * sigmas[k + 1] * (-2 * h).expm1().neg().sqrt()
            h_1, h_2 = h, h_1
        x0_1, x0_2 = x0, x0_1
        close(x / grid.levels[k + 1].alpha, theirs)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order: int, variant: str, flow: bool) -> None:
    scheduler, levels = multistep("UniPCMultistepScheduler", flow, solver_type=variant, solver_order=3)
    oldest, older, before, now, to = levels[2:7]
    with stepping(scheduler, [], torch.float64):
        scheduler._step_index = 5
        scheduler.model_outputs = [OLDER, OTHER, PRED]
        predicted = scheduler.multistep_uni_p_bh_update(PRED, sample=X, order=order)
        scheduler.model_outputs = [Z, OLDER, OTHER]
        corrected = scheduler.multistep_uni_c_bh_update(PRED, last_sample=X, this_sample=Z, order=order)
    which = torch.tensor(order)
    close(unipc_predict(X, PRED, (OTHER, OLDER), *unipc_predictor_coefficients((now, before, older), to, which, variant)), predicted)
    coefficients = unipc_corrector_coefficients((before, older, oldest), now, which, variant)
    close(unipc_correct(PRED, X, (OTHER, OLDER, Z), *coefficients), corrected)


def test_steps_take_gradients() -> None:
    """They are plain functions: nothing in them cuts a gradient or changes its arguments."""
    levels = [exact(vp_level(ratio)) for ratio in (5.0, 3.0, 1.1)]
    tensors = [tensor.clone().requires_grad_() for tensor in (X, PRED, OTHER)]
    before = [tensor.detach().clone() for tensor in tensors]
    end = dpmpp_2m_step(*tensors, *dpmpp_2m_coefficients(*levels, torch.tensor(False)))
    assert all(gradient.abs().min() > 0 for gradient in torch.autograd.grad(end.sum(), tensors))
    assert all(torch.equal(tensor.detach(), kept) for tensor, kept in zip(tensors, before, strict=True))
