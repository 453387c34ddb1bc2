"""PromptAdapter: what it says, how it draws, and that rewarded phrases become likely."""

from __future__ import annotations

import pytest
import torch

from wgtorch import Block, Graph, Rng
from wgtorch.blocks.api_adapters import PromptAdapter
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError


def adapter(*, logits: list[float] | None = None, **config: object) -> PromptAdapter:
    block = PromptAdapter(**{"suffixes": ["", "briefly", "at length"], **config})  # type: ignore[arg-type]
    if logits is not None:
        block.logits["suffix"].data = torch.tensor(logits)
    return block


def test_in_eval_the_likeliest_phrases_stand_around_the_text() -> None:
    block = PromptAdapter(prefixes=["Sir:", "Friend:"], suffixes=["", "please"], join=" ").eval()
    block.logits["prefix"].data = torch.tensor([0.0, 1.0])
    assert block.run({"text": "tell"})["text"] == "Friend: tell"
    block.logits["suffix"].data = torch.tensor([0.0, 2.0])
    found = block.run({"text": ["tell", "ask"]})
    assert found["text"] == ["Friend: tell please", "Friend: ask please"]
    assert found["choice"].tolist() == [[1, 1], [1, 1]]
    expected = torch.tensor([0.0, 1.0]).log_softmax(0)[1] + torch.tensor([0.0, 2.0]).log_softmax(0)[1]
    torch.testing.assert_close(found["log_prob"].detach(), expected.expand(2))
    assert block.probabilities()["prefix"] == pytest.approx({"Sir:": 0.2689, "Friend:": 0.7311}, abs=1e-4)


def test_entropy_is_that_of_the_choices() -> None:
    block = adapter(logits=[0.3, -1.0, 0.5])
    distribution = torch.distributions.Categorical(logits=block.logits["suffix"])
    torch.testing.assert_close(block(text=["a", "b"])["entropy"], distribution.entropy().expand(2))


def test_in_training_draws_follow_the_probabilities() -> None:
    block = adapter(logits=[1.0, 0.0, -1.0]).train()
    choice = block(text=["a"] * 20_000, rng=Rng(3))["choice"]
    assert set(choice[:, 0].tolist()) == {0}
    shares = torch.bincount(choice[:, 1], minlength=3) / len(choice)
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.0, -1.0]).softmax(0), atol=0.012, rtol=0)


def test_a_seed_gives_each_text_its_own_draw_whatever_stands_beside_it() -> None:
    block = adapter(sample=True).eval()
    graph = Graph("g")
    graph.add_node(block, "adapter")
    graph.infer_exposed_ports()
    texts = list("abcdefgh")
    together = graph.run({"text": texts}, seed=5)["text"]
    assert graph.run({"text": texts[:3]}, seed=5)["text"] == together[:3]
    assert len({text[1:] for text in together}) > 1
    assert graph.run({"text": texts}, seed=6)["text"] != together


def test_without_a_seed_the_global_generator_rules() -> None:
    block = adapter().train()
    torch.manual_seed(1)
    first = block(text=["a"] * 16)["choice"]
    torch.manual_seed(1)
    assert torch.equal(block(text=["a"] * 16)["choice"], first)
    assert not torch.equal(block(text=["a"] * 16)["choice"], first)


def test_a_frozen_place_takes_the_likeliest_also_while_the_rest_trains() -> None:
    block = adapter(logits=[0.0, 0.0, 0.1])
    graph = Graph("g")
    graph.add_node(block, "adapter")
    graph.infer_exposed_ports()
    graph.set_trainable("adapter", False)
    found = graph.run({"text": ["a"] * 12}, training=True)
    assert found["choice"][:, 1].tolist() == [2] * 12
    assert not found["log_prob"].requires_grad


def test_a_part_without_a_choice_has_nothing_to_train() -> None:
    block = PromptAdapter(prefixes=["Be kind."], suffixes=["", "please"])
    assert [name for name, _ in block.named_parameters()] == ["logits.suffix"]
    assert block.eval()(text="go")["text"] == "Be kind. go"


def test_round_trips_and_dry_runs(tmp_path: object) -> None:
    block = adapter(logits=[0.0, 2.0, 1.0]).eval()
    again = BlockRegistry.build(block.to_config())
    assert isinstance(again, PromptAdapter) and again.phrases == block.phrases
    loaded = Block.load(block.save(tmp_path / "adapter")).eval()  # type: ignore[operator]
    assert loaded(text="go")["text"] == "go briefly"
    graph = Graph("g")
    graph.add_node(block, "adapter")
    graph.infer_exposed_ports()
    assert "adapter" in str(graph.run({"text": "go"}, dry_run="fake"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "nothing to choose; give at least two prefixes or two suffixes"),
        ({"prefixes": ["one"]}, "nothing to choose"),
        ({"suffixes": ["a", "a"]}, "suffixes: found .* expected different texts"),
        ({"prefixes": ["a", 3]}, r"prefixes\[1\]: got int 3; expected string"),
    ],
)
def test_choices_that_are_none(config: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BlockRegistry.build({"block_type": "prompt/adapter", "config": config})
