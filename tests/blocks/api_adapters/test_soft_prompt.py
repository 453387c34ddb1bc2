"""SoftPrompt: vectors before a sequence, with the gradient of the model after it or with one estimated from rewards."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch import Block, Graph, Rng, register_block
from wgtorch.blocks.api_adapters import SoftPrompt
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.train import Step, register_reward
from wgtorch.train.objectives.reward import Reward


def test_the_vectors_come_first_and_the_mask_grows() -> None:
    block = SoftPrompt(length=2, width=3)
    x, mask = torch.randn(4, 5, 3), torch.tensor([[1, 1, 1, 0, 0]]).expand(4, 5)
    found = block.run({"embedding": x, "attention_mask": mask})
    assert torch.equal(found["embedding"][:, 2:], x)
    assert torch.equal(found["embedding"][:, :2], block.vectors.expand(4, 2, 3))
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0]] * 4
    assert set(block.run({"embedding": x})) == {"embedding"}


def language_model() -> tuple[Any, Graph]:
    """A frozen GPT-2 with random weights behind learned vectors. Its weights are large, so that what stands before counts."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3, bos_token_id=None, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config)

    class Embed(Block):
        outputs = {"embedding": "embedding"}

        def forward(self, tokens: Tensor) -> dict[str, Any]:
            return {"embedding": model.transformer.wte(tokens).detach()}

    class Answer(Block):
        inputs = {"embedding": "embedding"}
        outputs = {"logits": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, embedding: Tensor) -> dict[str, Any]:
            return {"logits": self.model(inputs_embeds=embedding).logits[:, -1]}

    graph = Graph("g")
    graph.add_node(Embed(), "embed")
    graph.add_node(SoftPrompt(length=4, width=16), "soft")
    graph.add_node(Answer(), "answer")
    graph.add_edge("embed.embedding", "soft.embedding")
    graph.add_edge("soft.embedding", "answer.embedding")
    graph.infer_exposed_ports()
    graph.set_trainable("answer", False)
    return model, graph.train()


TOKENS, WANTED = torch.tensor([[3, 7], [9, 1]]), torch.tensor([21, 21])


def test_a_local_language_model_gives_them_their_gradient() -> None:
    model, graph = language_model()
    vectors = graph.nodes["soft"].vectors
    assert [id(parameter) for parameter in graph.trainable_parameters()] == [id(vectors)]
    torch.nn.functional.cross_entropy(graph(tokens=TOKENS)["logits"], WANTED).backward()
    assert all(parameter.grad is None for parameter in model.parameters()), "the model is frozen at its place"
    own = vectors.detach().clone().requires_grad_()
    embedding = torch.cat([own.expand(2, 4, 16), model.transformer.wte(TOKENS)], dim=1)
    torch.nn.functional.cross_entropy(model(inputs_embeds=embedding).logits[:, -1], WANTED).backward()
    assert float(own.grad.abs().max()) > 1e-3
    torch.testing.assert_close(vectors.grad, own.grad)


def test_they_make_a_frozen_language_model_say_what_is_wanted() -> None:
    model, graph = language_model()
    optimizer = torch.optim.Adam(graph.trainable_parameters(), lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(graph(tokens=TOKENS)["logits"], WANTED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.5 * found[0], found
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_draws_are_normal_around_the_vectors_and_told_with_their_log_probability() -> None:
    block = SoftPrompt(length=2, width=3, noise=0.5).train()
    found = block(embedding=torch.zeros(5000, 1, 3), rng=Rng(1))
    drawn = found["embedding"][:, :2]
    assert not drawn.requires_grad, "its gradient goes through log_prob alone"
    torch.testing.assert_close(drawn.mean(0), block.vectors.detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full((2, 3), 0.5), atol=0.03, rtol=0)
    expected = torch.distributions.Normal(block.vectors, 0.5).log_prob(drawn).flatten(1).sum(1)
    torch.testing.assert_close(found["log_prob"], expected)
    quiet = block.eval()(embedding=torch.zeros(1, 1, 3))
    assert torch.equal(quiet["embedding"][0, :2], block.vectors)
    assert float(quiet["log_prob"].detach()) == pytest.approx(-6 * math.log(0.5 * math.sqrt(2 * math.pi)), abs=1e-5)


@register_block("around_tests/far_judge")
class FarJudge(Block):
    """A model over a network that takes embeddings and answers with a number."""

    inputs = {"embedding": "embedding"}
    outputs = {"score": "tensor"}
    is_async = True

    def forward(self, embedding: Tensor) -> dict[str, Any]:
        return {"score": -(embedding.detach()[:, 0] - torch.tensor([0.5, -0.5])).square().sum(1)}


@register_reward("around_tests/score")
def score(values: Any, batch: Any) -> Tensor:
    return values["judge.score"]


def test_over_a_network_they_learn_by_reward() -> None:
    torch.manual_seed(0)
    graph = Graph("g")
    graph.add_node(SoftPrompt(length=1, width=2, noise=0.1, scale=0.0), "soft")
    graph.add_node(FarJudge(), "judge")
    graph.add_edge("soft.embedding", "judge.embedding")
    graph.infer_exposed_ports()
    graph.train()
    objective = Reward(reward="around_tests/score", outputs=["judge.score"], log_prob=["soft.log_prob"], baseline="leave_one_out")
    optimizer = torch.optim.Adam(graph.trainable_parameters(), lr=0.05)
    for index in range(60):
        optimizer.zero_grad()
        objective(graph, {"embedding": torch.zeros(16, 1, 2)}, Step(index, torch.Generator()))["loss"].backward()
        optimizer.step()
    torch.testing.assert_close(graph.nodes["soft"].vectors.detach(), torch.tensor([[0.5, -0.5]]), atol=0.12, rtol=0)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(PortError, match=r"prompt/soft.embedding: got \[2, 4\]; expected \[B, T, 3\]"):
        SoftPrompt(length=1, width=3)(embedding=torch.zeros(2, 4))
    for config, words in (({"length": 0, "width": 2}, "found length 0"), ({"length": 1, "width": 2, "noise": -1}, "found noise -1")):
        with pytest.raises(ConfigError, match=words):
            BlockRegistry.build({"block_type": "prompt/soft", "config": config})
