"""Adapters counted into the base weights, and taken out of them bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip("peft")

from tests.blocks_for_tests import chain
from tests.lora.models import ALL_KINDS, Body, Layers, fill, snapshot, twice
from wgtorch import lora
from wgtorch.core.errors import CheckpointError, StructureError
from wgtorch.graph import Graph

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("adapter", ["one", {"one": 0.5, "two": -1.0}])
@pytest.mark.parametrize("lora_bias", [False, True])
def test_merged_is_as_worn_and_unmerged_bit_for_bit_as_before(adapter: object, lora_bias: bool) -> None:
    graph = chain(Layers(), name="g", ports=("ids", "y")).eval()
    words = ALL_KINDS[1:] if lora_bias else ALL_KINDS
    for name in ("one", "two"):
        lora.add(graph, name, rank=2, target_modules=words, lora_bias=lora_bias)
    fill(graph)
    ids = torch.randint(7, (4, 6))
    graph.set_adapter("n0", adapter)
    before, worn = snapshot(graph)[1], graph(ids=ids)["y"]
    assert lora.merge(graph, adapter) == ["n0"]
    torch.testing.assert_close(graph(ids=ids)["y"], worn, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graph.nodes["n0"](ids), worn, rtol=1e-4, atol=1e-5)
    assert not torch.equal(graph.nodes["n0"].out.base_layer.weight, before["nodes.n0.out.base_layer.weight"])
    clone = copy.deepcopy(graph)
    for each in (graph, clone):
        assert lora.unmerge(each) == ["n0"]
        assert all(torch.equal(value, before[name]) for name, value in each.state_dict().items())
        assert torch.equal(each(ids=ids)["y"], worn)
    assert lora.unmerge(graph) == []


def test_places_that_wear_something_else_would_feel_it() -> None:
    graph = twice(Body())
    lora.add(graph, "one", rank=2, nodes=["n1"])
    fill(graph)
    with pytest.raises(StructureError, match=r"n3: wears None, and would feel \{'one': 1.0\} merged"):
        lora.merge(graph, "one")
    graph.set_adapter("n3", "one")
    lora.merge(graph, "one")
    with pytest.raises(StructureError, match="is merged already; unmerge it first"):
        lora.merge(graph, "one")
    with pytest.raises(StructureError, match="merged into the base; unmerge it first"):
        lora.remove(graph, "one")
    graph.set_adapter("n1", None)
    with pytest.raises(StructureError, match=r"n1: \{'one': 1.0\} is merged into 'test_lora/body', and this place wears None"):
        graph(x=X)
    for wrong in (["one", None], None):
        with pytest.raises(StructureError, match="expected an adapter's name, or weights by name"):
            lora.merge(graph, wrong)  # type: ignore[arg-type]


def test_a_base_that_was_changed_meanwhile_is_not_thrown_away() -> None:
    graph = chain(Body(), name="g")
    lora.add(graph, "one", rank=2)
    fill(graph)
    lora.merge(graph, "one")
    with torch.no_grad():
        graph.nodes["n0"].first.base_layer.weight.add_(1)
    with pytest.raises(StructureError, match="first was changed while an adapter was merged"):
        lora.unmerge(graph)


def test_a_checkpoint_of_what_is_merged_holds_base_and_adapter_apart(tmp_path: Path) -> None:
    graph = chain(Body(), name="g")
    lora.add(graph, "one", rank=2)
    fill(graph)
    y = graph(x=X)["y"]
    lora.merge(graph, "one")
    path = graph.save(tmp_path / "merged")
    loaded = Graph.load(path)
    torch.testing.assert_close(loaded(x=X)["y"], y, rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="merged into it; unmerge it first"):
        graph.load_weights(path)
    lora.unmerge(graph)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    graph.load_weights(path)
    torch.testing.assert_close(graph(x=X)["y"], y, rtol=0, atol=0)
