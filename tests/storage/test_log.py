"""When commits are written: those of a pass together, earlier where something would be lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.world_blocks import FULL, assert_same, record_of, stop_after, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import DirectoryStorage, directory, snapshot
from wgtorch.storage.base import Life
from wgtorch.storage.commit import Commit
from wgtorch.storage.log import CommitLog
from wgtorch.storage.segment import scan
from wgtorch.world import World
from wgtorch.world_runtime.state import State


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stage takes long, however slow the machine."""
    monkeypatch.setattr(CommitLog, "worth", 1e9)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is written at the end of a log, and synced, in the order of it."""
    seen: list[str] = []
    append, sync = DirectoryStorage._append, DirectoryStorage._sync
    monkeypatch.setattr(DirectoryStorage, "_append", lambda *args: (seen.append("write"), append(*args))[1])
    monkeypatch.setattr(DirectoryStorage, "_sync", lambda *args: (seen.append("sync"), sync(*args))[1])
    return seen


def world_in(folder: Path) -> World:
    world = tiny_world()
    world.set_storage({"state_dir": folder})
    return world


def records_of(folder: Path) -> list[int]:
    """For each record how many commits it holds."""
    (path,) = (folder / "log").iterdir()
    raw = path.read_bytes()
    return [1 + len(record.meta.get("before", [])) for record in scan(lambda at, length: raw[at : at + length], len(raw), 0, "log")]


def kinds_of(commits: list[Commit]) -> list[str]:
    return [commit.kind for commit in commits]


def test_a_pass_is_one_durable_write(tmp_path: Path, calls: list[str]) -> None:
    world = world_in(tmp_path)
    world.run(num_steps=3, seed=7)
    assert calls == ["write", "sync"] * 3
    assert records_of(tmp_path) == [7, 6, 6]
    again = world_in(tmp_path).resume()
    assert_same(record_of(again), record_of(world))
    assert again.commits == world.commits and len({commit.id for commit in again.commits}) == 19
    assert again.replay()


def test_what_took_long_is_written_before_the_pass_ends(tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommitLog, "worth", -1.0)
    world = world_in(tmp_path)
    world.run(num_steps=2, seed=7)
    assert calls.count("sync") == 2 and records_of(tmp_path) == [1] * 5 + [2] + [1] * 4 + [2]
    assert_same(record_of(world_in(tmp_path).resume()), record_of(world))


def test_a_pass_that_stops_is_written_as_far_as_it_came(tmp_path: Path, calls: list[str]) -> None:
    world = world_in(tmp_path)
    stop_after(world, 3, seed=7)
    assert calls == ["write", "sync"] and records_of(tmp_path) == [4]
    again = world_in(tmp_path).resume()
    assert (again.life.passes, again.life.stage) == (0, 3)
    again.run()
    whole = tiny_world()
    whole.run(seed=7)
    assert_same(record_of(again), record_of(whole))


def test_who_reads_inside_a_pass_finds_what_has_happened(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    for count, step in enumerate(world.stream(num_steps=2, seed=7), 1):
        if step.kind == "stage":
            assert (world.commits[-1].passes, world.commits[-1].stage) == (world.life.passes, world.life.stage)
            fork = world.fork(commit=world.commits[-1])
            assert (fork.life.stage, fork.state) == (world.life.stage, world.state), count
    assert DirectoryStorage(tmp_path).verify() > 0


def test_what_could_not_be_written_is_written_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny_world()
    whole.run(num_steps=3, seed=7)
    world = world_in(tmp_path)
    world.run(seed=7)
    with monkeypatch.context() as patch:

        def full(*args: object) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            world.run(num_steps=2)
    world.run(num_steps=2)
    assert_same(record_of(world), record_of(whole))
    assert_same(record_of(world_in(tmp_path).resume()), record_of(whole))


@pytest.mark.parametrize("count", [8, 2 << 20], ids=["small", "large"])
def test_a_tensor_that_is_changed_in_place_before_it_is_written(tmp_path: Path, count: int) -> None:
    storage, tensor = DirectoryStorage(tmp_path), torch.arange(count, dtype=torch.float64)
    with storage.hold():
        storage.keep_life(Life(content={"x": tensor}, cause={"kind": "stage"}))
        tensor.zero_()
        storage.keep_life(Life(content={"x": 1}, stage=1, cause={"kind": "stage"}))
    again = DirectoryStorage(tmp_path)
    assert torch.equal(again.life_at(again.commits()[0]).content["x"], torch.arange(count, dtype=torch.float64))


def test_folders_of_small_states_go_with_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "RECENT", 3)
    storage, large = DirectoryStorage(tmp_path), torch.rand(3, 64, 64)
    with storage.hold():
        for step in range(8):
            picture = large if step == 2 else torch.zeros(3, 4, 4)
            state = State(**{**FULL, "artifacts": [picture + step]})
            storage.store(step, state, {})
            storage.keep_life(Life(content={"step": step}, state=state, passes=step + 1, cause={"kind": "pass"}))
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "log")
    assert folders == ["00002", "00005", "00006", "00007"], "a large one stays"
    world = world_in(tmp_path)
    assert world.history.steps == list(range(8))
    exported = world.history.export(tmp_path / "pictures", naming_template="step{step}")
    assert [path.name for path in exported] == [f"step{step}" for step in range(8)]
    assert all((path / "state.json").is_file() and (path / "artifacts_0.png").is_file() for path in exported)
    assert world.history.export(tmp_path / "pictures", naming_template="step{step}") == exported


def test_a_past_that_goes_on_is_compared_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list costs what is new in it; what was changed in place in an old item is found at its end."""
    compared: list[int] = []
    is_same = snapshot.is_same_plain

    def counted(before: object, value: object) -> bool:
        if isinstance(before, list) and isinstance(value, list) and before is not value and len(before) == len(value):
            compared.append(len(before))
        return is_same(before, value)

    monkeypatch.setattr(snapshot, "is_same_plain", counted)
    storage, events = DirectoryStorage(tmp_path / "it"), [{"id": index, "effects": [index]} for index in range(300)]

    def live(passes: range) -> None:
        with storage.hold():
            for number in passes:
                events.append({"id": len(events), "effects": []})
                storage.keep_life(Life(content={"events": list(events)}, passes=number, cause={"kind": "pass"}))

    live(range(1, 3))
    compared.clear()
    live(range(3, 40))
    assert compared == [64, len(events)], "at its beginning and its end, and no old item between"
    with storage.hold():
        for number in (40, 41):
            storage.keep_life(Life(content={"events": [*events, number]}, passes=number, cause={"kind": "pass"}))
        events[5]["effects"].append("changed in place")
    again = DirectoryStorage(tmp_path / "it")
    assert again.life_at(again.commits()[-1]).content == {"events": [*events, 41]}
    assert again.commits()[-1].kind == "edit"
    assert again.life_at(again.commits()[-2]).content["events"][5] == {"id": 5, "effects": [5]}


def test_a_long_list_whose_items_change_places_in_place_is_stored_as_it_was_lived(tmp_path: Path) -> None:
    storage, events, lived = DirectoryStorage(tmp_path / "it"), [{"id": index} for index in range(300)], []
    with storage.hold():
        for number in range(12):
            if number % 3 == 2:
                events.insert(number, events.pop())
                events[-2 * number] = {"id": -number}
            storage.keep_life(Life(content={"events": events, "passes": number}, passes=number, cause={"kind": "pass"}))
            lived.append(list(events))
    again = DirectoryStorage(tmp_path / "it")
    assert [again.life_at(commit).content["events"] for commit in again.commits()] == lived
