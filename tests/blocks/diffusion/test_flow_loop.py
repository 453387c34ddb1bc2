"""The small blocks of a sampling loop, through the graph that runs them: Euler steps, guidance, noise, pixels."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.world_blocks import Recorder
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.roles import Backbone

SHAPE = [2, 3, 3]


def build(block_type: str, **config) -> Block:
    return BlockRegistry.build({"block_type": block_type, "config": config})


class Field(Backbone):
    """A smooth made-up model: predicts from the latent, the time and the condition [B, 2]."""

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.sin(latent + float(timestep)) * condition.mean(1).view(-1, 1, 1, 1)


class Straight(Backbone):
    """The exact flow from ``noise`` to ``data``: noise - data, or the data itself."""

    def __init__(self, noise: Tensor, data: Tensor, prediction: str) -> None:
        super().__init__()
        self.pred = noise - data if prediction == "flow" else data

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor | None = None) -> Tensor:
        return self.pred


def sampler(backbone: Block, **solver) -> Graph:
    """Noise, backbone and solver, joined by their roles alone."""
    graph = Graph("sampler")
    graph.add_node(build("noise/gaussian", shape=SHAPE), "noise")
    graph.add_node(backbone, "backbone")
    graph.add_node(build("solver/flow_euler", **solver), "solver")
    graph.expose_input("noise", "condition", "condition")
    graph.expose_input("backbone", "condition", "condition")
    graph.expose_output("noise", "latent", "noise")
    graph.expose_output("solver", "next_latent", "latent")
    graph.expose_output("solver", "next_timestep", "timestep")
    return graph


def shifted(sigma: float, shift: float) -> float:
    """Esser et al. 2024, eq. 23."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def grid(num_steps: int, shift: float = 1.0) -> list[float]:
    return [shifted((num_steps - step) / num_steps, shift) for step in range(num_steps + 1)]


CONDITION = torch.tensor([[0.5, 1.5], [-1.0, 0.5], [2.0, 0.25]])


# --- Euler steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["flow", "x0"])
@pytest.mark.parametrize(("num_steps", "shift"), [(1, 1.0), (4, 1.0), (7, 3.0), (12, 0.5)])
def test_a_loop_is_eulers_method_written_by_hand(prediction, num_steps, shift):
    found = sampler(Field(), num_steps=num_steps, shift=shift, prediction=prediction).run({"condition": CONDITION}, seed=3)

    x = found["noise"].double()
    sigmas = grid(num_steps, shift)
    for sigma, following in pairwise(sigmas):
        pred = torch.sin(x + sigma) * CONDITION.double().mean(1).view(-1, 1, 1, 1)
        velocity = pred if prediction == "flow" else (x - pred) / sigma
        x = x - (sigma - following) * velocity
    torch.testing.assert_close(found["latent"], x.float(), rtol=1e-4, atol=1e-5)
    assert float(found["timestep"]) == 0.0


@pytest.mark.parametrize("prediction", ["flow", "x0"])
@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_a_straight_flow_arrives_at_the_data(prediction, num_steps):
    data = torch.randn(1, *SHAPE)
    graph = sampler(Field(), num_steps=num_steps, prediction=prediction)
    noise = graph.run({"condition": CONDITION[:1]}, seed=1)["noise"]
    graph.replace_node("backbone", Straight(noise, data, prediction))
    torch.testing.assert_close(graph.run({"condition": CONDITION[:1]}, seed=1)["latent"], data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.4])
def test_the_backbone_is_called_at_the_shifted_sigmas(shift):
    recorder = Recorder()
    sampler(Field(), num_steps=6, shift=shift).run({"condition": CONDITION}, callbacks=[recorder])
    times = [float(event.inputs["timestep"]) for event in recorder.events if event.kind == "start" and event.path == "backbone"]
    assert times == pytest.approx(grid(6, shift)[:-1], abs=1e-6)
    assert times[0] == 1.0 and sorted(times, reverse=True) == times
    if shift != 1:
        assert (times[3] > 0.5) is (shift > 1)


def test_a_loop_turns_as_often_as_the_solver_says():
    recorder = Recorder()
    sampler(Field(), num_steps=5).run({"condition": CONDITION}, callbacks=[recorder])
    loops = [(event.step, event.total) for event in recorder.events if event.kind == "loop"]
    assert loops == [(step, 5) for step in range(5)]


def test_gradients_pass_through_the_loop():
    condition = CONDITION.clone().requires_grad_()
    latent = sampler(Field(), num_steps=4).run({"condition": condition}, seed=1, training=True)["latent"]
    (gradient,) = torch.autograd.grad(latent.square().sum(), [condition])
    assert gradient.abs().min() > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_steps": 0}, "num_steps: found 0, expected .*at least 1"),
        ({"num_steps": 4, "shift": 0.0}, "shift: found 0.0, expected a number above 0"),
        ({"num_steps": 4, "prediction": "nois"}, "prediction: found 'nois', expected"),
    ],
)
def test_settings_that_make_no_sense(config, words):
    with pytest.raises(ValueError, match=words):
        build("solver/flow_euler", **config)


def test_settings_of_the_wrong_type():
    with pytest.raises(ConfigError, match=r"solver/flow_euler\.config\.num_steps: got str 'many'"):
        build("solver/flow_euler", num_steps="many")


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance_is_the_papers_formula():
    cond, uncond = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    for scale in (0.0, 1.0, 2.5, 7.0):
        expected = uncond + scale * (cond - uncond)
        for guided in (
            build("guidance/cfg", scale=scale)(pred_cond=cond, pred_uncond=uncond),
            build("guidance/cfg", scale=99.0)(pred_cond=cond, pred_uncond=uncond, scale=scale),
        ):
            torch.testing.assert_close(guided["pred_guided"], expected)
    torch.testing.assert_close(build("guidance/cfg", scale=1.0)(pred_cond=cond, pred_uncond=uncond)["pred_guided"], cond)


@pytest.mark.parametrize(("timestep", "guides"), [(0.8, False), (0.7, True), (0.3, True), (0.1, True), (0.05, False), (None, True)])
def test_guidance_may_be_kept_to_an_interval(timestep, guides):
    cond, uncond = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    block = build("guidance/cfg", scale=3.0, interval=[0.1, 0.7])
    given = {} if timestep is None else {"timestep": timestep}
    found = block(pred_cond=cond, pred_uncond=uncond, **given)["pred_guided"]
    torch.testing.assert_close(found, uncond + 3 * (cond - uncond) if guides else cond)
    if timestep is not None:
        torch.testing.assert_close(block(pred_cond=cond, pred_uncond=uncond, timestep=torch.tensor(timestep))["pred_guided"], found)


@pytest.mark.parametrize("interval", [[0.7, 0.1], [0.1]])
def test_an_interval_that_is_none(interval):
    with pytest.raises(ValueError, match=r"interval: found \[.*\], expected \[low, high\]"):
        build("guidance/cfg", interval=interval)


# --- noise ------------------------------------------------------------------------------------------------------------


def draw(batch: int, *key: object, sample: tuple[int, ...] = ()) -> Tensor:
    return build("noise/gaussian", shape=SHAPE)(condition=torch.zeros(batch, 4), rng=Rng(*key, sample=sample))["latent"]


def test_noise_belongs_to_its_sample():
    """Row k is the same in a batch of any size, and another for every k, seed, path and turn."""
    five = draw(5, 1, "paint/noise", ())
    assert torch.equal(draw(2, 1, "paint/noise", ()), five[:2])
    others = [draw(1, 2, "paint/noise", ()), draw(1, 1, "other/noise", ()), draw(1, 1, "paint/noise", (1,))]
    rows = torch.cat([five, *others]).flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 8


def test_an_item_of_a_mapped_list_draws_as_a_row_of_a_batch():
    rows = draw(3, 1, "paint/noise", ())
    for index in range(3):
        assert torch.equal(draw(1, 1, "paint/noise", (), sample=(index,))[0], rows[index])


def test_noise_is_standard_normal_and_takes_the_conditions_dtype():
    latent = build("noise/gaussian", shape=[4, 32, 32])(condition=torch.zeros(4, 2, dtype=torch.float64), rng=Rng(0))["latent"]
    assert latent.shape == (4, 4, 32, 32) and latent.dtype == torch.float64
    assert abs(float(latent.mean())) < 0.03 and abs(float(latent.std()) - 1) < 0.03
    tokens = build("noise/gaussian", shape=SHAPE)(condition=torch.zeros(1, 2, dtype=torch.int64), rng=Rng(0))["latent"]
    assert tokens.dtype == torch.float32


def test_noise_without_a_key_is_pytorchs():
    block = build("noise/gaussian", shape=SHAPE)
    torch.manual_seed(5)
    found = block(condition=torch.zeros(2, 4))["latent"]
    torch.manual_seed(5)
    assert torch.equal(found, torch.randn(2, *SHAPE))


def test_noise_starts_at_its_timestep():
    assert build("noise/gaussian", shape=SHAPE)(condition=torch.zeros(1, 1))["timestep"] == 1.0
    assert build("noise/gaussian", shape=SHAPE, timestep=0.5)(condition=torch.zeros(1, 1))["timestep"] == 0.5
    with pytest.raises(ValueError, match=r"GaussianNoise\.shape: found \[3, 0\], expected positive sizes"):
        build("noise/gaussian", shape=[3, 0])


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_pixels_are_scaled_and_cut():
    latent = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    image = build("codec/pixels")(latent=latent)["image"]
    torch.testing.assert_close(image[0, 0, 0], torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0]))


def test_pixels_and_back():
    image = torch.rand(2, 3, 4, 4)
    latent = build("encoder/pixels")(image=image)["latent"]
    assert latent.min() < -0.8 and latent.max() > 0.8
    torch.testing.assert_close(build("codec/pixels")(latent=latent)["image"], image)
    assert build("encoder/pixels")(image=image[0])["latent"].shape == (1, 3, 4, 4)
