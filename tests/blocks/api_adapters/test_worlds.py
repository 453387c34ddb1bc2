"""Worlds around a model behind an API: what stands before it learns from rewards, what stands after it from a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch import Block, Graph, Pipeline, Stage, State, World, register_block
from wgtorch.train import Data, Step, register_data, register_reward
from wgtorch.train.gradient_boundaries import what_trains
from wgtorch.train.objectives.reward import Reward
from wgtorch.train.objectives.world_state import WorldState

COLORS = ("red", "blue", "white")
ADAPTER, ORACLE, HEAD = "ask/ask/ask/adapter", "ask/ask/ask/oracle", "judge/judge/judge/head"


@register_block("around_tests/oracle")
class Oracle(Block):
    """Stands where a model behind an API will: it tells the colour of a castle only to those who ask politely."""

    inputs = {"prompt": "text"}
    outputs = {"answer": "text"}
    is_async = True

    def forward(self, prompt: str | list[str]) -> dict[str, Any]:
        texts = [prompt] if isinstance(prompt, str) else prompt
        return {"answer": [text.split()[1] if text.endswith("please") else "who asks" for text in texts]}


@register_data("around_tests/questions")
class Questions(Data):
    """Castles of three colours."""

    def __init__(self, *, count: int = 48, batch_size: int = 12) -> None:
        super().__init__(batch_size=batch_size)
        self.count = count

    def train(self) -> Any:
        return [{"text": f"castle {COLORS[index % 3]} {index}", "color": index % 3} for index in range(self.count)]


@register_reward("around_tests/told")
def told(values: Any, batch: Any) -> Tensor:
    """How well the answer told the colour: the head's log-likelihood of it, [B]."""
    return -F.cross_entropy(values["outcome"], batch["color"], reduction="none")


def world_of_answers() -> World:
    """adapter -> API, and features of the answer -> head, in two stages."""
    ask, judge = Graph("ask"), Graph("judge")
    ask.add_node("prompt/adapter", "adapter", config={"suffixes": ["", "now", "please"]})
    ask.add_node("around_tests/oracle", "oracle")
    ask.add_edge("adapter.text", "oracle.prompt")
    judge.add_node("embedder/hashed", "features", config={"dimensions": 32})
    judge.add_node("head/response", "head", config={"in_features": 32, "out_features": 3, "normalise": False})
    judge.add_edge("features.embedding", "head.features")
    world = World("answers")
    world.set_state_schema(["intent", "recipe", "outcome"])
    for graph, source, target, ports in (
        (ask, "intent", "recipe", ("text", "answer")),
        (judge, "recipe", "outcome", ("text", "output")),
    ):
        name = graph.block_id
        graph.infer_exposed_ports()
        pipeline = Pipeline(name)
        pipeline.add_graph(graph, name)
        pipeline.infer_exposed_ports()
        stage = Stage(name)
        stage.add_pipeline(pipeline, name)
        stage.set_state_contract([source], [target], {f"{name}.{ports[0]}": source}, {target: f"{name}.{ports[1]}"})
        world.add_stage(stage, name)
    world.set_cycle(["ask", "judge"])
    return world


def names_of(world: World, parameters: Any) -> set[str]:
    wanted = {id(parameter) for parameter in parameters}
    return {name for name, parameter in world.named_parameters() if id(parameter) in wanted}


def test_it_trains_exactly_what_stands_around_the_api_and_says_so() -> None:
    world = world_of_answers()
    parts = world.find(ADAPTER), world.find(HEAD)
    own = [parameter for part in parts for parameter in part.parameters()]
    assert {id(parameter) for parameter in world.parameters()} == {id(parameter) for parameter in own}
    assert [id(parameter) for parameter in world.trainable_parameters()] == [id(parameter) for parameter in own]
    text = what_trains(world, world.trainable_parameters())
    assert f"102 parameters train: {ADAPTER} (3), {HEAD} (99)" in text
    assert text.endswith(f"gradients stop at {ORACLE}")


def test_phrases_learn_from_rewards_and_the_head_from_its_loss(tmp_path: Path) -> None:
    """With ``please`` the oracle tells the colour, so only then can the head be right: both are learned in one run."""
    pytest.importorskip("lightning")
    from wgtorch.train.fitting import fit

    world = world_of_answers()
    settings = {
        "data": {"type": "around_tests/questions"},
        "objective": {
            "type": "reward",
            "reward": "around_tests/told",
            "inputs": {"intent": "text"},
            "outputs": ["outcome"],
            "log_prob": [f"{ADAPTER}.log_prob"],
            "baseline": "leave_one_out",
        },
        "optimizer": {"type": "adamw", "lr": 0.1},
        "trainer": {"max_steps": 100, "accelerator": "cpu", "enable_progress_bar": False},
    }
    fit(world, settings, tmp_path / "run")
    assert world.find(ADAPTER).probabilities()["suffix"]["please"] > 0.9
    world.eval()
    state = world.run(state=State(intent=["castle white 7", "castle red 8"], schema=world.state_schema), num_steps=1)
    assert state["recipe"] == ["white", "red"]
    assert [COLORS[row] for row in state["outcome"].argmax(1).tolist()] == ["white", "red"]
    again = World.load(tmp_path / "run/checkpoints/last").eval()
    torch.testing.assert_close(again.find(ADAPTER).logits["suffix"], world.find(ADAPTER).logits["suffix"])
    torch.testing.assert_close(again.find(HEAD).layers[-1].weight, world.find(HEAD).layers[-1].weight)


def test_the_estimate_is_the_one_of_the_formula() -> None:
    """d loss / d logits = -mean((R - b) (onehot(choice) - p)), with the mean of the other rewards as b; the head has its own loss."""
    torch.manual_seed(0)
    world = world_of_answers().train()
    adapter, head = world.find(ADAPTER), world.find(HEAD)
    adapter.logits["suffix"].data = torch.tensor([0.4, -0.3, 0.2])
    batch = next(iter(Questions().loaders(seed=0)[0]))
    reward = Reward(
        reward="around_tests/told",
        outputs=["outcome", f"{ADAPTER}.choice", "recipe"],
        inputs={"intent": "text"},
        log_prob=[f"{ADAPTER}.log_prob"],
        baseline="leave_one_out",
    )
    torch.manual_seed(1)
    values = reward.values(world, batch, ["outcome", f"{ADAPTER}.choice", "recipe"])
    torch.manual_seed(1)
    reward(world, batch, Step(0, torch.Generator()))["loss"].backward()
    rewards, choice = told(values, batch).detach(), values[f"{ADAPTER}.choice"][:, 1]
    assert len(set(choice.tolist())) > 1 and {*values["recipe"]} - {"who asks"} <= {*COLORS}
    baseline = (rewards.sum() - rewards) / (len(rewards) - 1)
    p = adapter.logits["suffix"].detach().softmax(0)
    expected = -((rewards - baseline)[:, None] * (F.one_hot(choice, 3) - p)).mean(0)
    torch.testing.assert_close(adapter.logits["suffix"].grad, expected)
    features = world.find("judge/judge/judge/features")(text=values["recipe"])["embedding"]
    by_hand = torch.autograd.grad(F.cross_entropy(head(features=features)["output"], batch["color"]), head.layers[-1].weight)[0]
    torch.testing.assert_close(head.layers[-1].weight.grad, by_hand)


def test_the_head_alone_learns_from_a_distance_in_the_state() -> None:
    world = world_of_answers()
    world.find(ADAPTER).logits["suffix"].data = torch.tensor([0.0, 0.0, 5.0])
    world.set_trainable("ask", False)
    world.train()
    assert names_of(world, world.trainable_parameters()) == {name for name in dict(world.named_parameters()) if ".head." in name}
    objective = WorldState(start={"intent": "text"}, slots={"outcome": "wanted"})
    optimizer = torch.optim.Adam(world.trainable_parameters(), lr=0.1)
    batch = {"text": [f"castle {color}" for color in COLORS], "wanted": torch.eye(3)}
    found = []
    for index in range(60):
        optimizer.zero_grad()
        loss = objective(world, batch, Step(index, torch.Generator()))["loss"]
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.01 < 0.2 < found[0]
    assert world.find(ADAPTER).logits["suffix"].grad is None
