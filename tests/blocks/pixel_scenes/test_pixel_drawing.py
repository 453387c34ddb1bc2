"""Drawings of pixel scenes: every word of a plan shows, the same plan and seed give the same picture."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from wgtorch.blocks.pixel_scenes.drawing.figures import beast, person
from wgtorch.blocks.pixel_scenes.drawing.landmarks import landmark
from wgtorch.blocks.pixel_scenes.drawing.materials import MATERIALS, Hand
from wgtorch.blocks.pixel_scenes.drawing.objects import thing
from wgtorch.blocks.pixel_scenes.drawing.picture import draw
from wgtorch.blocks.pixel_scenes.drawing.states import in_state, object_in_state
from wgtorch.blocks.pixel_scenes.layout import any_plan, is_held_out
from wgtorch.blocks.pixel_scenes.palette import PALETTE
from wgtorch.blocks.simulation.scene_plan import (
    BEASTS,
    BUILDS,
    COLOURS,
    HATS,
    LANDMARKS,
    OBJECTS,
    STATES,
    TERRAINS,
    TIMES,
    WEATHERS,
    Look,
    ScenePlan,
    Thing,
)

PLAN = ScenePlan("day", "clear", "meadow", (Thing("landmark", "house", "back_left", "red"), Thing("object", "key", "front_left", "blue")))
KNOWN = {*MATERIALS, *"pqPh", "."}


def test_the_same_plan_and_seed_give_the_same_picture_in_the_palette():
    first = draw(PLAN, 3)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, draw(PLAN, 3))
    assert not np.array_equal(first, draw(PLAN, 4))
    assert {tuple(color) for color in first.reshape(-1, 3).tolist()} <= set(PALETTE)


@pytest.mark.parametrize(("field", "values"), [("time", TIMES), ("weather", WEATHERS), ("terrain", TERRAINS)])
def test_every_setting_looks_otherwise(field, values):
    seen = {draw(replace(PLAN, **{field: value}), 1).tobytes() for value in values}
    assert len(seen) == len(values)


@pytest.mark.parametrize(
    ("kinds", "shape"), [(LANDMARKS, landmark), (OBJECTS, thing), (BEASTS, beast)], ids=["landmarks", "objects", "beasts"]
)
def test_every_kind_has_a_shape_of_known_materials_with_paint_on_it(kinds, shape):
    found = {kind: shape(kind) for kind in kinds}
    assert len({canvas.tobytes() for canvas in found.values()}) == len(kinds)
    for kind, canvas in found.items():
        assert set(np.unique(canvas)) <= KNOWN, kind
        assert np.isin(canvas, list("pqP")).sum() >= 4, kind
        assert (canvas[-1] != ".").any(), kind  # it stands on the ground


@pytest.mark.parametrize("kind", LANDMARKS)
def test_every_state_of_a_landmark_shows_and_leaves_paint(kind):
    found = {state: in_state(landmark(kind), state) for state in STATES}
    assert len({canvas.tobytes() for canvas in found.values()}) == len(STATES)
    for state, canvas in found.items():
        assert np.isin(canvas, list("pqP")).sum() >= 3, state


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_state_of_an_object_shows_and_leaves_enough_paint_to_see_its_colour(kind):
    whole = thing(kind)
    found = {state: object_in_state(whole, state) for state in STATES}
    assert len({canvas.tobytes() for canvas in found.values()}) == len(STATES)
    np.testing.assert_array_equal(found["whole"], whole)
    for state, canvas in found.items():
        assert set(np.unique(canvas)) <= KNOWN, state
        assert np.isin(canvas, list("pqP")).sum() >= 6, state


@pytest.mark.parametrize("state", ["unfinished", "locked", "burning", "ruined", "flooded"])
def test_the_mark_of_a_state_is_at_the_same_place_on_every_object(state):
    every = np.stack([object_in_state(thing(kind), state) for kind in OBJECTS])
    whole = np.stack([thing(kind) for kind in OBJECTS])
    same = (every == every[0]).all(axis=0) & ~(whole == whole[0]).all(axis=0)
    assert same.sum() >= 4


def test_sun_and_moon_stand_where_the_plan_says_and_go_from_one_side_to_the_other():
    for terrain in ("meadow", "hills"):
        at = {}
        for time in TIMES:
            brightness = [draw(ScenePlan(time, "clear", terrain), seed)[:26].astype(int).sum(-1) for seed in range(3)]
            columns = [np.argwhere(sky == sky.max())[:, 1].mean() for sky in brightness]
            assert max(columns) - min(columns) < 3  # a ridge may hide a part of it
            at[time] = columns[0]
        assert (at["dawn"] - 31.5) * (at["dusk"] - 31.5) < 0


def test_a_wide_hat_and_a_hood_leave_hair_to_see():
    for build in BUILDS:
        for hat in HATS:
            assert (person(hat, build) == "h").sum() >= 6, (hat, build)


def test_looks_differ_in_build_and_hat():
    assert len({person(hat, build).tobytes() for hat in HATS for build in BUILDS}) == len(HATS) * len(BUILDS)


def test_the_same_look_gives_the_same_pixels_wherever_it_stands():
    look = Look("purple", "crown", "red", "large")
    pictures = [
        draw(ScenePlan("day", "clear", "meadow", (Thing("hero", "person", slot, look=look),)), 5) for slot in ("front_left", "front_right")
    ]
    left, right = pictures[0][44:59, 12:24], pictures[1][44:59, 40:52]
    outline = person("crown", "large")[:15] != "."
    np.testing.assert_array_equal(left[outline], right[outline])


def test_other_hands_draw_the_same_plan_otherwise():
    rng = random.Random(0)
    for hand in (Hand.other, Hand.judge):
        assert len({draw(PLAN, 1, hand(rng)).tobytes() for _ in range(6)}) == 6


def test_plans_by_chance_hold_what_is_asked_for():
    rng = random.Random(1)
    for things in range(6):
        assert len(any_plan(rng, things=things).things) == things
    assert not any(thing.role == "character" for _ in range(20) for thing in any_plan(rng, things=5, objects=1.0).things)
    assert is_held_out(any_plan(rng, held_out=True))
    assert not any(is_held_out(any_plan(rng, held_out=False)) for _ in range(50))


def test_about_a_tenth_of_the_combinations_of_each_kind_is_held_out():
    pairs = [(kind, colour) for kind in LANDMARKS for colour in COLOURS]
    out = sum(is_held_out(ScenePlan("day", "clear", "sea", (Thing("landmark", kind, "back_left", colour),))) for kind, colour in pairs)
    assert 0.05 < out / len(pairs) < 0.15
