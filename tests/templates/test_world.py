"""The default world and the stages it is made of."""

from __future__ import annotations

import jsonschema
import pytest
import torch

from tests.world_blocks import CYCLE, Recorder, assert_same, default_world, difference, record_of
from wgtorch.core.config.template import templates
from wgtorch.core.errors import ConfigError, UnknownNameError
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.state import State

CONTRACTS = {
    # role: slots before, slots after, condition, ports <- sources
    "philosopher": (("artifacts",), ("description",), "philosopher", {"artifacts"}),
    "author": (("intent", "description"), ("outcome",), "author", {"intent", "description", "content"}),
    "environment": ((), ("intent",), None, {"content", "intent", "recipe", "description", "outcome", "action"}),
    "architect": (("intent",), ("recipe",), "architect", {"intent", "content"}),
    "creator": (("recipe",), ("artifacts",), "creator", {"recipe.prompts", "recipe.scene"}),
}


# --- stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", CYCLE)
def test_there_is_a_stage_for_each_role(role):
    stage = Stage.from_template(role)
    before, after, condition, sources = CONTRACTS[role]
    assert (stage.role, stage.stage_id) == (role, role)
    assert (stage.state_contract.inputs, stage.state_contract.outputs) == (before, after)
    assert stage.execution_condition == condition
    assert set(stage.state_contract.reads.values()) == sources
    assert stage.validate(deep=True).is_valid
    assert Stage.from_config(stage.to_config()).to_config() == stage.to_config()


def test_the_philosopher_never_sees_the_recipe():
    recorder = Recorder()
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    recipe = {"prompts": ["a castle"]}
    state = Stage.from_template("philosopher").run(State(intent="i", recipe=recipe, artifacts=[image, image]), callbacks=[recorder])
    assert len(state.description["text"]) == 2 and isinstance(state.description["text"][0], str)
    assert [set(seen) >= {"time", "weather", "terrain"} for seen in state.description["attributes"]] == [True, True]
    inputs = [event.inputs for event in recorder.events if event.kind == "start"]
    assert inputs and all(set(given) <= {"image"} for given in inputs)


def test_the_creator_paints_each_prompt_and_a_place_in_the_list_draws_for_itself():
    creator = Stage.from_template("creator", steps=1)
    prompts = ["The sea, at night.", "The sea, at night.", "Dunes, by day."]
    three = creator.run(State(recipe={"prompts": prompts}), seed=1).artifacts
    one = creator.run(State(recipe={"prompts": prompts[:1]}), seed=1).artifacts
    assert [tuple(picture.shape) for picture in three] == [(1, 3, 512, 512)] * 3
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in three)
    assert torch.equal(three[0], one[0])
    assert not torch.equal(three[0], three[1]), "the same words are painted with other noise"


@pytest.mark.parametrize("role", CYCLE)
def test_a_stage_that_is_not_due_is_skipped(role):
    state = State()
    result = Stage.from_template(role).run(state, content={"story": "s"}, seed=1)
    assert (result is state) is (role != "environment")


# --- the world --------------------------------------------------------------------------------------------------------


def test_the_default_world():
    world = World.from_template("default")
    assert world.world_id == "default" and world.cycle == CYCLE
    assert world.content["traveller"] == "the traveller"
    assert world.find("creator/paint/t2i/solver").num_loop_steps == 10
    assert world.find("creator/paint/t2i/backbone").block_type == "backbone/pixel_scene"
    assert world.find("philosopher/describe/describe/describer").block_type == "vlm/pixel_scene"


def test_the_default_world_with_the_other_painter():
    world = World.from_template("default", painter="scenes", steps=1, guidance=1.5, larger=False)
    assert world.find("creator/paint/t2i/backbone") is world.find("creator/paint/t2i/negative_backbone")
    names = {name for name, _ in world.named_parameters()}
    assert not any("negative" in name for name in names), "one model in two places is yielded once"
    world.run(num_steps=2, seed=1)
    assert world.history[0].artifacts[0].shape == (1, 3, 64, 64)
    assert set(world.history[0].description["attributes"][0]) >= {"time", "landmark"}


def test_the_default_world_with_sound(tmp_path):
    world = default_world(sound=True)
    world.set_storage({"state_dir": str(tmp_path)})
    world.run(num_steps=2, seed=1)
    stored = world.history[0].artifacts
    assert stored["pictures"][0].shape == (1, 3, 512, 512)
    assert stored["audio"].shape == (1, 1, 8 * stored["rate"])
    assert len(world.history[0].description["text"]) == 1
    assert "data:audio/wav" in world.report().html


@pytest.mark.parametrize(
    ("options", "words"),
    [({"painter": "pixel"}, "did you mean 'pixels'"), ({"guidance": 2.0}, "guidance is an option of painter='scenes'")],
    ids=["unknown", "other"],
)
def test_painters_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        World.from_template("default", **options)


def test_three_passes_of_the_default_world():
    """The command of the documentation: it develops itself, paints what happens, and remembers it."""
    world = World.from_template("default")
    state = world.run(num_steps=3, seed=7)
    assert state.filled == ("intent", "recipe", "artifacts")
    assert len(world.history) == 2 and world.content["episodes"] == 2
    for index, stored in enumerate(world.history):
        assert stored.complete
        assert isinstance(stored.intent["text"], str) and isinstance(stored.outcome, str)
        assert len(stored.recipe["prompts"]) == len(stored.artifacts) == len(stored.description["text"]) == 1
        seen, meant = stored.description["attributes"][0], stored.recipe["scene"]
        agree = sum(seen.get(name) == meant[name] for name in ("time", "weather"))
        assert agree >= 1, f"episode {index}: meant {meant}, seen {seen}"
        content = world.history.content(index)
        assert content["chronicle"][-1] == stored.outcome and content["episodes"] == index + 1
        assert stored.outcome in content["story"] and content["story"].startswith("A traveller walks")
        assert content["events"][-1] == stored.intent["resolution"]["events"][-1]
    first, second = (history["chronicle"] for history in (world.history.content(0), world.history.content(1)))
    assert second[: len(first)] == first


def test_time_goes_on_in_the_default_world():
    world = default_world()
    clocks = [step.content["clock"] for step in world.stream(num_steps=5, seed=2) if step.kind == "pass" and step.index]
    hours = [24 * clock["day"] + clock["hour"] for clock in clocks]
    assert hours == sorted(hours) and hours[-1] > hours[0]


def test_an_action_is_tried_told_and_kept():
    world = default_world()
    world.run(num_steps=2, seed=2)
    state = world.run(action="Go north, please!")
    before = world.content["characters"]["the traveller"]["place"]
    verdict = state.intent["resolution"]
    assert (verdict["verb"], verdict["action"]) == ("go", "Go north, please!")
    assert "Go north, please!" in state.intent["text"]
    assert not any(event["action"] for event in world.content["events"]), "facts change when the episode is complete"
    world.run()
    event = next(event for event in world.content["events"] if event["action"])
    assert event == {name: value for name, value in verdict.items() if name != "events"}
    expected = verdict["target"] if verdict["status"] == "done" else before
    assert event["where"] == expected and state.recipe["scene"]["place"] == expected
    assert "Go north, please!" in world.history[-1].outcome


def test_parameters():
    world = World.from_template("default", story="Once.", style="ink", traveller="the fox", pictures=2, steps=1, memory=1)
    assert dict(world.content) == {"story": "Once.", "style": "ink", "traveller": "the fox"}
    state = world.run(num_steps=3, seed=1)
    assert "he fox" in state.intent["text"]
    assert len(state.recipe["prompts"]) == len(state.artifacts) == 2
    assert len(world.history[0].description["text"]) == 2
    assert world.find("creator/paint/t2i/solver").num_loop_steps == 1
    assert "1 episode passed" in world.content["story"] and world.content["story"].startswith("Once.")


def test_a_name_is_never_read_as_weather():
    skies = []
    for name in ("Anna", "Storm"):
        world = World.from_template("default", steps=1, traveller=name)
        states = [step.state for step in world.stream(num_steps=5, seed=4) if step.kind == "pass"]
        assert all(thing["name"] == name for state in states for thing in state.recipe["scene"]["things"] if thing["role"] == "hero")
        skies.append([state.recipe["scene"]["weather"] for state in states])
    assert skies[0] == skies[1]


def test_a_misread_picture_changes_no_fact():
    """What the picture shows otherwise is kept as a discrepancy."""
    worlds = [default_world(), default_world()]
    for world in worlds:
        world.run(num_steps=2, seed=5)
    seen = [{**entry, "weather": "snow", "terrain": "desert"} for entry in [{"time": "day", "landmark": "none", "traveller": "yes"}]]
    wrong = worlds[1].state.replace(description={"text": ["Snow on dunes."], "attributes": seen})
    worlds[0].run()
    worlds[1].run(wrong)
    told, kept = (dict(world.content) for world in worlds)
    notes = [entry["what"] for entry in kept["discrepancies"]]
    assert {"weather", "terrain"} <= set(notes)
    for part in ("places", "characters", "objects", "clock", "weather", "threads", "events"):
        assert told[part] == kept[part]


def test_several_may_act_in_one_pass():
    world = default_world()
    world.run(num_steps=2, seed=5)
    one, other = list(world.content["characters"])[:2]
    state = world.run(action={one: "rest", other: "sing a song", "Nobody": "fly"})
    events = [event for event in state.intent["resolution"]["events"] if event["action"]]
    assert [(event["actor"], event["verb"], event["status"]) for event in events] == [
        (one, "rest", "done"), (other, "perform", "done"), ("the world", "unknown", "refused"),
    ]  # fmt: skip
    assert "nobody called Nobody" in events[2]["because"]


@pytest.mark.parametrize(
    "action",
    ["", " \n ", 5, "x" * 20_000, "<b>go</b> *north*", "иди к морю", "\ud800 go", "!!!", {"the traveller": ""}],
    ids=["empty", "blank", "number", "long", "markup", "russian", "surrogate", "marks", "nobody"],
)
def test_no_action_breaks_a_pass(action):
    world = default_world()
    world.run(num_steps=1, seed=5)
    state = world.run(action=action)
    text = state.intent["text"]
    assert 0 < len(text) < 1000
    text.encode()
    asked = [event for event in state.intent["resolution"]["events"] if event["action"]]
    assert bool(asked) is bool(str(action).strip() and action != {"the traveller": ""})
    assert all(event["because"] or event["status"] == "done" for event in asked)
    assert all(len(event["action"]) <= 300 for event in asked)
    world.run()


def test_guidance_changes_the_pictures():
    weak, strong = (default_world(painter="scenes", steps=2, guidance=guidance).run(seed=1).artifacts[0] for guidance in (1.0, 4.0))
    assert difference(weak, strong) is not None


def test_an_unknown_parameter_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"template 'default': unknown parameter 'stlye'; did you mean 'style'") as caught:
        World.from_template("default", stlye="ink")
    for name in ("guidance", "memory", "pictures", "steps", "story", "style", "traveller"):
        assert f"'{name}'" in str(caught.value)
    with pytest.raises(ConfigError, match=r"template 'creator': unknown parameter 'guidence'; did you mean 'guidance'\?"):
        Stage.from_template("creator", guidence=2.0)


def test_an_unknown_template():
    with pytest.raises(UnknownNameError, match=r"unknown world template 'defualt'; did you mean 'default'\?"):
        World.from_template("defualt")
    with pytest.raises(UnknownNameError, match="unknown stage template 'default'"):
        Stage.from_template("default")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"traveller": " "}, "traveller is ' '; expected a name"),
        ({"places": 3}, "places: found 3"),
        ({"scheduling": "chaos"}, "found 'chaos'"),
        ({"characters": 1}, "characters: found 1"),
        ({"reader": "oracle"}, "reader: found 'oracle'"),
        ({"pictures": 0}, "pictures: found 0"),
        ({"memory": 0}, "memory: found 0"),
        ({"steps": 0}, "num_steps: found 0"),
    ],
)
def test_parameters_that_make_no_sense(parameters, words):
    with pytest.raises(ValueError, match=words):
        World.from_template("default", **parameters)


def test_every_template_has_a_summary_and_a_parameter_docs():
    own = [template for template in templates() if template.build.__module__.startswith("wgtorch.")]  # pages of the docs register others
    known = {f"{template.level}/{template.name}": template for template in own}
    assert {"world/default", "world/scenes", *(f"stage/{role}" for role in CYCLE)} <= set(known)
    for name, template in known.items():
        assert template.summary.endswith("."), name
        for parameter in template.parameters:
            assert f"{parameter}:" in (template.build.__doc__ or ""), f"{name}: {parameter} is not documented"


# --- as data ----------------------------------------------------------------------------------------------------------


def test_its_config_fits_the_published_schema_and_builds_its_equal(tmp_path):
    world = default_world(pictures=2)
    config = world.to_config()
    jsonschema.validate(config, World.json_schema())
    world.save_config(tmp_path / "world.yaml")
    again = World.from_yaml(tmp_path / "world.yaml")
    assert again.to_config() == config
    for one in (world, again):
        one.run(num_steps=2, seed=5)
    assert_same(record_of(again), record_of(world))


def test_its_config_is_small_and_holds_no_weights():
    text = str(default_world().to_config())
    assert len(text) < 20_000
    assert "wgtorch:pixel_painter" in text


def test_a_saved_world_needs_no_template(tmp_path):
    world = default_world()
    with torch.no_grad():
        world.find("creator/paint/t2i/backbone").requires_grad_(True)
        next(world.find("creator/paint/t2i/backbone").parameters()).mul_(1.5)
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    for one in (world, loaded):
        one.run(num_steps=2, seed=5)
    assert_same(record_of(loaded), record_of(world))
    untouched = default_world()
    untouched.run(num_steps=2, seed=5)
    assert difference(record_of(untouched), record_of(world)) is not None


def test_the_traveller_goes_on_where_only_others_are_told_what_to_do():
    world = default_world()
    world.run(num_steps=2, seed=5)
    other = list(world.content["characters"])[1]
    before = world.content["clock"]
    events = world.run(action={other: "rest"}).intent["resolution"]["events"]
    assert events[0]["actor"] == other and events[0]["action"] == "rest"
    assert "the traveller" in {event["actor"] for event in events}
    assert events[-1]["when"] != before
