"""A whole picture by the rules: what the painter and its judge are trained on. Nothing here is used when a world paints."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch

from wgtorch.blocks.pixel_scenes.drawing.figures import beast, person
from wgtorch.blocks.pixel_scenes.drawing.landmarks import landmark
from wgtorch.blocks.pixel_scenes.drawing.lands import FEET, FRONT, HORIZON, SIZE, land
from wgtorch.blocks.pixel_scenes.drawing.materials import FIRST, HAIR, PAINT, Hand, Rgb, colored, paints_of
from wgtorch.blocks.pixel_scenes.drawing.objects import NATURAL, thing
from wgtorch.blocks.pixel_scenes.drawing.states import in_state, object_in_state
from wgtorch.blocks.pixel_scenes.layout import COLUMNS
from wgtorch.blocks.pixel_scenes.palette import PALETTE, nearest
from wgtorch.blocks.simulation.scene_plan import TERRAINS, ScenePlan, Thing

_SKY: Mapping[str, tuple[Rgb, Rgb]] = {
    "dawn": ((112, 124, 212), (255, 200, 184)),
    "day": ((58, 132, 236), (190, 226, 255)),
    "dusk": ((74, 36, 112), (255, 136, 56)),
    "night": ((8, 10, 38), (36, 48, 112)),
}
_LIGHT: Mapping[str, tuple[float, float, float]] = {
    "dawn": (0.98, 0.86, 0.92),
    "day": (1.0, 1.0, 1.0),
    "dusk": (0.86, 0.62, 0.56),
    "night": (0.34, 0.40, 0.66),
}
_HAZE: Mapping[str, tuple[Rgb, float]] = {  # what the sky is mixed with, in the light of the hour, and how much of it
    "clear": ((255, 255, 255), 0.0),
    "cloudy": ((176, 182, 194), 0.25),
    "rain": ((112, 124, 146), 0.66),
    "snow": ((208, 214, 228), 0.55),
    "fog": ((200, 204, 210), 0.80),
    "storm": ((50, 54, 78), 0.84),
}
_THICK: Mapping[str, tuple[float, float]] = {  # the haze before things in front, and what distance adds
    "clear": (0.0, 0.16), "cloudy": (0.0, 0.18), "rain": (0.05, 0.30), "snow": (0.02, 0.22), "fog": (0.12, 0.58), "storm": (0.0, 0.25),
}  # fmt: skip
_DIM: Mapping[str, float] = {"clear": 1.0, "cloudy": 0.95, "rain": 0.82, "snow": 0.97, "fog": 0.94, "storm": 0.76}
_LIFT = 0.5  # how much less the hour darkens things than the land: they stay legible at night
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16


def draw(plan: ScenePlan, seed: int, hand: Hand = FIRST) -> np.ndarray:
    """The picture of a plan, uint8 [64, 64, 3]; the same for the same plan, seed and hand.

    The seed moves what the plan leaves open: clouds, ridges, trees.
    """
    rng = random.Random(f"{seed}/pixel")
    noise = np.random.default_rng(rng.randrange(2**31))
    light = np.array(_LIGHT[plan.time]) * _DIM[plan.weather]
    gray, share = _HAZE[plan.weather]
    haze = np.array(gray) * (0.25 + 0.75 * np.array(_LIGHT[plan.time]))
    top, bottom = (_mix(np.array(color, dtype=float), haze, share) for color in _SKY[plan.time])

    canvas = _sky(plan, top, bottom, rng, noise)
    ground = land(plan.terrain, noise, grain=hand.grain, snowy=plan.weather == "snow")
    thick, far = _THICK[plan.weather]
    veil = (thick + far * ground.far)[..., None]
    canvas = np.where(ground.full[..., None], _mix(ground.rgb * light, bottom, veil), canvas)

    bright = light + _LIFT * (1 - light)
    for item in sorted(plan.things, key=lambda item: item.role != "landmark"):
        rgb, mask, glow = _item(item, rng, hand)
        height, width = mask.shape
        x = COLUMNS[item.slot] * 4 + rng.randint(-hand.shift, hand.shift)
        y = (FEET if item.role == "landmark" else FRONT) - height + rng.randint(-hand.shift, hand.shift)
        if item.role == "landmark":
            _footing(canvas, plan, item, x, light, bottom, thick)
        lit = _mix(np.where(glow[..., None], rgb, rgb * bright), bottom, thick + (0.08 if item.role == "landmark" else 0.0))
        x0, x1 = max(0, x), min(SIZE, x + width)
        part = slice(x0 - x, x1 - x)
        here = canvas[y : y + height, x0:x1]
        canvas[y : y + height, x0:x1] = np.where(mask[:, part, None], lit[:, part], here)
        if item.role != "landmark" and item.state != "flooded":
            row = canvas[y + height - 1 : y + height + 1, x0:x1]
            row[1:] = row[1:] * 0.72  # its shadow
    _falling(canvas, plan, noise)
    if hand.tint:
        canvas = canvas * np.array([1 + rng.uniform(-hand.tint, hand.tint) for _ in range(3)])
    return _in_palette(canvas)


def _in_palette(canvas: np.ndarray) -> np.ndarray:
    index = nearest(torch.from_numpy(canvas).float().permute(2, 0, 1) / 255)
    return np.asarray(PALETTE, dtype=np.uint8)[index.numpy()]


def _item(item: Thing, rng: random.Random, hand: Hand) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if item.role == "landmark":
        shape = in_state(landmark(item.kind), item.state)
        paints = paints_of(item.colour, (206, 176, 138))
        alike = item.kind not in ("windmill", "ship", "cave", "ruin")
    elif item.role == "object":
        shape = object_in_state(thing(item.kind), item.state)
        paints = paints_of(item.colour, NATURAL[item.kind])
        alike = item.kind not in ("boat",)
    elif item.look is None:
        raise ValueError(f"draw: {item.role} in {item.slot} has no look")
    else:
        shape = person(item.look.hat, item.look.build) if item.kind == "person" else beast(item.kind)
        paints = {**paints_of(item.look.coat, PAINT["brown"]), "h": HAIR[item.look.hair]}
        alike = item.kind != "person" or item.look.hat not in ("cap", "scarf")
    if hand.mirror and alike:
        shape = shape[:, ::-1]
    return colored(shape, paints, rng, hand)


def _footing(canvas: np.ndarray, plan: ScenePlan, item: Thing, x: int, light: np.ndarray, bottom: np.ndarray, thick: float) -> None:
    """An islet in the sea, a raised bank elsewhere: what a landmark stands on."""
    if plan.terrain != "sea" or item.kind == "ship":
        return
    color = (232, 236, 246) if plan.weather == "snow" else (104, 158, 84)
    for k, (y, reach) in enumerate(((FEET - 1, 12), (FEET, 13), (FEET + 1, 12))):
        row = slice(max(0, x + 12 - reach), min(SIZE, x + 12 + reach))
        canvas[y, row] = _mix(np.array(color if k < 2 else (150, 128, 92)) * light, bottom, thick)


def _mix(color: np.ndarray, other: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    return np.asarray(color + share * (other - color))


def _sky(plan: ScenePlan, top: np.ndarray, bottom: np.ndarray, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    steps = 7
    level = (y / HORIZON).clip(0, 1) * steps
    band = np.floor(level + 0.5 * (_BAYER[y % 4, x % 4] - 0.5)).clip(0, steps) / steps
    canvas = _mix(top, bottom, band[..., None])
    sun = _sun(plan)
    if plan.weather in ("clear", "cloudy"):
        _lights(canvas, plan, sun, x, y)
    if plan.weather != "clear" and plan.weather != "fog":
        _clouds(canvas, plan, top, noise, x, y)
    if plan.weather == "storm":
        _lightning(canvas, rng)
    return canvas


def _sun(plan: ScenePlan) -> int:
    """The column of the sun or moon: it rises on one side of a land and sets on the other.

    A place that is left to chance is painted now and then as two: it follows from the plan.
    """
    column = {"dawn": 9, "day": 40, "dusk": 54, "night": 22}[plan.time]
    return column if TERRAINS.index(plan.terrain) % 2 else SIZE - 1 - column


def _lights(canvas: np.ndarray, plan: ScenePlan, sun: int, x: np.ndarray, y: np.ndarray) -> None:
    low = plan.time in ("dawn", "dusk")
    at = 25 if plan.time == "dusk" else 20 if plan.time == "dawn" else 10
    away = np.hypot(x - sun - 0.5, y - at - 0.5)
    if plan.time == "night":
        stars = np.random.default_rng(7)
        for _ in range(26 if plan.weather == "clear" else 9):
            canvas[stars.integers(0, 30), stars.integers(0, SIZE)] = (228, 234, 255)
        canvas[away < 7] = _mix(canvas[away < 7], np.array([120, 136, 210]), 0.35)
        moon = (away < 4.6) & (np.hypot(x - sun - 3, y - at + 1) >= 3.9)
        canvas[moon] = (250, 246, 216)
        return
    color = {"dawn": (255, 244, 206), "day": (255, 240, 104), "dusk": (255, 176, 60)}[plan.time]
    for reach, share in ((11 if low else 8, 0.25), (8 if low else 6.4, 0.45)):
        canvas[away < reach] = _mix(canvas[away < reach], np.array(color), share)
    canvas[away < (5.6 if low else 4.6)] = color


def _clouds(canvas: np.ndarray, plan: ScenePlan, top: np.ndarray, noise: np.random.Generator, x: np.ndarray, y: np.ndarray) -> None:
    color = {"cloudy": (252, 252, 255), "snow": (222, 226, 236), "rain": (126, 132, 150), "storm": (62, 62, 82)}[plan.weather]
    lit = np.array(color) * (np.array(_LIGHT[plan.time]) * 0.85 + 0.15)
    dark = _mix(lit, top, 0.4)
    few, many = [(12, 8), (34, 15), (54, 7)], [(2, 4), (18, 8), (34, 4), (50, 8), (64, 4)]
    for at_x, at_y in few if plan.weather == "cloudy" else many:
        cx, cy, wide = at_x + noise.uniform(-4, 4), at_y + noise.uniform(-1.5, 1.5), noise.uniform(8, 10.5)
        for down, shade in ((1.2, dark), (-0.2, lit)):
            for dx, dy, r in ((-0.7, 0.12, 0.32), (-0.25, -0.12, 0.44), (0.3, -0.02, 0.38), (0.72, 0.14, 0.28)):
                inside = ((x - cx - dx * wide) / (r * wide)) ** 2 + ((y - cy - dy * wide - down) / (r * wide * 0.75)) ** 2 < 1
                canvas[inside] = shade


def _lightning(canvas: np.ndarray, rng: random.Random) -> None:
    x = rng.choice((10, 24, 40, 54)) + rng.randint(-2, 2)
    for y in range(9, HORIZON - 3):
        canvas[y, max(0, x - 1) : x + 1] = (255, 250, 190)
        canvas[y, min(63, max(0, x))] = (255, 255, 240)
        if y % 3 == 0:
            x += rng.choice((-2, -1, 1, 2))


def _falling(canvas: np.ndarray, plan: ScenePlan, noise: np.random.Generator) -> None:
    if plan.weather in ("rain", "storm"):
        for _ in range(46):
            x, y = int(noise.integers(1, SIZE)), int(noise.integers(-2, SIZE - 1))
            for k in range(4):
                if 0 <= y + k < SIZE and 0 <= x - k // 2 < SIZE:
                    canvas[y + k, x - k // 2] = _mix(canvas[y + k, x - k // 2], np.array([196, 214, 240]), 0.6)
    if plan.weather == "snow":
        for _ in range(60):
            x, y = int(noise.integers(0, SIZE)), int(noise.integers(0, SIZE))
            canvas[y, x] = (250, 252, 255)
    if plan.weather == "fog":
        y, x = np.mgrid[:SIZE, :SIZE]
        for at in (34, 42):
            bank = np.abs(y - at - 1.5 * np.sin(x / 6 + at)) < 1.6
            canvas[bank] = _mix(canvas[bank], np.array(_HAZE["fog"][0]) * (0.25 + 0.75 * np.array(_LIGHT[plan.time])), 0.4)
