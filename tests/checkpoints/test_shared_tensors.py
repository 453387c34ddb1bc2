"""Tensors that several blocks hold are one tensor again after loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.checkpoints.mutations import read_tree, seal, write_tree
from wgtorch import Block, Graph, Pipeline, lora
from wgtorch.core.block import register_block
from wgtorch.core.checkpoint.own_weights import parts_of
from wgtorch.core.checkpoint.shared_tensors import overlapping
from wgtorch.core.errors import CheckpointError, RebuiltOtherwiseWarning
from wgtorch.core.pool import Pool


@register_block("test/shared_words")
class Words(Block):
    """Vectors of words."""

    outputs = {"y": "tensor"}

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        self.table = nn.Embedding(count, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x)


@register_block("test/shared_scores")
class Scores(Block):
    """Scores of words."""

    outputs = {"y": "tensor"}

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        self.head = nn.Linear(4, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


@register_block("test/conjugates")
class Conjugates(Block):
    """Numbers, and what views of the same memory read there."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.tensor([1 + 2j, 3 - 1j])
        self.register_buffer("numbers", numbers)
        self.register_buffer("conjugates", numbers.conj())
        self.register_buffer("again", numbers.view(2))
        self.register_buffer("imaginary", numbers.imag)
        self.register_buffer("negative", numbers.conj().imag)

    def forward(self, x: Tensor) -> Tensor:
        return x


def tied_graph() -> Graph:
    graph = Graph("tied")
    graph.add_node(Words(), "words")
    graph.add_node(Scores(), "scores")
    graph.add_edge("words", "y", "scores", "x")
    graph.infer_exposed_ports()
    graph.find("scores").head.weight = graph.find("words").table.weight  # type: ignore[union-attr]
    return graph


def is_tied(graph: Any) -> bool:
    return graph.find("scores").head.weight is graph.find("words").table.weight


@pytest.mark.parametrize("options", [{}, {"map": False}, {"strict": False}, {"pool": Pool()}, {"device": "cpu"}])
@pytest.mark.parametrize("format", ["dir", "archive"])
def test_a_tensor_of_two_blocks_is_one_again(tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    graph = tied_graph()
    path = graph.save_checkpoint(tmp_path / "saved", format=format)
    for _ in range(2):
        loaded = Graph.load_from_checkpoint(path, **options)
        assert is_tied(loaded)
        assert len(list(loaded.parameters())) == 1
        assert torch.equal(loaded.run({"x": torch.arange(5)})["y"], graph.run({"x": torch.arange(5)})["y"])


def test_it_is_one_again_below_other_levels_and_in_a_part(tmp_path: Path) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(tied_graph(), "inner")
    pipeline.infer_exposed_ports()
    path = pipeline.save(tmp_path / "saved")
    assert is_tied(Pipeline.load(path).find("inner"))
    assert is_tied(Graph.load_from_checkpoint(path, part="inner"))
    assert not torch.equal(Words().table.weight, Words.load_from_checkpoint(path, part="inner/words").table.weight)


def test_it_is_one_again_below_adapters(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    graph = tied_graph()
    lora.add(graph.find("scores"), "style", rank=2)
    loaded = Graph.load(graph.save(tmp_path / "saved"))
    assert "style" in str(lora.adapters(loaded))
    shared = loaded.find("words").table.weight  # type: ignore[union-attr]
    assert any(parameter is shared for parameter in loaded.find("scores").parameters())


def test_blocks_that_are_apart_stay_apart(tmp_path: Path) -> None:
    graph = tied_graph()
    graph.find("scores").head.weight = nn.Parameter(graph.find("words").table.weight.detach().clone())  # type: ignore[union-attr]
    assert "ties" not in json.loads((graph.save(tmp_path / "saved") / "manifest.json").read_text())
    assert not is_tied(Graph.load(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("ties", "words"),
    [
        ([[["words", "table.weight"], ["scores", "nothing"]]], "does not fit"),
        ([[["words", "table.weight"], ["scores"]]], "expected a block's path"),
        ([["words"]], "expected list"),
        ({"words": "scores"}, "expected list"),
    ],
)
def test_wrong_ties_are_refused(tmp_path: Path, ties: Any, words: str) -> None:
    tree = read_tree(tied_graph().save(tmp_path / "saved"))
    content = {**json.loads(tree["manifest.json"]), "ties": ties}
    path = write_tree(seal({**tree, "manifest.json": json.dumps(content).encode()}), tmp_path / "forged")
    with pytest.raises(CheckpointError, match=words):
        Graph.load(path)


def test_a_conjugate_view_is_not_what_it_is_a_view_of(tmp_path: Path) -> None:
    block = Conjugates()
    block.save(tmp_path / "block")
    loaded = Block.load(tmp_path / "block")
    for name, value in block.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


@register_block("test/transposed")
class Transposed(Block):
    """There and back through one matrix, which the way back holds as a view."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(3, 2, bias=False)
        self.back = nn.Linear(2, 3, bias=False)
        self.back.weight = nn.Parameter(self.there.weight.t())

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.there(x))


def test_views_of_one_memory_that_will_be_two_tensors_are_named_when_they_are_saved(tmp_path: Path) -> None:
    graph = Graph("views")
    graph.add_node(Transposed(), "a")
    with pytest.warns(RebuiltOtherwiseWarning, match=r"a\.back\.weight and a\.there\.weight are views of one memory"):
        graph.save(tmp_path / "it")
    apart = tied_graph()
    apart.find("scores").head.weight = nn.Parameter(apart.find("words").table.weight)  # type: ignore[union-attr]
    with pytest.warns(RebuiltOtherwiseWarning, match=r"scores\.head\.weight and words\.table\.weight are"):
        apart.save(tmp_path / "other")


def test_what_is_one_again_once_loaded_or_lies_side_by_side_is_no_overlap() -> None:
    assert overlapping(parts_of(tied_graph())) == []
    block = Block.wrap(nn.LSTM(3, 3), inputs={"x": "tensor"}, outputs={"y": "any"})
    assert overlapping(parts_of(block)) == []
    linear = nn.Linear(2, 2, bias=False)
    linear.again = nn.Parameter(linear.weight)
    linear.first, linear.second = map(nn.Parameter, torch.ones(4).chunk(2))
    assert overlapping(parts_of(Block.wrap(linear, inputs={"x": "tensor"}, outputs={"y": "any"}))) == []
