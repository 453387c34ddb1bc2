"""Each step function by itself, on random tensors, against the formula of diffusers' scheduler at the same place of a grid."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from tests.blocks.diffusion.against_diffusers import SHAPE, noises_for, scheduler_of, stepping
from wgtorch.blocks.diffusion.levels import DATA, Level, flow_level, vp_level
from wgtorch.blocks.diffusion.solvers import (
    consistency,
    ddim_step,
    ddpm_step,
    dpmpp_1_sde_step,
    dpmpp_1_step,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    euler_ancestral_step,
    euler_step,
    flow_euler_step,
    heun_step,
    lcm_step,
    unipc_correct,
    unipc_predict,
)
from wgtorch.blocks.diffusion.solvers.ddpm import posterior_variance
from wgtorch.blocks.diffusion.solvers.heun import mended_step

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


def bar(scheduler: Any, timestep: int) -> Level:
    if timestep < 0:
        return DATA
    found = float(scheduler.alphas_cumprod[timestep])
    return Level(found**0.5, (1 - found) ** 0.5)


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
    close(ddim_step(PRED, eps, Z, now, to, eta), stepped(scheduler, index, X, PRED, eta=eta))


@pytest.mark.parametrize("index", [0, 3, 8])
def test_ddpm(index: int) -> None:
    scheduler = scheduler_of("DDPMScheduler", clip_sample=False, prediction_type="sample")
    scheduler.set_timesteps(10)
    now, to = bar(scheduler, int(scheduler.timesteps[index])), bar(scheduler, int(scheduler.timesteps[index + 1]))
    close(ddpm_step(X, PRED, Z, now, to, posterior_variance(now, to)), stepped(scheduler, index, X, PRED))


def test_ddim_with_all_its_noise_is_ddpm() -> None:
    now, to = vp_level(3.0), vp_level(1.1)
    x0 = PRED
    eps = (X - now.alpha * x0) / now.sigma
    torch.testing.assert_close(ddim_step(x0, eps, Z, now, to, 1.0), ddpm_step(X, x0, Z, now, to, posterior_variance(now, to)))


@pytest.mark.parametrize("index", [0, 5, 9])
def test_euler(index: int) -> None:
    scheduler = scheduler_of("EulerDiscreteScheduler", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    close(euler_step(X, PRED, sigmas[index], sigmas[index + 1]), stepped(scheduler, index, X, PRED))


@pytest.mark.parametrize("index", [0, 5, 9])
def test_euler_ancestral(index: int) -> None:
    scheduler = scheduler_of("EulerAncestralDiscreteScheduler", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    close(euler_ancestral_step(X, PRED, Z, sigmas[index], sigmas[index + 1]), stepped(scheduler, index, X, PRED))


def test_heun() -> None:
    scheduler = scheduler_of("HeunDiscreteScheduler", prediction_type="epsilon")
    scheduler.set_timesteps(10)
    sigma, following = float(scheduler.sigmas[0]), float(scheduler.sigmas[1])
    led = stepped(scheduler, 0, X, PRED)
    close(euler_step(X, PRED, sigma, following), led)
    mended = stepped(scheduler, 1, led, OTHER)
    close(heun_step(X, PRED, OTHER, sigma, following), mended)
    close(mended_step(led, PRED, OTHER, sigma, following), mended)


@pytest.mark.parametrize("index", [0, 5, 9])
def test_flow_euler(index: int) -> None:
    scheduler = scheduler_of("FlowMatchEulerDiscreteScheduler", shift=3.0)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    close(flow_euler_step(X, PRED, sigmas[index], sigmas[index + 1]), stepped(scheduler, index, X, PRED))


@pytest.mark.parametrize("index", [0, 2])
def test_lcm(index: int) -> None:
    scheduler = scheduler_of("LCMScheduler", prediction_type="sample")
    scheduler.set_timesteps(4)
    t, following = scheduler.timesteps[index].item(), scheduler.timesteps[index + 1].item()
    close(lcm_step(consistency(X, PRED, t, 10.0), Z, bar(scheduler, following)), stepped(scheduler, index, X, PRED))


def multistep(name: str, flow: bool, **config: Any) -> tuple[Any, list[Level]]:
    """A scheduler in the middle of its grid, with two predictions made, and its levels."""
    scheduler = scheduler_of(name, prediction_type="sample", use_flow_sigmas=flow, **config)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.tolist()
    return scheduler, [flow_level(sigma) if flow else vp_level(sigma) for sigma in sigmas]


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
            close(dpmpp_1_step(X, PRED, now, to), first)
            close(dpmpp_2m_step(X, PRED, OTHER, before, now, to, variant), second)
        else:
            close(dpmpp_1_sde_step(X, PRED, Z, now, to), first)
            close(dpmpp_2m_sde_step(X, PRED, OTHER, Z, before, now, to, variant), second)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2])
def test_unipc(order: int, variant: str, flow: bool) -> None:
    scheduler, levels = multistep("UniPCMultistepScheduler", flow, solver_type=variant)
    older, before, now, to = levels[3:7]
    with stepping(scheduler, [], torch.float64):
        scheduler._step_index = 5
        scheduler.model_outputs = [OTHER, PRED]
        predicted = scheduler.multistep_uni_p_bh_update(PRED, sample=X, order=order)
        scheduler.model_outputs = [OLDER, OTHER]
        corrected = scheduler.multistep_uni_c_bh_update(PRED, last_sample=X, this_sample=Z, order=order)
    close(unipc_predict(X, (PRED, OTHER)[:order], (now, before)[:order], to, variant), predicted)
    close(unipc_correct(X, PRED, (OTHER, OLDER)[:order], (before, older)[:order], now, variant), corrected)


def test_steps_take_gradients() -> None:
    """They are plain functions: nothing in them cuts a gradient or changes its arguments."""
    now, to = vp_level(3.0), vp_level(1.1)
    tensors = [tensor.clone().requires_grad_() for tensor in (X, PRED, OTHER)]
    before = [tensor.detach().clone() for tensor in tensors]
    end = dpmpp_2m_step(*tensors, vp_level(5.0), now, to)
    assert all(gradient.abs().min() > 0 for gradient in torch.autograd.grad(end.sum(), tensors))
    assert all(torch.equal(tensor.detach(), kept) for tensor, kept in zip(tensors, before, strict=True))
