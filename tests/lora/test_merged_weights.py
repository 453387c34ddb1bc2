"""Adapters counted into the base weights, and taken out of them bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

pytest.importorskip("peft")

from tests.blocks_for_tests import chain
from tests.lora.models import ALL_KINDS, Body, Layers, fill, snapshot, twice
from wgtorch import lora
from wgtorch.core.block import Block
from wgtorch.core.errors import CheckpointError, StructureError
from wgtorch.graph import Graph
from wgtorch.lora.adapted_module import layers_of

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def assert_as_before(graph: Graph, before: tuple[Any, ...]) -> None:
    names, state, kinds, trains = snapshot(graph)
    assert (names, kinds, trains) == (before[0], *before[2:])
    torch.testing.assert_close(state, before[1], rtol=0, atol=0)


@pytest.mark.parametrize("adapter", ["one", {"one": 0.5, "two": -1.0}])
@pytest.mark.parametrize("lora_bias", [False, True])
def test_merged_is_as_active_and_unmerged_bit_for_bit_as_before(adapter: object, lora_bias: bool) -> None:
    graph = chain(Layers(), name="g", ports=("ids", "y")).eval()
    words = ALL_KINDS[1:] if lora_bias else ALL_KINDS
    for name in ("one", "two"):
        lora.add(graph, name, rank=2, alpha=3, target_modules=words, lora_bias=lora_bias)
    fill(graph)
    ids = torch.randint(7, (4, 6))
    graph.set_adapter("n0", adapter)
    before, adapted = snapshot(graph)[1], graph(ids=ids)["y"]
    assert lora.merge(graph, adapter) == ["n0"]
    torch.testing.assert_close(graph(ids=ids)["y"], adapted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graph.nodes["n0"](ids), adapted, rtol=1e-4, atol=1e-5)
    assert not torch.equal(graph.nodes["n0"].out.base_layer.weight, before["nodes.n0.out.base_layer.weight"])
    clone = copy.deepcopy(graph)
    for each in (graph, clone):
        assert lora.unmerge(each) == ["n0"]
        assert all(torch.equal(value, before[name]) for name, value in each.state_dict().items())
        assert torch.equal(each(ids=ids)["y"], adapted)
    assert lora.unmerge(graph) == []


@pytest.mark.filterwarnings("ignore:.*groups > 1")
@pytest.mark.parametrize("adapter", ["one", {"one": 0.5}])
def test_convolutions_in_groups(adapter: object) -> None:
    class Grouped(Block):
        outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv1d(4, 6, 3, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    graph = chain(Grouped(), name="g")
    lora.add(graph, "one", rank=2, alpha=3, target_modules=["layer"])
    fill(graph)
    graph.set_adapter("n0", adapter)
    before = snapshot(graph)
    with pytest.raises(StructureError, match="n0: layer is a convolution in groups"):
        lora.merge(graph, adapter)
    assert_as_before(graph, before)


def test_places_that_select_something_else_would_feel_it() -> None:
    graph = twice(Body())
    lora.add(graph, "one", rank=2, nodes=["n1"])
    fill(graph)
    with pytest.raises(StructureError, match=r"n3: selects None, and would feel \{'one': 1.0\} merged"):
        lora.merge(graph, "one")
    graph.set_adapter("n3", "one")
    lora.merge(graph, "one")
    with pytest.raises(StructureError, match="is merged already; unmerge it first"):
        lora.merge(graph, "one")
    with pytest.raises(
        StructureError,
        match=r"merged into the base; take it out of the weights first with wgtorch.lora.unmerge, or .* with wgtorch.lora.fuse",
    ):
        lora.remove(graph, "one")
    graph.set_adapter("n1", None)
    with pytest.raises(StructureError, match=r"n1: \{'one': 1.0\} is merged into 'test_lora/body', and this place selects None"):
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


@pytest.mark.parametrize("merged_before", [False, True])
@pytest.mark.parametrize("adapter", ["one", {"one": 0.5, "two": -1.0}])
def test_fused_is_in_the_base_for_good_and_leaves_no_trace(adapter: object, merged_before: bool, tmp_path: Path) -> None:
    graph = twice(Body())
    plain = snapshot(graph)
    for name in ("one", "two", "other"):
        lora.add(graph, name, rank=2, nodes=["n1"], wear=False, freeze_base=name == "one")
    fill(graph)
    for node in ("n1", "n3"):
        graph.set_adapter(node, adapter)
    y = graph(x=X)["y"]
    if merged_before:
        lora.merge(graph, adapter)
    assert lora.fuse(graph, adapter) == ["n1"]
    torch.testing.assert_close(graph(x=X)["y"], y)
    assert list(lora.adapters(graph)) == (["other"] if isinstance(adapter, dict) else ["two", "other"])
    assert [graph.node_specs[node].adapter for node in graph.nodes] == [None] * 4
    graph.set_adapter("n1", "other")
    assert not torch.allclose(graph(x=X)["y"], y), "the other adapter still counts, on the new base"
    for name in list(lora.adapters(graph)):
        lora.remove(graph, name)
    names, state, kinds, trains = snapshot(graph)
    assert (names, kinds, trains) == (plain[0], plain[2], plain[3])
    assert [name for name in names if not torch.equal(state[name], plain[1][name])] == [
        f"nodes.{node}.{layer}.weight" for node in ("n1", "n3") for layer in ("first", "second")
    ]
    torch.testing.assert_close(graph(x=X)["y"], y)
    torch.testing.assert_close(Graph.load(graph.save(tmp_path / "fused"))(x=X)["y"], graph(x=X)["y"], rtol=0, atol=0)
    assert lora.unmerge(graph) == []


def test_what_cannot_be_fused_is_left_as_it_was() -> None:
    graph = twice(Body())
    for name in ("one", "two"):
        lora.add(graph, name, rank=2, nodes=["n1"])
    fill(graph)
    before = snapshot(graph)
    with pytest.raises(StructureError, match="lora.fuse: None; expected an adapter's name"):
        lora.fuse(graph, None)  # type: ignore[arg-type]
    with pytest.raises(StructureError, match="no adapter 'thee' on Graph"):
        lora.fuse(graph, "thee")
    with pytest.raises(StructureError, match="n1: selects 'two', and would feel"):
        lora.fuse(graph, "one")
    assert_as_before(graph, before)
    graph.set_adapter("n3", "two")
    lora.merge(graph, "two")
    graph.set_adapter("n1", "one")
    with pytest.raises(StructureError, match=r"n1: \{'two': 1.0\} is merged already; unmerge it first"):
        lora.fuse(graph, "one")


class Tied(Body):
    """Its second layer has no bias; tied, it has the weight of the first."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.second.bias = None
        if tied:
            self.second.weight = self.first.weight


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("how", [lora.merge, lora.fuse])
def test_a_bias_that_no_layer_could_take_is_not_merged(how: Callable[..., object], weight: float) -> None:
    graph = chain(Tied(), name="g")
    lora.add(graph, "one", rank=2, target_modules=["second"], lora_bias=True)
    fill(graph)
    graph.set_adapter("n0", {"one": weight})
    before, y = snapshot(graph), graph(x=X)["y"]
    with pytest.raises(StructureError, match="n0: adapter 'one' has a bias for second, a layer without one.*lora_bias=False"):
        how(graph, {"one": weight})
    assert_as_before(graph, before)
    assert torch.equal(graph(x=X)["y"], y)


def test_tied_weights_are_not_merged_into() -> None:
    graph = chain(Tied(tied=True), name="g")
    lora.add(graph, "one", rank=2, target_modules=["second"])
    lora.add(graph, "two", rank=2, nodes=["n0"], target_modules=["first"], wear=False)
    fill(graph)
    with pytest.raises(StructureError, match="n0: second shares its weight with another layer"):
        lora.merge(graph, "one")
    alone = chain(Tied(), name="g")
    lora.add(alone, "one", rank=2, target_modules=["second"])
    assert lora.merge(alone, "one") == ["n0"]


def test_only_plain_adapters_are_merged_with_a_weight() -> None:
    graph = chain(Body(), name="g")
    lora.add(graph, "one", rank=2, use_dora=True)
    fill(graph)
    with pytest.raises(StructureError, match="n0: adapter 'one' is no plain LoRA .* only be merged with weight 1"):
        lora.merge(graph, {"one": 0.5})
    y = graph(x=X)["y"]
    lora.merge(graph, "one")
    torch.testing.assert_close(graph(x=X)["y"], y)


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_broken_is_merged_nowhere(value: float, use_dora: bool) -> None:
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    lora.add(graph, "one", rank=2, use_dora=use_dora)
    fill(graph)
    with torch.no_grad():
        graph.nodes["n1"].second.lora_B["one"].weight[0, 0] = value
    before = [parameter.clone() for parameter in graph.nodes["n0"].parameters()]
    with pytest.raises(ValueError, match="NaN"):  # ours, or that of PEFT's variants
        lora.merge(graph, "one")
    assert lora.unmerge(graph) == []
    assert all(torch.equal(now, then) for now, then in zip(graph.nodes["n0"].parameters(), before, strict=True))
    assert not any(layer.merged_adapters for _, layer in layers_of(graph))
    if not use_dora:
        graph.set_adapter("n0", {"one": 0.5})
        graph.set_adapter("n1", {"one": 0.5})
        with pytest.raises(StructureError, match=r"n1: second: with \{'one': 0.5\} merged its weights are not finite"):
            lora.merge(graph, {"one": 0.5})
