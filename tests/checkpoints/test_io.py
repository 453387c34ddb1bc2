"""Levels on disk: whole or not at all, each unique block once, no code in any file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.blocks_for_tests import Affine, Relu, Scale, as_pipeline, as_stage, block_of, chain, counter
from wgtorch.core.checkpoint import atomic
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
    stored = list((tmp_path / "saved").rglob("*.safetensors"))
    assert sum(tensor.numel() for path in stored for tensor in load_file(path).values()) == 4 * 4 + 4
    twin = Pipeline.load(tmp_path / "saved")
    assert twin.find("one/n0") is twin.find("one/n2") is twin.find("two/n0")
    assert same_weights(pipeline, twin)


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
    assert not list((tmp_path / "saved").rglob("*.safetensors"))
    assert Graph.load(tmp_path / "saved").run({"x": torch.tensor(1.0)})["y"] == 8


def test_no_file_holds_pickled_code(tmp_path: Path) -> None:
    as_stage(chain(Affine(), Affine(seed=1))).save(tmp_path / "saved")
    files = files_of(tmp_path / "saved")
    assert sum(name.endswith(".safetensors") for name in files) == 2
    for name, content in files.items():
        assert content[:2] != b"PK", f"{name} is a zip, as torch.save writes"
        assert content[:1] != b"\x80", f"{name} is a pickle"
        with pytest.raises(Exception):
            pickle.loads(content)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saving_again_replaces_the_folder_whole(tmp_path: Path) -> None:
    target = tmp_path / "saved"
    chain(Affine(), Affine(seed=1)).save(target)
    graph = trained(chain(Affine()))
    graph.save(target)
    assert same_weights(graph, Graph.load(target))
    assert len(list(target.rglob("*.safetensors"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_what_is_no_checkpoint_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        chain(Affine()).save(tmp_path)
    assert files_of(tmp_path) == {"thesis.txt": b"years of work"}


def test_what_cannot_be_written_to_a_config_is_not_half_saved(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="n1: the wrapped"):
        chain(Affine(), block_of(lambda x: x)).save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_folders_above_are_made(tmp_path: Path) -> None:
    chain(Scale(7.0)).save(tmp_path / "a" / "b" / "c")
    assert Graph.load(tmp_path / "a" / "b" / "c").nodes["n0"].factor == 7.0


def test_a_saved_folder_may_stand_in_a_pipeline(tmp_path: Path) -> None:
    graph = trained(chain(Affine(seed=1), Affine(seed=2)))
    pipeline = Pipeline("p")
    pipeline.add_graph(str(graph.save(tmp_path / "saved")), "one")
    assert same_weights(pipeline.nodes["one"], graph)


def test_a_folder_of_another_level_says_which_class_reads_it(tmp_path: Path) -> None:
    chain(Affine()).save(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"Graph\.(load|from_config)"):
        Stage.load(tmp_path / "saved")


def test_a_folder_that_is_no_saved_level(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a folder written by save\(\)"):
        Graph.load(tmp_path)


def test_every_damaged_or_missing_file_is_found(tmp_path: Path) -> None:
    target = chain(Affine(seed=1), Affine(seed=2)).save(tmp_path / "saved")
    whole = files_of(target)
    for name, content in whole.items():
        damaged = bytearray(content)
        damaged[-2] ^= 1
        (target / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=Path(name).name):
            Graph.load(target)
        (target / name).unlink()
        with pytest.raises(CheckpointError, match=Path(name).name):
            Graph.load(target)
        (target / name).write_bytes(content)
    Graph.load(target)


# --- files and folders that are put in place whole or not at all ------------------------------------------------------


def fill(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text("new")


def broken_fill(folder: Path) -> None:
    (folder / "half.txt").write_text("half")
    raise OSError("disk full")


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to put a folder in place of another."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    return request.param


@pytest.mark.usefixtures("way")
def test_a_folder_is_put_in_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    assert atomic.write_folder(target, fill) == target
    assert files_of(tmp_path) == {"out/deep/a.txt": b"new"}


@pytest.mark.usefixtures("way")
def test_a_folder_that_cannot_be_filled_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        atomic.write_folder(target, broken_fill)
    assert files_of(tmp_path) == {"out/old.txt": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_rename_that_fails_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    atomic.write_folder(target, fill)
    rename = Path.rename

    def fail(self: Path, other: Path) -> Path:
        if self.suffix == ".new":
            raise OSError("interrupted")
        return rename(self, other)

    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="interrupted"):
        atomic.write_folder(target, lambda folder: (folder / "b.txt").write_text("never"))
    monkeypatch.undo()
    assert files_of(tmp_path) == {"out/deep/a.txt": b"new"}


def test_a_kill_between_two_renames_leaves_what_recovered_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    target = tmp_path / "out"
    atomic.write_folder(target, fill)
    assert atomic.recovered(target) == target
    rename = Path.rename

    def die(self: Path, other: Path) -> Path:
        if target.exists():
            return rename(self, other)
        raise Killed

    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(Killed):
        atomic.write_folder(target, fill)
    monkeypatch.undo()
    assert not target.exists()
    assert files_of(atomic.recovered(target)) == {"deep/a.txt": b"new"}


def test_a_file_is_put_in_place_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a" / "f.txt"
    atomic.write_file(target, lambda path: path.write_text("first"))

    def half(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic.write_file(target, half)
    assert files_of(tmp_path) == {"a/f.txt": b"first"}
    atomic.write_file(target, lambda path: path.write_text("second"))
    assert files_of(tmp_path) == {"a/f.txt": b"second"}


def test_a_link_stays_a_link_to_what_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    atomic.write_folder(link, fill)
    assert link.is_symlink()
    assert files_of(real) == {"deep/a.txt": b"new"}


def test_files_and_folders_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotADirectoryError, match="a file stands where the folder is to be written"):
        atomic.write_folder(tmp_path / "file", fill)
    with pytest.raises(IsADirectoryError, match="a folder stands where the file is to be written"):
        atomic.write_file(tmp_path / "folder", lambda path: None)


def test_what_a_killed_writer_left_is_taken_away_and_not_what_a_living_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, other = tmp_path / ".out.0123456789ab.new", tmp_path / ".outer.0123456789ab.new"
    users = [tmp_path / name for name in (".out.backup.new", ".out.new", ".out.old")]
    for folder in (left, other, *users):
        folder.mkdir()
    atomic.write_folder(tmp_path / "out", fill)
    assert left.exists(), "so new a name may belong to a writer that has not locked it yet"
    monkeypatch.setattr(atomic, "_FRESH", -1.0)
    with atomic._held(left):
        atomic.write_folder(tmp_path / "out", fill)
        assert left.exists(), "its writer lives"
    atomic.write_folder(tmp_path / "out", fill)
    assert not left.exists()
    assert other.exists(), "it is another target's"
    assert all(folder.exists() for folder in users), "no writer gives such names"
