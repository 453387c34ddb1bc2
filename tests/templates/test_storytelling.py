"""The storytelling world: by an API, by local models, and mixed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openai")

from tests.world_blocks import CYCLE, Recorder
from wgtorch.blocks.scenes.scene import ATTRIBUTES
from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import build_template
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.models.errors import AnswerFormatError, ApiError
from wgtorch.testing import Reply, ScriptedServer
from wgtorch.train.gradient_boundaries import what_trains
from wgtorch.world import World
from wgtorch.world_runtime.state import State

STORY = "Смотритель маяка Мара тридцать лет зажигает лампу."
PAINTER = {"template": "text_to_image", "params": {"steps": 1}}
ROLES = {
    "art director": "architect",
    "keep the records": "world_update",
    "mind of a world": "development",
    "chronicler": "author",
    "look at pictures": "philosopher",
}
ANSWERS = {
    "architect": json.dumps({"prompts": ["A red castle at night."]}),
    "world_update": json.dumps({"glossary": [{"name": "Том", "description": "рыжий мальчик"}], "summary": "Пришёл Том."}),
    "development": "Мара поднимается по лестнице.",
    "author": "Мара поднялась и зажгла лампу.",
    "philosopher": "Красный замок ночью.",
}


def role_of(seen: Any) -> str:
    return next(role for words, role in ROLES.items() if words in seen.system)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(respond=lambda seen: ANSWERS[role_of(seen)] if seen.system else Reply()) as server:
        yield server


def world_of(server: ScriptedServer, **params: Any) -> World:
    model = {"provider": "openai", "model_id": "m", "endpoint_url": server.url, "retries": 0}
    return World.from_template("storytelling", **{"llm": model, "creator": PAINTER, "story": STORY, **params})


def asked(server: ScriptedServer, role: str) -> list[Any]:
    return [seen for seen in server.requests if role_of(seen) == role]


# --- structure --------------------------------------------------------------------------------------------------------


def test_it_is_the_canonical_world(server: ScriptedServer) -> None:
    world = world_of(server)
    assert world.cycle == CYCLE
    assert world.validate(deep=True).is_valid
    assert World.from_config(world.to_config()).to_config() == world.to_config()
    contracts = {role: world.nodes[role].state_contract for role in CYCLE}
    assert {role: (contract.inputs, contract.outputs) for role, contract in contracts.items()} == {
        "philosopher": (("artifacts",), ("description",)),
        "author": (("intent", "description"), ("outcome",)),
        "environment": ((), ("intent",)),
        "architect": (("intent",), ("recipe",)),
        "creator": (("recipe",), ("artifacts",)),
    }
    assert [role for role in CYCLE if "action" in contracts[role].reads.values()] == ["environment"]
    assert [port for port, source in contracts["environment"].reads.items() if source == "action"] == ["development.action"]
    assert server.requests == [], "building asks nobody"


def test_one_model_stands_at_every_place_with_its_own_options(server: ScriptedServer) -> None:
    world = world_of(server)
    places = ["author/tell/tell/llm", "architect/plan/plan/llm", "environment/development/development/llm"]
    assert len({id(world.find(place)) for place in places}) == 1
    world.run(num_steps=2, seed=1)
    heat = {role: asked(server, role)[0].body["temperature"] for role in ANSWERS}
    assert heat == {"philosopher": 0.2, "author": 0.9, "world_update": 0.2, "development": 0.9, "architect": 0.45}
    assert [role for role in ANSWERS if "response_format" in asked(server, role)[0].body] == ["architect", "world_update"]


GIVEN = {
    "intent": "i",
    "recipe": {"prompts": ["A tent."]},
    "artifacts": [torch.full((1, 3, 64, 64), 0.5)],
    "description": ["d"],
    "outcome": "o",
}


@pytest.mark.parametrize(
    ("count", "before"),
    [(0, []), (1, []), (2, []), (3, ["philosopher", "author", "world_update"]), (4, ["author", "world_update"]), (5, ["world_update"])],
)
def test_what_a_user_hands_in_decides_what_runs_before_development(server: ScriptedServer, count: int, before: list[str]) -> None:
    state = world_of(server).run(State(**dict(list(GIVEN.items())[:count])), seed=1)
    assert [role_of(seen) for seen in server.requests] == [*before, "development", "architect"]
    assert state.filled == ("intent", "recipe", "artifacts")
    assert state.artifacts[0].shape == (1, 3, 64, 64)


# --- what each is told ------------------------------------------------------------------------------------------------


def test_the_philosopher_is_told_the_language_and_nothing_of_the_world(server: ScriptedServer) -> None:
    world_of(server, pictures=1).run(State(intent="СЕКРЕТ", recipe={"prompts": ["SECRET"]}, artifacts=[torch.rand(3, 64, 64)] * 2), seed=1)
    looks = asked(server, "philosopher")
    assert len(looks) == 2, "each picture by itself"
    for seen in looks:
        assert "Russian" in seen.prompt and "data:image/png" in json.dumps(seen.body)
        assert not any(word in json.dumps(seen.body, ensure_ascii=False) for word in ("СЕКРЕТ", "SECRET", "Мара", "watercolour"))


def test_a_world_in_russian_stays_russian_and_its_painter_reads_english(server: ScriptedServer) -> None:
    world = world_of(server, style="тушь")
    world.run(num_steps=3, seed=1)
    for role in ("philosopher", "author", "world_update", "development"):
        for seen in asked(server, role):
            assert "in Russian" in seen.system and "language of the world's own" not in seen.system
    assert all("Write the prompts in English" in seen.system for seen in asked(server, "architect"))
    assert world.content["chronicle"] == [ANSWERS["author"]] * 2
    assert "language" not in world.content, "found anew each time, so it follows the content"
    declared = world_of(server, language="Ukrainian", prompt_language="German")
    declared.run(seed=1)
    assert "Write in Ukrainian" in asked(server, "development")[-1].system
    assert "Write the prompts in German" in asked(server, "architect")[-1].system


def test_the_author_knows_the_world_before_the_update_and_the_architect_the_one_after(server: ScriptedServer) -> None:
    world = world_of(server, rules=["Здесь нет электричества."])
    world.run(num_steps=2, seed=1, action=[None, "открыть дверь"])
    assert "Пришёл Том" not in asked(server, "author")[0].prompt
    for role in ("development", "architect"):
        assert "рыжий мальчик" not in asked(server, role)[0].prompt
        assert "(Том: рыжий мальчик)\n</chronicle>" in asked(server, role)[1].prompt
    assert all("Здесь нет электричества" in seen.prompt for role in ("author", "development", "architect") for seen in asked(server, role))
    assert ["открыть дверь" in seen.prompt for seen in asked(server, "development")] == [False, True]
    assert not any("открыть дверь" in seen.prompt for role in ANSWERS if role != "development" for seen in asked(server, role))
    assert ANSWERS["philosopher"] in asked(server, "author")[0].prompt and ANSWERS["development"] in asked(server, "author")[0].prompt


def test_the_context_stays_within_its_budget(server: ScriptedServer) -> None:
    world = world_of(server, memory={"budget": 120, "pinned": ["style"]}, keep={"episodes": 3}, update="plain")
    world.run(num_steps=8, seed=1)
    assert not asked(server, "world_update")
    assert len(world.content["chronicle"]) == 3 and world.content["summary"].startswith(ANSWERS["author"])
    contexts = [event.outputs["context"] for event in recorded(world) if event.path.endswith("/memory")]
    assert contexts and all(len(context.encode()) <= 4 * 120 for context in contexts)


def recorded(world: World) -> list[Any]:
    recorder = Recorder()
    world.run(seed=1, callbacks=[recorder])
    return [event for event in recorder.events if event.kind == "end" and event.level == "block"]


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_that_the_creator_cannot_take_is_repaired_or_refused(server: ScriptedServer) -> None:
    world = world_of(server, pictures=2)
    good = json.dumps({"prompts": ["A red tent.", "A blue ship."]})
    server.script(ANSWERS["development"], json.dumps({"prompts": ["one"], "mood": "dark"}), good)
    state = world.run(seed=1)
    assert state.recipe == json.loads(good) and len(state.artifacts) == 2
    assert "'mood' was unexpected" in json.dumps(server.requests[-1].body)
    server.script(
        ANSWERS["philosopher"], ANSWERS["philosopher"], ANSWERS["author"], ANSWERS["world_update"], ANSWERS["development"], "no", "no"
    )
    with pytest.raises(AnswerFormatError, match="after one repair"):
        world.run()
    kept = len(server.requests)
    server.script(good)
    assert len(world.run().artifacts) == 2
    assert len(server.requests) == kept + 1, "what was answered before is not asked for again"


def test_recipes_say_what_the_creator_takes(server: ScriptedServer) -> None:
    def schema_of(**params: Any) -> dict[str, Any]:
        return world_of(server, **params).nodes["architect"].nodes["plan"].nodes["plan"].node_specs["llm"].inputs["schema"]

    assert list(schema_of()["properties"]) == ["prompts"]
    assert list(schema_of(options=["negative_prompt", "guidance_scale"])["properties"]) == ["prompts", "negative_prompt", "guidance_scale"]
    generator = {"block_type": "image_generator", "config": {"model_id": "i", "endpoint_url": server.url}}
    assert list(schema_of(creator=generator, options=["width", "height"])["properties"]) == ["prompts", "width", "height"]
    with pytest.raises(ConfigError, match=r"unknown option 'negativ_prompt'; did you mean 'negative_prompt'"):
        world_of(server, options=["negativ_prompt"])
    with pytest.raises(ConfigError, match=r"this creator takes no 'width'; it takes \['prompt'"):
        world_of(server, options=["width"])


def test_the_recipes_options_reach_the_painter(server: ScriptedServer) -> None:
    world = world_of(server, options=["negative_prompt", "guidance_scale"])
    server.script("i", json.dumps({"prompts": ["A tent."], "negative_prompt": "a ship", "guidance_scale": 3}))
    tokens = {event.path: event.inputs for event in recorded(world)}
    assert tokens["creator/paint/t2i/negative_tokenizer"]["text"] == "a ship"
    assert tokens["creator/paint/t2i/guidance"]["scale"] == 3


def test_the_architect_knows_what_the_small_painter_can(server: ScriptedServer) -> None:
    world_of(server).run(seed=1)
    assert all(value in asked(server, "architect")[0].system for values in ATTRIBUTES.values() for value in values)
    world_of(server, painter="it loves fog").run(seed=1)
    assert "it loves fog" in asked(server, "architect")[1].system and "windmill" not in asked(server, "architect")[1].system


def test_any_text_to_image_graph_is_a_creator(server: ScriptedServer, tmp_path: Path) -> None:
    graph = build_template("graph", "text_to_image", {"steps": 1})
    graph.save_config(tmp_path / "paint.yaml")
    graph.save(tmp_path / "saved")
    generator = {"block_type": "image_generator", "config": {"model_id": "i", "endpoint_url": server.url}}
    for creator in (graph, str(tmp_path / "paint.yaml"), str(tmp_path / "saved"), generator):
        state = world_of(server, creator=creator).run(seed=1)
        assert state.artifacts[0].shape[:2] == (1, 3)


def test_a_folder_of_diffusers_is_a_creator(server: ScriptedServer, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from tests.integrations.diffusers import tiny

    tiny.stable_diffusion(tmp_path / "words").save_pretrained(tmp_path / "sd")
    world = world_of(server, creator=str(tmp_path / "sd"))
    server.script("i", json.dumps({"prompts": ["a tent"], "negative_prompt": "blurry"}))
    assert world.run(seed=1).artifacts[0].shape[:2] == (1, 3)


# --- local and mixed --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    pytest.importorskip("transformers")
    pytest.importorskip("llguidance")
    from tests.integrations.transformers import tiny

    root = tmp_path_factory.mktemp("models")
    llm = {"backend": "local", "checkpoint_ref": str(tiny.language_model(root / "llm", positions=16384)), "max_tokens": 700}
    return {"llm": llm, "vlm": {"backend": "local", "checkpoint_ref": str(tiny.vision_model(root / "vlm")), "max_tokens": 6}}


def local_world(folders: dict[str, Any], **params: Any) -> World:
    small = {"memory": {"budget": 100}, "update": "plain", "temperature": 0.0}
    return World.from_template("storytelling", **{**folders, "creator": PAINTER, "story": STORY, **small, **params})


@pytest.fixture
def short(folders: dict[str, Any]) -> dict[str, Any]:
    """Models whose free texts are short, while what must be whole JSON is not cut."""
    return {**folders, **{role: {**folders["llm"], "max_tokens": 12} for role in ("development", "author")}}


def test_a_world_needs_no_network_and_repeats_itself_bit_for_bit(short: dict[str, Any], tmp_path: Path) -> None:
    worlds = [local_world(short, temperature=1.0) for _ in range(2)]
    state = worlds[0].run(num_steps=2, seed=5, action=["открыть дверь", None])
    assert state.filled == ("intent", "recipe", "artifacts") and len(worlds[0].history) == 1
    assert len(worlds[0].content["chronicle"]) == 1
    worlds[1].run(seed=5, action="открыть дверь")
    worlds[1].save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert again.run(seed=5) == state
    assert again.content == worlds[0].content
    assert local_world(short, temperature=1.0).run(seed=6) != worlds[1].state


def test_a_local_model_keeps_the_records(short: dict[str, Any]) -> None:
    environment = local_world({**short, "llm": {**short["llm"], "max_tokens": 3000}}, update=None).nodes["environment"]
    recorder = Recorder()
    environment.run(State(**GIVEN), content={"story": STORY}, seed=1, callbacks=[recorder])
    after = next(event.outputs["content"] for event in recorder.events if event.kind == "end" and event.path.endswith("/keep"))
    assert after["story"] == STORY and after["chronicle"] == ["o"] and after["summary"]


def test_local_models_are_there_once_and_are_trained_like_any_other(folders: dict[str, Any]) -> None:
    world = local_world(folders)
    assert [type(module).__name__ for module in world.modules()].count("LlamaForCausalLM") == 1
    names = [name for name, parameter in world.named_parameters() if parameter.requires_grad]
    assert any("llm.model.model.layers.0" in name for name in names) and any("vlm.model" in name for name in names)


def test_stages_by_an_api_and_here_go_together(server: ScriptedServer, folders: dict[str, Any]) -> None:
    api = {"provider": "openai", "model_id": "m", "endpoint_url": server.url}
    world = local_world({**folders, "author": api, "development": api})
    world.run(num_steps=2, seed=1)
    assert sorted({role_of(seen) for seen in server.requests}) == ["author", "development"]
    assert world.run(dry_run=True).api_calls == 2
    for stage, place in (("author", "author/tell/tell/llm"), ("environment", "environment/development/development/llm")):
        assert list(world.find(place).parameters()) == [] and list(world.nodes[stage].trainable_parameters()) == []
    assert list(world.nodes["architect"].trainable_parameters())
    said = what_trains(world, world.trainable_parameters())
    assert "gradients stop at" in said and "author/tell/tell/llm" in said and "environment/development/development/llm" in said
    optimizer = torch.optim.SGD(world.trainable_parameters(), lr=0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(world.parameters()))


def test_a_dead_endpoint_pauses_the_world_with_all_that_was_done(server: ScriptedServer) -> None:
    world = world_of(server)
    world.run(seed=1)
    server.script(ANSWERS["philosopher"], Reply("down", status=401))
    with pytest.raises(ApiError, match="tell/tell/llm|401"):
        world.run()
    assert world.state is not None and world.state.description == [ANSWERS["philosopher"]]
    before = len(server.requests)
    world.run()
    assert role_of(server.requests[before]) == "author"


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"styl": "ink"}, r"unknown parameter 'styl'; did you mean 'style' or 'story'\? Known: \['architect', 'author', 'creator'"),
        ({"pictures": 0}, "pictures: found 0"),
        ({"llm": "gpt"}, "llm: found 'gpt'; expected the config of a model"),
        ({"author": "gpt"}, "author: found 'gpt'"),
        ({"creator": "text_to_imag"}, "'text_to_imag' is no template and no file of a graph; did you mean 'text_to_image'"),
        ({"creator": "caption"}, "expected a text-to-image graph, with an input 'prompt' and an output 'image'"),
        ({"creator": {"params": {}}}, r"found a mapping with \['params'\]"),
        ({"creator": 5}, "creator: found int"),
        ({"memory": {"budgt": 5}}, "budgt"),
        ({"keep": {"forget": "oldst"}}, "did you mean 'oldest'"),
    ],
)
def test_parameters_that_make_no_sense(server: ScriptedServer, params: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, KeyError), match=words):
        world_of(server, **params)


def test_a_local_language_model_does_not_see(folders: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="vlm: is left out, and llm is a local model"):
        World.from_template("storytelling", llm=folders["llm"])
    described = {"block_type": "vlm/scene", "config": {"checkpoint_ref": "wgtorch:scene_describer"}}
    assert World.from_template("storytelling", llm=folders["llm"], vlm=described).validate(deep=True).is_valid


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_chat_and_caption_as_graphs(server: ScriptedServer) -> None:
    server.script("Hello.", "A castle.")
    model = {"model_id": "m", "endpoint_url": server.url}
    chat = Graph.from_template("chat", llm=model, system="Be brief.")
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    assert chat.run({"prompt": "Say hello.", "history": history})["text"] == "Hello."
    assert [turn["role"] for turn in server.requests[-1].body["messages"]] == ["system", "user", "assistant", "user"]
    caption = Graph.from_template("caption", vlm=model)
    assert caption.run({"image": torch.rand(3, 8, 8)})["text"] == "A castle."
    assert BlockRegistry.get("llm") is type(chat.nodes["llm"])
