"""The describer of pixel scenes and its words."""

from __future__ import annotations

import pytest
import torch

from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.words import discrepancies, sentence
from wgtorch.blocks.simulation.scene_plan import BEASTS, Look, ScenePlan, Thing
from wgtorch.core.errors import PortError

FACTS = ScenePlan(
    "night",
    "snow",
    "forest",
    (
        Thing("landmark", "inn", "back_left", "blue", "unfinished"),
        Thing("hero", "person", "front_left", look=Look("orange", "wide", "yellow", "large"), name="Snow"),
        Thing("character", "wolf", "front_middle", look=Look("grey")),
        Thing("object", "key", "front_right", None, "whole"),
    ),
).to_data()


def test_sentence_says_the_facts_and_no_names():
    assert sentence(FACTS) == (
        "A forest at night, in the snow. There is an unfinished blue inn behind on the left, a large person with yellow hair, in an "
        "orange coat and a wide hat on the left, a grey wolf in the middle and a key on the right."
    )


def test_discrepancies_name_path_asked_and_seen_and_neither_names_nor_roles():
    seen = {**FACTS, "weather": "rain", "things": [dict(thing) for thing in FACTS["things"]]}
    seen["things"][0] = {**seen["things"][0], "colour": "red"}
    seen["things"][1] = {**seen["things"][1], "role": "character", "name": None, "look": {**FACTS["things"][1]["look"], "hat": "none"}}
    del seen["things"][3]
    assert discrepancies(FACTS, FACTS) == []
    assert discrepancies(FACTS, seen) == [
        {"path": "weather", "asked": "snow", "seen": "rain"},
        {"path": "things.back_left.colour", "asked": "blue", "seen": "red"},
        {"path": "things.front_left.hat", "asked": "wide", "seen": "none"},
        {"path": "things.front_right.kind", "asked": "key", "seen": None},
    ]


def test_describer_gives_facts_that_fit_together():
    torch.manual_seed(0)
    describer = PixelSceneDescriber(width=8, embedding_width=16).eval()
    out = describer(image=torch.rand(6, 3, 64, 64))
    assert [len(out[name]) for name in ("text", "attributes", "confidence")] == [6, 6, 6]
    for facts in out["attributes"]:
        for thing in facts["things"]:
            alive = thing["kind"] == "person" or thing["kind"] in BEASTS
            assert ("look" in thing) is alive
            assert not alive or thing["state"] == "whole"
    assert all(0 < value < 1 for value in out["confidence"])


def test_describer_sees_the_same_in_an_enlarged_picture():
    torch.manual_seed(0)
    describer, image = PixelSceneDescriber(width=8, embedding_width=16).eval(), torch.rand(1, 3, 64, 64)
    large = image.repeat_interleave(8, -1).repeat_interleave(8, -2)
    assert describer(image=image[0])["attributes"] == describer(image=large)["attributes"]


def test_describer_refuses_what_is_no_picture():
    with pytest.raises(PortError, match=r"expected \[B, 3, H, W\]"):
        PixelSceneDescriber(width=8).features(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match="multiple of 8"):
        PixelSceneDescriber(width=12)
