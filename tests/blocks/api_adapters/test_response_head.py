"""ResponseHead and the features it may stand on."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wgtorch import Graph
from wgtorch.blocks.api_adapters import HashedEmbedder, ResponseHead
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError, PortError


def test_it_is_its_layers_one_after_the_other() -> None:
    torch.manual_seed(0)
    head = ResponseHead(in_features=6, out_features=2, hidden=[5], dropout=0.3).eval()
    x = torch.randn(4, 6)
    norm, first, last = head.layers[0], head.layers[1], head.layers[4]
    expected = F.linear(F.gelu(F.linear(F.layer_norm(x, [6], norm.weight, norm.bias), first.weight, first.bias)), last.weight, last.bias)
    torch.testing.assert_close(head.run({"features": x}), {"output": expected})
    plain = ResponseHead(in_features=6, out_features=2, normalise=False)
    assert [type(layer) for layer in plain.layers] == [nn.Linear]


def test_a_sequence_counts_by_its_mean_without_padding() -> None:
    torch.manual_seed(0)
    head = ResponseHead(in_features=4, out_features=3)
    sequence = torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = head(features=sequence, attention_mask=mask)["output"]
    torch.testing.assert_close(found[:1], head(features=sequence[:1, :3].mean(1))["output"])
    torch.testing.assert_close(head(features=sequence)["output"], head(features=sequence.mean(1))["output"])


def test_columns_with_names_are_labels() -> None:
    head = ResponseHead(in_features=2, labels=["no", "yes"], normalise=False)
    head.layers[0].weight.data = torch.eye(2)
    head.layers[0].bias.data.zero_()
    assert head.run({"features": torch.tensor([[0.0, 1.0], [1.0, 0.0]])})["label"] == ["yes", "no"]
    assert head.run({"features": torch.tensor([[0.0, 1.0]])})["label"] == "yes"


def test_gradients_go_to_the_layers_and_to_local_features() -> None:
    head = ResponseHead(in_features=3, out_features=1)
    features = torch.randn(2, 3, requires_grad=True)
    head(features=features)["output"].sum().backward()
    assert features.grad is not None
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_what_does_not_fit_is_said() -> None:
    head = ResponseHead(in_features=3, out_features=1)
    with pytest.raises(PortError, match=r"head/response.features: got \[2, 4\]; expected \[B, 3\] or \[B, T, 3\]"):
        head(features=torch.zeros(2, 4))
    for config, words in (
        ({"in_features": 0, "out_features": 1}, "found widths"),
        ({"in_features": 2}, "expected at least 1 each"),
        ({"in_features": 2, "out_features": 3, "labels": ["a"]}, "found 1 labels for out_features 3"),
        ({"in_features": 2, "out_features": 1, "dropout": 1.0}, "dropout: found 1.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            BlockRegistry.build({"block_type": "head/response", "config": config})


def test_hashed_features_tell_words_apart_and_stay_the_same() -> None:
    block = HashedEmbedder(dimensions=512)
    found = block.run({"text": ["a red castle", "A red castle!", "a blue ship", "", "castle red a"]})["embedding"]
    assert torch.equal(found[0], found[1]), "case and punctuation do not count"
    assert float(found[0] @ found[2]) < 0.5 < float(found[0] @ found[4]) < 1, "order counts, and less than the words"
    assert not found[3].any()
    torch.testing.assert_close(found[0].norm(), torch.tensor(1.0))
    torch.testing.assert_close(block(text="a red castle")["embedding"], found[:1])


def test_hashed_features_are_the_same_in_every_process() -> None:
    """What was trained on them must find them again for ever. The digests are those of ``printf castle | b2sum -l 64``."""
    for word, digest in (("castle", "2d9264a64f89ccee"), ("ship", "be197656bc75ee8a"), ("замок", "62205f6b62857e66")):
        number = int.from_bytes(bytes.fromhex(digest), "little")
        expected = torch.zeros(1, 16)
        expected[0, (number >> 1) % 16] = 1.0 if number & 1 else -1.0  # the lowest bit is the sign's, so the column does not tell it
        torch.testing.assert_close(HashedEmbedder(dimensions=16, longest=1)(text=word)["embedding"], expected, rtol=0, atol=0)
    columns = HashedEmbedder(dimensions=4, longest=1)(text=[f"word{index}" for index in range(400)])["embedding"]
    for column in columns.T:
        signs = column[column != 0]
        assert len(signs) > 60 and abs(float(signs.mean())) < 0.35, "signs do not depend on the column"


def test_in_a_graph_it_runs_dry_and_round_trips() -> None:
    graph = Graph("g")
    graph.add_node("embedder/hashed", "features", config={"dimensions": 8})
    graph.add_node("head/response", "head", config={"in_features": 8, "labels": ["a", "b"]})
    graph.add_edge("features.embedding", "head.features")
    graph.infer_exposed_ports()
    assert "head.output: [1, 2]" in str(graph.run({"text": "go"}, dry_run="fake"))
    again = Graph.from_config(graph.to_config())
    again.load_state_dict(graph.state_dict())
    assert torch.equal(again.run({"text": "go"})["output"], graph.run({"text": "go"})["output"])
