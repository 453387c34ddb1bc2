"""What a storage did not write is never moved, changed or deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.world_blocks import FULL, assert_same, tiny_world
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
    planted += [plant(tmp_path, path.parent.name) for path in tmp_path.glob("*/*.png")]
    own = next((tmp_path / "log").glob("*.commits"))
    copies = ("00000009.commits", f"00000009-{own.stem[9:]}.commits", "00000009-0123456789abcdef.commits", "notes.commits")
    for name in copies:  # one of them is named as the world's own, and is a copy of it
        planted.append(tmp_path / "log" / name)
        shutil.copy(own, planted[-1])
    (tmp_path / "00001_copy").mkdir()
    planted.append(tmp_path / "00001_copy" / "artifacts_0.png")
    shutil.copy(next(tmp_path.glob("0*/*.png"), own), planted[-1])
    before = {path: path.read_bytes() for path in planted}
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


def test_a_marker_of_another_version_is_refused(tmp_path):
    (tmp_path / MARKER).write_text('{"format": "wgtorch-storage", "format_version": "1.0", "id": "0123456789abcdef"}')
    with pytest.raises(StorageError, match=r"format_version '1\.0'; this version reads '2\.0'"):
        world_in(tmp_path).run(seed=7)


# --- a place that only a file names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state_dir", ["../elsewhere", "{tmp}/elsewhere", "a/../../elsewhere", "memory://elsewhere"])
def test_a_file_does_not_choose_a_place_outside(tmp_path, monkeypatch, state_dir):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    world = tiny_world()
    world.set_storage({"state_dir": state_dir.replace("{tmp}", str(tmp_path))})
    world.save_config(tmp_path / "world.yaml")
    loaded = World.from_yaml(tmp_path / "world.yaml")
    with pytest.raises(StorageError, match=r"the file .*world\.yaml has the world's past written to .*elsewhere.*call world\.set_storage"):
        loaded.run(seed=1)
    assert not (tmp_path / "elsewhere").exists() and loaded.life.is_new
    if "://" not in state_dir:
        World.from_yaml(tmp_path / "world.yaml", trust=True).run(seed=1)
        assert (tmp_path / "elsewhere" / MARKER).is_file()
    loaded.set_storage({"state_dir": tmp_path / "mine"})
    loaded.run(seed=1)
    assert (tmp_path / "mine" / MARKER).is_file()


def test_a_file_may_choose_a_place_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world = tiny_world()
    world.set_storage({"state_dir": "runs/mine"})
    world.save_config("world.yaml")
    World.from_yaml("world.yaml").run(seed=1)
    assert (tmp_path / "runs" / "mine" / MARKER).is_file()


def test_a_new_folder_in_which_a_system_left_a_file_is_new(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    world.run(num_steps=2, seed=1)
    assert world.history.steps == [1] and (tmp_path / ".DS_Store").is_file()
