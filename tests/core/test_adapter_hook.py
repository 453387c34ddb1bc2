"""Core without an implementation of adapters: everything else works, and what names one is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.blocks_for_tests import Affine, chain
from wgtorch.core import adapter_hook
from wgtorch.core.adapter_hook import AdapterHook
from wgtorch.core.errors import StructureError
from wgtorch.graph import Graph

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_hook, "hook", AdapterHook())


def test_levels_run_train_and_are_saved(tmp_path: Path) -> None:
    graph = chain(Affine(seed=1), Affine(seed=2))
    graph.set_adapter("n0", None)
    loaded = Graph.load(graph.save(tmp_path / "saved"))
    assert torch.equal(loaded.run({"x": X})["y"], graph(x=X)["y"])
    assert graph.load_weights(tmp_path / "saved") == ()
    assert graph.validate().errors == ()


def test_a_place_cannot_name_one() -> None:
    graph = chain(Affine(seed=1))
    with pytest.raises(StructureError, match="chain/n0: adapter is 'winter', and no implementation of adapters is installed"):
        graph.set_adapter("n0", "winter")
    assert graph.node_specs["n0"].adapter is None


def test_a_checkpoint_that_holds_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    lora, hook = pytest.importorskip("wgtorch.lora"), pytest.importorskip("wgtorch.lora.hook")
    graph = chain(Affine(seed=1))
    with monkeypatch.context() as patch:
        patch.setattr(adapter_hook, "hook", hook.LoraHook())
        lora.add(graph, "winter", rank=2, target_modules=["linear"], wear=False)
        graph.save(tmp_path / "saved")
    with pytest.raises(StructureError, match="holds adapter 'winter', and no implementation of adapters is installed"):
        Graph.load(tmp_path / "saved")
    plain = chain(Affine(seed=1))
    found = plain.load_weights(tmp_path / "saved", strict=False)
    assert [str(finding) for finding in found] == ["n0: adapter 'winter': the block has none of that name"]
