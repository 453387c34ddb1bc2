"""World: building, seeds, stopping and resuming, files, threads, gradients."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.blocks_for_tests import Affine, block_of
from tests.world_blocks import (
    CYCLE,
    FULL,
    around,
    assert_same,
    default_world,
    difference,
    environment_stage,
    record_of,
    stage_of,
    stop_after,
    tiny_world,
)
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, StateError, StorageError, StructureError, ValidationError
from wgtorch.core.port import Port
from wgtorch.stage import Stage
from wgtorch.storage import MemoryStorage
from wgtorch.world import World
from wgtorch.world_runtime.state import State

WORLDS = pytest.mark.parametrize("make", [tiny_world, default_world])

# --- building ---------------------------------------------------------------------------------------------------------


def test_a_cycle_has_every_stage_once():
    world = tiny_world()
    assert world.cycle == CYCLE
    with pytest.raises(
        StructureError, match=r"tiny: cycle .*: missing \['creator'\]; unknown \['painter'\]; named twice \['author'\]; expected each of"
    ):
        world.set_cycle(["philosopher", "author", "author", "environment", "architect", "painter"])
    assert world.cycle == CYCLE
    world.set_cycle(CYCLE[::-1])
    assert world.cycle == CYCLE[::-1]
    assert [step.stage for step in world.stream(seed=1) if step.stage] == list(CYCLE[::-1])


def test_the_canonical_cycle_goes_by_roles():
    world = World("w")
    for role in reversed(CYCLE):
        stage = Stage(f"my_{role}", role=role)
        stage.add_pipeline(around(block_of(lambda x: x, y="any"), "p"), "p")
        stage.set_state_contract([], ["outcome"], {"p.x": "intent"}, {"outcome": "p.y"})
        world.add_stage(stage)
    world.set_canonical_cycle()
    assert world.cycle == tuple(f"my_{role}" for role in CYCLE)
    world.nodes["my_author"].role = "creator"
    with pytest.raises(
        StructureError,
        match=r"the canonical cycle needs one stage of each role .*found \{'author': \[\], 'creator': \['my_creator', 'my_author'\]\}",
    ):
        world.set_canonical_cycle()


def test_a_world_without_a_cycle_does_not_run():
    world = World("w")
    world.add_stage(environment_stage())
    for call in (world.run, lambda: world.run(dry_run=True), world.validate):
        with pytest.raises(
            ValidationError, match=r"w: the cycle is \[\]; expected each of \['environment'\] once\. Call set_cycle or set_canonical_cycle"
        ):
            call()


def test_validation_finds_everything_at_once():
    world = World("w")
    world.set_state_schema(["intent", "recipe", "answer"])
    world.add_stage(stage_of("architect", block_of(lambda x: x, y="any"), ["intent"], ["recipe"], ["intent", "!description"]))
    world.add_stage(stage_of("creator", block_of(lambda x: x, y="any"), ["recipe"], ["artifacts"], "philosopher"))
    world.set_cycle(["architect", "creator"])
    with pytest.raises(ValidationError) as caught:
        world.validate()
    found = [(finding.where, finding.found) for finding in caught.value.findings]
    assert ("w/architect", "needs slot 'intent', which no stage fills") in found
    assert ("architect", "condition on slot '!description', which is not in the schema") in found
    assert ("creator: state contract", "slot 'artifacts' is not in the schema") in found
    assert ("creator", "condition on slot 'artifacts', which is not in the schema") in found
    assert {finding.where for finding in world.validate(strict=False).warnings} == {"w: slot intent", "w: slot answer"}


@WORLDS
def test_a_whole_world_is_valid(make):
    result = make().validate(deep=True)
    assert result.is_valid and not result.warnings, str(result)


@pytest.mark.parametrize("slots", [[], ["a", "a"]])
def test_a_schema_of_nothing_or_of_twins(slots):
    with pytest.raises(StateError, match="expected different names, at least one"):
        World("w").set_state_schema(slots)


@pytest.mark.parametrize("name", ["action", "content", "schema", "a.b", "!a", "", "two words", 3])
def test_names_that_no_slot_can_have(name):
    with pytest.raises(StateError, match=r"cannot name a slot; expected a Python name, none of \['action', 'content', 'schema'\]"):
        World("w").set_state_schema(["intent", name])


def test_initial_content():
    world = tiny_world()
    content = {"story": "Another.", "episodes": 0, "places": ["sea"]}
    world.set_initial_content(content)
    content["places"].append("hills")
    assert dict(world.content) == {"story": "Another.", "episodes": 0, "places": ["sea"]}
    with pytest.raises((StructureError, ConfigError), match=r"tiny\.initial_content.*thing"):
        world.set_initial_content({"thing": object()})
    world.run(num_steps=2, seed=1)
    with pytest.raises(StructureError, match=r"tiny: it has lived 2 passes; set world\.content to change what it is now"):
        world.set_initial_content({})
    assert world.content["places"] == ["sea"]
    for wrong in (["thing"], None, "thing"):
        with pytest.raises(StateError, match="tiny: its content is .*; expected a mapping"):
            tiny_world().set_initial_content(wrong)
        with pytest.raises(StateError, match="tiny: its content is .*; expected a mapping"):
            tiny_world().content = wrong


def test_content_grows_and_is_never_changed_in_place():
    world = tiny_world()
    seen: list[tuple[Any, Any]] = []
    for step in world.stream(num_steps=4, seed=1):
        seen.append((step.content, copy.deepcopy(step.content)))
    assert all(difference(now, then) is None for now, then in seen)
    assert [content["episodes"] for content, _ in seen[5::6]] == [0, 1, 2, 3]
    assert len({id(content) for content, _ in seen}) == 4, "one mapping for each update"


def test_the_states_on_the_way_are_never_changed():
    world = tiny_world()
    seen = [(step.state, copy.deepcopy(step.state)) for step in world.stream(State(**FULL), num_steps=2, seed=1)]
    for now, then in seen:
        assert_same(now, then)


def test_restart_forgets_the_life():
    world = tiny_world()
    first = world.run(num_steps=3, seed=1)
    assert world.restart() is world
    assert world.life.is_new and world.life.seed is None and dict(world.content) == {"story": "It began.", "episodes": 0}
    assert_same(world.run(num_steps=3, seed=1), first)
    assert world.history.steps == [1, 2]


def test_restart_leaves_a_folder_alone(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "a"})
    world.run(num_steps=2, seed=1)
    with pytest.raises(StorageError, match="history of another life, up to pass 2"):
        world.restart().run(seed=1)
    world.set_storage({"state_dir": tmp_path / "b"})
    world.run(num_steps=2, seed=1)
    assert world.history.steps == [1]


@pytest.mark.parametrize(
    ("method", "option", "words"),
    [
        ("run", "sed", r"run\(\) has no option 'sed'; did you mean 'seed'"),
        ("run", "num_loop_steps", r"run\(\) has no option 'num_loop_steps'"),
        ("stream", "timeut", r"stream\(\) has no option 'timeut'; did you mean 'timeout'"),
        ("stream", "dry_run", r"stream\(\) has no option 'dry_run'"),
        ("stream", "profile", r"stream\(\) has no option 'profile'; write run\(profile=...\)"),
    ],
)
def test_an_option_that_there_is_not_is_named(method, option, words):
    world = tiny_world()
    with pytest.raises(TypeError, match=words):
        list(getattr(world, method)(**{option: True}) or ())
    assert world.life.is_new


def test_a_dry_run_tells_the_order_and_lives_nothing():
    world = tiny_world()
    report = world.run(dry_run=True, num_steps=3)
    assert report.order == (
        "philosopher/work/work/work",
        "author/work/work/work",
        "environment/world_update/world_update/world_update",
        "environment/development/development/development",
        "architect/work/work/work",
        "creator/work/work/work",
    )
    assert report.is_valid and report.api_calls == 0 and report.weight_bytes == 4
    assert world.life.is_new and world.life.seed is None


# --- seeds ------------------------------------------------------------------------------------------------------------


@WORLDS
def test_the_same_seed_is_the_same_world(make):
    first, second, other = make(), make(), make()
    first.run(num_steps=3, seed=11, action="look")
    torch.manual_seed(99)
    second.run(num_steps=3, seed=11, action="look", callbacks=[lambda event: None])
    other.run(num_steps=3, seed=12, action="look")
    assert_same(record_of(first), record_of(second))
    assert difference(record_of(first), record_of(other)) is not None


def test_a_run_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    tiny_world().run(num_steps=2, seed=1)
    default_world().run(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_life_keeps_the_seed_it_was_given_or_drew():
    one, two = tiny_world(), tiny_world()
    one.run(num_steps=4, seed=5)
    two.run(num_steps=1, seed=5)
    two.run(num_steps=2)
    two.run()
    assert_same(record_of(one), record_of(two))
    assert two.life.seed == 5

    torch.manual_seed(3)
    drawn = tiny_world()
    drawn.run(num_steps=2)
    again = tiny_world()
    again.run(num_steps=2, seed=drawn.life.seed)
    assert_same(record_of(again), record_of(drawn))
    torch.manual_seed(3)
    third = tiny_world()
    third.run(num_steps=2)
    assert_same(record_of(third), record_of(drawn))


def test_passes_draw_different_numbers():
    roads = [step.state.intent.split("road ")[1].split(",")[0] for step in tiny_world().stream(num_steps=8, seed=1) if step.kind == "pass"]
    assert len(set(roads)) == 8


# --- stopped after any stage, and taken up ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_lives(tmp_path_factory) -> dict[Any, dict[str, Any]]:
    """Two passes, never stopped."""
    lives = {}
    for make in (tiny_world, default_world):
        world = make()
        world.run(num_steps=2, seed=7, action="go to the sea")
        lives[make] = record_of(world)
    return lives


def finish(world: World) -> dict[str, Any]:
    world.run(num_steps=2 - world.life.passes, action="go to the sea")
    return record_of(world)


STOPS = pytest.mark.parametrize("stages", range(1, 11))


@WORLDS
@STOPS
def test_stopped_and_resumed_in_the_same_object(whole_lives, make, stages):
    world = make()
    steps = stop_after(world, stages, seed=7, action="go to the sea")
    assert len([step for step in steps if step.kind == "stage"]) == stages
    assert (world.life.passes, world.life.stage) == ((stages - 1) // 5, (stages - 1) % 5 + 1)
    assert_same(finish(world), whole_lives[make])


@WORLDS
@STOPS
def test_stopped_saved_and_loaded(whole_lives, tmp_path, make, stages):
    world = make()
    stop_after(world, stages, seed=7, action="go to the sea")
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    assert (loaded.life.passes, loaded.life.stage, loaded.life.seed) == (world.life.passes, world.life.stage, 7)
    assert_same(loaded.state, world.state)
    found, expected = finish(loaded), whole_lives[make]
    stored_before = set(world.history.steps)  # memory is not saved
    assert_same({**found, "stored": None}, {**expected, "stored": None})
    assert_same(found["stored"], {step: kept for step, kept in expected["stored"].items() if step not in stored_before})


@WORLDS
@STOPS
def test_stopped_and_resumed_from_the_storage(whole_lives, tmp_path, make, stages):
    world = make()
    world.set_storage({"state_dir": tmp_path})
    stop_after(world, stages, seed=7, action="go to the sea")
    again = make()
    again.set_storage({"state_dir": tmp_path})
    assert again.resume() is again
    assert_same(finish(again), whole_lives[make])


def test_stopped_between_two_passes(whole_lives, tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    world.run(num_steps=1, seed=7, action="go to the sea")
    assert_same(finish(World.from_config(world.to_config()).resume()), whole_lives[tiny_world])


def test_stopped_before_the_first_stage(whole_lives, tmp_path):
    """The seed and what was given are kept before anything runs."""
    given = State(**{name: FULL[name] for name in ("intent", "recipe", "artifacts")})
    whole = tiny_world()
    whole.run(given, seed=7)
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    with pytest.raises(RuntimeError, match="stop"):
        world.run(given, seed=7, cancelled=lambda: (_ for _ in ()).throw(RuntimeError("stop")))
    again = tiny_world()
    again.set_storage({"state_dir": tmp_path})
    again.resume().run()
    assert_same(record_of(again), record_of(whole))


def test_nothing_to_resume(tmp_path):
    world = tiny_world()
    with pytest.raises(StorageError, match=r"tiny: the storage keeps no life to resume; run the world first, or use World\.load"):
        world.resume()
    world.set_storage({"state_dir": tmp_path})
    with pytest.raises(StorageError, match="keeps no life to resume"):
        world.resume()


def test_a_saved_world_goes_on_in_its_storage(tmp_path):
    whole = tiny_world()
    whole.run(num_steps=4, seed=7)
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "states", "naming_template": "e{step}"})
    world.run(num_steps=2, seed=7)
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    loaded.run(num_steps=2)
    assert_same(record_of(loaded), record_of(whole))
    assert sorted(path.name for path in (tmp_path / "states").glob("e*")) == ["e1", "e2", "e3"]


def test_a_world_that_never_lived_is_saved_as_such(tmp_path):
    world = tiny_world()
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    assert loaded.life.is_new and loaded.life.seed is None
    whole = tiny_world()
    whole.run(num_steps=2, seed=7)
    loaded.run(num_steps=2, seed=7)
    assert_same(record_of(loaded), record_of(whole))


# --- configs ----------------------------------------------------------------------------------------------------------


@WORLDS
def test_config_round_trip(tmp_path, make):
    world = make()
    config = world.to_config()
    world.save_config(tmp_path / "world.yaml")
    expected = None
    for again in (
        World.from_config(config),
        World.from_yaml(tmp_path / "world.yaml"),
        World.from_config(yaml.safe_load(yaml.safe_dump(config, sort_keys=False))),
    ):
        assert again.to_config() == config
        again.run(num_steps=2, seed=3, action="look")
        if expected is None:
            world.run(num_steps=2, seed=3, action="look")
            expected = record_of(world)
        assert_same(record_of(again), expected)


def test_the_config_of_a_world_that_lives_holds_its_beginning():
    world = tiny_world()
    before = world.to_config()
    world.run(num_steps=3, seed=1)
    assert world.to_config() == before


def test_schema_cycle_storage_and_content_are_in_the_config(tmp_path):
    world = tiny_world()
    world.set_cycle(CYCLE[::-1])
    world.set_storage({"state_dir": Path("runs") / "x", "max_snapshots": 3})
    config = world.to_config()
    assert config["cycle"] == list(CYCLE[::-1])
    assert config["state_schema"] == ["intent", "recipe", "artifacts", "description", "outcome"]
    assert config["storage"] == {"state_dir": str(Path("runs") / "x"), "max_snapshots": 3}
    assert config["initial_content"] == {"story": "It began.", "episodes": 0}
    again = World.from_config(config)
    assert again.cycle == CYCLE[::-1] and again.history.storage.max_snapshots == 3
    assert not Path("runs/x").exists(), "a world that does not run writes nothing"


def test_a_stage_may_be_a_file(tmp_path):
    world = tiny_world()
    config = world.to_config()
    world.nodes["creator"].save_config(tmp_path / "creator.yaml")
    config["stages"]["creator"] = {"ref": "creator.yaml"}
    (tmp_path / "world.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    world.run(num_steps=2, seed=1)
    again = World.from_yaml(tmp_path / "world.yaml")
    again.run(num_steps=2, seed=1)
    assert_same(record_of(again), record_of(world))
    by_hand = World("tiny")
    for stage_id in CYCLE:
        by_hand.add_stage(tmp_path / "creator.yaml" if stage_id == "creator" else world.nodes[stage_id])
    by_hand.set_canonical_cycle()
    assert by_hand.cycle == CYCLE


def test_a_wrong_config_names_every_place():
    config = tiny_world().to_config()
    config["cycle"] = "philosopher"
    config["stages"]["creator"]["nodes"][0]["config"]["nodes"][0]["config"]["nodes"][0]["config"]["strength"] = "much"
    config["stages"]["author"]["state_contract"]["mapping_inputs"] = {}
    with pytest.raises(ConfigError) as caught:
        World.from_config(config)
    assert {finding.where for finding in caught.value.findings} == {
        "cycle",
        "stages.creator.nodes[0].config.nodes[0].config.nodes[0].config.strength",
        "stages.author.state_contract.mapping_inputs",
    }
    assert "Did you mean 'mapping_input'" in str(caught.value)


# --- several at once --------------------------------------------------------------------------------------------------


@WORLDS
def test_worlds_that_share_their_stages_in_threads(make):
    """Four lives of one set of models at once are the four lives one after another."""
    first = make()

    def another() -> World:
        world = World(first.world_id)
        for stage_id in first.cycle:
            world.add_stage(first.nodes[stage_id], stage_id)
        world.set_cycle(first.cycle)
        world.set_initial_content(dict(first.content))
        return world

    passes = 3
    alone = [another() for _ in range(4)]
    for index, world in enumerate(alone):
        world.run(num_steps=passes, seed=index)
    together = [another() for _ in range(4)]
    assert together[0].nodes["creator"] is together[1].nodes["creator"]
    errors: list[BaseException] = []

    def live(index: int) -> None:
        try:
            together[index].run(num_steps=passes, seed=index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=live, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for one, other in zip(together, alone, strict=True):
        assert_same(record_of(one), record_of(other))


def test_a_history_is_read_while_the_world_runs(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    reader = tiny_world()
    reader.set_storage({"state_dir": tmp_path})
    counts = [(len(reader.history), [state.outcome for state in reader.history]) for _ in world.stream(num_steps=3, seed=1)]
    assert [count for count, _ in counts if count][-1:] == [2] and counts[11][0] == 1, "a pass is read when it is told of"
    assert [count for count, _ in counts] == sorted(count for count, _ in counts)
    assert counts[-1][1] == [state.outcome for state in world.history]


# --- PyTorch's own ----------------------------------------------------------------------------------------------------


def tensor_world() -> World:
    """Every slot is a tensor [2, 4]; the content's ``memory`` is one too."""

    def stage(name: str, inputs: list[str], output: str, seed: int) -> Stage:
        block = Affine(4, seed)
        stage = Stage(name, role=name)
        stage.add_pipeline(around(block, "work"), "work")
        stage.set_state_contract(inputs, [output], {"work.x": inputs[-1]}, {output: "work.y"})
        stage.set_execution_condition(name)
        return stage

    def remember(content: dict, outcome: Tensor) -> dict:
        return {"content": {"memory": content["memory"] + outcome}}

    def develop(content: dict) -> Tensor:
        return torch.tanh(content["memory"])

    environment = Stage("environment", role="environment")
    environment.add_pipeline(around(block_of(remember, content="dict"), "update"), "update", condition="complete")
    first = Block.wrap(develop, inputs={"content": Port(dtype="dict", aggregation="first")}, outputs={"intent": "tensor"})
    environment.add_pipeline(around(first, "develop"), "develop")
    environment.add_edge("update.content", "develop.content")
    environment.set_state_contract(
        [],
        ["intent"],
        {"update.content": "content", "update.outcome": "outcome", "develop.content": "content"},
        {"content": "update.content", "intent": "develop.intent"},
        new_state=True,
    )
    world = World("tensors")
    world.add_stage(stage("philosopher", ["artifacts"], "description", 1))
    world.add_stage(stage("author", ["description"], "outcome", 2))
    world.add_stage(environment)
    world.add_stage(stage("architect", ["intent"], "recipe", 3))
    world.add_stage(stage("creator", ["recipe"], "artifacts", 4))
    world.set_canonical_cycle()
    world.content = {"memory": torch.full((2, 4), 0.1)}
    return world


def test_gradients_through_two_passes():
    """``world(state)`` is PyTorch's own call: the loss after two passes reaches what was given and every weight."""
    world = tensor_world()
    given = torch.randn(2, 4, requires_grad=True)
    ones = torch.ones(2, 4)
    state = world(world(State(intent=ones, recipe=ones, artifacts=given)))
    linear = {name: world.find(f"{name}/work/work/work").linear for name in CYCLE if name != "environment"}

    memory = torch.full((2, 4), 0.1)
    artifacts = given
    for _ in range(2):  # the content of the world itself is not touched, so each pass starts from it
        outcome = linear["author"](linear["philosopher"](artifacts))
        intent = torch.tanh(memory + outcome)
        artifacts = linear["creator"](linear["architect"](intent))
    torch.testing.assert_close(state.artifacts, artifacts, rtol=0, atol=0)

    parameters = [given, *world.parameters()]
    found = torch.autograd.grad(state.artifacts.square().sum(), parameters)
    expected = torch.autograd.grad(artifacts.square().sum(), parameters)
    assert len(parameters) == 9 and all(gradient.abs().sum() > 0 for gradient in found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert world.life.is_new and len(world.history) == 0


def test_gradients_through_several_passes_of_run():
    """In training the State and the content stay attached from pass to pass; else nothing is attached."""
    world = tensor_world()
    given = torch.randn(2, 4, requires_grad=True)
    ones = torch.ones(2, 4)
    state = world.run(State(intent=ones, recipe=ones, artifacts=given), num_steps=3, training=True, seed=1)
    (gradient,) = torch.autograd.grad(state.artifacts.sum(), [given], retain_graph=True)
    assert gradient.abs().sum() > 0
    assert world.content["memory"].requires_grad
    assert not tensor_world().run(State(intent=ones, recipe=ones, artifacts=given), num_steps=2, seed=1).artifacts.requires_grad


def test_a_frozen_stage_passes_gradients_and_takes_none():
    world = tensor_world()
    world.set_trainable("author", False)
    given, ones = torch.randn(2, 4, requires_grad=True), torch.ones(2, 4)
    start = State(intent=ones, recipe=ones, artifacts=given)
    state = world(start)
    assert torch.equal(state.artifacts, tensor_world()(start).artifacts)
    state.artifacts.sum().backward()
    author, philosopher = (world.find(f"{name}/work/work/work").linear.weight for name in ("author", "philosopher"))
    assert author.grad is None and author.requires_grad
    assert philosopher.grad.abs().sum() > 0 and given.grad.abs().sum() > 0
    assert all(parameter is not author for parameter in world.trainable_parameters())


def test_grad_mode_is_given_back_between_the_steps_of_a_stream():
    world = tensor_world()
    for _ in world.stream(num_steps=1, seed=1):
        assert torch.is_grad_enabled()
    with torch.no_grad():
        for _ in world.stream(num_steps=1, training=True):
            assert not torch.is_grad_enabled()


def test_modes_are_given_back():
    world = tiny_world().train()
    assert all(module.training for module in world.modules())
    modes: list[bool] = []
    world.nodes["creator"].register_forward_hook(lambda module, args, output: modes.append(module.training))
    world.run(seed=1)
    world.run(training=True)
    assert modes == [False, True]
    assert all(module.training for module in world.modules())


def test_state_dict_and_dtype():
    world, other = tensor_world(), tensor_world()
    with torch.no_grad():
        for parameter in world.parameters():
            parameter.add_(0.5)
    other.load_state_dict(world.state_dict(), strict=True)
    given = State(intent=torch.ones(2, 4), recipe=torch.ones(2, 4), artifacts=torch.ones(2, 4))
    assert_same(world(given), other(given))
    assert not any("memory" in key for key in world.state_dict()), "the life is no weight"
    world.to(torch.float64)
    world.content = {"memory": torch.zeros(2, 4, dtype=torch.float64)}
    assert world(State()).artifacts.dtype == torch.float64


def test_a_copy_lives_its_own_life():
    world = tiny_world()
    world.run(num_steps=2, seed=1)
    twin = copy.deepcopy(world)
    world.run()
    twin.run()
    assert_same(record_of(twin), record_of(world))
    twin.run()
    assert world.life.passes == 3 and twin.life.passes == 4
    assert twin.nodes["creator"] is not world.nodes["creator"]


def test_forward_hooks_see_stages():
    world, seen = tiny_world(), []
    world.nodes["creator"].register_forward_hook(lambda module, args, output: seen.append(output.filled))
    world.run(num_steps=2, seed=1)
    assert seen == [("intent", "recipe", "artifacts")] * 2


def test_a_storage_may_be_any_object():
    world, storage = tiny_world(), MemoryStorage()
    world.set_storage(storage)
    world.run(num_steps=2, seed=1)
    assert storage.steps() == [1] and world.history.storage is storage
    assert world.to_config()["storage"] is None
    world.set_storage(None)
    assert len(world.history) == 0


def test_drawing_shows_the_cycle():
    text = str(tiny_world().draw())
    arrows = zip(CYCLE, [*CYCLE[1:], CYCLE[0]], strict=True)
    assert all(any(source in line and target in line for line in text.splitlines()) for source, target in arrows), text


def test_the_same_call_that_failed_lives_only_what_is_left(tmp_path):
    """A dead endpoint in the third of five passes: the call made again ends where it would have ended."""
    world, untroubled = tiny_world(), tiny_world()
    failing = FailOnce(world.nodes["creator"], at=3)
    with pytest.raises(RuntimeError, match="the endpoint is dead"):
        world.run(num_steps=5, action=["a", "b", "c", "d", "e"], seed=7)
    assert world.life.passes == 2
    failing.mend()
    assert world.run(num_steps=5, action=["a", "b", "c", "d", "e"], seed=7) == untroubled.run(
        num_steps=5, action=["a", "b", "c", "d", "e"], seed=7
    )
    assert world.life.passes == 5
    assert_same(world.content, untroubled.content)


def test_another_call_after_a_failure_lives_as_many_passes_as_it_says():
    world = tiny_world()
    failing = FailOnce(world.nodes["creator"], at=2)
    with pytest.raises(RuntimeError, match="the endpoint is dead"):
        world.run(num_steps=3, seed=7)
    failing.mend()
    world.run(num_steps=2)
    assert world.life.passes == 3


def test_an_old_save_does_not_write_over_what_the_storage_has_since(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "states"})
    world.run(num_steps=2, seed=1)
    world.save(tmp_path / "saved")
    world.run(num_steps=2)
    old = type(world).load(tmp_path / "saved")
    with pytest.raises(StorageError, match=r"this life up to pass 4, stage 0; this world is at pass 2, stage 0\. Call world\.resume\(\)"):
        old.run()
    assert old.resume().life.passes == 4


def test_an_edit_between_stages_is_kept_before_the_next_stage_runs(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    seen = []
    world.nodes["creator"].register_forward_pre_hook(lambda *_: seen.append(world._storage.read_life().state.intent))
    for step in world.stream(seed=1):
        if step.stage == "architect":
            world.state = step.state.replace(intent="edited")
    assert seen == ["edited"]


class FailOnce:
    """Makes a stage fail in one pass, as a dead endpoint would."""

    def __init__(self, stage, at: int) -> None:
        self.calls = 0
        self.at = at
        self.hook = stage.register_forward_pre_hook(self)

    def __call__(self, *_) -> None:
        self.calls += 1
        if self.calls >= self.at:
            raise RuntimeError("the endpoint is dead")

    def mend(self) -> None:
        self.hook.remove()


def test_a_world_is_valid_only_where_its_stages_are():
    world = tiny_world()
    assert world.validate().is_valid
    environment = world.nodes["environment"]
    environment.add_pipeline(around("world_test/look", "more"), "more")
    assert any("more" in finding.where or "more" in finding.found for finding in environment.validate(strict=False).errors)
    found = world.validate(strict=False)
    assert not found.is_valid and any("tiny/environment" in finding.where for finding in found.errors)
    with pytest.raises(ValidationError, match="tiny/environment"):
        world.validate()
