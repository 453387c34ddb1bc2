"""Training of the pixel scenes' models: data, objectives, measures."""

from __future__ import annotations

import pytest
import torch

from scripts.pixel_measures import agreement, paint, plans_for, same_character
from scripts.scene_measures import table
from wgtorch.blocks.pixel_scenes.conditioner import decode_rows, encode_plan
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.layout import is_held_out
from wgtorch.blocks.simulation.scene_plan import ScenePlan, Thing
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.train.objective import Step
from wgtorch.train.pixel_scenes.data import DrawnPixelScenes, PixelScenes, pictures_of, store, weights_of
from wgtorch.train.registries import DataRegistry, ObjectiveRegistry, build


def step(*, training: bool = True) -> Step:
    return Step(0, torch.Generator().manual_seed(0), training)


def batch_of(size: int, **config):
    train, held_out = build(
        DataRegistry, {"type": "pixel_scenes", "count": size, "batch_size": size, "validation": size, **config}, "data"
    ).loaders(seed=0)
    return next(iter(train)), next(iter(held_out))


def test_batches_hold_pictures_latents_and_rows():
    train, held_out = batch_of(4)
    assert train["image"].shape == (4, 3, 64, 64)
    torch.testing.assert_close(train["latent"], train["image"] * 2 - 1)
    assert train["scene"].shape == (4, 9, 6)
    assert not torch.equal(train["image"], held_out["image"])


def test_stored_scenes_are_the_drawn_ones(tmp_path):
    drawn = DrawnPixelScenes(3, seed="s", held_out=False)
    stored = store(drawn, tmp_path)
    for k in range(3):
        assert torch.equal(stored[k]["colors"], drawn[k]["colors"])
        assert torch.equal(stored[k]["rows"], drawn[k]["rows"])
    assert store(drawn, tmp_path).folder == stored.folder


def test_pictures_hold_the_numbers_of_things_that_are_asked_for(tmp_path):
    drawn = DrawnPixelScenes(12, things=[1, 1, 4])
    assert {len(drawn.plan(k).things) for k in range(12)} == {1, 4}
    assert store(drawn, tmp_path).folder != store(DrawnPixelScenes(12), tmp_path).folder


def test_painters_never_train_on_what_is_held_out():
    drawn = DrawnPixelScenes(40, held_out=False)
    assert not any(is_held_out(drawn.plan(k)) for k in range(40))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hand": "third"}, "one of first, others, judge"),
        ({"count": 0}, "less than the minimum of 1"),
        ({"weight": 0.5}, "at least 1"),
        ({"objects": 2}, "a share"),
        ({"things": [1, 6]}, "numbers from 0 to 5"),
        ({"things": []}, "numbers from 0 to 5"),
    ],
)
def test_data_refuses(config, words):
    with pytest.raises(ConfigError, match=words):
        build(DataRegistry, {"type": "pixel_scenes", **config}, "data")


def test_denoising_trains_the_painter_from_rows():
    torch.manual_seed(0)
    graph = Graph.from_template("scene_to_image", painter=None, scale=1)
    objective = build(ObjectiveRegistry, {"type": "denoising", "loss_on": "flow"}, "objective")
    objective.check(graph)
    batch, _ = batch_of(2)
    objective(graph, batch, step())["loss"].backward()
    weight = graph.find("backbone").leave.weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_describing_learns_a_few_drawings():
    torch.manual_seed(0)
    describer = PixelSceneDescriber(width=8, embedding_width=32)
    objective = build(ObjectiveRegistry, {"type": "pixel_scene_describing"}, "objective")
    objective.check(describer)
    batch, _ = batch_of(4, hand="others")
    optimizer = torch.optim.Adam(describer.parameters(), lr=4e-3)
    for _ in range(60):
        values = objective(describer, batch, step(training=False))
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
    assert values["whole"] == 1
    shown = [ScenePlan.from_data(decode_rows(row)) for row in batch["scene"].tolist()]
    found = agreement(describer.eval(), batch["image"], shown)
    assert set(found.values()) == {1.0}
    assert "read" in objective.samples(describer, batch, step(training=False))


def test_describing_refuses_other_targets():
    objective = build(ObjectiveRegistry, {"type": "pixel_scene_describing"}, "objective")
    with pytest.raises(ConfigError, match="expected a block of type 'vlm/pixel_scene'"):
        objective.check(torch.nn.Linear(1, 1))


def test_what_a_describer_reads_goes_back_into_the_painter_alone():
    graph = Graph.from_template("scene_to_image")
    objective = build(ObjectiveRegistry, {"type": "plan_reading", "loss_on": "flow"}, "objective")
    objective.check(graph)
    plain = build(ObjectiveRegistry, {"type": "denoising", "loss_on": "flow"}, "objective")
    batch, _ = batch_of(2)
    backbone, calls = graph.nodes["backbone"].requires_grad_(True), []
    backbone.register_forward_hook(lambda module, args, output: calls.append(torch.is_grad_enabled()))
    steps = set()
    for seed in range(3):
        calls.clear()
        values = objective(graph, batch, Step(0, torch.Generator().manual_seed(seed), True))
        error = plain(graph, batch, Step(0, torch.Generator().manual_seed(seed), True))["loss"]
        torch.testing.assert_close(values["loss"], error + 0.02 * values["unread"])
        steps.add(calls.count(False))  # of sampling
        assert calls.count(True) == 3  # noised drawings, here and for the plain error, and what is read
    assert len(steps) > 1 and max(steps) < graph.nodes["solver"].num_steps
    (values["loss"] - error).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in backbone.parameters())
    assert sum(parameter.grad.abs().sum() for parameter in backbone.parameters()) > 0
    assert not objective.state_dict() and not list(objective.parameters())


def test_a_painter_is_read_better_after_steps_of_reading():
    graph, objective = Graph.from_template("scene_to_image", steps=2), build(ObjectiveRegistry, {"type": "plan_reading"}, "objective")
    backbone = graph.nodes["backbone"].requires_grad_(True)
    with torch.no_grad():
        for parameter in backbone.parameters():  # a painter that has forgotten some of it
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch, _ = batch_of(4, things=[1])
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-3)
    read = []
    for _ in range(12):
        values = objective(graph, batch, step())
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        read.append(float(values["unread"]))
    assert read[-1] < 0.7 * read[0]


def test_reading_refuses_other_graphs_and_no_weight():
    for weight in (0, float("inf")):
        with pytest.raises(ConfigError, match="expected a finite number above 0; objective=plan_painting reads nothing"):
            build(ObjectiveRegistry, {"type": "plan_reading", "read_weight": weight}, "objective")
    with pytest.raises(ConfigError, match="objective.read_wieght: unknown key. Did you mean 'read_weight'"):
        build(ObjectiveRegistry, {"type": "plan_reading", "read_wieght": 1.0}, "objective")
    objective = build(ObjectiveRegistry, {"type": "plan_reading"}, "objective")
    with pytest.raises(ConfigError, match="text_to_image is no graph scene_to_image; expected an input 'scene', nodes 'noise'"):
        objective.check(Graph.from_template("text_to_image"))


def test_measures_of_random_models_are_shares():
    torch.manual_seed(0)
    graph, describer = Graph.from_template("scene_to_image", painter=None, steps=1, scale=1), PixelSceneDescriber(width=8).eval()
    plans = plans_for(3, things=4)
    found = agreement(describer, paint(graph, plans), plans)
    assert all(0 <= value <= 1 for value in found.values())
    assert 0 <= same_character(graph, describer, pairs=2) <= 1
    assert "terrain" in table({"painted": found})
    assert all(is_held_out(plan) for plan in plans_for(3, held_out=True))


def test_of_one_thing_each_sort_is_measured_as_often_as_the_others():
    alone = [plan.things[0] for plan in plans_for(8, things=1, held_out=False)]
    assert [thing.role == "landmark" for thing in alone] == [True, False, False, False] * 2
    assert [thing.role == "object" for thing in alone] == [False, True, False, False] * 2
    assert [thing.kind == "person" for thing in alone] == [False, False, True, False] * 2
    assert [plan.things[0].role for plan in plans_for(6, things=1, held_out=True)][1::3] == ["object"] * 2


def test_pictures_of_samples_have_the_palettes_colours():
    image, rows = pictures_of([DrawnPixelScenes(1)[0]])
    assert image.shape == (1, 3, 64, 64)
    assert rows.dtype == torch.int64


def test_pixels_where_something_stands_count_for_more():
    plan = ScenePlan("day", "clear", "sea", (Thing("landmark", "tower", "back_left", "red"), Thing("object", "key", "front_right", "blue")))
    weights = weights_of(encode_plan(plan), 4.0)
    assert weights.shape == (1, 64, 64)
    assert weights[0, 44:60, 40:52].eq(4).all()
    assert weights[0, 20:44, 4:24].eq(2).all()
    assert weights.eq(1).sum() == 64 * 64 - 16 * 12 - 28 * 24
    data = PixelScenes(count=2, validation=1, batch_size=2, weight=4.0)
    assert data.collate([data.train()[0], data.train()[1]])["mask"].shape == (2, 1, 64, 64)
    assert "mask" not in data.collate([DrawnPixelScenes(1)[0]])
