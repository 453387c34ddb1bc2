"""fork, rewind, diff and replay: in memory and on disk, at passes and inside them."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch

from tests.world_blocks import Make, Tell, assert_same, record_of, tiny_world
from wgtorch.core.errors import StateError, StorageError
from wgtorch.storage import MemoryStorage
from wgtorch.world import World
from wgtorch.world_runtime.state import State

ACTIONS = ["go", "stay", "look", "dig", "sing", "rest"]
WHERE = pytest.mark.parametrize("where", ["memory", "disk", "from disk to memory", "from memory to disk"])


@pytest.fixture
def parent(where: str, tmp_path) -> World:
    world = tiny_world()
    if where in ("disk", "from disk to memory"):
        world.set_storage({"state_dir": tmp_path / "parent"})
    world.run(num_steps=6, seed=7, action=ACTIONS)
    return world


def target(where: str, folder: Any) -> Any:
    return folder if where in ("disk", "from memory to disk") else None


def stored_of(world: World) -> dict[int, Any]:
    return record_of(world)["stored"]


# --- fork -------------------------------------------------------------------------------------------------------------


@WHERE
def test_a_fork_that_is_copied_or_sent_to_another_process_keeps_its_past(parent, where, tmp_path):
    fork = parent.fork(step=3, state_dir=target(where, tmp_path / "fork")).fork(step=2)
    before = record_of(fork)
    parent.run(action="on")
    for again in (copy.deepcopy(fork), pickle.loads(pickle.dumps(fork))):
        assert_same(record_of(again), before)
        again.run(num_steps=3, action=ACTIONS[3:])
        assert again.history.steps == [1, 2, 3, 4, 5]
        assert_same(stored_of(again)[5], stored_of(parent)[5])
    assert_same(record_of(fork), before)


@WHERE
def test_a_fork_lives_what_the_parent_lived_and_nothing_of_it_changes(parent, where, tmp_path):
    before = record_of(parent)
    fork = parent.fork(step=3, state_dir=target(where, tmp_path / "fork"))
    assert fork.history.steps == [1, 2, 3] and (fork.life.passes, fork.life.stage) == (4, 0)
    assert_same(stored_of(fork), {step: before["stored"][step] for step in (1, 2, 3)})
    assert all(fork.nodes[stage_id] is parent.nodes[stage_id] for stage_id in parent.nodes)
    fork.run(num_steps=2, action=ACTIONS[4:])
    assert_same(record_of(fork), before)

    other = parent.fork(step=3, state_dir=target(where, tmp_path / "other"))
    other.run(num_steps=2, action="something else")
    assert other.state.intent != parent.state.intent and other.history.steps == parent.history.steps
    assert stored_of(other)[5][0]["intent"] != before["stored"][5][0]["intent"]
    assert_same(stored_of(other)[3], before["stored"][3])
    assert_same(record_of(parent), before)
    parent.run(action="on")
    assert_same(record_of(fork), before)


@WHERE
def test_a_fork_at_every_moment(parent, where, tmp_path):
    before = record_of(parent)
    for index, commit in enumerate(parent.commits):
        fork = parent.fork(commit=commit.id, state_dir=target(where, tmp_path / f"fork{index}"))
        assert (fork.life.passes, fork.life.stage) == (commit.passes, commit.stage)
        left = 6 - commit.passes
        fork.run(num_steps=left, action=ACTIONS[6 - left :])
        assert_same(record_of(fork), before)


@WHERE
def test_a_fork_of_a_fork_outlives_all_before_it(parent, where, tmp_path):
    expected = record_of(parent)
    first = parent.fork(step=2, state_dir=target(where, tmp_path / "first"))
    first.run(action="another way")
    second = first.fork(step=3, state_dir=target(where, tmp_path / "second"))
    third = second.fork(step=1, state_dir=target(where, tmp_path / "third"))
    seen = record_of(second)
    for folder in ("parent", "first"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    assert_same(record_of(second), seen)
    third.run(num_steps=4, action=ACTIONS[2:])
    assert_same(record_of(third), expected)
    second.run(num_steps=2)
    assert second.history.steps == [1, 2, 3, 4, 5]
    if where in ("disk", "from memory to disk"):
        again = tiny_world()
        again.set_storage({"state_dir": tmp_path / "second"})
        assert_same(record_of(again.resume()), record_of(second))
        assert_same(stored_of(again)[2], expected["stored"][2])


def test_a_fork_of_a_world_taken_up_from_its_folder(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "a"})
    world.run(num_steps=6, seed=7, action=ACTIONS)
    reader = tiny_world()
    reader.set_storage({"state_dir": tmp_path / "a"})
    fork = reader.fork(step=3, state_dir=tmp_path / "b")
    fork.run(num_steps=2, action=ACTIONS[4:])
    assert_same(record_of(fork), record_of(world))
    with pytest.raises(StorageError, match="holds a world's past already; a fork needs a new or empty state_dir"):
        reader.fork(step=3, state_dir=tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine").write_text("mine")
    with pytest.raises(StorageError, match=r"holds \['mine'\], which no world wrote"):
        reader.fork(step=3, state_dir=tmp_path / "c")
    assert (tmp_path / "c" / "mine").read_text() == "mine"


def test_what_both_hold_lies_on_disk_and_in_memory_once(tmp_path):
    world = tiny_world()
    large = torch.rand(500_000)
    world.content = {**world.content, "large": large}
    world.set_storage({"state_dir": tmp_path / "a"})
    world.run(num_steps=3, seed=7)

    def room() -> int:
        found = {path.stat().st_ino: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
        return sum(found.values())

    before = room()
    forks = [world.fork(step=2, state_dir=tmp_path / f"f{index}") for index in range(5)]
    forks += [world.fork(step=2), world.fork(), forks[0].fork(step=1)]
    assert room() - before < 0.01 * before
    assert all(fork.content["large"] is large for fork in forks)
    forks[0].run()
    assert room() - before < 0.01 * before


def test_a_fork_of_now_has_what_was_edited(tmp_path):
    for state_dir in (None, tmp_path / "f"):
        world = tiny_world()
        assert world.fork().content == world.content
        for step in world.stream(num_steps=2, seed=1):
            if step.kind == "stage" and step.stage == "architect" and step.index == 1:
                world.state = step.state.replace(intent="edited")
                fork = world.fork(state_dir=state_dir)
        assert fork.state.intent == "edited" and fork.life.stage == 4
        fork.run()
        assert_same(fork.state, world.state)
        assert_same(stored_of(fork), stored_of(world))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"step": 9}, StorageError, r"no step 9 to go back to; there are \[0, 1, 2, 3, 4, 5\]"),
        ({"step": -1}, StorageError, r"no step -1 to go back to; there are \[0, 1, 2, 3, 4, 5\]"),
        ({"step": "3"}, StateError, "step is .*; expected the number of a pass"),
        ({"step": True}, StateError, "expected the number of a pass"),
        ({"commit": "nowhere"}, StorageError, "commit 'nowhere': there is no such commit; world.commits lists"),
        ({"step": 1, "commit": "abcd"}, StateError, "one of them says where"),
    ],
)
@pytest.mark.parametrize("where", ["memory"])
def test_moments_that_there_are_not(parent, options, error, words):
    before = record_of(parent)
    for call in (parent.fork, parent.rewind):
        with pytest.raises(error, match=words):
            call(**options)
    assert_same(record_of(parent), before)


# --- rewind -----------------------------------------------------------------------------------------------------------


@WHERE
def test_a_rewound_world_lives_on_from_there(parent, where, tmp_path):
    expected = record_of(parent)
    if where.endswith("disk") and where.startswith("from"):
        parent = parent.fork(state_dir=tmp_path / "fork")
    assert parent.rewind(3) is parent
    assert parent.history.steps == [1, 2, 3] and parent.life.passes == 4
    again = World.from_config(parent.to_config()) if where == "disk" else parent
    if where == "disk":
        assert again.resume().life.passes == 4, "the log says so too"
    again.run(num_steps=2, action=ACTIONS[4:])
    assert_same(record_of(again), expected)
    again.rewind(1)
    again.run(num_steps=3, action="elsewhere")
    assert again.history.steps == [1, 2, 3, 4] and again.state.intent != expected["stored"][5][0]["intent"]
    assert_same(stored_of(again)[1], expected["stored"][1])
    fork = again.fork(step=2)
    assert_same(stored_of(fork)[2], stored_of(again)[2])


def test_what_lay_after_a_rewind_can_be_gone_to():
    world = tiny_world()
    world.run(num_steps=4, seed=7)
    before, last = record_of(world), world.commits[-1]
    world.rewind(1).run(action="another way")
    world.rewind(commit=last)
    assert_same(record_of(world), before)


def test_rewind_says_where_to():
    world = tiny_world()
    with pytest.raises(StateError, match="rewind needs a step"):
        world.rewind()
    with pytest.raises(StorageError, match="no step 1 to go back to"):
        world.rewind(1)


# --- diff -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_diff_names_what_differs_and_nothing_else(parent):
    found = {change.path: change for change in parent.diff(2, 4)}
    assert set(found) == {
        "intent", "recipe.level", "recipe.known", "artifacts.0", "artifacts.1", "description", "outcome",
        "content.episodes", "content.log", "content.last",
    }  # fmt: skip
    assert (found["content.episodes"].before, found["content.episodes"].after) == ("2", "4")
    assert found["content.log"].kind == "grew" and parent.diff(3, 3) == []
    chain = parent.commits
    assert [change.path for change in parent.diff(chain[4].id, chain[5])] == ["artifacts"]


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_replay_proves_that_all_comes_out_the_same(parent, monkeypatch):
    before = record_of(parent)
    assert parent.replay(3) and str(parent.replay(3)) == "5 stages came out the same, bit for bit"
    whole = parent.replay()
    assert whole and whole.stages == 30
    assert_same(whole.state, parent.state)
    assert_same(record_of(parent), before)

    forward = Make.forward
    monkeypatch.setattr(
        Make,
        "forward",
        lambda self, recipe, rng: {
            "artifacts": [x + 0.0 if recipe["known"] != 3 else x + 1e-7 for x in forward(self, recipe, rng)["artifacts"]]
        },
    )
    found = parent.replay()
    assert not found and found.difference.startswith("pass 3, creator: artifacts.0: other numbers in ")
    assert parent.replay(2)
    monkeypatch.setattr(Tell, "forward", lambda self, intent, description, content: "another word")
    assert parent.replay(1).difference == "pass 1, author: outcome: " + parent.replay(1).difference.split("outcome: ")[1]


def test_a_replay_takes_edits_as_they_were_made():
    world = tiny_world()
    for step in world.stream(num_steps=3, seed=1):
        if step.stage == "architect":
            world.state = step.state.replace(recipe={**step.state.recipe, "count": 3})
    world.run(State(intent="given"), action="go")
    assert world.replay()


def test_a_storage_without_a_log_says_so():
    class Own:
        def __init__(self) -> None:
            self.inner = MemoryStorage()

        def hold(self):
            return self.inner.hold()

        def store(self, *args):
            return self.inner.store(*args)

        def steps(self):
            return self.inner.steps()

        def read(self, step):
            return self.inner.read(step)

        def keep_life(self, life):
            self.inner.keep_life(life)

        def read_life(self):
            return self.inner.read_life()

    world = tiny_world()
    world.set_storage(Own())
    world.run(num_steps=2, seed=1)
    assert world.history.steps == [1]
    with pytest.raises(StorageError, match="its storage, Own, keeps no log of commits"):
        world.fork()
