"""Stage: pipelines over a State; conditions, errors, gradients, configs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.blocks_for_tests import Affine, Dropout, KeyedNoise, Scale, as_pipeline, block_of, chain
from tests.world_blocks import FULL, Recorder, around, assert_same
from wgtorch.core.block import Block
from wgtorch.core.errors import (
    ConfigError,
    MissingInputError,
    PortError,
    PortTypeError,
    RunCancelled,
    RunTimeoutError,
    StateError,
    StructureError,
    ValidationError,
)
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world_runtime.conditions import register_condition
from wgtorch.world_runtime.state import State


@register_condition("test_is_loud")
def is_loud(state: State) -> bool:
    return str(state.intent or "").endswith("!")


def shout(text: str) -> str:
    return text.upper()


def text_pipeline(function: Any = shout) -> Pipeline:
    return around(block_of(function, y="text"), "p")


def architect(condition: Any = None, function: Any = shout) -> Stage:
    """intent -> recipe, in capitals."""
    stage = Stage("architect")
    stage.add_pipeline(text_pipeline(function), "plan")
    stage.set_state_contract(["intent"], ["recipe"], {"plan.text": "intent"}, {"recipe": "plan.y"})
    stage.set_execution_condition(condition)
    return stage


def tensor_stage(*blocks: Any, name: str = "creator") -> Stage:
    """recipe [B, 4] -> artifacts, through blocks in a row."""
    stage = Stage(name)
    stage.add_pipeline(as_pipeline(chain(*blocks)), "work")
    stage.set_state_contract(["recipe"], ["artifacts"], {"work.x": "recipe"}, {"artifacts": "work.y"})
    return stage


# --- running ----------------------------------------------------------------------------------------------------------


def test_it_fills_its_slots_and_leaves_the_rest():
    state = State(intent="rain", outcome="kept")
    after = architect().run(state)
    assert dict(after) == {"intent": "rain", "recipe": "RAIN", "artifacts": None, "description": None, "outcome": "kept"}
    assert dict(state) == dict(State(intent="rain", outcome="kept"))
    assert_same(architect()(state), after)
    assert_same(architect()(state=state), after)


def test_the_given_state_and_its_values_are_never_changed():
    recipe = torch.ones(2, 4)
    state = State(**{**FULL, "recipe": recipe})
    version = recipe._version
    after = tensor_stage(Scale(2.0)).run(state)
    torch.testing.assert_close(after.artifacts, torch.full((2, 4), 2.0))
    assert_same(state, State(**{**FULL, "recipe": torch.ones(2, 4)}))
    assert state.recipe is recipe and recipe._version == version


@pytest.mark.parametrize(
    ("condition", "state", "reason"),
    [
        (["intent", "recipe"], State(intent="x"), "recipe is empty"),
        (["intent", "!outcome"], State(intent="x", outcome="y"), "outcome is filled"),
        ("creator", State(intent="x"), "recipe is empty"),
        ("complete", State(intent="x"), "'complete' does not hold"),
        ("test_is_loud", State(intent="x"), "'test_is_loud' does not hold"),
        (lambda state: state.intent == "y", State(intent="x"), "<lambda> does not hold"),
    ],
)
def test_a_skipped_stage_passes_the_state_and_says_why(condition, state, reason):
    stage = architect(condition, function=lambda text: pytest.fail("it ran"))
    recorder = Recorder()
    assert stage.run(state, callbacks=[recorder]) is state
    assert stage(state) is state
    assert stage.why_skipped(state) == reason
    assert [(event.kind, event.path, event.level, event.reason) for event in recorder.events] == [("skip", "", "stage", reason)]


@pytest.mark.parametrize("condition", [None, [], "always", ["intent"], ["!recipe"], "test_is_loud", is_loud])
def test_a_condition_that_holds(condition):
    recorder = Recorder()
    assert architect(condition).run(State(intent="x!"), callbacks=[recorder]).recipe == "X!"
    assert recorder.paths("skip") == []
    assert recorder.paths("end", "block") == ["plan/p/p"]


def test_a_condition_can_be_taken_away():
    stage = architect(["recipe"])
    stage.set_execution_condition(None)
    assert stage.execution_condition is None
    assert stage.run(State(intent="x")).recipe == "X"


def test_a_contract_that_is_set_again_leaves_nothing_of_the_one_before():
    stage = architect()
    assert stage.run(State(intent="x")).recipe == "X"
    stage.set_state_contract([], ["outcome"], {"plan.text": "description"}, {"outcome": "plan.y"})
    with pytest.raises(PortTypeError, match="description"):
        stage.run(State(intent=1, description=2))
    assert stage.run(State(intent=1, description="x")).outcome == "X"
    stage.set_state_contract([], [], {}, {})
    assert (stage.get_input_spec(), stage.get_output_spec()) == ({}, {})


def test_a_contract_that_is_not_met():
    with pytest.raises(
        StateError,
        match=r"architect: its contract needs \['intent'\] filled; the state has \['recipe'\]\. Fill them, or set an execution condition",
    ):
        architect().run(State(recipe="r"))


@pytest.mark.parametrize("call", [lambda stage, value: stage.run(value), lambda stage, value: stage(value)])
def test_it_runs_over_states_alone(call):
    with pytest.raises(StateError, match="architect: got dict; expected a State"):
        call(architect(), {"intent": "x"})


# --- conditions inside ------------------------------------------------------------------------------------------------


def two_pipelines(condition: Any) -> Stage:
    stage = Stage("s")
    stage.add_pipeline(text_pipeline(), "first", condition=condition)
    stage.add_pipeline(text_pipeline(lambda text: f"{text}?"), "second")
    stage.set_state_contract(
        [], ["recipe", "outcome"], {"first.text": "intent", "second.text": "intent"}, {"recipe": "first.y", "outcome": "second.y"}
    )
    return stage


@pytest.mark.parametrize("condition", [["artifacts"], "complete", lambda state: False])
def test_a_pipeline_inside_is_skipped_alone(condition):
    recorder = Recorder()
    state = two_pipelines(condition).run(State(intent="x", recipe="as it was"), callbacks=[recorder])
    assert (state.recipe, state.outcome) == ("as it was", "x?")
    (skip,) = [event for event in recorder.events if event.kind == "skip"]
    assert (skip.path, skip.level) == ("first", "pipeline") and skip.reason
    assert recorder.paths("end", "pipeline") == ["second"]


def test_a_pipeline_inside_runs_when_its_condition_holds():
    stage = two_pipelines(None)
    stage.set_execution_condition(["intent", "!artifacts"], node_id="first")
    assert stage.execution_condition is None
    assert stage.run(State(intent="x")).recipe == "X"
    assert stage.run(State(intent="x", artifacts=["y"])).recipe is None
    assert stage(State(intent="x", artifacts=["y"])).recipe is None


def test_conditions_inside_see_the_state_before_the_stage():
    """``first`` writes recipe, and ``second`` asks for an empty recipe: it runs, in whatever order they stand."""
    stage = Stage("s")
    stage.add_pipeline(text_pipeline(), "first")
    stage.add_pipeline(text_pipeline(), "second", condition=["!recipe"])
    stage.set_state_contract(
        ["intent"], ["recipe", "outcome"], {"first.text": "intent", "second.text": "intent"}, {"recipe": "first.y", "outcome": "second.y"}
    )
    assert stage.run(State(intent="x")).outcome == "X"


def test_a_pipeline_that_needs_a_skipped_one_says_so():
    stage = Stage("s")
    stage.add_pipeline(text_pipeline(), "first", condition=["artifacts"])
    stage.add_pipeline(text_pipeline(), "second")
    stage.add_edge("first.y", "second.text")
    stage.set_state_contract(["intent"], ["outcome"], {"first.text": "intent"}, {"outcome": "second.y"})
    with pytest.raises(MissingInputError, match=r"second\.text: required, but no value arrived from first\.y \(skipped") as caught:
        stage.run(State(intent="x"))
    assert caught.value.__notes__ == ["raised in node second of s"]


def test_an_unknown_condition_is_refused_when_it_is_set():
    stage = two_pipelines(None)
    with pytest.raises(StateError, match="s: unknown condition 'complet'"):
        stage.set_execution_condition("complet")
    with pytest.raises(StateError, match="s/first: unknown condition 'complet'"):
        stage.set_execution_condition("complet", node_id="first")


# --- what PyTorch users expect ----------------------------------------------------------------------------------------


def test_gradients_pass_through():
    stage = tensor_stage(Affine(seed=1), Scale(3.0))
    recipe = torch.randn(2, 4, requires_grad=True)
    state = stage(State(recipe=recipe))
    linear = stage.find("work/only/n0").linear
    expected = 3 * torch.nn.functional.linear(recipe, linear.weight, linear.bias)
    torch.testing.assert_close(state.artifacts, expected, rtol=0, atol=0)
    state.artifacts.square().sum().backward()
    found = recipe.grad.clone(), linear.weight.grad.clone()
    recipe.grad = linear.weight.grad = linear.bias.grad = None
    expected.square().sum().backward()
    torch.testing.assert_close(found, (recipe.grad, linear.weight.grad), rtol=0, atol=0)


def test_run_has_gradients_in_training_alone():
    stage = tensor_stage(Affine())
    state = State(recipe=torch.randn(2, 4))
    assert not stage.run(state).artifacts.requires_grad
    assert stage.run(state, training=True).artifacts.requires_grad


def test_modes_are_given_back():
    stage = tensor_stage(Dropout(0.5)).train()
    state = State(recipe=torch.ones(4, 4))
    assert torch.equal(stage.run(state).artifacts, state.recipe)
    assert not torch.equal(stage.run(state, training=True, seed=0).artifacts, state.recipe)
    assert all(module.training for module in stage.modules())


def test_seeds():
    stage = tensor_stage(KeyedNoise())
    state = State(recipe=torch.zeros(2, 4))
    first, again, other = (stage.run(state, seed=seed).artifacts for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(stage.run(state, seed=1, callbacks=[lambda event: None]).artifacts, first)


def test_its_parameters_are_pytorchs():
    stage = tensor_stage(Affine(seed=1))
    other = tensor_stage(Affine(seed=2))
    other.load_state_dict(stage.state_dict(), strict=True)
    state = State(recipe=torch.randn(1, 4))
    assert torch.equal(stage.run(state).artifacts, other.run(state).artifacts)
    assert stage.double().run(State(recipe=state.recipe.double())).artifacts.dtype == torch.float64


def test_a_list_is_mapped_and_each_item_draws_for_itself():
    def paint(prompt: str, rng) -> Tensor:
        return rng.normal((1, 3))[0] + len(prompt)

    stage = Stage("creator")
    stage.add_pipeline(around(block_of(paint, image="tensor"), "p"), "paint", map="prompt")
    stage.set_state_contract(["recipe"], ["artifacts"], {"paint.prompt": "recipe.prompts"}, {"artifacts": "paint.image"})
    three = stage.run(State(recipe={"prompts": ["a", "a", "bb"]}), seed=3).artifacts
    one = stage.run(State(recipe={"prompts": ["a"]}), seed=3).artifacts
    assert len(three) == 3
    assert torch.equal(three[0], one[0]) and not torch.equal(three[0], three[1])
    with pytest.raises(PortError, match=r"paint\.prompt: got str 'a'; expected a list, since the node maps over \['prompt'\]"):
        stage.run(State(recipe={"prompts": "a"}))


def test_two_threads_run_one_stage():
    stage = tensor_stage(Affine(), KeyedNoise())
    states = [State(recipe=torch.full((2, 4), float(index))) for index in range(4)]
    alone = [stage.run(state, seed=index).artifacts for index, state in enumerate(states)]
    found: dict[int, list[Tensor]] = {index: [] for index in range(4)}

    def work(index: int) -> None:
        found[index] = [stage.run(states[index], seed=index).artifacts for _ in range(20)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(results) == 20 for results in found.values())
    assert all(torch.equal(result, alone[index]) for index, results in found.items() for result in results)


# --- failing, stopping, looking ahead ---------------------------------------------------------------------------------


def test_a_failure_inside_keeps_its_type_and_gets_the_path():
    def broken(text: str) -> str:
        raise ZeroDivisionError("inside")

    recorder = Recorder()
    with pytest.raises(ZeroDivisionError, match="inside") as caught:
        architect(function=broken).run(State(intent="x"), callbacks=[recorder])
    assert caught.value.__notes__ == ["raised in node plan/p/p of architect"]
    assert recorder.paths("error", "block") == ["plan/p/p"]


def test_a_callbacks_failure_ends_the_run():
    def refuse(event):
        raise RuntimeError("the callback's own")

    with pytest.raises(RuntimeError, match="the callback's own"):
        architect().run(State(intent="x"), callbacks=[refuse])


def test_it_can_be_stopped():
    with pytest.raises(RunCancelled, match="cancelled before plan/p/p of architect"):
        architect().run(State(intent="x"), cancelled=lambda: True)
    with pytest.raises(RunTimeoutError, match="time limit passed before plan/p/p of architect"):
        architect().run(State(intent="x"), timeout=0)


def test_a_dry_run_runs_nothing():
    stage = architect(function=lambda text: pytest.fail("it ran"))
    report = stage.run(State(intent="x"), dry_run=True)
    assert report.order == ("plan/p/p",) and report.is_valid
    report = stage.run(State(), dry_run=True)
    assert [finding.where for finding in report.findings] == ["architect.intent"]
    report = architect().run(State(intent="x"), dry_run="fake")
    assert report.order == ("plan/p/p",) and report.is_valid


def test_validation():
    empty = Stage("s")
    empty.add_pipeline(text_pipeline(), "p")
    with pytest.raises(ValidationError, match=r"no state contract: nothing is written to any slot\. Call set_state_contract"):
        empty.validate()
    unfed = Stage("s")
    unfed.add_pipeline(text_pipeline(), "p")
    unfed.set_state_contract([], ["outcome"], {}, {"outcome": "p.y"})
    with pytest.raises(ValidationError, match=r"s/p\.text"):
        unfed.validate()
    assert architect().validate(deep=True).is_valid


def test_a_cycle_of_pipelines_is_an_error():
    stage = Stage("s")
    stage.add_pipeline(text_pipeline(), "a")
    stage.add_pipeline(text_pipeline(), "b")
    stage.add_edge("a.y", "b.text")
    stage.add_edge("b.y", "a.text")
    stage.set_state_contract([], ["outcome"], {}, {"outcome": "b.y"})
    with pytest.raises(ValidationError, match=r"a.*b|b.*a"):
        stage.validate()


def test_only_pipelines_stand_in_a_stage():
    with pytest.raises(StructureError, match=r"expected a Pipeline, its config, a path to one, or a template's name"):
        Stage("s").add_pipeline(chain(Scale()))


# --- values as people have them ---------------------------------------------------------------------------------------


def looking_stage(**place: Any) -> Stage:
    """artifacts -> description: the pictures as the port got them."""

    def look(image: Any, title: str = "none") -> dict[str, Any]:
        return {"seen": image}

    stage = Stage("philosopher")
    graph = Graph("look")
    graph.add_node(Block.wrap(look, inputs={"image": "image", "title": "text"}, outputs={"seen": "any"}), "look")
    graph.expose_input("look", "image")
    graph.expose_input("look", "title")
    graph.expose_output("look", "seen")
    pipeline = Pipeline("look")
    pipeline.add_graph(graph, "look")
    pipeline.expose_input("look", "image")
    pipeline.expose_input("look", "title")
    pipeline.expose_output("look", "seen")
    stage.add_pipeline(pipeline, "look", **place)
    stage.set_state_contract(
        ["artifacts"], ["description"], {"look.image": "artifacts", "look.title": "recipe.title"}, {"description": "look.seen"}
    )
    return stage


def picture(tmp_path) -> tuple[Tensor, Any, str]:
    """One picture as tensor, PIL image and file."""
    from PIL import Image

    levels = torch.arange(48, dtype=torch.uint8).view(3, 4, 4) * 5
    image = Image.frombytes("RGB", (4, 4), bytes(levels.permute(1, 2, 0).flatten().tolist()))
    image.save(tmp_path / "picture.png")
    return levels.float() / 255, image, str(tmp_path / "picture.png")


def test_pictures_are_normalised_at_the_border(tmp_path):
    tensor, image, file = picture(tmp_path)
    for given in (tensor, image, file, (tensor * 255).round().to(torch.uint8)):
        state = State(artifacts=given)
        torch.testing.assert_close(looking_stage().run(state).description, tensor, rtol=0, atol=0)
        assert state.artifacts is given
    after = looking_stage(map="image").run(State(artifacts=[image, file, tensor]))
    assert after.description[2] is tensor
    assert_same(after.description, [tensor, tensor, tensor])


def test_a_field_is_normalised_in_a_copy(tmp_path):
    tensor, image, _ = picture(tmp_path)
    stage = looking_stage()
    stage.set_state_contract(["recipe"], ["description"], {"look.image": "recipe.first.image"}, {"description": "look.seen"})
    recipe = {"first": {"image": image, "other": 1}, "size": 4}
    after = stage.run(State(recipe=recipe))
    torch.testing.assert_close(after.description, tensor, rtol=0, atol=0)
    assert recipe["first"]["image"] is image
    assert_same(after.recipe, {"first": {"image": tensor, "other": 1}, "size": 4})


def test_a_slot_of_the_wrong_kind_is_an_error_at_the_border():
    with pytest.raises(PortTypeError, match=r"philosopher: artifacts: got int 3; expected a float Tensor \[3, H, W\]"):
        looking_stage().run(State(artifacts=3))
    with pytest.raises(PortTypeError, match=r"philosopher: recipe\.title: got int 3; expected a str"):
        looking_stage().run(State(artifacts=torch.zeros(3, 4, 4), recipe={"title": 3}))


# --- configs ----------------------------------------------------------------------------------------------------------


def registered_stage() -> Stage:
    stage = Stage("maker", role="creator", metadata={"note": "n"})
    stage.add_pipeline(as_pipeline(chain(Affine(seed=4), KeyedNoise())), "first", condition=["recipe", "!outcome"])
    stage.add_pipeline(as_pipeline(chain(Scale(0.5))), "second", condition="test_is_loud")
    stage.set_state_contract(
        ["recipe"],
        ["artifacts"],
        {"first.x": "recipe", "second.x": "content.base"},
        {"artifacts": ["first.y", "second.y"]},
        merge={"artifacts": "append"},
    )
    stage.set_execution_condition("creator")
    return stage


def test_config_round_trip(tmp_path):
    stage = registered_stage()
    config = stage.to_config()
    assert config["role"] == "creator" and config["execution_condition"] == "creator"
    assert [node.get("condition") for node in config["nodes"]] == [["recipe", "!outcome"], "test_is_loud"]
    state, content = State(intent="x!", recipe=torch.ones(1, 4)), {"base": torch.ones(2)}
    expected = stage.run(state, content=content, seed=5)
    for path in (tmp_path / "stage.yaml", tmp_path / "stage.json"):
        stage.save_config(path)
        again = Stage.from_yaml(path)
        assert again.to_config() == config and again.role == "creator" and again.metadata == {"note": "n"}
        assert_same(again.run(state, content=content, seed=5), expected)
    assert Stage.from_config(config).state_contract == stage.state_contract


def test_save_and_load(tmp_path):
    stage = registered_stage()
    with torch.no_grad():
        stage.find("first/only/n0").linear.weight.add_(1.0)
    stage.save(tmp_path / "stage")
    state, content = State(intent="x", recipe=torch.ones(1, 4)), {"base": torch.ones(2)}
    assert_same(Stage.load(tmp_path / "stage").run(state, content=content, seed=5), stage.run(state, content=content, seed=5))


def test_a_bare_function_cannot_be_written():
    stage = registered_stage()
    stage.set_execution_condition(lambda state: True)
    with pytest.raises(StateError, match="maker: the condition is a bare function; register it with register_condition"):
        stage.to_config()
    stage.set_execution_condition(None)
    stage.set_execution_condition(lambda state: True, node_id="second")
    with pytest.raises(StructureError, match="maker/second: the condition is a bare function; register it with register_condition"):
        stage.to_config()


def test_a_config_with_a_wrong_contract_says_where():
    config = registered_stage().to_config()
    config["state_contract"]["inputs"] = "recipe"
    config["role"] = 3
    with pytest.raises(ConfigError) as caught:
        Stage.from_config(config)
    assert {finding.where for finding in caught.value.findings} == {"state_contract.inputs", "role"}


def test_from_parts(tmp_path):
    """A pipeline may be given as itself, as its config, or as a file."""
    pipeline = as_pipeline(chain(Scale(2.0)))
    pipeline.save_config(tmp_path / "pipeline.yaml")
    for given in (pipeline, pipeline.to_config(), tmp_path / "pipeline.yaml", str(tmp_path / "pipeline.yaml")):
        stage = Stage("s")
        assert stage.add_pipeline(given) == "pipeline"
        stage.set_state_contract(["recipe"], ["artifacts"])
        assert torch.equal(stage.run(State(recipe=torch.ones(1))).artifacts, torch.full((1,), 2.0))


def test_an_option_that_there_is_not_is_named():
    stage = Stage("s")
    with pytest.raises(TypeError, match=r"s: run\(\) has no option 'timeut'; did you mean 'timeout'"):
        stage.run(State(intent="a"), timeut=1)


def test_a_condition_stands_where_it_is_asked_and_nowhere_else() -> None:
    graph, pipeline = chain(Scale(2.0)), as_pipeline(chain(Affine()))
    for level in (graph, pipeline):
        (node,) = level.nodes
        with pytest.raises(StructureError, match=rf"{level.block_id}/{node}: condition=.*a {level.level} has no State to ask"):
            level.configure_node(node, condition="complete")
        assert level.node_specs[node].condition is None
    with pytest.raises(StructureError, match="no State to ask"):
        Graph("g").add_node(Scale(2.0), "it", condition=["intent"])
    with pytest.raises(StructureError, match="no State to ask"):
        Pipeline("p").add_graph(graph, "it", condition=["intent"])
    with pytest.raises(StateError, match="s/it: unknown condition 'nonsense'"):
        Stage("s", role="s").add_pipeline(pipeline, "it", condition="nonsense")
