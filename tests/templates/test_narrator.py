"""The default world with a language model: one in memory, an adapter for each of its two roles, prose that agrees with the facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openai")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import wgtorch
from tests.integrations.transformers import tiny
from wgtorch import lora
from wgtorch.blocks.simulation.model_reader import SYSTEM as READING
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.testing import ScriptedServer, Seen
from wgtorch.world import World

SMALL: dict[str, Any] = {"larger": False, "steps": 1}


def faithful(seen: Seen) -> str:
    """Repeats the statements, after a scene; reads every line as a walk north."""
    if READING in seen.system:
        return json.dumps({"actions": [{"verb": "perform", "target": "song"}]})
    _, *statements = seen.prompt.split("\n")
    return " ".join(["Everything was quiet.", *(re.sub(r"^\d+\. ", "", line) for line in statements)])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(respond=faithful) as server:
        yield server


def told_by(server: ScriptedServer) -> World:
    return World.from_template(
        "default", narrator={"provider": "openai", "model_id": "m", "endpoint_url": server.url, "retries": 0}, **SMALL
    )


def test_faithful_prose_is_the_outcome_and_the_grammar_says_nothing(server: ScriptedServer) -> None:
    world = told_by(server)
    world.run(num_steps=5, seed=5)
    found = wgtorch.evaluate(world, ["narration", "contradictions"])
    assert found["narration"]["by_grammar"] < 0.2 and set(found["contradictions"].values()) == {0.0}
    assert "Everything was quiet." in " ".join(world.content["chronicle"])


def test_a_line_in_another_language_is_read_by_the_model_and_only_such(server: ScriptedServer) -> None:
    world = told_by(server)
    world.run(num_steps=1, seed=5)
    asked = len([seen for seen in server.requests if READING in seen.system])
    world.run(num_steps=1, action="rest")
    assert len([seen for seen in server.requests if READING in seen.system]) == asked == 0
    state = world.run(num_steps=1, action="спой песню")
    assert state.intent["resolution"]["verb"] == "perform" and state.intent["resolution"]["status"] == "done"


def test_prose_that_strays_is_told_by_the_grammar_and_counted() -> None:
    with ScriptedServer(respond=lambda seen: "Queen Elena killed seven dragons in the snow.") as server:
        world = told_by(server)
        world.run(num_steps=3, seed=5)
        found = wgtorch.evaluate(world, ["narration", "contradictions"])
        assert found["narration"]["by_grammar"] == 1.0 and found["narration"]["strays_per_100"] == 100.0
        assert set(found["contradictions"].values()) == {0.0} and "Elena" not in " ".join(world.content["chronicle"])


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A language model of random weights with random adapters, as the package has them for SmolLM2."""
    folder = tmp_path_factory.mktemp("twin")
    path = tiny.language_model(folder / "model")
    config = {"backend": "local", "checkpoint_ref": str(path)}
    model = BlockRegistry.build({"block_type": "llm", "config": config})
    adapters = {}
    for seed, name in enumerate(("narrator", "action_reader")):
        lora.add(model, name, rank=2, target_modules=["q_proj", "v_proj"], wear=False)
        torch.manual_seed(seed)
        for key, parameter in model.named_parameters():
            if name in key:
                torch.nn.init.normal_(parameter, std=2.0)
        adapters[name] = str(lora.save(model, folder / name, name))
    return {**config, "adapters": adapters}


def test_one_model_in_memory_has_an_adapter_for_each_role(twin: dict[str, Any], tmp_path: Path) -> None:
    world = World.from_template("default", narrator=twin, **SMALL)
    assert world.validate().errors == ()
    assert [type(module).__name__ for module in world.modules()].count("LlamaForCausalLM") == 1
    author, reader = world.nodes["author"].nodes["tell"].nodes["tell"], world.nodes["environment"].nodes["development"].nodes["development"]
    assert author.node_specs["llm"].adapter == "narrator" and reader.node_specs["llm"].adapter == "action_reader"
    assert author.nodes["llm"] is reader.nodes["llm"]
    state = world.run(num_steps=2, seed=5)
    assert world.content["chronicle"][0]
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert again.content == world.content and set(lora.adapters(again)) == {"narrator", "action_reader"}
    assert again.run(num_steps=1, seed=9).intent == world.run(num_steps=1, seed=9).intent and state is not None


@pytest.mark.parametrize(
    ("narrator", "words"),
    [
        ("smollm3", "did you mean 'smollm2'"),
        ({"provider": "openai", "model_id": "m", "adapters": {"teller": "x"}}, "narrator.adapters"),
    ],
    ids=("name", "adapters"),
)
def test_what_is_no_narrator_is_refused(narrator: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        World.from_template("default", narrator=narrator, **SMALL)
    with pytest.raises(ConfigError, match="leave one of them out"):
        World.from_template("default", narrator="smollm2", teller="other", **SMALL)


@pytest.mark.slow
def test_smollm2_tells_without_contradictions() -> None:
    pytest.importorskip("gguf")
    from wgtorch.core.errors import CheckpointError

    try:
        world = World.from_template("default", narrator="smollm2", **SMALL)
    except CheckpointError as error:
        pytest.skip(str(error))
    world.run(num_steps=12, seed=5)
    found = wgtorch.evaluate(world, ["narration", "contradictions", "distinct_4"])
    assert found["narration"]["by_grammar"] < 0.4 and sum(found["contradictions"].values()) == 0
