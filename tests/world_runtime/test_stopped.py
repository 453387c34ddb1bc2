"""What a person does when a stage failed or displeases: all of it is obeyed, and nothing that came out well is done again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.world_blocks import Develop, Make, Plan, Tell, Update, assert_same, failing_once, record_of, tiny_world
from wgtorch.core.errors import StateError, StorageError
from wgtorch.world import World
from wgtorch.world_runtime.state import State

BROKEN = RuntimeError("refused")
KINDS = pytest.mark.parametrize("kind", ["memory", "disk"])


def stopped(block: Any, tmp_path: Any, kind: str, **options: Any) -> World:
    """A world whose stage fails in the second of three passes."""
    world = tiny_world()
    if kind == "disk":
        world.set_storage({"state_dir": tmp_path / "s"})
    world.run(seed=7, action="go")
    with failing_once(block, BROKEN), pytest.raises(RuntimeError, match="refused") as caught:
        world.run(num_steps=2, action="go", **options)
    world.note = "\n".join([note for note in caught.value.__notes__ if not note.startswith("raised in node")][-2:])
    return world


def whole(passes: int = 3) -> World:
    world = tiny_world()
    world.run(num_steps=passes, seed=7, action="go")
    return world


def ran(world: World, run: Any) -> list[str]:
    """Stages that run in a call."""
    seen: list[str] = []
    run(callbacks=[lambda event: seen.append(event.path) if event.kind == "start" and event.level == "stage" else None])
    return seen


@KINDS
def test_the_error_says_what_would_help(tmp_path, kind):
    world = stopped(Make, tmp_path, kind)
    assert "tiny stopped at pass 1, stage 'creator'; all before it is kept" in world.note
    for way in (
        "world.retry()",
        "world.edit(recipe=...)",
        "world.skip()",
        "world.run(action=...)",
        "world.run(seed=...)",
        "world.run(State(...))",
    ):
        assert way in world.note
    assert "world.run(action=...)" not in stopped(Tell, tmp_path / "b", kind).note, "nothing has read the action yet"


@KINDS
def test_retry_makes_the_rest_of_the_call(tmp_path, kind):
    world = stopped(Make, tmp_path, kind)
    assert_same(world.retry(), whole().state)
    assert_same(record_of(world), record_of(whole()))


@KINDS
def test_retry_takes_the_last_stage_back_where_none_failed(tmp_path, kind):
    world = tiny_world()
    if kind == "disk":
        world.set_storage({"state_dir": tmp_path / "s"})
    before = world.run(num_steps=2, seed=7)
    assert ran(world, world.retry) == ["creator"]
    assert world.life.passes == 2 and world.state.recipe == before.recipe
    assert float((world.state.artifacts[0] - before.artifacts[0]).abs().max()) > 0
    assert_same(world.retry(seed=7), before)
    with pytest.raises(StateError, match="no stage has run that could run again"):
        tiny_world().retry()


@KINDS
def test_edit_of_what_the_failed_stage_reads(tmp_path, kind):
    world = stopped(Make, tmp_path, kind)
    assert world.edit(recipe={**world.state.recipe, "count": 5}) is world
    assert ran(world, lambda **options: world.run(num_steps=2, action="go", **options))[0] == "creator"
    assert world.life.passes == 3 and len(world.history[1].artifacts) == 5


@KINDS
def test_edit_of_what_an_earlier_stage_of_the_episode_read_goes_back_to_it(tmp_path, kind):
    world = stopped(Make, tmp_path, kind)
    old = world.state.recipe
    world.edit(intent="a very different and much longer intent than there was before")
    assert world.state.recipe is None and world.life.stage == 3
    assert ran(world, world.run)[:2] == ["architect", "creator"]
    assert world.life.passes == 2 and world.state.recipe["level"] != old["level"]
    assert world.state.intent.startswith("a very different")


@KINDS
def test_edit_of_an_episode_that_displeases_has_it_made_again(tmp_path, kind):
    world = tiny_world()
    if kind == "disk":
        world.set_storage({"state_dir": tmp_path / "s"})
    world.run(num_steps=2, seed=7)
    content = world.content
    assert ran(world, world.edit(recipe={**world.state.recipe, "count": 4}).run) == ["creator"]
    assert world.life.passes == 2 and len(world.state.artifacts) == 4 and world.content is not None
    assert_same(dict(world.content), dict(content))
    artifacts = world.state.artifacts[:1]
    assert ran(world, world.edit(artifacts=artifacts).run)[0] == "philosopher", "what nothing has read yet is only put in its place"
    assert len(world.history[-1].artifacts) == 1
    world.edit(content={"story": "Another."})
    assert world.content["story"] == "Another." and world.content["episodes"] == 2
    again = world.fork()
    assert again.content["story"] == "Another."
    with pytest.raises(StateError, match="State has no slot 'intnet'; did you mean 'intent'"):
        world.edit(intnet="x")
    with pytest.raises(StateError, match="content is .*; expected a mapping of the fields to change"):
        world.edit(content="x")


@KINDS
def test_skip_goes_on_without_the_stage(tmp_path, kind):
    world = stopped(Tell, tmp_path, kind)
    assert world.skip() is world
    assert ran(world, lambda **options: world.run(num_steps=2, action="go", **options))[0] == "environment"
    assert world.life.passes == 3 and world.history.steps == [2], "a state without outcome is not stored"
    world = stopped(Make, tmp_path / "b", kind)
    world.skip().run(num_steps=2, action="go")
    assert world.life.passes == 3 and world.history.steps == [1]
    skipped = [commit for commit in world.commits if commit.kind == "skip"]
    assert [commit.ran for commit in skipped] == ["creator"]


@KINDS
@pytest.mark.parametrize("block", [Plan, Make])
def test_another_action_is_obeyed_in_the_same_pass(tmp_path, kind, block):
    world = stopped(block, tmp_path, kind)
    assert world.history.steps == [1]
    seen = ran(world, lambda **options: world.run(action="run away", **options))
    assert seen == ["environment", "architect", "creator"] and world.state.intent.endswith("action run away")
    assert world.life.passes == 2
    expected = tiny_world()
    expected.run(num_steps=2, seed=7, action=["go", "run away"])
    assert_same(record_of(world), record_of(expected))


@KINDS
def test_the_same_action_and_none_go_on_where_it_stopped(tmp_path, kind):
    for action in ("go", None):
        world = stopped(Make, tmp_path / str(action), kind)
        assert ran(world, lambda action=action, world=world, **options: world.run(action=action, **options)) == ["creator"]
        assert_same(record_of(world), record_of(whole(2)))


@KINDS
def test_an_action_before_the_stage_that_reads_it_takes_nothing_back(tmp_path, kind):
    world = stopped(Tell, tmp_path, kind)
    assert ran(world, lambda **options: world.run(action="run away", **options))[0] == "author"
    assert world.state.intent.endswith("action run away")


@KINDS
def test_another_seed_is_obeyed(tmp_path, kind):
    world = stopped(Develop, tmp_path, kind)
    world.run(num_steps=2, action="go", seed=8)
    assert world.life.seed == 8 and world.state.intent != whole().state.intent
    world = stopped(Make, tmp_path / "b", kind)
    world.run(action="run away", seed=9)
    assert world.life.seed == 9 and world.state.intent.endswith("action run away")


@KINDS
def test_a_state_handed_in_is_obeyed(tmp_path, kind):
    world = stopped(Make, tmp_path, kind)
    given = State(intent="given", recipe={"count": 1, "level": 0.5, "known": 0}, artifacts=[world.history[0].artifacts[0]])
    world.run(given)
    assert world.history[-1].intent == "given"


@KINDS
def test_between_two_stages_of_a_stream(tmp_path, kind):
    world = tiny_world()
    if kind == "disk":
        world.set_storage({"state_dir": tmp_path / "s"})
    stages = []
    for step in world.stream(num_steps=2, seed=7):
        stages.append(step.stage)
        if step.stage == "creator" and stages.count("creator") == 1:
            world.edit(intent="edited")
        if step.stage == "architect" and step.index == 1:
            world.skip()
    assert stages == [*["philosopher", "author", "environment", "architect", "creator", "architect", "creator", None],
                      *["philosopher", "author", "environment", "architect", None]]  # fmt: skip
    assert world.history[0].intent == "edited"


def test_what_somebody_else_lived_on_is_not_edited(tmp_path):
    world = stopped(Update, tmp_path, "disk")
    other = tiny_world()
    other.set_storage({"state_dir": tmp_path / "s"})
    other.resume().run(num_steps=2)
    for change in (world.skip, lambda: world.edit(intent="x")):
        with pytest.raises(StorageError, match="Call world.resume()"):
            change()
