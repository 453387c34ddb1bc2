"""The denoising objective: what it computes, what it finds in a graph, and what it says when it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.train.toys import FLOW, BothWays, backbone
from wgtorch import Block, Graph, register_block
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.predictions import to_x0
from wgtorch.blocks.diffusion.schedules import build_schedule
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.roles import Backbone
from wgtorch.train.objective import Step
from wgtorch.train.objectives.denoising import Denoising
from wgtorch.train.objectives.noising import draw_times, error_scale, target_of, times_from, weighting_from, weights_of


def step(index: int = 0) -> Step:
    return Step(index, torch.Generator().manual_seed(index))


@register_block("train_toys/noted_backbone")
class Noted(Backbone):
    """A convolution that lets the test look at what it was called with."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)
        self.seen: dict[str, Any] = {}

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor | None = None) -> dict:
        self.seen.update(latent=latent, timestep=timestep, condition=condition)
        return {"pred": self.layer(latent)}


@pytest.mark.parametrize(("weighting", "prediction"), [("none", "epsilon"), ("min_snr", "epsilon"), ("min_snr", "v_prediction")])
def test_the_loss_is_that_of_diffusers_training_scripts(weighting: str, prediction: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffusers.training_utils import compute_snr

    torch.manual_seed(0)
    x0 = torch.randn(6, 4, 8, 8)
    block = Noted()
    objective = Denoising(prediction=prediction, schedule={"kind": "diffusion"}, weighting=weighting)
    found = objective(block, {"latent": x0}, step())

    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction)
    times = block.seen["timestep"]
    draws = torch.Generator().manual_seed(0)
    torch.rand(6, generator=draws)  # the objective draws times first
    noise = torch.randn(x0.shape, generator=draws)
    noisy = scheduler.add_noise(x0, noise, times)
    torch.testing.assert_close(block.seen["latent"], noisy)
    target = noise if prediction == "epsilon" else scheduler.get_velocity(x0, noise, times)
    pred = block.layer(noisy)
    if weighting == "none":
        expected = F.mse_loss(pred, target)
    else:  # train_text_to_image.py, --snr_gamma=5
        snr = compute_snr(scheduler, times)
        weights = torch.stack([snr, 5.0 * torch.ones_like(snr)], dim=1).min(dim=1)[0]
        weights = weights / snr if prediction == "epsilon" else weights / (snr + 1)
        expected = (F.mse_loss(pred, target, reduction="none").mean(dim=(1, 2, 3)) * weights).mean()
    torch.testing.assert_close(found["loss"], expected)


def test_flow_matching_is_that_of_diffusers_scripts() -> None:
    pytest.importorskip("diffusers")
    from diffusers.training_utils import compute_density_for_timestep_sampling

    times = times_from({"type": "logit_normal", "mean": 0.5, "std": 0.7})
    schedule = build_schedule({"kind": "flow", "num_train_timesteps": 1000})
    timestep, alpha, sigma = draw_times(times, schedule, 4096, torch.Generator().manual_seed(3))
    theirs = compute_density_for_timestep_sampling("logit_normal", 4096, 0.5, 0.7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(sigma, theirs)
    torch.testing.assert_close(timestep, 1000 * sigma)
    torch.testing.assert_close(alpha + sigma, torch.ones(4096))


def test_a_loss_told_in_another_prediction_is_that_predictions_error() -> None:
    block = Noted(3)
    x0 = torch.randn(5, 3, 8, 8)
    found = Denoising(prediction="x0", loss_on="flow", schedule=FLOW["schedule"])(block, {"latent": x0}, step())
    x, sigma = block.seen["latent"], block.seen["timestep"].view(-1, 1, 1, 1)
    noise = (x - (1 - sigma) * x0) / sigma
    velocity = (x - block.layer(x)) / sigma
    torch.testing.assert_close(found["loss"], F.mse_loss(velocity, noise - x0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow"])
def test_targets_and_scales_belong_to_the_predictions_of_the_solvers(prediction: str) -> None:
    torch.manual_seed(1)
    x0, eps, d = torch.randn(3, dtype=torch.float64)
    alpha, sigma = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    x = alpha * x0 + sigma * eps
    told = target_of(prediction, x0, eps, alpha, sigma)
    torch.testing.assert_close(to_x0(prediction, x, told, NoiseLevel(0.8, 0.6)), x0)
    # the same x with an error d in x0
    wrong = target_of(prediction, x0 + d, (x - alpha * (x0 + d)) / sigma, alpha, sigma)
    torch.testing.assert_close((wrong - told) ** 2, error_scale(prediction, alpha, sigma) * d**2)


def test_min_snr_counts_the_same_whatever_the_model_predicts() -> None:
    alpha, sigma = torch.tensor([0.99, 0.5]), torch.tensor([0.1, 0.8])
    for prediction in ("epsilon", "sample", "v_prediction", "flow"):
        weights = weights_of(weighting_from("min_snr"), prediction, prediction, alpha, sigma)
        torch.testing.assert_close(weights * error_scale(prediction, alpha, sigma), (alpha / sigma).square().clamp(max=5))


def test_in_a_graph_the_backbone_is_found_and_called_once_without_the_loop() -> None:
    graph = Graph.from_template("text_to_image", steps=7)
    calls: list[Tensor] = []
    graph.nodes["backbone"].register_forward_hook(lambda module, args, outputs: calls.append(outputs["pred"]))
    batch = {"image": torch.rand(2, 3, 64, 64), "prompt": ["a castle in the snow", "the sea"]}
    objective = Denoising()
    objective.check(graph)
    found = objective(graph, batch, step())
    assert len(calls) == 1
    assert calls[0].shape == (2, 3, 64, 64)
    found["loss"].backward()
    assert all(parameter.grad is not None for parameter in graph.nodes["backbone"].parameters())
    assert any(parameter.grad is not None for parameter in graph.nodes["conditioner"].parameters()), "conditions train as well"
    graph.zero_grad()


def test_prediction_and_schedule_come_from_the_graph() -> None:
    graph = Graph.from_template("text_to_image")
    objective = Denoising()
    denoiser = objective.denoiser(graph)
    assert objective.prediction_of(denoiser) == "sample"
    assert objective.schedule_of(denoiser).level_at(0.25) == (0.75, 0.25)


def test_stable_diffusion_trains_as_its_script_does(tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    from diffusers import DDPMScheduler

    from tests.integrations.diffusers import tiny

    pipe = tiny.stable_diffusion(tmp_path / "sd")
    graph = Graph.from_diffusers(pipe)
    latent = torch.randn(3, 4, tiny.SIDE, tiny.SIDE)
    found = Denoising(prediction="noise")(graph, {"latent": latent, "prompt": ["a", "the", "b"]}, step())

    draws = torch.Generator().manual_seed(0)
    times = (torch.rand(3, generator=draws) * 1000).long()
    noise = torch.randn(latent.shape, generator=draws)
    noisy = DDPMScheduler.from_config(pipe.scheduler.config).add_noise(latent, noise, times)
    ids = pipe.tokenizer(["a", "the", "b"], padding="max_length", truncation=True, max_length=pipe.tokenizer.model_max_length)
    hidden = pipe.text_encoder(torch.tensor(ids["input_ids"]))[0]
    expected = F.mse_loss(pipe.unet(noisy, times, hidden).sample, noise)
    torch.testing.assert_close(found["loss"], expected)


def test_pictures_are_encoded_by_a_codec_that_works_both_ways() -> None:
    graph = Graph("g")
    graph.add_node(Noted(), "backbone", auto_connect=False)
    graph.add_node(BothWays(), "codec", auto_connect=False)
    graph.expose_input("backbone", "latent")
    graph.expose_input("backbone", "timestep")
    graph.expose_output("backbone", "pred")
    image = torch.rand(2, 3, 8, 8)
    found = Denoising(prediction="noise", schedule={"kind": "diffusion"})(graph, {"image": image}, step())
    found["loss"].backward()
    assert graph.nodes["backbone"].seen["latent"].shape == (2, 4, 4, 4)
    assert graph.nodes["codec"].down.weight.grad is None, "the codec is not trained by the noise"


def test_left_out_conditions_are_empty_texts_and_zeros() -> None:
    objective = Denoising(prediction="noise", schedule={"kind": "diffusion"}, drop_condition=0.5)
    values = {"prompt": [str(index) for index in range(64)], "condition": torch.ones(64, 2, 3)}
    found = objective.dropped(values, step())
    gone = [text == "" for text in found["prompt"]]
    assert 16 < sum(gone) < 48
    assert [not row.any() for row in found["condition"]] == gone
    assert [text for text in found["prompt"] if text] == [str(index) for index, empty in enumerate(gone) if not empty]


def test_the_same_step_draws_the_same_whatever_came_before() -> None:
    block, batch = backbone(), {"image": torch.rand(2, 3, 16, 16), "condition": torch.rand(2, 7, 8)}
    objective = Denoising(**{key: value for key, value in FLOW.items() if key != "type"})
    first = objective(block, batch, step(5))["loss"]
    torch.rand(100)
    objective(block, batch, step(6))
    assert torch.equal(objective(block, batch, step(5))["loss"], first)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prediction": "velocity"}, "expected one of epsilon, sample, v_prediction, flow"),
        ({"times": "logitnormal"}, "did you mean 'logit_normal'"),
        ({"times": {"type": "logit_normal", "mu": 1}}, "mu = 1"),
        ({"weighting": {"type": "min_snr", "gama": 5}}, "did you mean 'gamma'"),
        ({"drop_condition": 2.0}, "a share from 0 to 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Denoising(**settings)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match="expected a backbone, with inputs 'latent'"):
        Denoising(prediction="noise").check(Block.wrap(nn.Linear(2, 2), inputs={"x": "tensor"}, outputs={"y": "tensor"}))
    with pytest.raises(ConfigError, match="nothing says what .* predicts; give prediction"):
        Denoising().check(backbone())
    with pytest.raises(ConfigError, match="nothing says how .* is noised; give schedule"):
        Denoising(prediction="noise").check(backbone())
    with pytest.raises(ConfigError, match="has no block of role 'backbone'"):
        Denoising().check(Graph.from_template("caption"))
    with pytest.raises(ConfigError, match="no backbone at node 'backbon'; did you mean 'backbone'"):
        Denoising(backbone="backbon").check(Graph.from_template("text_to_image"))
    graph = Graph.from_template("text_to_image")
    with pytest.raises(ConfigError, match="needs 'prompt'; the data gives .*'promt'.*did you mean 'promt'"):
        Denoising()(graph, {"image": torch.rand(1, 3, 64, 64), "promt": ["a"]}, step())
    with pytest.raises(ConfigError, match="needs 'latent' or 'image' in every batch"):
        Denoising()(graph, {"prompt": ["a"]}, step())


@pytest.mark.parametrize("foreign", [False, True], ids=["own_solver", "scheduler_of_diffusers"])
@pytest.mark.parametrize("base", ["epsilon", "v_prediction"])
def test_what_contradicts_the_base_is_refused(tmp_path: Any, base: str, foreign: bool) -> None:
    pytest.importorskip("transformers")
    from tests.integrations.diffusers import tiny

    pipe = tiny.stable_diffusion(tmp_path / "sd")
    pipe.scheduler = tiny.scheduler("pndm" if foreign else "euler", prediction_type=base)
    graph = Graph.from_diffusers(pipe)
    Denoising().check(graph)
    Denoising(prediction=base, schedule={"kind": "diffusion", **BETAS}).check(graph)
    other = "v_prediction" if base == "epsilon" else "noise"
    with pytest.raises(ConfigError, match=r"would be taught prediction '\w+', where its solver takes '" + base + "'.*objective=denoising"):
        Denoising(prediction=other).check(graph)
    with pytest.raises(ConfigError, match=r"\(squaredcos_cap_v2\), where it is sampled with noise in 1000 timesteps \(scaled_linear\)"):
        Denoising(schedule={"kind": "diffusion", "beta_schedule": "squaredcos_cap_v2"}).check(graph)
    with pytest.raises(ConfigError, match="prediction 'sample', .* and a schedule of a flow with timesteps to 1, where .*schedule=null"):
        Denoising(prediction="x0", schedule={"kind": "flow", "num_train_timesteps": 1}).check(graph)


def test_timesteps_that_contradict_the_graph_are_refused() -> None:
    graph = Graph.from_template("text_to_image")
    Denoising(prediction="x0", schedule={"kind": "flow", "num_train_timesteps": 1, "shift": 3.0}).check(graph)
    with pytest.raises(ConfigError, match="a flow with timesteps to 1000, where it is sampled with a flow with timesteps to 1"):
        Denoising(schedule={"kind": "flow"}).check(graph)


@register_block("train_toys/saying")
class Saying(Backbone):
    """Says what it is given, less a weight that begins at 0: the error in x0 grows as the square of the level."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor | None = None) -> dict:
        return {"pred": latent - self.bias}


@pytest.mark.parametrize(("held_out", "size"), [(1, 1), (2, 1), (3, 2), (64, 16)])
@pytest.mark.parametrize("times", ["uniform", "logit_normal", "mode"])
def test_validation_covers_all_levels_of_noise_however_few_are_held_out(held_out: int, size: int, times: str) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from wgtorch.train import Trainable
    from wgtorch.train.fitting import _quiet

    torch.manual_seed(1)
    objective = Denoising(prediction="x0", schedule={"kind": "flow", "num_train_timesteps": 1}, times=times)
    trainable = Trainable(Saying(), objective=objective, optimizer="sgd")
    latents = torch.randn(held_out, 4, 16, 16)
    held: Any = torch.utils.data.DataLoader([{"latent": each} for each in latents], batch_size=size)
    with _quiet():
        own = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        found = own.validate(trainable, held, verbose=False)[0]["val/loss"]
    _, _, sigma = draw_times(objective.times, objective.schedule, 100_000, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    expected = float(sigma.square().mean() * (1 + latents.square().mean()))
    assert found == pytest.approx(expected, rel=0.1)


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FOREIGN = ("PNDM", "LMSDiscrete", "DPMSolverSinglestep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DEISMultistep", "TCD", "SASolver")


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers' own
@pytest.mark.parametrize("name", FOREIGN)
def test_a_scheduler_that_is_only_wrapped_says_how_its_model_is_trained(name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    from wgtorch.train.objectives.denoiser import prediction_in, schedule_in

    betas = {"beta_start": 0.001, "beta_end": 0.011, "beta_schedule": "scaled_linear", "num_train_timesteps": 500}
    config = {"scheduler": f"{name}Scheduler", "config": {**betas, "prediction_type": "v_prediction"}}
    graph = Graph("wrapped")
    graph.add_node(BlockRegistry.build({"block_type": "schedule/diffusers", "config": config}), "schedule", auto_connect=False)
    assert prediction_in(graph) == "v_prediction"
    times = torch.tensor([0, 17, 499])
    level = schedule_in(graph).level_at(times)  # type: ignore[union-attr]
    alphas = diffusers.DDPMScheduler(**betas).alphas_cumprod[times]
    torch.testing.assert_close(level[0].float(), alphas.sqrt())
    torch.testing.assert_close(level[1].float(), (1 - alphas).sqrt())


def test_a_wrapped_scheduler_of_another_kind_is_no_schedule_of_training() -> None:
    pytest.importorskip("diffusers")
    block: Any = BlockRegistry.build({"block_type": "schedule/diffusers", "config": {"scheduler": "EDMEulerScheduler"}})
    assert block.trained_schedule is None
    flow: Any = BlockRegistry.build(
        {"block_type": "schedule/diffusers", "config": {"scheduler": "FlowMatchLCMScheduler", "config": {"shift": 3.0}}}
    )
    assert (flow.prediction, flow.trained_schedule.shift) == ("flow", 3.0)
