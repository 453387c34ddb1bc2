"""A storage at an address: memory in full, a zip to read, unknown schemes refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.world_blocks import assert_same, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import DirectoryStorage, MemoryStorage, make_storage, open_storage
from wgtorch.world import World

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def address(request):
    files = fsspec.filesystem("memory")
    name = f"/{request.node.name}"
    yield f"memory:/{name}"
    if files.exists(name):
        files.rm(name, recursive=True)


def world_at(address: object, **options: object) -> World:
    world = tiny_world()
    world.set_storage({"state_dir": address, **options})
    return world


def test_a_world_lives_at_an_address(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = tiny_world()
    whole.run(num_steps=4, seed=7)
    world = world_at(address)
    world.run(num_steps=2, seed=7)
    with pytest.raises(StorageError, match="another life, up to pass 2"):
        world_at(address).run(seed=1)
    again = World.from_config(world.to_config()).resume()
    again.run(num_steps=2)
    assert_same(record_of(again), record_of(whole))
    assert_same(record_of(world_at(address).resume()), record_of(whole))
    assert list(tmp_path.iterdir()) == [], "no folder is made"
    assert again.history.storage.verify() > 0 and again.replay()


def test_forks_from_and_to_an_address(address, tmp_path):
    whole = tiny_world()
    whole.run(num_steps=4, seed=7)
    world = world_at(f"{address}/a")
    world.run(num_steps=4, seed=7)
    for state_dir in (None, tmp_path / "b", f"{address}/c"):
        fork = world.fork(step=1, state_dir=state_dir)
        fork.run(num_steps=2)
        assert_same(record_of(fork), record_of(whole))
    world.rewind(2).run(num_steps=1)
    assert_same(record_of(world), record_of(whole))


def test_a_second_writer_and_files_of_others_are_refused(address):
    world = world_at(address)
    stream = world.stream(num_steps=2, seed=1)
    next(stream)
    with pytest.raises(StorageError, match="another run writes to this storage"):
        world_at(address).run(seed=1)
    storage = open_storage(address)
    storage._load()  # as another process that came at the same moment
    list(stream)
    storage._is_held = True
    with pytest.raises(StorageError, match="another run writes to this storage"):
        storage.keep_life(world.life)
    fsspec.filesystem("memory").pipe_file(f"{address.removeprefix('memory:/')}/other/mine.txt", b"mine")
    with pytest.raises(StorageError, match=r"holds \['mine.txt'\], which no world wrote"):
        world_at(f"{address}/other").run(seed=1)


def test_an_address_that_goes_away_is_an_error(address):
    world = world_at(address)
    world.run(num_steps=2, seed=1)
    fsspec.filesystem("memory").rm(address.removeprefix("memory:/"), recursive=True)
    with pytest.raises(StorageError, match="and is gone"):
        world.run()


def test_old_steps_are_dropped(address):
    world = world_at(address, max_snapshots=2)
    world.run(num_steps=40, seed=1)
    again = world_at(address, max_snapshots=2).resume()
    assert again.history.steps == [38, 39]
    assert_same(record_of(again), record_of(world))
    commits = again.commits
    assert len(commits) > 200 and not again.history.storage.has_body(commits[5])


def test_damage_is_named(address):
    world_at(address).run(num_steps=3, seed=1)
    files, root = fsspec.filesystem("memory"), address.removeprefix("memory:/")
    path = sorted(files.ls(f"{root}/log", detail=False))[2]
    raw = bytearray(files.cat_file(path))
    raw[-20] ^= 1
    files.pipe_file(path, bytes(raw))
    with pytest.raises(StorageError, match=r"00000003-\w+\.commits"):
        open_storage(address).verify()


@pytest.mark.parametrize("address", ["", " ", "zip://nowhere.zip", "zip:///nowhere/valley.zip"])
def test_an_address_that_names_nothing_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="expected a folder|there is no such zip"):
        open_storage(address)
    assert not list(tmp_path.iterdir())


def test_a_zip_is_read(tmp_path):
    world = world_at(tmp_path / "s")
    world.run(num_steps=3, seed=7)
    zipped = shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path / "s")
    reader = world_at(zipped)
    assert_same(record_of(reader.resume()), record_of(world))
    with pytest.raises(StorageError, match="a zip is read only"):
        reader.run()
    fork = reader.fork(step=1)
    fork.run()
    assert_same(record_of(fork)["stored"][2], record_of(world)["stored"][2])


def test_schemes(tmp_path):
    with pytest.raises(StorageError, match="no file system 'memroy'; did you mean 'memory'"):
        make_storage({"state_dir": "memroy://valley"})
    with pytest.raises(StorageError, match="is an address, not a folder; use wgtorch.storage.open_storage"):
        DirectoryStorage("memory://valley")
    storage = make_storage({"state_dir": f"file://{tmp_path}"})
    assert isinstance(storage, DirectoryStorage) and storage.folder == Path(tmp_path)
    assert isinstance(make_storage({"kind": "memory"}), MemoryStorage)
