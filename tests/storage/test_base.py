"""Kinds of storage, the life, and the history as a sequence."""

from __future__ import annotations

import json

import pytest

from tests.world_blocks import FULL, assert_same, tiny_world
from wgtorch.core.errors import StateError, StorageError, UnknownNameError
from wgtorch.storage import DirectoryStorage, MemoryStorage, StorageRegistry, make_storage, register_storage
from wgtorch.storage.base import History, Life
from wgtorch.storage.life_files import read_life, write_life
from wgtorch.world_runtime.state import State


def test_make_storage(tmp_path):
    storage = make_storage({"state_dir": str(tmp_path), "max_snapshots": 3, "naming_template": "episode-{step}"})
    assert isinstance(storage, DirectoryStorage)
    assert (storage.folder, storage.max_snapshots, storage.naming_template) == (tmp_path, 3, "episode-{step}")
    assert isinstance(make_storage({"kind": "memory"}), MemoryStorage)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"state_dri": "x"},
            r"storage 'directory': unknown option 'state_dri'; did you mean 'state_dir'\?\. Options: \['state_dir', 'naming_template'",
        ),
        ({}, "storage 'directory': .*state_dir"),
        ({"kind": "memory", "state_dir": "x"}, r"storage 'memory': unknown option 'state_dir'; there are none"),
    ],
)
def test_options_that_do_not_fit(config, words):
    with pytest.raises(StorageError, match=words):
        make_storage(config)


def test_an_unknown_kind():
    with pytest.raises(UnknownNameError, match=r"unknown storage 'directry'; did you mean 'directory'\?"):
        make_storage({"kind": "directry"})


def test_a_registered_kind_is_used_by_a_world():
    @register_storage("test_counting")
    class Counting(MemoryStorage):
        """Counts what it is told to keep."""

        def __init__(self, *, start: int = 0) -> None:
            super().__init__()
            self.lives = start

        def keep_life(self, life: Life) -> None:
            self.lives += 1

    assert "test_counting" in StorageRegistry
    world = tiny_world()
    world.set_storage({"kind": "test_counting", "start": 100})
    world.run(num_steps=2, seed=1)
    storage = world.history.storage
    assert storage.lives >= 110 and storage.steps() == [1]
    assert world.to_config()["storage"] == {"kind": "test_counting", "start": 100}


def test_life():
    assert Life().is_new and Life(content={"a": 1}).is_new
    assert not Life(passes=1).is_new and not Life(stage=1).is_new and not Life(state=State()).is_new


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_history_is_a_sequence(tmp_path, kind):
    storage = MemoryStorage() if kind == "memory" else DirectoryStorage(tmp_path)
    states = {step: State(**{**FULL, "intent": f"intent {step}"}) for step in (7, 2, 11)}
    for step, state in states.items():
        storage.store(step, state, {"episodes": step})
    history = History(storage)
    assert history.steps == [2, 7, 11] and len(history) == 3
    assert [state.intent for state in history] == ["intent 2", "intent 7", "intent 11"]
    assert history[-1].intent == "intent 11"
    assert [state.intent for state in history[1:]] == ["intent 7", "intent 11"]
    assert history[:0] == []
    assert_same(history[0], states[2])
    assert [history.content(index) for index in (0, -1)] == [{"episodes": 2}, {"episodes": 11}]
    assert repr(history) == "History of 3 states"
    with pytest.raises(IndexError):
        history[3]


def test_a_read_of_somebodys_own_is_what_a_history_asks():
    class Shouting(MemoryStorage):
        def read(self, step):
            state, content = super().read(step)
            return state.replace(intent=state.intent.upper()), {**content, "loud": True}

    class Whispering(Shouting):
        def read_state(self, step):
            return super().read_state(step).replace(intent="...")

    class Plain:
        def __init__(self, inner):
            self.inner = inner

        def read(self, step):
            return self.inner.read(step)

        def steps(self):
            return self.inner.steps()

    for kind, word, is_loud in ((MemoryStorage, "sea", False), (Shouting, "SEA", True), (Whispering, "...", True)):
        storage = kind()
        storage.store(1, State(**{**FULL, "intent": "sea"}), {"loud": False})
        for history in (History(storage), History(Plain(storage))):
            assert [state.intent for state in history] == [history[0].intent] == [word]
            assert history.content(0) == {"loud": is_loud}


def test_memory_keeps_what_it_was_given():
    storage, content = MemoryStorage(), {"episodes": 1}
    storage.store(0, State(**FULL), content)
    content["episodes"] = 2
    assert storage.read(0)[1] == {"episodes": 1}
    assert storage.read_life() is None
    with pytest.raises((StorageError, StateError, KeyError)):
        storage.read(5)


def test_a_life_of_the_first_worlds_had_no_id(tmp_path):
    life = Life({"story": "It began."}, State(intent="a storm"), passes=3, seed=7)
    write_life(life, tmp_path)
    path = tmp_path / "life.json"
    entry = json.loads(path.read_text())
    del entry["id"]
    path.write_text(json.dumps(entry))
    again = read_life(tmp_path)
    assert (again.content, again.state, again.passes, again.seed) == (life.content, life.state, 3, 7)
    assert again.id == read_life(tmp_path).id, "a saved world and its storage are one life"
