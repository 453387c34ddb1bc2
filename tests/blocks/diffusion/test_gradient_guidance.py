"""Guidance by the gradient of a loss, and previews, in loops of every solver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wgtorch import Block, BlockRegistry, Graph, register_block
from wgtorch.blocks.diffusion import add_preview, steer
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.predictions import from_x0, to_x0
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.roles import Backbone

SOLVERS = ("ddim", "ddpm", "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lcm")


@register_block("test/linear_backbone")
class LinearBackbone(Backbone):
    """A prediction that depends on latent and timestep."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8)

    def forward(self, latent: Tensor, timestep: Any, condition: Tensor | None = None) -> dict[str, Any]:
        moment = torch.as_tensor(timestep, dtype=latent.dtype).flatten()[:1] / 1000
        return {"pred": self.layer(latent.flatten(1)).view_as(latent) * 0.3 + moment}


@register_block("test/brightness")
class Brightness(Block):
    """How far a picture is from a brightness."""

    outputs = {"loss": "tensor"}

    def __init__(self, wanted: float = 0.9) -> None:
        super().__init__()
        self.wanted = wanted

    def forward(self, image: Tensor) -> Tensor:
        return (image.mean(dim=(1, 2, 3)) - self.wanted).square()


def loop(solver: str, prediction: str = "epsilon", steps: int = 4) -> Graph:
    graph = Graph("loop")
    graph.add_node("schedule/flow" if solver.startswith("flow") else "schedule/diffusion", "schedule", config={"num_steps": steps})
    graph.add_node("noise/gaussian", "noise", config={"shape": [2, 2, 2]})
    graph.add_node("test/linear_backbone", "backbone")
    graph.add_node(f"solver/{solver}", "solver", config={"prediction": prediction})
    graph.add_node("codec/pixels", "codec")
    graph.expose_input("noise", "condition")
    graph.expose_output("solver", "next_latent", "latent")
    graph.expose_output("codec", "image")
    return graph


CALL = {"condition": torch.zeros(2, 1, 1)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_picture_behind_each_step(solver: str) -> None:
    graph = loop(solver)
    plain = graph.run(CALL, seed=1)["latent"]
    add_preview(graph)
    seen: list[tuple[Any, ...]] = []

    def watch(event: Any) -> None:
        if event.path == "preview" and event.kind == "end":
            seen.append((event.inputs, event.outputs["x0"]))

    found = graph.run(CALL, seed=1, callbacks=[watch])
    assert torch.equal(found["latent"], plain), "it changes nothing"
    assert torch.equal(found["x0"], seen[-1][1])
    assert len(seen) == (7 if solver == "heun" else 4)
    grid = graph.nodes["schedule"].run({})["progress"].grid
    for inputs, x0 in seen:
        level = dict(zip(grid.timesteps, grid.levels, strict=False)).get(inputs["timestep"])
        assert level is not None
        torch.testing.assert_close(x0, to_x0("epsilon", inputs["latent"], inputs["pred"], level))
    assert torch.allclose(seen[-1][1], plain, atol=0.05), "the last one is nearly the end"


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_one_step_down_the_gradient(prediction: str) -> None:
    graph = loop("euler", prediction)
    backbone = graph.nodes["backbone"]
    steer(graph, lambda image: image.square().sum(dim=(1, 2, 3)), scale=0.4, sees="latent")
    latent, timestep = torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(3)), 500.0
    level = NoiseLevel(*graph.nodes["schedule"].level_at(timestep))
    found = graph.nodes["backbone"].run({"latent": latent, "timestep": timestep})
    x = latent.clone().requires_grad_()
    x0 = to_x0(prediction, x, backbone(latent=x, timestep=timestep)["pred"], level)
    losses = x0.square().sum(dim=(1, 2, 3))
    (slope,) = torch.autograd.grad(losses.sum(), x)
    moved = x0 - 0.4 * level.sigma * slope / slope.flatten(1).pow(2).mean(dim=1).sqrt().view(2, 1, 1, 1)
    torch.testing.assert_close(found["pred"], from_x0(prediction, latent, moved, level).detach())
    torch.testing.assert_close(found["loss"], losses.detach())
    assert not found["pred"].requires_grad


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_loop_is_steered_and_saved(solver: str, tmp_path: Path) -> None:
    graph = loop(solver, steps=8)

    def miss(own: Graph) -> float:
        return float((own.run(CALL, seed=2)["latent"].mean(dim=(1, 2, 3)) - 5).square().sum())

    before = miss(graph)
    steer(graph, Brightness(5), scale=1.0, sees="latent")
    graph.validate()
    assert miss(graph) < 0.8 * before
    again = Graph.load(graph.save(tmp_path / "steered"))
    assert torch.equal(again.run(CALL, seed=2)["latent"], graph.run(CALL, seed=2)["latent"])
    assert all(parameter.grad is None for parameter in graph.parameters())


THEIRS = ("DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete")
CONVERTING = ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep")
DISTILLED = ("LCM", "TCD")


def theirs(scheduler: str, steps: int = 4) -> Graph:
    graph = Graph("loop")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    config: dict[str, Any] = {} if scheduler.startswith("Flow") else betas
    if scheduler in ("DDIM", "DDPM"):
        config = {**config, "clip_sample": False}
    graph.add_node("schedule/diffusers", "schedule", config={"scheduler": f"{scheduler}Scheduler", "config": config, "num_steps": steps})
    graph.add_node("noise/gaussian", "noise", config={"shape": [2, 2, 2]})
    graph.add_node("test/linear_backbone", "backbone")
    graph.add_node("solver/diffusers", "solver")
    graph.expose_input("noise", "condition")
    graph.expose_output("solver", "next_latent", "latent")
    return graph


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of their code
@pytest.mark.parametrize("scheduler", [*THEIRS, *CONVERTING, *DISTILLED, "FlowMatchEulerDiscrete"])
def test_schedulers_of_diffusers_say_the_picture_behind_each_step_as_they_see_it(scheduler: str) -> None:
    pytest.importorskip("diffusers")
    from wgtorch.integrations.diffusers.schedulers import apart, shown

    graph = theirs(scheduler)
    plain = graph.run(CALL, seed=1)["latent"]
    add_preview(graph)
    seen: list[tuple[Any, Tensor]] = []
    found = graph.run(
        CALL, seed=1, callbacks=lambda e: seen.append((e.inputs, e.outputs["x0"])) if (e.path, e.kind) == ("preview", "end") else None
    )
    assert torch.equal(found["latent"], plain), "it changes nothing"
    assert len(seen) >= 4
    for inputs, x0 in seen:
        progress = inputs["progress"]
        own, now = apart(progress.scheduler), progress.scheduler.timesteps[progress.iteration]
        scaled = shown(own, inputs["latent"] if progress.sample is None else progress.sample, now)
        sample = progress.sample if progress.sample is not None else inputs["latent"] / (scaled / inputs["latent"])
        if scheduler in CONVERTING:
            own._step_index = progress.iteration
            want = own.convert_model_output(inputs["pred"], sample=sample)
            if scheduler == "DEISMultistep":  # theirs converts to the noise
                alpha, sigma = own._sigma_to_alpha_sigma_t(own.sigmas[progress.iteration])
                want = (sample - sigma * want) / alpha
        elif scheduler in DISTILLED:
            kept = own.alphas_cumprod[now]
            want = (sample - (1 - kept).sqrt() * inputs["pred"]) / kept.sqrt()
            if scheduler == "LCM":  # theirs is drawn to the sample near the data
                skip, out = own.get_scalings_for_boundary_condition_discrete(now)
                torch.testing.assert_close(out * x0 + skip * sample, own.step(inputs["pred"], now, sample).denoised, rtol=1e-4, atol=1e-5)
        elif scheduler.startswith("Flow"):
            want = sample - own.sigmas[progress.iteration] * inputs["pred"]
        else:
            want = own.step(inputs["pred"], now, sample).pred_original_sample
        torch.testing.assert_close(x0, want, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of their code
@pytest.mark.parametrize("scheduler", ["DDIM", "EulerDiscrete", "DPMSolverMultistep", "HeunDiscrete", "FlowMatchEulerDiscrete"])
def test_a_loop_with_a_scheduler_of_diffusers_is_steered_and_saved(scheduler: str, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    graph = theirs(scheduler, steps=8)

    def miss(own: Graph) -> float:
        return float((own.run(CALL, seed=2)["latent"].mean(dim=(1, 2, 3)) - 5).square().sum())

    before = miss(graph)
    steer(graph, Brightness(5), scale=1.0, sees="latent")
    graph.validate()
    assert miss(graph) < 0.8 * before
    again = Graph.load(graph.save(tmp_path / "steered"))
    assert torch.equal(again.run(CALL, seed=2)["latent"], graph.run(CALL, seed=2)["latent"])


def test_a_scheduler_that_does_not_say_what_is_predicted_is_refused() -> None:
    pytest.importorskip("diffusers")
    for scheduler in ("EDMEuler", "CMStochasticIterative"):
        graph = theirs("DDIM")
        graph.replace_node(
            "schedule",
            BlockRegistry.build({"block_type": "schedule/diffusers", "config": {"scheduler": f"{scheduler}Scheduler"}}),
        )
        with pytest.raises(ConfigError, match=f"{scheduler}Scheduler does not say which picture a prediction comes from"):
            add_preview(graph)


def test_the_painter_that_ships_is_steered() -> None:
    graph = Graph.from_template("text_to_image", steps=8)
    prompt = {"prompt": "a red castle in the hills by day"}
    before = graph.run(prompt, seed=1)["image"].mean()
    steer(graph, lambda image: (image.mean(dim=(1, 2, 3)) - 0.2).square(), scale=0.4)
    assert (graph.run(prompt, seed=1)["image"].mean() - 0.2).abs() < 0.6 * (before - 0.2).abs()


def test_what_cannot_be_is_refused() -> None:
    graph = loop("euler")
    with pytest.raises(ConfigError, match="has no node backbone_9"):
        steer(graph, Brightness(), node="backbone_9")
    with pytest.raises(ConfigError, match="sees='picture'; expected image or latent"):
        steer(graph, Brightness(), sees="picture")
    with pytest.raises(ConfigError, match="has no node solver; expected one of wgtorch's own solvers"):
        add_preview(Graph("empty"))
    steer(graph, lambda image: torch.zeros(2))
    with pytest.raises(PortError, match="the loss has no gradient by the picture"):
        graph.run(CALL, seed=1)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 10**400, "1", None, True])
def test_a_scale_is_a_finite_number(scale: Any) -> None:
    with pytest.raises(ConfigError, match=r"GradientGuidance.scale: found .*expected a finite number"):
        steer(loop("euler"), Brightness(), scale=scale)


@pytest.mark.parametrize("loss", [lambda image: 3.0, lambda image: image, lambda image: image.mean().item()])
def test_a_loss_is_a_number_for_each_row(loss: Any) -> None:
    graph = loop("euler")
    steer(graph, loss, sees="latent")
    with pytest.raises(PortError, match=r"the loss is .*expected one number, or one for each of \d+ rows"):
        graph.run(CALL, seed=1)
