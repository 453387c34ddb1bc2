"""Each evaluator finds the fault that it is for: the fault is planted, and its number moves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import wgtorch
from tests.world_blocks import assert_same, record_of, tiny_world
from wgtorch import Block, State, World
from wgtorch.cli.main import main
from wgtorch.core.errors import ConfigError, UnknownNameError
from wgtorch.core.tree import walk
from wgtorch.evaluation import Episode, EvaluatorRegistry, NotMeasured, Past, register_evaluator
from wgtorch.storage.base import History
from wgtorch.storage.memory import MemoryStorage

PAINTED = (
    ("clear", "Ash", "house", "red"),
    ("rain", "Elm", "tower", "blue"),
    ("snow", "Ash", "house", "red"),
    ("fog", "Oak", "ship", "white"),
)
SCENES = [
    {"weather": weather, "place": place, "things": [{"slot": "back_left", "kind": kind, "colour": colour}]}
    for weather, place, kind, colour in PAINTED
]
TEXTS = ["a red house stands in Ash", "the blue tower of Elm is wet", "snow covers Ash", "a white ship leaves Oak in the fog"]


def past_of(**changed: Any) -> Past:
    """Four episodes: in Ash, in Elm, in Ash again, in Oak; with lists of slots or contents in place of the right ones."""
    storage = MemoryStorage()
    slots: dict[str, list[Any]] = {
        "intent": [f"somebody wants that {text}" for text in TEXTS],
        "recipe": [{"prompts": [text], "scene": scene} for text, scene in zip(TEXTS, SCENES, strict=True)],
        "artifacts": [[torch.full((3, 16, 16), {"Ash": 0.9, "Elm": 0.5, "Oak": 0.1}[scene["place"]])] for scene in SCENES],
        "description": [{"text": [text], "attributes": [scene]} for text, scene in zip(TEXTS, SCENES, strict=True)],
        "outcome": [f"and so it came: {text}" for text in TEXTS],
        "content": [{"places": {"Ash": {"state": "whole"}, "Elm": {"state": "whole"}, "Oak": {}}, "events": []}] * 4,
    } | changed
    contents = slots.pop("content")
    for step in range(4):
        storage.store(step + 1, State(**{name: values[step] for name, values in slots.items()}), contents[step])
    return Past(History(storage), initial=contents[0])


def test_an_outcome_of_another_episode_is_noticed() -> None:
    right = wgtorch.evaluate(past_of(), ["intent_outcome"])["intent_outcome"]
    swapped = wgtorch.evaluate(past_of(outcome=[TEXTS[1], TEXTS[0], TEXTS[3], TEXTS[2]]), ["intent_outcome"])["intent_outcome"]
    assert right["agreement"] > right["by_chance"] + 0.3 and right["told"] == 1.0
    assert swapped["agreement"] < right["agreement"] - 0.3 and swapped["told"] == 0.0


def test_a_wrong_picture_is_noticed_by_what_is_wrong_in_it() -> None:
    right = wgtorch.evaluate(past_of(), ["recipe_picture"])["recipe_picture"]
    assert right == {"agreement": 1.0, "weather": 1.0, "place": 1.0, "things.slot": 1.0, "things.kind": 1.0, "things.colour": 1.0}
    blue = [{"text": [], "attributes": [{**scene, "things": [{**scene["things"][0], "colour": "blue"}]}]} for scene in SCENES]
    wrong = wgtorch.evaluate(past_of(description=blue), ["recipe_picture"])["recipe_picture"]
    assert wrong["things.colour"] == 0.25 and wrong["things.kind"] == 1.0
    gone = [{"text": [], "attributes": [{**scene, "things": []}]} for scene in SCENES]
    assert wgtorch.evaluate(past_of(description=gone), ["recipe_picture"])["recipe_picture"]["things.kind"] == 0.0


def test_a_judge_of_ones_own_reads_the_pictures() -> None:
    def judge(picture: Any) -> Mapping[str, Any]:
        return {"place": "Ash" if picture.mean() > 0.8 else "elsewhere"}

    found = wgtorch.evaluate(past_of(), ["recipe_picture"], options={"recipe_picture": {"judge": judge}})
    assert found["recipe_picture"] == {"agreement": 0.5, "place": 0.5}
    said = wgtorch.evaluate(past_of(), ["recipe_picture"], options={"recipe_picture": {"judge": lambda picture: "a red house"}})
    assert said["recipe_picture"]["things.colour"] == 0.5 and said["recipe_picture"]["weather"] == 0.0


def burnt(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Contents in which the house of Ash burns down while nobody is there."""
    before = {"places": {"Ash": {"state": "whole"}, "Elm": {"state": "whole"}, "Oak": {}}, "events": []}
    after = {"places": {"Ash": {"state": "burnt"}, "Elm": {"state": "whole"}, "Oak": {}}, "events": events}
    return [before, after, after, after]


def test_a_place_that_changed_without_an_event_is_noticed() -> None:
    assert wgtorch.evaluate(past_of(), ["revisit"])["revisit"]["facts"] == 1.0
    assert wgtorch.evaluate(past_of(content=burnt([])), ["revisit"])["revisit"]["facts"] == 0.0
    event = {"id": 1, "effects": [{"path": ["places", "Ash", "state"], "before": "whole", "after": "burnt"}]}
    assert wgtorch.evaluate(past_of(content=burnt([event])), ["revisit"])["revisit"]["facts"] == 1.0


def test_a_place_that_looks_otherwise_is_noticed() -> None:
    found = wgtorch.evaluate(past_of(), ["revisit"])["revisit"]
    assert found["visits"] == 1 and found["same_place"] == 0.0 and found["other_place"] == pytest.approx(0.6)
    pictures = [[torch.full((3, 16, 16), value)] for value in (0.9, 0.5, 0.1, 0.1)]
    assert wgtorch.evaluate(past_of(artifacts=pictures), ["revisit"])["revisit"]["same_place"] == pytest.approx(0.8)


def test_without_a_return_nothing_is_measured_and_the_table_says_why() -> None:
    alone = [{"prompts": [], "scene": {"place": name}} for name in "ABCD"]
    found = wgtorch.evaluate(past_of(recipe=alone), ["revisit"])
    assert found["revisit"] == {} and "nobody came back" in str(found)
    assert "not_measured" in found.to_data()["measures"]["revisit"]


@pytest.fixture
def lived() -> World:
    world = tiny_world()
    world.run(num_steps=3, seed=5)
    return world


def test_a_description_that_is_not_of_the_picture_is_noticed(lived: World) -> None:
    right = wgtorch.evaluate(lived, ["artifacts_description"])["artifacts_description"]
    assert right["identical"] == 1.0 and right["agreement"] == pytest.approx(1.0)
    past = Past.of(lived)
    past.episodes[:] = [
        Episode(each.step, each.state.replace(description="a sea of glass"), each.before, each.after) for each in past.episodes
    ]
    wrong = wgtorch.evaluate(past, ["artifacts_description"])["artifacts_description"]
    assert wrong["identical"] == 0.0 and wrong["agreement"] < 0.5


def test_an_action_that_does_nothing_is_noticed() -> None:
    world = tiny_world()
    world.run(num_steps=4, action=[None, "sing", None, None], seed=5)
    found = wgtorch.evaluate(world, ["action_effect"])["action_effect"]
    assert found["actions"] == 1 and found["intents"] == 1.0 and found["facts"] > 0
    before = record_of(world)
    deaf = tiny_world()
    block_of(deaf, "world_test/develop").register_forward_hook(lambda module, args, text: text.split(", action")[0])
    deaf.run(num_steps=4, action=[None, "sing", None, None], seed=5)
    assert wgtorch.evaluate(deaf, ["action_effect"])["action_effect"] == {"actions": 1, "intents": 0.0, "facts": 0.0}
    assert_same(record_of(world), before)
    first = tiny_world()
    first.run(num_steps=2, action=["sing", None], seed=5)
    assert wgtorch.evaluate(first, ["action_effect"])["action_effect"]["intents"] == 1.0
    with pytest.raises(NotMeasured, match="action="):
        EvaluatorRegistry.get("action_effect")(Past.of(_lived()))


def test_a_stage_that_is_not_repeatable_is_noticed() -> None:
    assert wgtorch.evaluate(_lived(), ["determinism"])["determinism"] == {"passes": 2, "same": 1.0}
    count = iter(range(100))
    world = tiny_world()
    block_of(world, "world_test/tell").register_forward_hook(lambda module, args, text: f"{next(count)}: {text}")
    world.run(num_steps=3, seed=5)
    assert wgtorch.evaluate(world, ["determinism"])["determinism"]["same"] == 0.0


def block_of(world: World, block_type: str) -> Block:
    return next(child for _, child, _ in walk(world) if child.block_type == block_type)


def _lived() -> World:
    world = tiny_world()
    world.run(num_steps=3, seed=5)
    return world


def test_time_is_counted_by_stage(lived: World) -> None:
    found = wgtorch.evaluate(lived, ["cost"])["cost"]
    stages = [value for name, value in found.items() if name.startswith("seconds.")]
    assert len(stages) == len(lived.nodes) and found["seconds"] == pytest.approx(sum(stages))
    lived._storage.keep_trace({**lived.history.traces[0], "seconds": 100.0})
    assert wgtorch.evaluate(lived, ["cost"])["cost"]["seconds"] > 10


def test_all_that_are_registered_are_asked_and_each_says_what_it_means(lived: World) -> None:
    found = wgtorch.evaluate(lived, ["cost", "intent_outcome", "recipe_picture"])
    assert list(found) == ["cost", "intent_outcome", "recipe_picture"] and len(found) == 3
    data = json.loads(found.to_json())
    assert data["episodes"] == len(lived.history) and data["measures"]["cost"]["meaning"].startswith("Time, bytes, tokens")
    assert str(found).splitlines()[0] == f"{lived.world_id}: {len(lived.history)} episodes" and "<table>" in found._repr_html_()
    known = {"intent_outcome", "artifacts_description", "recipe_picture", "revisit", "action_effect", "determinism", "cost"}
    assert known <= set(EvaluatorRegistry.names())


@pytest.fixture
def counted() -> Iterator[None]:
    @register_evaluator("test_words")
    def words(past: Past, *, slot: str = "outcome") -> dict[str, float]:
        """Different words per episode."""
        texts = [str(episode.state[slot]).lower().split() for episode in past.episodes]
        return {"different": len({word for text in texts for word in text}) / len(texts)}

    yield
    del EvaluatorRegistry._entries["test_words"]


@pytest.mark.usefixtures("counted")
def test_ten_lines_add_one() -> None:
    assert wgtorch.evaluate(past_of(), ["test_words"])["test_words"]["different"] > 2
    only = wgtorch.evaluate(past_of(outcome=["so"] * 4), "test_words", options={"test_words": {"slot": "outcome"}})
    assert only["test_words"] == {"different": 0.25}


def test_mistakes_are_told(lived: World, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="revisit"):
        wgtorch.evaluate(lived, ["revist"])
    with pytest.raises(ConfigError, match="no option 'juge'.*judge"):
        wgtorch.evaluate(lived, ["recipe_picture"], options={"recipe_picture": {"juge": 1}})
    with pytest.raises(ConfigError, match="'cost', which is not asked"):
        wgtorch.evaluate(lived, ["revisit"], options={"cost": {}})
    with pytest.raises(TypeError, match="expected a World"):
        wgtorch.evaluate(3)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="was asked"):
        wgtorch.evaluate(lived, ["cost"])["revisit"]
    with pytest.raises(NotMeasured, match="no episode yet"):
        Past.of(tiny_world()).episodes  # noqa: B018
    assert main(["evaluate", str(tmp_path)]) == 2


def test_a_folder_is_measured_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = tiny_world()
    world.set_storage({"state_dir": str(tmp_path / "states")})
    world.run(num_steps=3, seed=5)
    assert main(["evaluate", str(tmp_path / "states"), "--only", "cost", "--only", "artifacts_description"]) == 0
    out = capsys.readouterr().out
    assert "seconds" in out and "only the storage is there" in out
    world.save(tmp_path / "saved")
    assert main(["evaluate", str(tmp_path / "saved"), "--only", "artifacts_description", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measures"]["artifacts_description"]["values"]["identical"] == 1.0
