"""Adapters that are no LoRA: OFT, which turns what goes into layers, and whole copies of modules; by place, merged, trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("peft")

import peft

from tests.blocks_for_tests import chain
from tests.lora.models import Body, Layers, fill, snapshot, twice
from tests.lora.test_files import Plain
from wgtorch import Graph, lora
from wgtorch.core.errors import StructureError
from wgtorch.lora.adapted_module import tensors_of

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
METHODS: dict[str, dict[str, Any]] = {
    "oft": {"method": "oft", "oft_block_size": 2},
    "copy": {"modules_to_save": ["second"]},
    "both": {"method": "oft", "rank": 2, "modules_to_save": ["second"]},
}


def adapted(method: str, graph: Graph | None = None) -> Graph:
    graph = chain(Body(), name="g") if graph is None else graph
    lora.add(graph, "one", **{"rank": 2, **METHODS[method]}, nodes=["n0" if len(graph.nodes) == 1 else "n1"])
    fill(graph)
    return graph


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_pefts(method: str) -> None:
    graph = adapted(method)
    graph(x=X)["y"].square().sum().backward()
    own = {key: value.grad for key, value in tensors_of(graph.nodes["n0"], "one").items()}
    theirs = peft.inject_adapter_in_model(graph.nodes["n0"].__dict__["peft_config"]["one"], Plain(Body()), "one")
    peft.set_peft_model_state_dict(theirs, tensors_of(graph.nodes["n0"], "one"), "one")
    theirs(X).square().sum().backward()
    assert len(own) == {"oft": 2, "copy": 4, "both": 3}[method]
    expected = {key: value.grad for key, value in tensors_of(theirs, "one").items()}
    for key, value in own.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_each_place_has_its_own_and_the_base_is_left_alone(method: str) -> None:
    graph = twice(Body())
    before, plain = snapshot(graph), graph(x=X)["y"]
    adapted(method, graph)
    lora.add(graph, "two", **{"rank": 2, **METHODS[method]}, nodes=["n1"], wear=False)
    lora.set_adapter(graph, None)
    torch.testing.assert_close(graph(x=X)["y"], plain, rtol=0, atol=0)
    graph.set_adapter("n3", "one")
    one = graph(x=X)["y"]
    graph.set_adapter("n3", "two")
    torch.testing.assert_close(graph(x=X)["y"], plain, rtol=0, atol=0)  # it was not trained
    assert (one - plain).abs().max() > 1e-3
    lora.remove(graph, "two")
    lora.remove(graph, "one")
    after = snapshot(graph)
    assert before[0] == after[0] and before[2:] == after[2:]
    assert all(torch.equal(before[1][key], after[1][key]) for key in before[1])


@pytest.mark.parametrize("method", METHODS)
def test_merged_unmerged_and_fused(method: str) -> None:
    graph = adapted(method)
    wanted = graph(x=X)["y"]
    state = {key: value.clone() for key, value in graph.state_dict().items()}
    lora.merge(graph, "one")
    torch.testing.assert_close(graph(x=X)["y"], wanted)
    lora.unmerge(graph)
    assert all(torch.equal(value, state[key]) for key, value in graph.state_dict().items())
    with pytest.raises(StructureError, match="can only be merged with weight 1"):
        lora.merge(graph, {"one": 0.5})
    graph.set_adapter("n0", "one")
    lora.fuse(graph, "one")
    assert not lora.adapters(graph)
    torch.testing.assert_close(graph(x=X)["y"], wanted)


def test_a_checkpoint_holds_them(tmp_path: Path) -> None:
    graph = adapted("both")
    graph.save(tmp_path / "saved")
    torch.testing.assert_close(Graph.load(tmp_path / "saved")(x=X)["y"], graph(x=X)["y"], rtol=0, atol=0)


def test_layers_of_all_kinds_turn_as_in_peft() -> None:
    config = peft.OFTConfig(oft_block_size=2, target_modules=["embed", "image", "out"], init_weights=False)
    torch.manual_seed(0)
    block = Layers()
    ids = torch.randint(7, (2, 6))
    theirs = peft.inject_adapter_in_model(config, block, "one")
    wanted: Tensor = theirs(ids)
    lora.from_peft(block)
    with lora.use_adapter(block, "one"):
        torch.testing.assert_close(block(ids), wanted, rtol=0, atol=0)


def test_what_they_cannot_do_is_said(tmp_path: Path) -> None:
    graph = adapted("both")
    graph.set_adapter("n0", {"one": 0.5})
    with pytest.raises(StructureError, match=r"adapter 'one' is .*, so it cannot be used with weight 0.5"):
        graph(x=X)
    graph.set_adapter("n0", ["one", None, "one"])
    with pytest.raises(StructureError, match="cannot differ within a batch"):
        graph(x=X)
    with pytest.raises(StructureError, match="adapters of two kinds, one inside the other"):
        lora.add(graph, "two", rank=2, target_modules=["first"])
    with pytest.raises(StructureError, match="modules_to_save 'head' matches no module"):
        lora.add(graph, "two", rank=2, modules_to_save=["head"])
    with pytest.raises(StructureError, match="OFT has neither alpha nor dropout"):
        lora.add(graph, "two", method="oft", alpha=3)
    with pytest.raises(StructureError, match="unknown 'use_dora'"):
        lora.add(graph, "two", method="oft", use_dora=True)
    assert list(lora.adapters(graph)) == ["one"]
