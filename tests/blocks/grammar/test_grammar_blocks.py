"""The grammar as blocks: ports, draws, free text, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from wgtorch.blocks.grammar import GrammarArchitect, GrammarAuthor, GrammarDevelopment, GrammarWorldUpdate
from wgtorch.blocks.scenes.scene import parse
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng

CONTENT = {
    "story": "It began.",
    "traveller": "the fox",
    "scene": {"time": "dawn", "weather": "clear", "terrain": "hills"},
    "places": {"hills": {"landmark": "tent", "color": "red", "place": "left"}},
}


def test_ports():
    blocks = {
        GrammarDevelopment: (["content", "action"], ["intent"]),
        GrammarArchitect: (["intent", "content"], ["recipe"]),
        GrammarAuthor: (["description", "intent", "content"], ["outcome"]),
        GrammarWorldUpdate: (["description", "outcome", "content"], ["content"]),
    }
    for block_class, (inputs, outputs) in blocks.items():
        block = block_class()
        assert (list(block.get_input_spec()), list(block.get_output_spec())) == (inputs, outputs)
    assert GrammarDevelopment().get_input_spec()["content"].aggregation == "first"
    assert GrammarDevelopment().get_input_spec()["action"].optional
    assert not GrammarAuthor().get_input_spec()["intent"].optional


@pytest.mark.parametrize("name", ["development", "architect", "author", "world_update"])
def test_config_round_trip(name):
    config = {"pictures": 3} if name == "architect" else {"memory": 2} if name == "world_update" else {}
    block = BlockRegistry.build({"block_type": f"grammar/{name}", "config": config})
    assert block.config.items() >= config.items()
    assert type(block).from_config(block.config).config == block.config


def test_development_follows_its_draws():
    develop = GrammarDevelopment()
    texts = [develop(CONTENT, rng=Rng(1, "p", turn))["intent"] for turn in (0, 0, 1, 2, 3, 4, 5)]
    assert texts[0] == texts[1] and len(set(texts)) > 3
    assert all("the fox" in text for text in texts)


def test_development_without_a_key_draws_from_pytorchs_generator():
    develop = GrammarDevelopment()
    torch.manual_seed(4)
    first = develop(CONTENT)
    torch.manual_seed(4)
    assert develop(CONTENT) == first


@pytest.mark.parametrize("content", [{}, {"scene": {}}, {"places": {}}, CONTENT])
def test_development_starts_from_any_content(content):
    before = copy.deepcopy(content)
    text = GrammarDevelopment()(content, rng=Rng(1))["intent"]
    assert {"time", "weather", "terrain"} <= set(parse(text))
    assert content == before


def test_an_action_steers_and_is_quoted():
    text = GrammarDevelopment()(CONTENT, action="Go to the sea at night.", rng=Rng(1))["intent"]
    assert {"time": "night", "terrain": "sea"}.items() <= parse(text).items()
    assert text.endswith('The fox means to "Go to the sea at night".')
    assert "means to" not in GrammarDevelopment()(CONTENT, rng=Rng(1))["intent"]


def test_a_land_seen_before_is_known():
    text = GrammarDevelopment()(CONTENT, action="return to the hills", rng=Rng(1))["intent"]
    assert "knows a red tent there from before, on the left" in text
    text = GrammarDevelopment()(CONTENT, action="build a blue castle in the hills", rng=Rng(1))["intent"]
    assert "a blue castle" in text and "from before" not in text


def test_architect_reads_the_intent():
    recipe = GrammarArchitect(pictures=2)("At night, in the snow, the traveller comes to the sea and looks for a red ship, on the left.")[
        "recipe"
    ]
    assert recipe["scene"] == {
        "time": "night", "weather": "snow", "terrain": "sea", "landmark": "ship", "color": "red", "place": "left", "traveller": "yes",
    }  # fmt: skip
    assert len(recipe["prompts"]) == 2 and recipe["prompts"][0] == recipe["prompts"][1]
    assert parse(recipe["prompts"][0]) == recipe["scene"]


def test_architect_takes_what_is_left_open_from_the_world():
    recipe = GrammarArchitect()("a castle appears", CONTENT)["recipe"]
    assert recipe["scene"] == {"time": "dawn", "weather": "clear", "terrain": "hills", "landmark": "castle"}
    assert GrammarArchitect()("", {})["recipe"]["scene"] == {}


def test_author_tells_what_was_seen():
    tell = GrammarAuthor()
    intent = "At dawn, in the rain, the fox comes to the pine forest and looks for a white tower."
    outcome = tell("The sea and a red castle, at dawn, in the rain.", intent, CONTENT)["outcome"]
    assert outcome.startswith("At dawn, in the rain, the fox came to the sea and found a red castle.")
    assert "It was not the pine forest, though the plan had said so." in outcome
    assert "Where a white tower was hoped for, there was a red castle." in outcome
    several = tell(["The sea, at dawn.", "The desert, at night."], intent, CONTENT)["outcome"]
    assert "came to the sea" in several
    assert tell("nothing that it knows", "nothing either")["outcome"].startswith(
        "By day, under a clear sky, the traveller came to the green meadow"
    )


def test_world_update_is_a_new_content():
    before = copy.deepcopy(CONTENT)
    after = GrammarWorldUpdate()("The sea and a blue tower in the middle, at noon.", "It happened.", CONTENT)["content"]
    assert before == CONTENT
    assert after["scene"] == {"time": "day", "terrain": "sea", "landmark": "tower", "color": "blue", "place": "middle"}
    assert after["places"]["sea"] == {"landmark": "tower", "color": "blue", "place": "middle"}
    assert GrammarWorldUpdate()(["The sea."], "It happened.")["content"]["episodes"] == 1


def test_a_description_of_a_colour_alone_can_be_lived_with():
    content = GrammarWorldUpdate()("The sea, and a building with a red roof on the left.", "It happened.", CONTENT)["content"]
    text = GrammarDevelopment()(content, action="go to the sea", rng=Rng(1))["intent"]
    assert parse(text)["terrain"] == "sea"
    assert "from before" not in text, "no landmark was seen there"


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: GrammarArchitect(pictures=0), "GrammarArchitect.pictures: found 0, expected at least 1"),
        (lambda: GrammarWorldUpdate(memory=0), "GrammarWorldUpdate.memory: found 0"),
    ],
)
def test_numbers_that_make_no_sense(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_config_of_the_wrong_type():
    with pytest.raises(ConfigError, match="pictures"):
        BlockRegistry.build({"block_type": "grammar/architect", "config": {"pictures": "two"}})
