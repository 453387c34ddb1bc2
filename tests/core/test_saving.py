"""Levels on disk: whole or not at all, each unique block once, no code in any file."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.blocks_for_tests import Affine, Relu, Scale, as_pipeline, as_stage, block_of, chain, counter
from wgtorch.core import saving
from wgtorch.core.errors import CheckpointError, StructureError
from wgtorch.core.level import Level
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage


def trained(graph: Graph) -> Graph:
    """Weights that no constructor makes."""
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.add_(torch.randn(parameter.shape))
    return graph


def same_weights(first: Level, second: Level) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)


@pytest.mark.parametrize("make", [lambda graph: graph, as_pipeline, as_stage], ids=["graph", "pipeline", "stage"])
def test_load_gives_back_what_save_wrote(make: Any, tmp_path: Path) -> None:
    level = make(trained(chain(Affine(seed=1), Relu(), Affine(seed=2))))
    level.save(tmp_path / "saved")
    twin = type(level).load(tmp_path / "saved")
    assert same_weights(level, twin)
    assert twin.to_config() == level.to_config()


def test_a_shared_block_is_stored_once_and_stays_shared(tmp_path: Path) -> None:
    shared = Affine()
    pipeline = Pipeline("p")
    pipeline.add_graph(trained(chain(shared, Relu(), shared, name="one")), "one")
    pipeline.add_graph(chain(shared, name="two"), "two")
    pipeline.add_edge("one.y", "two.x")
    pipeline.infer_exposed_ports()
    pipeline.save(tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    assert list(manifest["blocks"]) == ["one.n0"]
    assert manifest["blocks"]["one.n0"]["users"] == ["one.n0", "one.n2", "two.n0"]
    assert [path.name for path in (tmp_path / "saved" / "blocks").iterdir()] == ["one.n0.safetensors"]
    twin = Pipeline.load(tmp_path / "saved")
    assert twin.find("one/n0") is twin.find("one/n2") is twin.find("two/n0")
    assert same_weights(pipeline, twin)


def test_the_manifest_tells_the_truth(tmp_path: Path) -> None:
    chain(Affine()).save(tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    assert (manifest["format_version"], manifest["kind"], manifest["torch"]) == ("1.0", "graph", torch.__version__)
    entry = manifest["blocks"]["n0"]
    content = (tmp_path / "saved" / entry["file"]).read_bytes()
    assert entry["bytes"] == len(content)
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_dtype_of_the_weights_comes_back(tmp_path: Path) -> None:
    graph = trained(chain(Affine(), Affine(seed=1))).to(torch.bfloat16)
    graph.save(tmp_path / "saved")
    assert same_weights(graph, Graph.load(tmp_path / "saved"))


def test_weights_of_the_loaded_train(tmp_path: Path) -> None:
    chain(Affine()).save(tmp_path / "saved")
    twin = Graph.load(tmp_path / "saved")
    twin.run({"x": torch.ones(1, 4)}, training=True)["y"].sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())


def test_blocks_without_weights_leave_no_file(tmp_path: Path) -> None:
    counter(3).save(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.yaml", "manifest.json"]
    assert Graph.load(tmp_path / "saved").run({"x": torch.tensor(1.0)})["y"] == 8


def test_no_file_holds_pickled_code(tmp_path: Path) -> None:
    as_stage(chain(Affine(), Affine(seed=1))).save(tmp_path / "saved")
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        content = path.read_bytes()
        assert content[:2] != b"PK", f"{path.name} is a zip, as torch.save writes"
        assert content[:1] != b"\x80", f"{path.name} is a pickle"
        with pytest.raises(Exception):
            pickle.loads(content)


def test_saving_again_replaces_the_folder_whole(tmp_path: Path) -> None:
    target = tmp_path / "saved"
    chain(Affine(), Affine(seed=1)).save(target)
    (target / "left_over.txt").write_text("from before")
    graph = trained(chain(Affine()))
    graph.save(target)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()) == [
        "blocks/n0.safetensors",
        "config.yaml",
        "manifest.json",
    ]
    assert same_weights(graph, Graph.load(target))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_save_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "saved"
    graph = trained(chain(Affine()))
    graph.save(target)

    def fail(*args: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr(saving, "_write_blocks", fail)
    with pytest.raises(OSError, match="disk full"):
        chain(Affine(seed=5)).save(target)
    monkeypatch.undo()
    assert same_weights(graph, Graph.load(target))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_rename_that_fails_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "saved"
    graph = trained(chain(Affine()))
    graph.save(target)
    rename = Path.rename

    def fail(self: Path, other: Path) -> Path:
        if self.suffix == ".new":
            raise OSError("interrupted")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="interrupted"):
        chain(Affine(seed=5)).save(target)
    monkeypatch.undo()
    assert same_weights(graph, Graph.load(target))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_what_cannot_be_written_to_a_config_is_not_half_saved(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="n1: the wrapped"):
        chain(Affine(), block_of(lambda x: x)).save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


# --- what can be wrong with a folder ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trained(chain(Affine(seed=1), Affine(seed=2))).save(tmp_path / "saved")


def error_of(folder: Path, level: type[Level] = Graph) -> str:
    with pytest.raises(CheckpointError) as caught:
        level.load(folder)
    return str(caught.value)


def change_manifest(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_folder_that_is_no_saved_level(tmp_path: Path) -> None:
    assert "no manifest.json, so this is no saved level; expected a folder written by save()" in error_of(tmp_path)


def test_a_damaged_file_is_found_by_its_hash(folder: Path) -> None:
    path = folder / "blocks" / "n1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "n1: n1.safetensors is missing or not the file that was saved (its hash differs)" in error_of(folder)


def test_all_findings_at_once(folder: Path) -> None:
    (folder / "blocks" / "n0.safetensors").unlink()
    change_manifest(folder, lambda manifest: manifest["blocks"].update(ghost=manifest["blocks"].pop("n1")))
    found = error_of(folder)
    assert "n0: n0.safetensors is missing" in found
    assert "n1: its weights are missing" in found
    assert "ghost: weights for a block that is not there" in found


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    path = folder / "blocks" / "n0.safetensors"
    tensors = load_file(path)
    tensors["linear.weight"] = torch.zeros(2, 4)
    tensors["more"] = torch.zeros(1)
    save_file(tensors, path)
    change_manifest(folder, lambda manifest: manifest["blocks"]["n0"].update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    found = error_of(folder)
    assert "n0.linear.weight: shape [2, 4]; expected [4, 4]" in found
    assert "n0.more: shape [1]; expected no such tensor" in found


def test_a_tensor_that_is_missing_is_named(folder: Path) -> None:
    path = folder / "blocks" / "n0.safetensors"
    tensors = load_file(path)
    del tensors["linear.bias"]
    save_file(tensors, path)
    change_manifest(folder, lambda manifest: manifest["blocks"]["n0"].update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    assert "n0.linear.bias" in error_of(folder)


def test_a_file_outside_the_folder_is_refused(folder: Path) -> None:
    outside = folder.parent / "elsewhere.safetensors"
    (folder / "blocks" / "n0.safetensors").rename(outside)
    change_manifest(folder, lambda manifest: manifest["blocks"]["n0"].update(file="../elsewhere.safetensors"))
    assert "n0: file '../elsewhere.safetensors' leaves the folder" in error_of(folder)


def test_another_format_is_refused_by_name(folder: Path) -> None:
    change_manifest(folder, lambda manifest: manifest.update(format_version="9.0"))
    assert "format_version '9.0'; this version reads '1.0'" in error_of(folder)


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    assert "manifest.json: not readable" in error_of(folder)


def test_a_manifest_with_parts_missing(folder: Path) -> None:
    change_manifest(folder, lambda manifest: manifest.pop("blocks"))
    assert "manifest.json" in error_of(folder)


def test_a_folder_of_another_level_says_which_class_reads_it(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"kind 'graph' given to Stage.from_config; use Graph.from_config"):
        Stage.load(folder)


def test_a_saved_folder_may_stand_in_a_pipeline(folder: Path) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(str(folder), "one")
    assert same_weights(pipeline.nodes["one"], Graph.load(folder))


def test_folders_above_are_made(tmp_path: Path) -> None:
    graph = chain(Scale(7.0))
    graph.save(tmp_path / "a" / "b" / "c")
    assert Graph.load(tmp_path / "a" / "b" / "c").nodes["n0"].factor == 7.0
