"""What a storage did not write is never moved, changed or deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.world_blocks import FULL, assert_same, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.base import Life
from wgtorch.world import World
from wgtorch.world_runtime.state import State

MARKER = "wgtorch-storage.json"
NAMES = [
    "00001",
    "00003",
    "life-photos",
    "life-2",
    "life-99",
    ".backup.new",
    ".00002.dropped",
    ".00002.0123456789ab.new",
    "e1",
    ".CURRENT.new",
]


def world_in(folder: Path, **options: object) -> World:
    world = tiny_world()
    world.set_storage({"state_dir": folder, **options})
    return world


def plant(folder: Path, name: str) -> Path:
    path = folder / name / "precious.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    return path


def all_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_records(folder: Path) -> None:
    """Makes of a storage what the versions without markers wrote."""
    (folder / MARKER).unlink()
    for path in (*folder.glob("*/state.json"), *folder.glob("*/life.json"), *folder.glob("traces/*.jsonl")):
        entries = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else [json.loads(path.read_text())]
        )
        for entry in entries:
            for name in ("storage", "folder", "files"):
                entry.pop(name, None)
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("name", [*NAMES, "notes", "traces"])
def test_a_folder_with_somebody_elses_files_is_refused(tmp_path, name):
    plant(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    storage = DirectoryStorage(tmp_path)
    for write in (
        lambda: world_in(tmp_path).run(num_steps=3, seed=7),
        lambda: storage.store(1, State(**FULL), {}),
        lambda: storage.keep_life(Life()),
        lambda: storage.keep_trace({"pass": 1, "place": 0}),
    ):
        with pytest.raises(StorageError, match=rf"holds \['{name}'\], which no world wrote.* give a new or empty one, as state_dir="):
            write()
        assert sorted(tmp_path.rglob("*")) == before


def test_a_marker_of_something_else_is_refused(tmp_path):
    (tmp_path / MARKER).write_text('{"format": "other"}')
    with pytest.raises(StorageError, match="is no marker of a storage"):
        world_in(tmp_path).run(seed=7)
    assert all_of(tmp_path) == {MARKER: b'{"format": "other"}'}


def test_a_kill_before_the_marker_was_written(tmp_path):
    (tmp_path / MARKER).touch()
    world_in(tmp_path).run(seed=7)
    assert json.loads((tmp_path / MARKER).read_text())["format"] == "wgtorch-storage"


@pytest.mark.parametrize("options", [{}, {"max_snapshots": 1}, {"max_snapshots": 2, "naming_template": "e{step}"}])
def test_in_a_storage_the_users_files_stay_and_the_world_lives_on(tmp_path, options):
    whole = tiny_world()
    whole.run(num_steps=6, seed=7)
    world = world_in(tmp_path, **options)
    world.run(num_steps=2, seed=7)
    planted = [plant(tmp_path, name) for name in (*NAMES, "e3", "traces")]
    planted += [plant(tmp_path, path.parent.name) for path in (*tmp_path.glob("*/state.json"), *tmp_path.glob("*/life.json"))]
    for name in ("00000000.jsonl", "00000003.jsonl", "1.jsonl"):
        planted.append(tmp_path / "traces" / name)
        planted[-1].write_text("mine")
    (tmp_path / "00001_copy").mkdir()
    planted.append(tmp_path / "00001_copy" / "state.json")
    shutil.copy(next(tmp_path.glob("*/state.json")), planted[-1])
    before = {path: path.read_bytes() for path in planted if path.parent.name != "traces" or path.name != "00000000.jsonl"}
    world.run(num_steps=2)
    again = world_in(tmp_path, **options).resume()
    again.run(num_steps=2)
    assert {path: path.read_bytes() for path in before if path.exists()} == before
    kept = options.get("max_snapshots", 5)
    assert again.history.steps == list(range(1, 6))[-kept:]
    assert_same(again.content, whole.content)


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    world_in(tmp_path).run(seed=7)
    marker = json.loads((tmp_path / MARKER).read_text())
    left = plant(tmp_path, f".00002.{marker['id']}.0123456789ab.new").parent
    planted = plant(tmp_path, ".00002.backup.0123456789ab.new")
    with DirectoryStorage(tmp_path).hold():
        assert not left.exists() and planted.read_text() == "mine"


def test_a_step_stored_anew_beside_a_users_file(tmp_path):
    storage = DirectoryStorage(tmp_path)
    storage.store(1, State(**FULL), {"n": 1})
    note = plant(tmp_path, "00001")
    assert storage.store(1, State(**FULL), {"n": 2}) == "00001_"
    assert storage.read(1)[1] == DirectoryStorage(tmp_path).read(1)[1] == {"n": 2}
    assert os.listdir(note.parent) == ["precious.txt"]


@pytest.mark.parametrize("max_snapshots", [None, 1])
def test_a_storage_without_a_marker_is_adopted(tmp_path, max_snapshots):
    whole = tiny_world()
    whole.run(num_steps=4, seed=7)
    world_in(tmp_path).run(num_steps=3, seed=7)
    without_records(tmp_path)
    planted = [plant(tmp_path, name) for name in (*NAMES, next(tmp_path.glob("life-*")).name)]
    assert world_in(tmp_path).history.steps == [1, 2]
    world = world_in(tmp_path, max_snapshots=max_snapshots).resume()
    world.run()
    assert_same(
        {name: record_of(world)[name] for name in ("content", "state")}, {name: record_of(whole)[name] for name in ("content", "state")}
    )
    assert world.history.steps == ([1, 2, 3] if max_snapshots is None else [3])
    assert all(path.read_text() == "mine" for path in planted)
    if max_snapshots == 1:
        assert not (tmp_path / "00002").exists() and os.listdir(tmp_path / "00001") == ["precious.txt"]


def test_a_damaged_life_proves_nothing(tmp_path):
    world_in(tmp_path).run(num_steps=2, seed=7)
    without_records(tmp_path)
    next(tmp_path.glob("life-*/life.json")).write_text("{")
    before = all_of(tmp_path)
    with pytest.raises(StorageError, match=r"life\.json: cannot be read"):
        world_in(tmp_path).run(seed=7)
    assert all_of(tmp_path) == before
