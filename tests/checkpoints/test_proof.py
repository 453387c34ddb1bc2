"""What a load compares of files too large to be hashed in full: size, header and a piece of every tensor; the rest on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.blocks_for_tests import Affine, chain
from tests.checkpoints.blocks import assert_same, rich_graph
from tests.checkpoints.mutations import read_tree, seal, write_tree, write_zip
from wgtorch import lora
from wgtorch.core.checkpoint import io as files
from wgtorch.core.checkpoint import manifest, refs
from wgtorch.core.checkpoint.tensors import PIECE
from wgtorch.core.checkpoint.verify import inspect_checkpoint
from wgtorch.core.errors import CheckpointError
from wgtorch.graph import Graph

WIDTH = 96  # 36 KiB in one matrix: far more than is looked at
LARGE = "blocks/n0.safetensors"


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HASHED", 0)
    monkeypatch.setattr(refs, "HASHED", 0)


def put(path: Path, tree: dict[str, bytes], format: str) -> Path:
    return write_tree(tree, path) if format == "dir" else write_zip(tree, path)


def flipped(tree: dict[str, bytes], name: str, at: int) -> dict[str, bytes]:
    raw = bytearray(tree[name])
    raw[at] ^= 1
    return {**tree, name: bytes(raw)}


def middle_of(raw: bytes, tensor: str) -> int:
    size = int.from_bytes(raw[:8], "little")
    start, end = json.loads(raw[8 : 8 + size])[tensor]["data_offsets"]
    return 8 + size + (start + end) // 2


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("format", ["dir", "archive"])
def test_other_weights_of_the_same_size_are_noticed(format: str, tmp_path: Path) -> None:
    graph = chain(Affine(WIDTH, seed=1), Affine(WIDTH, seed=2))
    tree = read_tree(graph.save(tmp_path / "one"))
    assert_same(Graph.load_from_checkpoint(put(tmp_path / "same", tree, format)), graph)
    other = read_tree(chain(Affine(WIDTH, seed=3), Affine(WIDTH, seed=4)).save(tmp_path / "two"))
    assert len(other[LARGE]) == len(tree[LARGE])
    path = put(tmp_path / "swapped", {**tree, LARGE: other[LARGE]}, format)
    with pytest.raises(CheckpointError, match=r"n0\.safetensors: is not the file that was saved \(its header or a tensor differs\)"):
        Graph.load_from_checkpoint(path)
    assert Graph.load_from_checkpoint(path, verify=False)
    target = chain(Affine(WIDTH, seed=5), Affine(WIDTH, seed=6))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError, match="its header or a tensor differs"):
        target.load_weights(path)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("tensor", ["linear.weight", "linear.bias"])
def test_every_tensor_is_looked_at(tensor: str, tmp_path: Path) -> None:
    tree = read_tree(chain(Affine(WIDTH)).save(tmp_path / "g"))
    path = write_tree(flipped(tree, LARGE, middle_of(tree[LARGE], tensor)), tmp_path / "it")
    with pytest.raises(CheckpointError, match="its header or a tensor differs"):
        Graph.load(path)


@pytest.mark.usefixtures("nothing_is_small")
def test_one_bit_elsewhere_is_found_when_all_is_asked_for(tmp_path: Path) -> None:
    tree = read_tree(chain(Affine(WIDTH)).save(tmp_path / "g"))
    at = middle_of(tree[LARGE], "linear.weight") + PIECE
    path = write_tree(flipped(tree, LARGE, at), tmp_path / "it")
    Graph.load(path)
    with pytest.raises(CheckpointError, match=r"is not the file that was saved \(its hash differs\)"):
        Graph.load_from_checkpoint(path, verify=True)
    assert any("n0.safetensors" in words for words in inspect_checkpoint(path).damage)


def test_a_load_hashes_as_much_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chain(*[Affine(WIDTH, seed=seed) for seed in range(4)]).save(tmp_path / "g")
    hashed: list[str] = []
    true = manifest.digest

    def counting(source: Any, name: str) -> str:
        hashed.append(name)
        return true(source, name)

    monkeypatch.setattr(manifest, "digest", counting)
    size = (path / LARGE).stat().st_size
    monkeypatch.setattr(files, "HASHED", (path / "config.yaml").stat().st_size + 2 * size + size // 2)
    Graph.load(path)
    assert hashed == ["config.yaml", LARGE, "blocks/n1.safetensors"]


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("change", ["weights", "config"])
def test_what_has_no_pieces_is_hashed_in_full(change: str, tmp_path: Path) -> None:
    """Configs, and weights in checkpoints of format 1.0."""
    tree = read_tree(chain(Affine(WIDTH)).save(tmp_path / "g"))
    manifest = json.loads(tree["manifest.json"])
    del manifest["blocks"]["n0"]["files"][0]["pieces"]
    tree = seal({**tree, "manifest.json": json.dumps({**manifest, "format_version": "1.0"}).encode()})
    Graph.load(write_tree(tree, tmp_path / "old"))
    name, at = (LARGE, len(tree[LARGE]) - 1) if change == "weights" else ("config.yaml", 3)
    with pytest.raises(CheckpointError, match=r"its hash differs"):
        Graph.load(write_tree(flipped(tree, name, at), tmp_path / "it"))


def test_adapters_are_hashed_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    graph = chain(Affine(WIDTH))
    lora.add(graph, "mine", rank=16, target_modules=["linear"])
    tree = read_tree(graph.save(tmp_path / "g"))
    monkeypatch.setattr(files, "HASHED", 0)
    name = "adapters/n0/mine/adapter_model.safetensors"
    at = middle_of(tree[name], "base_model.model.linear.lora_A.weight") + PIECE
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: .*its hash differs"):
        Graph.load(write_tree(flipped(tree, name, at), tmp_path / "it"))


@pytest.mark.usefixtures("nothing_is_small")
def test_a_base_outside_that_was_trained_on_is_noticed(tmp_path: Path) -> None:
    """The same names and shapes, and the same size to the byte."""
    base = tmp_path / "base.safetensors"
    save_file(Affine(WIDTH, seed=1).state_dict(), base)
    graph = Graph("g")
    graph.add_node("test/affine", "a", config={"width": WIDTH, "checkpoint_ref": str(base)})
    path = graph.save(tmp_path / "light")
    assert_same(Graph.load(path), graph)
    size = base.stat().st_size
    save_file({name: value * 1.001 for name, value in load_file(base).items()}, base)
    assert base.stat().st_size == size
    with pytest.raises(CheckpointError, match=r"base\.safetensors changed since the checkpoint was saved"):
        Graph.load(path)


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("format", ["dir", "archive"])
def test_a_base_checkpoint_that_was_trained_on_is_noticed(format: str, tmp_path: Path) -> None:
    graph = rich_graph()
    base = graph.save_checkpoint(tmp_path / "base", format)
    path = graph.save_checkpoint(tmp_path / "light", base=base)
    assert_same(Graph.load(path), graph)
    with torch.no_grad():
        graph.nodes["n1"].linear.bias.mul_(1.001)
    size = base.stat().st_size
    graph.save_checkpoint(base, format)
    assert base.stat().st_size == size
    with pytest.raises(CheckpointError, match=r"changed since the checkpoint was saved"):
        Graph.load(path)
