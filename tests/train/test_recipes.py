"""Preference, distillation and policy objectives: short, and equal to what their papers and diffusers' scripts compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("lightning")
pytest.importorskip("peft")

from tests.train.toys import FLOW, backbone
from wgtorch import Block, lora
from wgtorch.core.errors import ConfigError, TrainingError
from wgtorch.train import register_reward
from wgtorch.train.objective import Step
from wgtorch.train.objectives.consistency import ConsistencyDistillation
from wgtorch.train.objectives.denoising import Denoising
from wgtorch.train.objectives.noising import draw_noise, draw_times, masked_mean, times_from, weighting_from, weights_of
from wgtorch.train.objectives.policy import PolicyGradient
from wgtorch.train.objectives.preference import DirectPreference

SCHEDULE = {"kind": "flow", "num_train_timesteps": 1}
CONDITION = torch.rand(4, 7, 8, generator=torch.Generator().manual_seed(3))


def step(index: int = 0, training: bool = True) -> Step:
    return Step(index, torch.Generator().manual_seed(index), training)


def adapted(seed: int = 0, *, std: float = 0.1) -> Any:
    block = backbone(seed)
    for parameter in block.leave.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(1))
    lora.add(block, "style", rank=2, freeze_base=True)
    return block


def pictures(seed: int, count: int = 4) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def learn(block: Any, objective: Any, batch: dict[str, Any], steps: int, lr: float = 0.02) -> list[dict[str, float]]:
    optimizer = torch.optim.Adam(list(block.trainable_parameters()), lr=lr)
    told = []
    for index in range(steps):
        optimizer.zero_grad()
        with lora.use_adapter(block, "style"):
            found = objective(block, batch, step(index))
        found["loss"].backward()
        optimizer.step()
        told.append({name: float(torch.as_tensor(value).detach()) for name, value in found.items()})
    return told


def test_preference_starts_at_log_two_and_learns_which_is_liked() -> None:
    block = adapted()
    objective = DirectPreference(beta=20.0, prediction="x0", schedule=SCHEDULE)
    batch = {"image": pictures(0), "rejected_image": pictures(1), "condition": CONDITION}
    told = learn(block, objective, batch, 25)
    assert told[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "with fresh adapters the model is its own reference"
    assert told[-1]["loss"] < 0.65
    assert told[-1]["preferred"] == 1.0


def test_preference_is_that_of_the_paper() -> None:
    block = adapted()
    for name, parameter in block.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    batch = {"image": pictures(0), "rejected_image": pictures(1), "condition": CONDITION}
    objective = DirectPreference(beta=30.0, prediction="x0", schedule=SCHEDULE)
    with lora.use_adapter(block, "style"):
        found = objective(block, batch, step())
    draws = step()
    schedule: Any = objective.schedule
    timestep, alpha, sigma = draw_times(objective.times, schedule, 4, draws.generator)
    eps = torch.randn(4, 3, 16, 16, generator=draws.generator)
    sides = []
    for name in ("image", "rejected_image"):
        x0 = batch[name] * 2 - 1
        x = alpha.view(-1, 1, 1, 1) * x0 + sigma.view(-1, 1, 1, 1) * eps
        with torch.no_grad():
            with lora.use_adapter(block, "style"):
                own = block(x, timestep, CONDITION)["pred"]
            with lora.use_adapter(block, None):
                reference = block(x, timestep, CONDITION)["pred"]
        sides.append([(pred - x0).square().mean((1, 2, 3)) for pred in (own, reference)])
    (own_w, ref_w), (own_l, ref_l) = sides
    expected = -F.logsigmoid(-0.5 * 30.0 * ((own_w - own_l) - (ref_w - ref_l))).mean()
    torch.testing.assert_close(found["loss"].detach(), expected)


def test_a_reference_needs_adapters() -> None:
    with pytest.raises(TrainingError, match="dpo: .* has no adapters"):
        DirectPreference(prediction="x0", schedule=SCHEDULE)(
            backbone(), {"image": pictures(0), "rejected_image": pictures(1), "condition": CONDITION}, step()
        )
    with pytest.raises(ConfigError, match="dpo needs 'rejected_image'"):
        DirectPreference(prediction="x0", schedule=SCHEDULE)(adapted(), {"image": pictures(0), "condition": CONDITION}, step())


def test_consistency_grows_in_training() -> None:
    block = adapted(std=0.5)  # what the network says weighs as much as what it is shown
    objective = ConsistencyDistillation(prediction="x0", schedule=SCHEDULE, steps=10, guidance=[0.0, 0.0])
    batch = {"image": pictures(0), "condition": CONDITION}

    def inconsistency() -> float:
        with torch.no_grad(), lora.use_adapter(block, "style"):
            return sum(objective(block, batch, step(100 + index))["loss"].item() for index in range(16)) / 16

    before = inconsistency()
    assert len(learn(block, objective, batch, 60, lr=0.005)) == 60
    assert 0 < inconsistency() < 0.85 * before
    skip_start = objective._times(objective.schedule, torch.tensor([9, 0]))
    assert skip_start[0].tolist() == [1.0, pytest.approx(0.1)]
    assert skip_start[1].tolist() == [pytest.approx(0.9), 0.0]


@pytest.fixture(scope="module", autouse=True)
def _near_reward() -> None:
    register_reward("recipes/near")(lambda values, batch: -(values["image"].float().flatten(1).mean(1) - 1).abs())


class Pull(Block):
    """Says that the data are half of what it is shown, and a number more that it learns."""

    inputs = {"latent": "latent", "timestep": "any"}
    outputs = {"pred": "latent"}

    def __init__(self) -> None:
        super().__init__()
        self.more = torch.nn.Parameter(torch.zeros(()))

    def forward(self, latent: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        return {"pred": 0.5 * latent + self.more}


@pytest.mark.parametrize("advantage", ["group", "batch"])
def test_policy_gradient_raises_a_reward_without_a_derivative(advantage: str) -> None:
    block = Pull()
    objective = PolicyGradient(
        reward="recipes/near", shape=[1, 2, 2], steps=4, samples=16, advantage=advantage, prediction="x0", schedule=SCHEDULE
    )
    optimizer = torch.optim.Adam(block.parameters(), lr=0.05)
    rewards = []
    for index in range(40):
        optimizer.zero_grad()
        found = objective(block, {"prompt": ["a", "b"]}, step(index))
        found["loss"].backward()
        optimizer.step()
        rewards.append(found["reward"].item())
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert block.more.item() > 0.2


def test_steps_of_sampling_keep_the_marginals() -> None:
    objective = PolicyGradient(reward="recipes/near", shape=[3, 16, 16], steps=5, eta=1.0, prediction="x0", schedule=SCHEDULE)
    grid = objective.schedule.grid(5)  # type: ignore[union-attr]
    for place in range(5):
        (alpha, sigma), (_, end) = grid.levels[place], grid.targets[place]
        assert 0 <= objective._noise(grid, place) <= float(end) + 1e-9
        assert float(alpha) <= 1 and float(sigma) <= 1
    assert objective._noise(grid, 4) == 0, "the last step ends at the data"
    with pytest.raises(ConfigError, match="ddpo.advantage: found 'grup'.*did you mean 'group'"):
        PolicyGradient(reward="recipes/near", shape=[1], advantage="grup")


def test_losses_of_each_sample_masks_and_prior() -> None:
    block = backbone()
    objective = Denoising(**{key: value for key, value in FLOW.items() if key != "type"}, prior_weight=0.5)  # type: ignore[arg-type]
    batch: dict[str, Any] = {"image": pictures(0), "condition": CONDITION}
    each = objective.per_sample(block, batch, step())
    assert each.shape == (4,)
    torch.testing.assert_close(objective(block, batch, step())["loss"], each.mean())
    with_prior = objective(block, {**batch, "prior": torch.tensor([False, True, False, True])}, step())["loss"]
    torch.testing.assert_close(with_prior, each[[0, 2]].mean() + 0.5 * each[[1, 3]].mean())
    square = torch.rand(2, 3, 4, 4)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4] = 1
    torch.testing.assert_close(masked_mean(square, mask), torch.stack([square[0, :, :2].mean(), square[1].mean()]))


def test_offset_noise_moves_whole_channels() -> None:
    x = torch.zeros(64, 3, 16, 16)
    plain, offset = (draw_noise(x, torch.Generator().manual_seed(0), amount) for amount in (0.0, 0.5))
    assert plain.mean((2, 3)).std() < 0.1 < 0.4 < offset.mean((2, 3)).std()
    torch.testing.assert_close(plain, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["logit_normal", "mode"])
def test_times_and_weightings_are_those_of_stable_diffusion_3s_script(name: str) -> None:
    pytest.importorskip("diffusers")
    from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

    from wgtorch.blocks.diffusion.schedules import build_schedule

    schedule = build_schedule({"kind": "flow", "num_train_timesteps": 1000, "shift": 3.0})
    _, _, sigma = draw_times(times_from(name), schedule, 20000, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    share = compute_density_for_timestep_sampling(name, 20000, logit_mean=0.0, logit_std=1.0, mode_scale=1.29)
    if name == "mode":  # diffusers' u is the place in a list that falls from noise to data
        share = 1 - share
    expected = 3 * share / (1 + 2 * share)
    assert float(sigma.mean()) == pytest.approx(float(expected.mean()), abs=0.01)
    _, _, plain = draw_times(times_from({"type": name, "shift": 1.0}), schedule, 20000, torch.Generator().manual_seed(0))
    assert float(plain.mean()) < float(sigma.mean()) - 0.1
    at = torch.tensor([0.2, 0.5, 0.9])
    for scheme in ("sigma_sqrt", "cosmap"):
        torch.testing.assert_close(
            weights_of(weighting_from(scheme), "flow", "flow", 1 - at, at), compute_loss_weighting_for_sd3(scheme, at)
        )
