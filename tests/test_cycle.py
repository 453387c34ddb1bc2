"""The cycle: what a user hands in decides what runs; order, actions, steering, what is stored and what is dropped."""

from __future__ import annotations

import time
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.world_blocks import (
    CYCLE,
    FULL,
    Look,
    Make,
    Recorder,
    assert_same,
    default_world,
    difference,
    failing_once,
    is_increasing,
    record_of,
    stage_of,
    tiny_world,
)
from wgtorch.blocks.scenes.drawing import draw
from wgtorch.blocks.scenes.scene import Scene, parse
from wgtorch.core.errors import RunCancelled, RunTimeoutError, StateError
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.rng import check_seed
from wgtorch.report.words import words
from wgtorch.stage import Stage
from wgtorch.storage.base import Life
from wgtorch.world import World
from wgtorch.world_runtime.cycle import WorldStep, advance, one_pass
from wgtorch.world_runtime.state import CANONICAL_SLOTS, State

TABLE = [
    # given, philosopher runs, author runs, world update runs
    ((), False, False, False),
    ((1,), False, False, False),
    ((1, 2), False, False, False),
    ((1, 2, 3), True, True, True),
    ((1, 2, 3, 4), False, True, True),
    ((1, 2, 3, 4, 5), False, False, True),
]
"""The table of what a user hands in, by slot numbers."""


def given_state(numbers: tuple[int, ...], values: dict[str, Any]) -> State:
    return State(**{CANONICAL_SLOTS[number - 1]: values[CANONICAL_SLOTS[number - 1]] for number in numbers})


def one_pass_of(world: World, state: State | None, **options: Any) -> tuple[dict[str, WorldStep], WorldStep, Recorder]:
    """The steps of one pass by stage, the step of the pass, and all events."""
    recorder = Recorder()
    *stages, last = world.stream(state, callbacks=[recorder], **options)
    assert [step.kind for step in stages] == ["stage"] * 5 and last.kind == "pass"
    assert tuple(step.stage for step in stages) == CYCLE
    return {step.stage: step for step in stages if step.stage}, last, recorder


def ran(recorder: Recorder, path: str) -> bool:
    return path in recorder.paths("end")


def check_row(world: World, state: State | None, numbers: tuple[int, ...], philosopher: bool, author: bool, update: bool) -> None:
    """Lives one pass from what is given and compares everything that can be seen with a row of the table."""
    before = dict(world.content)
    steps, last, recorder = one_pass_of(world, state, seed=1)

    expected = {"philosopher": philosopher, "author": author, "environment": True, "architect": True, "creator": True}
    assert {stage: step.skipped is None for stage, step in steps.items()} == expected
    assert {stage: ran(recorder, stage) for stage in CYCLE} == expected
    assert {event.path for event in recorder.events if event.kind == "skip" and event.level == "stage"} == {
        stage for stage, runs in expected.items() if not runs
    }
    assert all(event.reason for event in recorder.events if event.kind == "skip")
    assert ran(recorder, "environment/world_update") is update
    assert ran(recorder, "environment/development")

    environment = steps["environment"]
    assert (environment.stored is not None) is update is (environment.applied is not None)
    assert len(world.history) == update
    assert (difference(dict(world.content), before) is not None) is update
    if update:
        applied = environment.applied
        assert applied is not None and applied.complete
        assert_same(world.history[0], applied)
        for number in numbers:
            assert applied[number] is (state or State())[number]
        assert_same(world.history.content(0), dict(world.content))

    assert environment.state is not None and environment.state.filled == ("intent",)
    assert last.state is world.state and world.state is not None
    assert world.state.filled == ("intent", "recipe", "artifacts")
    if 1 in numbers:
        assert world.state.intent != (state or State()).intent


@pytest.mark.parametrize(("numbers", "philosopher", "author", "update"), TABLE)
def test_what_is_given_decides_what_runs(numbers, philosopher, author, update):
    world = tiny_world()
    state = given_state(numbers, dict(FULL)) if numbers else None
    check_row(world, state, numbers, philosopher, author, update)
    assert world.content.get("log", []) == [] if not update else len(world.content["log"]) == 1


SCENE = Scene("night", "clear", "sea", "castle", "red", "left")
EPISODE = {
    "intent": "By day, in the rain, the traveller comes to the pine forest.",
    "recipe": {"prompts": ["The forest and a white tower, by day, in the rain."]},
    "artifacts": [torch.from_numpy(draw(SCENE, seed=3).copy()).permute(2, 0, 1).float() / 255],
    "description": ["The sea and a red castle on the left, at night."],
    "outcome": "At night, the traveller came to the sea and found a red castle.",
}
"""An episode whose picture shows something else than its recipe asked for."""


DROPPED = [((4, 5), False, False, False), ((1, 2, 4, 5), False, False, False), ((1, 3, 4), False, False, False)]
"""Rows between those of the table, whose states never become complete."""


@pytest.mark.parametrize(("numbers", "philosopher", "author", "update"), TABLE + DROPPED)
def test_what_is_given_decides_what_runs_in_the_default_world(numbers, philosopher, author, update):
    world = default_world(painter="scenes")
    state = given_state(numbers, EPISODE) if numbers else None
    check_row(world, state, numbers, philosopher, author, update)
    if update:
        stored = world.history[0]
        told = stored.description if 4 in numbers else stored.description["text"]
        seen = parse(told[0])
        assert {name: seen[name] for name in ("time", "terrain", "landmark", "color")} == {
            "time": "night", "terrain": "sea", "landmark": "castle", "color": "red",
        }  # fmt: skip
        assert "forest" not in told[0], "it was invented from the recipe"
        assert "sea" in stored.outcome
        assert world.content["chronicle"] == [stored.outcome]
        assert "events" not in world.content, "an episode of plain words brings no fact"
    else:
        assert "chronicle" not in world.content


def test_nothing_may_also_be_an_empty_state():
    check_row(tiny_world(), State(), (), False, False, False)


@pytest.mark.parametrize("numbers", [given for count in range(6) for given in combinations(range(1, 6), count)])
def test_every_set_of_given_slots(numbers):
    """All 32, against the conditions written out: the table's rows and those between them."""
    have = set(numbers)
    philosopher = {1, 2, 3} <= have and 4 not in have
    have |= {4} if philosopher else set()
    author = {1, 2, 3, 4} <= have and 5 not in have
    have |= {5} if author else set()
    check_row(tiny_world(), given_state(numbers, dict(FULL)), numbers, philosopher, author, have == {1, 2, 3, 4, 5})


def test_an_incomplete_state_is_dropped():
    world = tiny_world()
    world.run(given_state((1, 2, 4), dict(FULL)), seed=1)
    assert len(world.history) == 0
    assert dict(world.content) == {"story": "It began.", "episodes": 0}
    assert world.state is not None and world.state.description is None
    world.run(num_steps=2)
    assert len(world.history) == 2
    assert "the given description" not in str(record_of(world)["stored"])


# --- who sees what ----------------------------------------------------------------------------------------------------


def test_author_sees_the_world_before_the_update_and_architect_after():
    world = tiny_world()
    world.run(State(**{name: FULL[name] for name in CANONICAL_SLOTS[:3]}), seed=1)
    assert world.history[0].outcome.endswith("after 0")
    assert world.content["episodes"] == 1
    assert world.state is not None and world.state.recipe["known"] == 1
    assert world.state.intent.startswith("episode 1,")


@pytest.mark.parametrize("make", [tiny_world, default_world])
def test_the_action_reaches_development_alone(make):
    world = make()
    world.run(seed=1)
    recorder, action = Recorder(), "".join(["go to the ", "sea"])
    world.run(action=action, callbacks=[recorder])
    reached = [
        event.path
        for event in recorder.events
        if event.kind == "start" and event.level != "stage" and any(value is action for value in (event.inputs or {}).values())
    ]
    assert reached and all(path.startswith("environment/development") for path in reached)
    assert action in words(world.state.intent)


def test_one_action_for_all_passes_or_one_for_each():
    def intents(action: Any, steps: int) -> list[str]:
        world = tiny_world()
        return [
            step.state.intent.rsplit("action ")[1] for step in world.stream(action=action, num_steps=steps, seed=1) if step.kind == "pass"
        ]

    assert intents("open the gate", 2) == ["open the gate"] * 2
    assert intents(["open", None, "close"], 3) == ["open", "None", "close"]
    assert intents(None, 2) == ["None"] * 2
    assert intents(["open"], 1) == ["open"]
    with pytest.raises(StateError, match="tiny: 2 actions for 3 passes; give one for each"):
        intents(["open", "close"], 3)


def test_without_an_action_the_world_is_the_same_as_with_none():
    first, second = tiny_world(), tiny_world()
    assert_same(first.run(num_steps=2, seed=1), second.run(num_steps=2, seed=1, action=[None, None]))


# --- passes, steps and events -----------------------------------------------------------------------------------------


def test_num_steps_counts_passes():
    world = tiny_world()
    world.run(num_steps=3, seed=1)
    assert (world.life.passes, world.content["episodes"], world.history.steps) == (3, 2, [1, 2])
    before = world.state
    assert world.run(num_steps=0) is before
    assert world.life.passes == 3
    with pytest.raises(StateError, match="tiny: num_steps is -1; expected 0 or more"):
        world.run(num_steps=-1)


def test_the_order_of_the_stream():
    world = tiny_world()
    steps = list(world.stream(num_steps=2, seed=1))
    assert [(step.kind, step.index, step.stage) for step in steps] == [
        *(("stage", 0, stage) for stage in CYCLE),
        ("pass", 0, None),
        *(("stage", 1, stage) for stage in CYCLE),
        ("pass", 1, None),
    ]
    assert [step.index for step in world.stream()] == [2] * 6
    assert all(step.elapsed >= 0 for step in steps)
    assert steps[0].skipped == "intent, recipe, artifacts are empty"
    assert [step.stage for step in steps if step.stored] == ["environment"]


def test_the_order_of_events():
    world = tiny_world()
    recorder = Recorder()
    world.run(num_steps=2, seed=1, callbacks=[recorder])
    loops = [event for event in recorder.events if event.kind == "loop"]
    assert [(event.path, event.level, event.step, event.total) for event in loops] == [("", "world", 0, 2), ("", "world", 1, 2)]
    assert recorder.paths("start", "stage")[3:] == list(CYCLE)
    ends = [event for event in recorder.events if event.kind == "end" and event.path == "environment"]
    assert [event.outputs["state"].filled for event in ends] == [("intent",), ("intent",)]
    assert is_increasing([event.outputs["content"].get("episodes", 0) for event in ends])
    opened: list[str] = []
    for event in recorder.events:
        if event.kind == "start":
            opened.append(event.path)
        elif event.kind == "end":
            assert opened.pop() == event.path
    assert not opened


# --- steering ---------------------------------------------------------------------------------------------------------


def test_a_slot_may_be_edited_between_two_stages():
    world = tiny_world()
    for step in world.stream(num_steps=2, seed=1):
        if step.stage == "architect" and step.index == 0:
            world.state = world.state.replace(recipe={**world.state.recipe, "count": 5})
        if step.stage == "philosopher" and step.index == 1:
            world.state = world.state.replace(description="something else entirely")
    stored = world.history[0]
    assert len(stored.artifacts) == 5
    assert "something else entirely" in stored.outcome


def test_the_content_may_be_edited_between_two_stages():
    world = tiny_world()
    for step in world.stream(num_steps=1, seed=1):
        if step.stage == "environment":
            world.content = {**world.content, "episodes": 70}
    assert world.state.recipe["known"] == 70


def test_an_emptied_slot_changes_what_runs_next():
    world = tiny_world()
    world.run(seed=1)
    skipped = {}
    for step in world.stream():
        skipped[step.stage] = step.skipped
        if step.stage == "philosopher":
            world.state = world.state.replace(artifacts=None)
    assert skipped["author"] == "artifacts is empty"
    assert len(world.history) == 0


def test_the_state_in_flight_is_a_state_of_this_world():
    world = tiny_world()
    with pytest.raises(StateError, match=r"tiny: got dict with keys \['intent'\]; expected a State with slots \['intent', 'recipe'"):
        world.state = {"intent": "x"}
    with pytest.raises(StateError, match="tiny: got State"):
        world.state = State(schema=("a",))
    with pytest.raises(StateError, match="tiny: got dict"):
        world.run({"intent": "x"})
    world.state = None
    assert world.state is None


def test_stream_is_left_and_taken_up():
    whole = tiny_world()
    whole.run(num_steps=2, seed=1)
    world = tiny_world()
    seen = []
    for step in world.stream(num_steps=2, seed=1):
        seen.append(step.stage)
        if step.stage == "environment" and step.index == 1:
            break
    assert (world.life.passes, world.life.stage) == (1, 3)
    seen += [step.stage for step in world.stream()]
    assert seen == [*CYCLE, None, *CYCLE, None]
    assert_same(record_of(world), record_of(whole))


# --- failing and stopping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [Look, Make])
def test_a_failing_stage_leaves_the_life_as_it_was_and_the_same_call_goes_on(failing):
    whole, world = tiny_world(), tiny_world()
    for one in (whole, world):
        one.run(seed=1)
    whole.run(action="go")
    stage = {Look: "philosopher", Make: "creator"}[failing]
    before = world.content, world.life.passes
    recorder = Recorder()
    with failing_once(failing, ConnectionError("the endpoint is dead")):
        with pytest.raises(ConnectionError, match="the endpoint is dead") as caught:
            world.run(action="go", callbacks=[recorder])
        assert caught.value.__notes__[0] == f"raised in node {stage}/work/work/work of tiny"
        assert recorder.paths("error", "stage") == [f"{stage}"]
        assert world.life.stage == CYCLE.index(stage) and world.life.passes == before[1]
        if failing is Look:
            assert world.content is before[0] and len(world.history) == 0
        again = Recorder()
        world.run(action="go", callbacks=[again])
    assert again.paths("start", "stage") == [f"{name}" for name in CYCLE[CYCLE.index(stage) :]]
    assert_same(record_of(world), record_of(whole))


def test_the_same_call_with_a_state_goes_on_too():
    """What was paid for is not run again; another State begins anew."""
    whole, world = tiny_world(), tiny_world()
    given = State(**{name: FULL[name] for name in CANONICAL_SLOTS[:3]})
    whole.run(given, num_steps=1, seed=1)
    recorder = Recorder()
    with failing_once(Make, ConnectionError("dead")):
        with pytest.raises(ConnectionError):
            world.run(given, seed=1)
        world.run(given, seed=1, callbacks=[recorder])
    assert recorder.paths("start", "stage") == ["creator"]
    assert_same(record_of(world), record_of(whole))
    recorder = Recorder()
    world.run(given, callbacks=[recorder])
    assert recorder.paths("start", "stage") == [f"{name}" for name in CYCLE], "after a finished call the same State begins a new episode"
    with failing_once(Make, ConnectionError("dead")):
        with pytest.raises(ConnectionError):
            world.run(given)
        recorder = Recorder()
        world.run(given.replace(intent="another"), callbacks=[recorder])
    assert recorder.paths("start", "stage") == [f"{name}" for name in CYCLE]


def test_a_failing_storage_leaves_the_life_as_it_was():
    class Full:
        """Tells what a disk without space tells."""

        def __init__(self, world: World) -> None:
            self.inner, self.broken = world.history.storage, True

        def store(self, step: int, state: State, content: Any) -> str:
            if self.broken:
                raise OSError(28, "No space left on device")
            return self.inner.store(step, state, content)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    whole, world = tiny_world(), tiny_world()
    whole.run(num_steps=2, seed=1)
    storage = Full(world)
    world.set_storage(storage)
    with pytest.raises(OSError, match="No space left"):
        world.run(num_steps=2, seed=1)
    assert (world.life.passes, world.life.stage, world.content["episodes"]) == (1, 2, 0)
    assert world.state.complete
    storage.broken = False
    world.run()
    assert_same(record_of(world), record_of(whole))


def test_stopping_between_stages():
    whole, world = tiny_world(), tiny_world()
    whole.run(num_steps=2, seed=1)
    left = [7]

    def cancelled() -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(RunCancelled, match="the run was cancelled before .* of tiny"):
        world.run(num_steps=2, seed=1, cancelled=cancelled)
    with pytest.raises(RunTimeoutError, match="time limit passed before .* of tiny"):
        world.run(timeout=0)
    world.run(num_steps=2 - world.life.passes)
    assert_same(record_of(world), record_of(whole))


def test_a_last_stage_that_comes_too_late_is_told_and_kept(monkeypatch: pytest.MonkeyPatch):
    whole, world = tiny_world(), tiny_world()
    whole.run(num_steps=2, seed=1)
    late = [0.0]
    monkeypatch.setattr("wgtorch.core.run.context.time", SimpleNamespace(monotonic=lambda: time.monotonic() + late[0]))

    def slow(event: Any) -> None:
        if (event.level, event.kind, event.path, world.life.passes) == ("stage", "end", world.cycle[-1], 1):
            late[0] = 10_000.0

    with pytest.raises(RunTimeoutError, match="the run's time limit passed .* s before the end of tiny"):
        world.run(num_steps=2, seed=1, timeout=1000, callbacks=[slow])
    assert late[0], "the last stage was told of"
    assert_same(record_of(world), record_of(whole))
    late[0] = 0.0
    world.run(num_steps=2, seed=1, timeout=1000)
    assert_same(record_of(world), record_of(whole))


# --- other cycles -----------------------------------------------------------------------------------------------------


def test_a_world_of_other_slots_and_stages():
    """question -> answer; nothing updates a content, so complete states are stored at the end of a pass."""

    def ask(content: dict, rng: Any) -> str:
        return f"{content['topic']} {rng.python().randrange(100)}?"

    def answer(question: str) -> str:
        return f"yes: {question}"

    from tests.blocks_for_tests import block_of

    world = World("quiz")
    world.set_state_schema(["question", "answer"])
    world.add_stage(stage_of("asker", block_of(ask, question="text"), [], ["question"], ["!question"]))
    world.add_stage(stage_of("answerer", block_of(answer, answer="text"), ["question"], ["answer"], ["question", "!answer"]))
    world.set_cycle(["asker", "answerer"])
    world.set_initial_content({"topic": "rain"})
    assert world.validate().is_valid
    state = world.run(seed=1)
    assert state.schema == ("question", "answer") and state.answer == f"yes: {state.question}"
    assert_same(world.history[0], state)
    world.run()
    assert len(world.history) == 2, "a state that is still complete is stored with its pass"


def test_an_update_that_changes_nothing_is_an_update():
    """The content comes back as it was: the state is stored all the same."""
    world = tiny_world()
    environment = world.nodes["environment"]
    from tests.blocks_for_tests import block_of
    from tests.world_blocks import around

    def keep(content: dict) -> dict:
        return {"content": content}

    world.remove_node("environment")
    still = Stage("environment", role="environment")
    still.add_pipeline(around(block_of(keep, content="dict"), "world_update"), "world_update", condition="complete")
    still.add_pipeline(environment.nodes["development"], "development")
    still.set_state_contract(
        [],
        ["intent"],
        {"world_update.content": "content", "development.content": "content"},
        {"content": "world_update.content", "intent": "development.intent"},
        new_state=True,
    )
    world.add_stage(still)
    world.set_canonical_cycle()
    world.run(num_steps=3, seed=1)
    assert world.history.steps == [1, 2]
    assert dict(world.content) == {"story": "It began.", "episodes": 0}


# --- the functions themselves -----------------------------------------------------------------------------------------


def test_advance_moves_the_life_past_one_stage():
    world = tiny_world()
    life = Life(content={"episodes": 0})
    run = RunContext(RunOptions("tiny"), key=check_seed(1, "tiny"))
    steps = [advance(world, life, None, run) for _ in CYCLE]
    assert [step.stage for step in steps] == list(CYCLE) and life.stage == 5
    assert_same(life.state, tiny_world().run(seed=1))


def test_one_pass_stores_nothing_and_touches_no_life():
    world = tiny_world()
    content = {"episodes": 3}
    state, after = one_pass(world, State(**FULL), None, content, RunContext(RunOptions("tiny"), key=1))
    assert state.filled == ("intent", "recipe", "artifacts")
    assert after["episodes"] == 4 and content == {"episodes": 3}
    assert len(world.history) == 0 and world.life.is_new
