"""Drawings: the same for the same arguments, and every attribute shows."""

import dataclasses
import random

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("PIL")

from wgtorch.blocks.scenes.drawing import draw  # noqa: E402
from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene  # noqa: E402

SCENE = Scene("day", "clear", "sea", "house", "red", "left", "no")


def test_a_drawing_is_a_picture():
    for size in (32, 64):
        picture = draw(SCENE, seed=0, size=size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8


def test_same_arguments_same_picture():
    rng = random.Random(0)
    for seed in range(20):
        scene = Scene.sample(rng)
        assert np.array_equal(draw(scene, seed), draw(scene, seed))


def test_the_seed_moves_something():
    scene = dataclasses.replace(SCENE, weather="cloudy")
    assert not np.array_equal(draw(scene, 0), draw(scene, 1))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_looks_different(name):
    """Two values differ by more than the same value drawn twice, in the mean over seeds and pixels that change most."""
    means = {
        value: np.mean([draw(dataclasses.replace(SCENE, **_with(name, value)), seed).astype(float) for seed in range(8)], axis=0)
        for value in ATTRIBUTES[name]
    }
    values = list(means)
    for k, first in enumerate(values):
        for second in values[k + 1 :]:
            difference = np.abs(means[first] - means[second]).mean(axis=-1)
            assert np.quantile(difference, 0.99) > 25, (first, second)


def _with(name, value):
    return {name: value} | ({"color": None, "place": None} if value == "none" else {})


def test_every_combination_draws():
    rng = random.Random(1)
    for terrain in ATTRIBUTES["terrain"]:
        for weather in ATTRIBUTES["weather"]:
            for time in ATTRIBUTES["time"]:
                named = {"terrain": terrain, "weather": weather, "time": time}
                assert draw(Scene.complete(named, rng), 0, size=16).shape == (16, 16, 3)


def test_the_landmark_stands_at_its_place():
    bare = dataclasses.replace(SCENE, landmark="none", color=None, place=None, weather="fog", terrain="meadow")
    for place, columns in (("left", slice(0, 24)), ("middle", slice(20, 44)), ("right", slice(40, 64))):
        for landmark in ("house", "castle", "windmill", "tower", "tent"):
            scene = dataclasses.replace(bare, landmark=landmark, color="red", place=place)
            changed = np.abs(_mean(scene) - _mean(bare)).sum(axis=(0, 2))
            assert changed[columns].sum() > 0.6 * changed.sum(), (landmark, place)


def _mean(scene):
    return np.mean([draw(scene, seed).astype(float) for seed in range(6)], axis=0)
