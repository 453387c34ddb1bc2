"""What a subclass of a level holds beside its nodes is saved, loaded and trained, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.blocks_for_tests import Affine
from wgtorch import Graph, Pipeline
from wgtorch.core.errors import CheckpointError, StructureError


class Scaled(Graph):
    """A graph whose outputs are multiplied by a parameter of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, *args: Any, **inputs: Any) -> dict[str, Any]:
        return {name: value * self.scale for name, value in super().forward(*args, **inputs).items()}


def scaled() -> Scaled:
    graph = Scaled("scaled")
    graph.add_node(Affine(), "layer")
    graph.infer_exposed_ports()
    with torch.no_grad():
        graph.scale.fill_(3.0)
        graph.count.fill_(5.0)
    return graph


@pytest.mark.parametrize("options", [{}, {"strict": False}, {"map": False, "verify": True}])
@pytest.mark.parametrize("format", ["dir", "archive"])
def test_it_is_saved_and_loaded(tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    graph = scaled()
    path = graph.save_checkpoint(tmp_path / "saved", format=format)
    loaded = Scaled.load_from_checkpoint(path, **options)
    other = Scaled("scaled")
    other.add_node(Affine(), "layer")
    other.load_weights(path)
    for again in (loaded, other):
        assert {name: value.tolist() for name, value in again.state_dict().items()} == {
            name: value.tolist() for name, value in graph.state_dict().items()
        }


def test_it_trains() -> None:
    graph = scaled()
    trained = {id(parameter) for parameter in graph.trainable_parameters()}
    assert trained == {id(parameter) for parameter in graph.parameters()}
    graph.scale.requires_grad_(False)
    assert id(graph.scale) not in {id(parameter) for parameter in graph.trainable_parameters()}


def test_another_class_does_not_take_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a subclass of the level holds itself; load it by that class"):
        Graph.load(scaled().save(tmp_path / "saved"))


def test_below_another_level_it_is_refused(tmp_path: Path) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(scaled(), "inner")
    with pytest.raises(StructureError, match="p/inner: Scaled has a forward of its own, and its config builds a Graph"):
        pipeline.to_config()
    plain = Graph("plain")
    plain.add_node(Affine(), "layer")
    plain.register_buffer("count", torch.zeros(1))
    pipeline = Pipeline("p")
    pipeline.add_graph(plain, "inner")
    with pytest.raises(CheckpointError, match=r"plain: this graph holds tensors of its own \(count\)"):
        pipeline.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_nodes_are_changed_through_their_level() -> None:
    graph = scaled()
    with pytest.raises(StructureError, match="add it by add_node"):
        graph.nodes.more = Affine()
    with pytest.raises(StructureError, match="add it by add_node"):
        graph.nodes.add_module("more", Affine())
    with pytest.raises(StructureError, match="replace_node"):
        graph.nodes["layer"] = Affine()
    with pytest.raises(StructureError, match="remove_node"):
        del graph.nodes["layer"]
    assert list(graph.nodes) == ["layer"]
    nn.SyncBatchNorm.convert_sync_batchnorm(graph)  # which sets every child anew
