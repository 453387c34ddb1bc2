"""Any scheduler of diffusers through one block: the same trajectory as diffusers' own loop, and no state in the module."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

import diffusers

from tests.blocks.diffusion.against_diffusers import SHAPE, make_model, noises_for, relative
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError, PortError, UnknownNameError
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.schedulers import scheduler_class, scheduler_names
from wgtorch.roles import Backbone

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of their code

MODEL = make_model(torch.float32)
NOISE, IMAGE = noises_for(2, torch.float32)
NEEDS = {"LMSDiscreteScheduler": "scipy", "DPMSolverSDEScheduler": "torchsde", "CosineDPMSolverMultistepScheduler": "torchsde"}
SCHEDULERS = {
    "CMStochasticIterativeScheduler": {},
    "CogVideoXDDIMScheduler": {},
    "CosineDPMSolverMultistepScheduler": {},
    "DDIMInverseScheduler": {},
    "DDIMParallelScheduler": {},
    "DDIMScheduler": {"prediction_type": "v_prediction", "clip_sample": False},
    "DDPMParallelScheduler": {},
    "DDPMScheduler": {},
    "DEISMultistepScheduler": {},
    "DPMSolverMultistepInverseScheduler": {},
    "DPMSolverMultistepScheduler": {"solver_order": 3},
    "DPMSolverSDEScheduler": {},
    "DPMSolverSinglestepScheduler": {},
    "EDMDPMSolverMultistepScheduler": {},
    "EDMEulerScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
    "FlowMatchHeunDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "IPNDMScheduler": {},
    "KDPM2AncestralDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {},
    "LCMScheduler": {},
    "LMSDiscreteScheduler": {},
    "PNDMScheduler": {},
    "SASolverScheduler": {},
    "TCDScheduler": {},
    "UnCLIPScheduler": {},
    "UniPCMultistepScheduler": {},
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def build(block_type: str, **config: Any) -> Any:
    return BlockRegistry.build({"block_type": block_type, "config": config})


def needed(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])


def by_hand(name: str, config: dict[str, Any], steps: int, begin: int = 0) -> Tensor:
    """The loop of diffusers' pipelines."""
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[begin:]
    if not begin:
        latent = NOISE * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        add = scheduler.add_noise if hasattr(scheduler, "add_noise") else lambda image, noise, t: scheduler.scale_noise(image, t, noise)
        latent = add(IMAGE, NOISE, timesteps[:1])
    for t in timesteps:
        shown = scheduler.scale_model_input(latent, t) if hasattr(scheduler, "scale_model_input") else latent
        latent = scheduler.step(MODEL(shown, float(t)), t, latent, return_dict=False)[0]
    return latent


def by_block(solver: Any, begun: dict[str, Any], image: Tensor | None = None) -> Tensor:
    progress, timestep, done = begun["progress"], begun["timestep"], False
    latent = progress.start(NOISE, image)
    while not done:
        found = solver(latent, timestep, MODEL(latent, timestep), progress=progress)
        latent, timestep, progress, done = (found[key] for key in ("next_latent", "next_timestep", "progress", "done"))
    return latent


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_trajectories(name: str) -> None:
    needed(name)
    for steps in (4, 7):
        torch.manual_seed(5)
        expected = by_hand(name, SCHEDULERS[name], steps)
        torch.manual_seed(5)
        found = by_block(build("solver/diffusers"), build("schedule/diffusers", scheduler=name, config=SCHEDULERS[name])(num_steps=steps))
        assert bool(expected.isfinite().all()) and relative(found, expected) <= 1e-6


@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"],
)
def test_from_an_image(name: str) -> None:
    order = 2 if name.startswith("Heun") else 1
    expected = by_hand(name, {}, 8, begin=4 * order)
    begun = build("schedule/diffusers", scheduler=name, num_steps=8)(strength=0.5)
    assert relative(by_block(build("solver/diffusers"), begun, IMAGE), expected) <= 1e-6
    with pytest.raises(ValueError, match="strength: found 0.1 with 8 steps, expected a number from 0.125 to 1"):
        build("schedule/diffusers", scheduler=name, num_steps=8)(strength=0.1)


def test_arguments_of_set_timesteps_and_step() -> None:
    flux = build("schedule/diffusers", scheduler="FlowMatchEulerDiscreteScheduler", config={"use_dynamic_shifting": True})
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[1.0, 0.6, 0.2], mu=0.9)
    begun = flux(settings={"sigmas": [1.0, 0.6, 0.2], "mu": 0.9})
    assert torch.equal(begun["progress"].scheduler.timesteps, scheduler.timesteps)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    torch.manual_seed(3)
    begun = build("schedule/diffusers", scheduler="DDIMScheduler", config={"clip_sample": False}, num_steps=3)()
    noisy = by_block(build("solver/diffusers", step={"eta": 1.0}), begun)
    assert not torch.allclose(noisy, by_block(build("solver/diffusers"), begun))


class Field(Backbone):
    """The model of the harness."""

    def forward(self, latent: Tensor, timestep: float, condition: Tensor | None = None) -> dict[str, Any]:
        return {"pred": MODEL(latent, timestep)}


def sampler(name: str, **config: Any) -> Graph:
    graph = Graph("sampler")
    graph.add_node("schedule/diffusers", "schedule", config={"scheduler": name, "num_steps": 6, "config": config})
    graph.add_node("noise/gaussian", "noise", config={"shape": list(SHAPE[1:])})
    graph.add_node(Field(), "backbone")
    graph.add_node("solver/diffusers", "solver")
    graph.expose_input("noise", "condition")
    graph.expose_output("solver", "next_latent", "latent")
    return graph


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_graph_is_joined_by_roles_and_shared_by_threads(name: str) -> None:
    graph, condition = sampler(name), torch.zeros(2, 1)
    assert graph.validate().is_valid
    alone = [graph.run({"condition": condition}, seed=seed)["latent"] for seed in range(6)]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda seed: graph.run({"condition": condition}, seed=seed)["latent"], range(6)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(alone[0], alone[1])
    one = graph.run({"condition": condition[:1]}, seed=0)["latent"]
    assert relative(one, alone[0][:1]) <= 1e-5  # a sample has noise of its own


def test_any_other_solver_takes_the_place() -> None:
    """On the same settings the block and the solver of our own paint the same."""
    graph, condition = sampler("DPMSolverMultistepScheduler"), torch.zeros(2, 1)
    theirs = graph.run({"condition": condition}, seed=0)["latent"]
    schedule = {"convention": "dpm_solver", "timestep_spacing": "linspace", "num_steps": 6}
    betas = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    graph.replace_node("schedule", build("schedule/diffusion", **schedule, **betas))
    graph.replace_node("solver", build("solver/dpmpp_2m"))
    assert relative(graph.run({"condition": condition}, seed=0)["latent"], theirs) <= 1e-5


def test_a_turn_can_be_made_again() -> None:
    """Schedulers count and remember; each turn's is apart from the last, so no turn changes what came before."""
    solver, begun = build("solver/diffusers"), build("schedule/diffusers", scheduler="UniPCMultistepScheduler", num_steps=5)()
    progress, latent = begun["progress"], begun["progress"].start(NOISE)
    for _ in range(3):
        pred = MODEL(latent, progress.timestep)
        first, again = (solver(latent, progress.timestep, pred, progress=progress) for _ in range(2))
        assert torch.equal(first["next_latent"], again["next_latent"]) and first["progress"].iteration == progress.iteration + 1
        latent, progress = first["next_latent"], first["progress"]


def test_a_scheduler_of_its_own_and_a_start_in_the_middle() -> None:
    solver = build("solver/diffusers", scheduler="DDIMScheduler", num_steps=4, config={"clip_sample": False})
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(4)
    pred = MODEL(NOISE, 500)
    found = solver(NOISE, torch.tensor(500), pred)
    assert (found["next_timestep"], found["done"]) == (250, False)
    torch.testing.assert_close(found["next_latent"], scheduler.step(pred, 500, NOISE, return_dict=False)[0])
    with pytest.raises(PortError, match=r"timestep: found 501, expected one of the 4 timesteps 750, 500, 250, 0"):
        solver(NOISE, 501, pred)


def test_seeds_reach_schedulers_without_a_generator() -> None:
    """DDPM takes generators; a scheduler that takes none draws from the global one, seeded for the turn."""
    solver, begun = build("solver/diffusers"), build("schedule/diffusers", scheduler="DDPMScheduler", num_steps=5)()
    latent, before = begun["progress"].start(NOISE), torch.get_rng_state()
    ends = [solver(latent, 800, latent, progress=begun["progress"], rng=Rng(seed, "solver"))["next_latent"] for seed in (1, 1, 2)]
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_registry_is_diffusers_own() -> None:
    names = scheduler_names()
    assert set(SCHEDULERS) <= set(names) and len(names) > 40
    assert all(name.endswith("Scheduler") for name in names)
    assert scheduler_class("DDIMScheduler") is diffusers.DDIMScheduler


@pytest.mark.parametrize("name", ["os.system", "diffusers.DDIMScheduler", "torch.nn.Linear", "SchedulerMixin", "AutoencoderKL"])
def test_a_config_cannot_name_code(name: str) -> None:
    for block in ("solver/diffusers", "schedule/diffusers"):
        with pytest.raises(UnknownNameError, match=rf"diffusers has no scheduler '{name}'"):
            build(block, scheduler=name)


def test_what_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean .*'EulerDiscreteScheduler'"):
        build("solver/diffusers", scheduler="EulerDiscretScheduler")
    with pytest.raises(ConfigError, match=r"config.beta_shedule: DDIMScheduler takes no such setting; did you mean 'beta_schedule'"):
        build("solver/diffusers", scheduler="DDIMScheduler", config={"beta_shedule": "linear"})
    with pytest.raises(ConfigError, match=r"RePaintScheduler steps from .*original_image.*Such a scheduler wants a block of its own"):
        build("solver/diffusers", scheduler="RePaintScheduler")
    with pytest.raises(PortError, match="which scheduler\\? Give it scheduler='...', or feed progress"):
        build("solver/diffusers")(NOISE, 1, NOISE)
    begun = build("schedule/diffusers", scheduler="DDIMScheduler", num_steps=1)()
    found = build("solver/diffusers")(NOISE, 0, NOISE, progress=begun["progress"])
    assert found["done"] is True and found["next_timestep"] == 0
    with pytest.raises(PortError, match="all 1 iterations are made; expected the loop to stop at `done`"):
        build("solver/diffusers")(NOISE, 0, NOISE, progress=found["progress"])
