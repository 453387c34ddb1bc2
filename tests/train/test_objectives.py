"""The other objectives, against the same computation by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.train.toys import BothWays, Chooser, LanguageModel, Linear, chain, turning_world
from wgtorch import Block, Graph, State, World
from wgtorch.core.errors import ConfigError, UnknownNameError
from wgtorch.train import register_reward
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.classification import Classification
from wgtorch.train.objectives.reconstruction import Reconstruction
from wgtorch.train.objectives.reward import Reward
from wgtorch.train.objectives.tokens import NextToken
from wgtorch.train.objectives.world_state import WorldState, detached


def step(training: bool = True) -> Step:
    return Step(0, torch.Generator().manual_seed(0), training)


class Judged(Objective):
    """Has models of its own, under words that anybody may choose."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Linear()

    def forward(self, target: Block, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"loss": self.block(target(**batch)["y"])["y"].mean()}


def test_a_model_of_an_objective_may_be_named_block() -> None:
    objective = Judged()
    objective.check(Linear())
    assert torch.isfinite(objective(Linear(), {"x": torch.zeros(1, 4)}, step())["loss"])


# --- tokens and classes -----------------------------------------------------------------------------------------------


def test_next_token_is_shifted_cross_entropy_without_padding_and_prompt() -> None:
    model = LanguageModel()
    tokens = torch.tensor([[1, 2, 3, 0], [4, 1, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    found = NextToken(padding=0, mask="mask")(model, {"tokens": tokens, "mask": mask}, step())
    logits = model.table(tokens)
    expected = (F.cross_entropy(logits[0, 1], torch.tensor(3)) + F.cross_entropy(logits[1, 0], torch.tensor(1))) / 2
    torch.testing.assert_close(found["loss"], expected)
    model.table.weight.data = 10 * torch.eye(5).roll(1, 1)  # always the next number
    assert float(NextToken(padding=0)(model, {"tokens": tokens}, step())["accuracy"]) == pytest.approx(2 / 3)


def test_the_logits_of_a_model_inside_a_graph_are_seen_by_path() -> None:
    graph = Graph("g")
    graph.add_node(LanguageModel(), "model")
    graph.expose_input("model", "tokens", "words")
    graph.expose_output("model", "logits", "scores")
    graph.train()
    tokens = torch.randint(5, (2, 6))
    by_path = NextToken(logits="model.logits", inputs={"words": "tokens"})(graph, {"tokens": tokens}, step())["loss"]
    torch.testing.assert_close(by_path, NextToken()(graph.nodes["model"], {"tokens": tokens}, step())["loss"])
    by_path.backward()
    assert graph.nodes["model"].table.weight.grad is not None


def test_logits_of_no_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected \[B, L, V\] for \[B, L\]"):
        NextToken(logits="y")(Linear(), {"tokens": torch.zeros(1, 2, dtype=torch.long), "x": torch.zeros(1, 4)}, step())


def test_classification_adds_heads_and_leaves_out_what_is_not_labelled() -> None:
    graph = chain(Linear(), Linear())
    batch = {"x": torch.randn(4, 4), "first": torch.tensor([0, 1, -1, 3]), "last": torch.tensor([1, 1, 1, 2])}
    graph.train()
    found = Classification(heads={"a.y": "first", "y": "last"}, smoothing=0.1)(graph, batch, step())
    middle = graph.nodes["a"].layer(batch["x"])
    last = graph.nodes["b"].layer(middle)
    kept = batch["first"] >= 0
    expected = F.cross_entropy(middle[kept], batch["first"][kept], label_smoothing=0.1) + F.cross_entropy(
        last, batch["last"], label_smoothing=0.1
    )
    torch.testing.assert_close(found["loss"], expected)
    right = int((middle.argmax(1) == batch["first"]).sum() + (last.argmax(1) == batch["last"]).sum())
    assert float(found["accuracy"]) == pytest.approx(right / 7)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_reconstruction_of_a_codec_both_ways_and_of_a_graph() -> None:
    codec, picture = BothWays(), torch.rand(2, 3, 8, 8)
    found = Reconstruction(loss="mse", latent_weight=0.5)(codec, {"image": picture}, step())
    latent = codec.down(picture)
    torch.testing.assert_close(found["loss"], F.mse_loss(codec.up(latent), picture) + 0.5 * latent.square().mean())

    graph = Graph("g")
    graph.add_node(codec, "in", auto_connect=False)
    graph.add_node(codec, "out", auto_connect=False)
    graph.add_edge("in.latent", "out.latent")
    graph.expose_input("in", "image")
    graph.expose_output("out", "image")
    graph.train()
    again = Reconstruction(loss="mse", latent="in.latent", latent_weight=0.5)(graph, {"image": picture}, step())
    torch.testing.assert_close(again["loss"], found["loss"])
    shown = Reconstruction().samples(graph.eval(), {"image": picture}, step())
    assert set(shown) == {"pictures", "reconstructions"}
    with pytest.raises(ConfigError, match="works both ways"):
        Reconstruction().check(Linear())
    with pytest.raises(ConfigError, match="did you mean 'mse'"):
        Reconstruction(loss="mes")


# --- worlds -----------------------------------------------------------------------------------------------------------


def world_gradient(cycles: int, truncate: int | None, **settings: Any) -> tuple[Tensor, Tensor, World]:
    torch.manual_seed(0)
    world = turning_world().train()
    x, wanted = torch.randn(3, 4), torch.randn(3, 4)
    objective = WorldState(slots={"last": "wanted"}, start={"last": "x"}, cycles=cycles, truncate=truncate, **settings)
    objective.check(world)
    loss = objective(world, {"x": x, "wanted": wanted}, step())["loss"]
    loss.backward()
    return loss, world.find("turn/step/graph/a").layer.weight.grad, world


def by_hand(cycles: int, cut_after: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    layer = turning_world().find("turn/step/graph/a").layer
    x, wanted = torch.randn(3, 4), torch.randn(3, 4)
    for index in range(cycles):
        if index in cut_after:
            x = x.detach()
        x = layer(x)
    loss = F.mse_loss(x, wanted)
    return loss, torch.autograd.grad(loss, layer.weight)[0]


@pytest.mark.parametrize(("cycles", "truncate", "cut_after"), [(1, None, ()), (4, None, ()), (4, 1, (1, 2, 3)), (5, 2, (2, 4))])
def test_gradients_run_back_through_the_passes_of_a_world_up_to_the_truncation(
    cycles: int, truncate: int | None, cut_after: tuple[int, ...]
) -> None:
    loss, gradient, world = world_gradient(cycles, truncate)
    expected = by_hand(cycles, cut_after)
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient, expected[1])
    assert world.life.is_new, "training does not touch the world's life"
    assert world.state is None


def test_every_pass_may_be_compared_and_ports_inside_watched() -> None:
    world = turning_world().train()
    layer = world.find("turn/step/graph/a").layer
    x, wanted = torch.randn(3, 4), torch.randn(3, 2, 4)
    batch = {"x": x, "wanted": wanted}
    ports = {"turn/step/graph/a.y": "wanted"}
    found = WorldState(ports=ports, start={"last": "x"}, cycles=2, each=True)(world, batch, step())
    first = layer(x)
    torch.testing.assert_close(found["loss"], (F.mse_loss(first, wanted[:, 0]) + F.mse_loss(layer(first), wanted[:, 1])) / 2)
    assert set(found) == {"loss", "turn/step/graph/a.y"}


def test_slots_that_do_not_exist_and_values_that_do_not_fit() -> None:
    world = turning_world()
    with pytest.raises(ConfigError, match="has no slot 'lats'; did you mean 'last'"):
        WorldState(slots={"lats": "wanted"}).check(world)
    with pytest.raises(ConfigError, match=r"last is \[3, 4\]; expected a tensor \[3, 5\]"):
        WorldState(slots={"last": "w"}, start={"last": "x"})(world.train(), {"x": torch.ones(3, 4), "w": torch.ones(3, 5)}, step())
    with pytest.raises(ConfigError, match="nothing to compare"):
        WorldState()
    each = WorldState(slots={"last": "w"}, start={"last": "x"}, cycles=2, each=True)
    with pytest.raises(ConfigError, match=r"world_state: \[2, 3, 4\] is given to compare with; with each, expected \[B, 2, ...\]"):
        each(world.train(), {"x": torch.ones(3, 4), "w": torch.ones(2, 3, 4)}, step())


def test_detached_goes_through_states_and_lists() -> None:
    x = torch.ones(1, requires_grad=True)
    state = detached(State(recipe={"a": [x * 2]}, intent="go"))
    assert not state["recipe"]["a"][0].requires_grad
    assert state.intent == "go"


# --- rewards ----------------------------------------------------------------------------------------------------------


@register_reward("train_toys/second_arm")
def second_arm(values: Any, batch: Any, *, of: str = "choice") -> Tensor:
    return (values[of] == 1).float()


def test_a_reward_with_a_derivative_is_climbed_by_it() -> None:
    graph = chain(Linear(), Linear()).train()
    batch = {"x": torch.randn(3, 4)}
    found = Reward(reward={"type": "brightness", "of": "b.y"}, outputs=["b.y"])(graph, batch, step())
    torch.testing.assert_close(found["loss"], -graph(**batch)["y"].mean())
    found["loss"].backward()
    assert graph.nodes["a"].layer.weight.grad is not None


@pytest.mark.parametrize("baseline", ["none", "running", "leave_one_out"])
def test_the_score_function_estimator_points_where_the_derivative_would(baseline: str) -> None:
    """Mean of many estimates against the gradient of the expected reward, which is known here: d p_1 / d preference."""
    torch.manual_seed(0)
    block = Chooser()
    block.preference.data = torch.tensor([0.3, -0.2, 0.1])
    objective = Reward(reward="train_toys/second_arm", outputs=["choice"], log_prob=["log_prob"], baseline=baseline)
    rows, count = torch.zeros(64, 1), 400
    for _ in range(count):
        (objective(block, {"x": rows}, step())["loss"] / count).backward()
    preference = block.preference.detach().requires_grad_()
    (-preference.softmax(0)[1]).backward()
    torch.testing.assert_close(block.preference.grad, preference.grad, atol=0.01, rtol=0.05)


def test_a_running_baseline_is_a_buffer_and_follows_training_only() -> None:
    objective = Reward(reward="train_toys/second_arm", outputs=["choice"], log_prob=["log_prob"], momentum=0.5)
    block = Chooser()
    block.preference.data = torch.tensor([-50.0, 50.0, -50.0])
    objective(block, {"x": torch.zeros(4, 1)}, step(training=False))
    assert int(objective.baseline_steps) == 0
    objective(block, {"x": torch.zeros(4, 1)}, step())
    assert set(objective.state_dict()) == {"baseline_value", "baseline_steps"}
    assert float(objective.baseline_value) == 1.0


def test_a_world_is_rewarded_for_a_slot() -> None:
    world = turning_world().train()
    reward = Reward(reward={"type": "brightness", "of": "last"}, outputs=["last"], inputs={"last": "x"})
    found = reward(world, {"x": torch.ones(2, 4)}, step())
    torch.testing.assert_close(found["loss"], -world.find("turn/step/graph/a").layer(torch.ones(2, 4)).mean())


def test_rewards_that_do_not_fit() -> None:
    with pytest.raises(UnknownNameError, match="unknown reward 'brightnes'; did you mean 'brightness'"):
        Reward(reward="brightnes", outputs=["y"])
    with pytest.raises(ConfigError, match="expected one of"):
        Reward(reward="brightness", outputs=["y"], baseline="median")


def test_a_reward_shows_what_it_looks_at() -> None:
    graph = Graph.from_template("text_to_image", steps=1)
    shown = Reward(reward="brightness", outputs=["image", "noise.latent"]).samples(graph, {"prompt": ["a red house", "the sea"]}, _step())
    assert {name: list(value.shape) for name, value in shown.items()} == {"image": [2, 3, 64, 64], "latent": [2, 3, 64, 64]}
    again = Reward(reward="brightness", outputs=["image"]).samples(graph, {"prompt": ["a red house", "the sea"]}, _step())
    torch.testing.assert_close(again["image"], shown["image"], rtol=0, atol=0)


def _step() -> Step:
    return Step(0, torch.Generator().manual_seed(0), training=False)
