"""What a picture is to show, as data."""

from __future__ import annotations

import json

import pytest

from wgtorch.blocks.simulation.scene_plan import BACK, FRONT, LARGEST, Look, ScenePlan, Thing
from wgtorch.blocks.simulation.staging import prompt_of

LOOK = Look("red", "hood", "white", "small")
PLAN = ScenePlan(
    "dusk",
    "rain",
    "forest",
    (Thing("landmark", "tower", BACK[0], "red", "burnt", "Elderwood"), Thing("hero", "person", FRONT[2], name="Storm", look=LOOK)),
    place="Elderwood",
    unpainted=("honey",),
)


def test_a_plan_goes_through_json_and_back() -> None:
    data = json.loads(json.dumps(PLAN.to_data()))
    assert ScenePlan.from_data(data) == PLAN
    assert data["things"][1] == {
        "role": "hero", "kind": "person", "slot": "front_middle", "state": "whole", "name": "Storm",
        "look": {"coat": "red", "hat": "hood", "hair": "white", "build": "small"},
    }  # fmt: skip
    assert ScenePlan.from_data({**data, "palette": "evening", "motion": ["rain"]}) == PLAN  # as older worlds hold it


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ScenePlan("noon", "rain", "forest"), "ScenePlan.time: found 'noon', expected one of dawn"),
        (lambda: Thing("landmark", "tower", "front_left"), "Thing.slot: found 'front_left', expected one of back_left"),
        (lambda: Thing("object", "lamp", "front_left", look=LOOK), "things have none"),
        (lambda: ScenePlan("day", "rain", "sea", tuple(Thing("object", "lamp", FRONT[0]) for _ in range(2))), "slot 'front_far_left'"),
        (lambda: ScenePlan("day", "rain", "sea", (Thing("object", "lamp", FRONT[0]),) * (LARGEST + 1)), "expected at most 5"),
        (lambda: ScenePlan.from_data({"time": "day", "sky": "blue"}), "unknown key 'sky'"),
        (lambda: Look("pink"), "Look.coat: found 'pink'"),
    ],
    ids=["time", "slot", "look", "twice", "many", "key", "coat"],
)
def test_what_cannot_be_painted_so_is_refused(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_prompt_says_who_and_what_is_there_and_how_it_looks() -> None:
    things = (
        Thing("landmark", "stones", "back_left", "grey", "burnt", "Irontor"),
        Thing("hero", "person", "front_middle", name="Storm", look=LOOK),
        Thing("object", "axe", "front_left", "orange", "whole", "axe"),
    )
    said = prompt_of(ScenePlan("dusk", "clear", "hills", things))
    assert said.startswith("Hills, dusk, clear sky; far left burnt grey stones; in front Storm (")
    assert said.endswith("to the left an orange axe") and "no building" not in said
