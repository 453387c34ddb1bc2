"""The painter of pixel scenes: rows of plans, predictions cell by cell, pixel art out of the sampler."""

from __future__ import annotations

import random

import pytest
import torch

from wgtorch.blocks.pixel_scenes.backbone import PixelSceneBackbone
from wgtorch.blocks.pixel_scenes.codec import PixelArtCodec, PixelArtEncoder
from wgtorch.blocks.pixel_scenes.conditioner import ScenePlanEncoder, decode_rows, encode_plan, plan_of_words
from wgtorch.blocks.pixel_scenes.layout import any_plan
from wgtorch.blocks.pixel_scenes.palette import PALETTE, snap
from wgtorch.blocks.pixel_scenes.words import discrepancies
from wgtorch.blocks.simulation.scene_plan import Look, ScenePlan, Thing
from wgtorch.core.errors import PortError
from wgtorch.graph import Graph

TINY = {"width": 16, "depth": 1, "heads": 2, "conv_width": 8, "code_width": 8, "condition_width": 8}
PLAN = ScenePlan(
    "dusk",
    "rain",
    "hills",
    (
        Thing("landmark", "tower", "back_right", "red", "burnt"),
        Thing("hero", "person", "front_left", look=Look("blue", "cap", "white", "small")),
    ),
)


def tiny() -> PixelSceneBackbone:
    torch.manual_seed(0)
    backbone = PixelSceneBackbone(**TINY)
    torch.nn.init.normal_(backbone.leave.weight, std=0.1)
    return backbone.eval()


@pytest.mark.parametrize("seed", range(8))
def test_rows_say_all_that_a_picture_can_show(seed):
    plan = any_plan(random.Random(seed))
    assert discrepancies(plan.to_data(), decode_rows(encode_plan(plan).int().tolist())) == []


def test_encoder_takes_plans_their_data_lists_and_rows():
    encode = ScenePlanEncoder()
    one = encode(scene=PLAN)["embedding"]
    assert one.shape == (1, 9, 6)
    for given in (PLAN.to_data(), [PLAN], one):
        torch.testing.assert_close(encode(scene=given)["embedding"], one)


def test_encoder_names_what_cannot_be_painted():
    encode = ScenePlanEncoder()
    with pytest.raises(PortError, match=r"scene\[1\]: ScenePlan.terrain: found 'moon', expected one of sea"):
        encode(scene=[PLAN, {"time": "day", "weather": "clear", "terrain": "moon"}])
    with pytest.raises(PortError, match="empty list"):
        encode(scene=[])
    with pytest.raises(PortError, match=r"rows of shape \[1, 2, 6\]"):
        encode(scene=torch.zeros(1, 2, 6))


def test_a_thing_changes_the_prediction_where_it_stands_most():
    backbone, noise = tiny(), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    empty = ScenePlan("dusk", "rain", "hills")
    one = ScenePlan("dusk", "rain", "hills", PLAN.things[:1])
    preds = [backbone(latent=noise, timestep=torch.tensor(1.0), condition=encode_plan(plan)[None])["pred"] for plan in (empty, one)]
    change = (preds[1] - preds[0]).abs().mean(dim=1)[0]
    assert change[20:48, 36:60].mean() > 3 * change[52:, :20].mean()


def test_one_condition_serves_a_whole_batch():
    backbone, noise = tiny(), torch.randn(2, 3, 64, 64)
    rows = encode_plan(PLAN)[None]
    alone = backbone(latent=noise, timestep=torch.tensor(0.5), condition=rows)["pred"]
    both = backbone(latent=noise, timestep=torch.tensor([0.5, 0.5]), condition=rows.expand(2, -1, -1))["pred"]
    torch.testing.assert_close(alone, both)


@pytest.mark.parametrize(("option", "value", "words"), [("heads", 3, "not divisible"), ("conv_width", 12, "multiple of 8")])
def test_backbone_refuses_widths_that_do_not_fit(option, value, words):
    with pytest.raises(ValueError, match=words):
        PixelSceneBackbone(**{**TINY, option: value})


def test_snap_gives_the_nearest_colours_of_the_palette_and_keeps_its_own():
    own = torch.tensor(PALETTE[:64]).float().T.reshape(3, 8, 8) / 255
    torch.testing.assert_close(snap(own), own)
    found = snap(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 - 1)
    assert {tuple(color) for color in (found * 255).round().int().permute(0, 2, 3, 1).reshape(-1, 3).tolist()} <= set(PALETTE)


def test_codec_grows_pixels_by_a_whole_number():
    out = PixelArtCodec(scale=3)(latent=torch.rand(1, 3, 4, 4) * 2 - 1)
    assert out["image"].shape == (1, 3, 12, 12)
    torch.testing.assert_close(out["image"][..., ::3, ::3], out["small"])
    torch.testing.assert_close(out["image"][..., 1::3, 2::3], out["small"])
    with pytest.raises(ValueError, match=r"PixelArtCodec.scale: found 0"):
        PixelArtCodec(scale=0)


def test_encoder_takes_pixel_art_back_to_what_it_grew_from():
    latent = snap(torch.rand(2, 3, 64, 64)) * 2 - 1
    grown = PixelArtCodec(scale=4)(latent=latent)["image"]
    torch.testing.assert_close(PixelArtEncoder()(image=grown)["latent"], latent)


def test_words_are_planned_where_there_is_no_plan():
    plan = plan_of_words("A red castle on the left of the sea at night, in a storm, with a traveller", random.Random(0))
    assert (plan.time, plan.weather, plan.terrain) == ("night", "storm", "sea")
    assert [(thing.kind, thing.slot, thing.colour) for thing in plan.things] == [
        ("castle", "back_left", "red"),
        ("person", "front_middle", None),
    ]
    encode = ScenePlanEncoder()
    assert encode(prompt=["a tent", "a ship"])["embedding"].shape == (2, 9, 6)
    torch.testing.assert_close(encode(scene=PLAN, prompt="a tent")["embedding"], encode_plan(PLAN)[None])
    with pytest.raises(PortError, match="neither scene nor prompt"):
        encode()


def test_graph_paints_plans_with_a_seed():
    torch.manual_seed(0)
    graph = Graph.from_template("scene_to_image", painter=None, steps=2, scale=2)
    first = graph.run({"scene": [PLAN, PLAN.to_data()]}, seed=3)
    assert first["image"].shape == (2, 3, 128, 128)
    torch.testing.assert_close(first["image"], graph.run({"scene": [PLAN, PLAN]}, seed=3)["image"])
