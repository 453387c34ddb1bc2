"""A painted pixel scene as a short loop: water, rain, snow, smoke, fire and sails move, everything else stands still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgtorch.blocks.pixel_scenes.conditioner import plan_of
from wgtorch.blocks.pixel_scenes.layout import BACK_ROWS, CELL, COLUMNS, FRONT_ROWS, SIZE
from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.blocks.simulation.scene_plan import ScenePlan, Thing
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port

FRAMES = 12
"""Frames of a loop; at 8 a second it takes 1.5 s."""
FRAMES_PER_SECOND = 8
_HUB = (11.5, 11.0)  # column and row, in a windmill's 24 x 28 pixels
_LENGTH = 9  # steps along a diagonal that a sail takes
_SLACK = 1  # pixels around a sail that its paint may have run into
_TURN = 90.0  # degrees of a loop: four sails are alike


def motions_of(plan: ScenePlan) -> tuple[str, ...]:
    """What moves in a scene: of ``rain``, ``snow``, ``water``, ``sails``, ``smoke`` and ``fire``."""
    states = {thing.state for thing in plan.things}
    kinds = {thing.kind for thing in plan.things if thing.state in ("whole", "locked", "flooded")}
    found = ["rain"] if plan.weather in ("rain", "storm") else ["snow"] if plan.weather == "snow" else []
    found += ["water"] if plan.terrain in ("sea", "river", "marsh") or "flooded" in states else []
    found += ["sails"] if "windmill" in kinds else []
    found += ["smoke"] if kinds & {"house", "inn"} or states & {"burning", "burnt"} else []
    found += ["fire"] if "burning" in states or "fire" in kinds else []
    return tuple(found)


@register_block("motion/pixel_scene")
class PixelSceneMotion(Block):
    """Makes a loop of a painted picture: what the plan says can move does, every other pixel stays as the sampler painted it.

    Args:
        frames: of the loop.
    """

    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="[B, 3, 64 k, 64 k] in [0, 1], as painted"),
        "scene": Port(dtype="any", description="data of a ScenePlan, or a list of B of them"),
    }
    outputs: Mapping[str, Any] = {"video": Port(dtype="video", description="[B, frames, 3, 64 k, 64 k] in [0, 1]; it ends where it begins")}
    uses_global_rng = False

    def __init__(self, *, frames: int = FRAMES) -> None:
        super().__init__()
        if frames < 2:
            raise ValueError(f"PixelSceneMotion.frames: found {frames}, expected at least 2")
        self.frames = frames

    def forward(self, image: Tensor, scene: Any) -> dict[str, Tensor]:
        """``video`` of ``image`` and its plan.

        Raises:
            PortError: the sides are no multiple of 64, or there are not as many plans as pictures.
        """
        side = image.shape[-1]
        if image.dim() != 4 or image.shape[-2] != side or side % SIZE:
            raise PortError(f"{self.block_id}.image: got shape {list(image.shape)}; expected [B, 3, S, S] with S a multiple of {SIZE}")
        plans = [scene] if isinstance(scene, (Mapping, ScenePlan)) else list(scene)
        if len(plans) != len(image):
            raise PortError(f"{self.block_id}.scene: {len(plans)} plans for {len(image)} pictures")
        scale = side // SIZE
        small = image[..., scale // 2 :: scale, scale // 2 :: scale]
        videos = [
            self._loop(picture.permute(1, 2, 0).cpu().numpy(), plan_of(plan, f"{self.block_id}.scene[{k}]"))
            for k, (picture, plan) in enumerate(zip(small, plans, strict=True))
        ]
        video = torch.stack(videos).to(image)  # [B, T, 3, 64, 64]
        return {"video": video.repeat_interleave(scale, -1).repeat_interleave(scale, -2)}

    def _loop(self, picture: np.ndarray, plan: ScenePlan) -> Tensor:
        rng = np.random.default_rng(int(picture.sum() * 1000) % 2**31)  # the same picture moves in the same way
        moving = motions_of(plan)
        frames = np.repeat(picture[None], self.frames, axis=0).astype(np.float64)
        for name in ("water", "sails", "fire", "smoke", "rain", "snow"):
            if name in moving:
                _MOTIONS[name](frames, plan, rng)
        return snap(torch.from_numpy(frames).float().permute(0, 3, 1, 2))


def _water(frames: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> None:
    """Rows of water glide to and fro; only blue pixels take part, and only where what they would show is water too."""
    still = frames[0].copy()
    red, green, blue = still[..., 0], still[..., 1], still[..., 2]
    wet = (blue > red * 1.12) & (blue >= green * (1.0 if plan.terrain != "marsh" else 0.85))
    wet[:36] = False
    people = np.zeros_like(wet)
    for thing in plan.things:
        if thing.state != "flooded":
            top, bottom, left, right = _box(thing)
            people[top:bottom, left:right] = True
    if plan.terrain not in ("sea", "river", "marsh"):
        flooded = np.zeros_like(wet)
        for thing in plan.things:
            if thing.state == "flooded":
                top, bottom, left, right = _box(thing)
                flooded[top + (bottom - top) // 2 : bottom, left:right] = True
        wet &= flooded
    wet &= ~people
    phase = rng.uniform(0, 2 * np.pi, SIZE // 2 + 1)
    for k in range(len(frames)):
        for y in range(36, SIZE):
            shift = round(1.6 * np.sin(2 * np.pi * k / len(frames) + phase[y // 2]))
            there = np.roll(wet[y], shift) & wet[y]
            frames[k, y, there] = np.roll(still[y], shift, axis=0)[there]


def _sails(frames: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> None:
    """The sails turn about their hub, in the colours that they are painted in; what they uncover takes the colour of what is beside it."""
    y, x = np.mgrid[:SIZE, :SIZE]
    for thing in plan.things:
        if thing.kind != "windmill":
            continue
        top, _, left, _ = _box(thing)
        still = frames[0].copy()
        # One arm's colours by step and side: the middle one of four, so that what one arm hides does not turn with it.
        places = np.array([[_arm(dx, dy, step) for step in range(1, _LENGTH + 1)] for dx in (-1, 1) for dy in (-1, 1)])
        rows, columns = places[..., 0] + top, places[..., 1] + left
        arm = np.median(still[rows, columns], axis=0)  # [steps, sides, 3]
        covered = np.zeros((SIZE, SIZE), bool)
        covered[rows, columns] = True
        covered = _grown(covered, _SLACK, _SLACK)
        cap = np.zeros_like(covered)
        cap[top + 8 : top + 13, left + 10 : left + 14] = True  # stands still, as the hub on it
        covered &= ~cap
        behind = _uncovered(still, covered, _tower(top, left), cap)
        dx, dy = x - left - _HUB[0], y - top - _HUB[1]
        for k in range(len(frames)):
            frames[k] = np.where(covered[..., None], behind, frames[k])
            for quarter in range(4):
                angle = np.deg2rad(_TURN * (k / len(frames) + quarter) + 45)
                along = np.round((dx * np.cos(angle) + dy * np.sin(angle)) / 2**0.5).astype(int)
                across = dx * np.sin(angle) - dy * np.cos(angle)
                side = np.ceil((across - 0.5) / 0.7).astype(int).clip(0)
                shown = (along >= 2) & (along <= _LENGTH) & (across > -0.5) & (side < np.where(along > 2, arm.shape[1], 1))
                frames[k][shown] = arm[along[shown] - 1, side[shown]]


def _arm(dx: int, dy: int, step: int) -> list[tuple[int, int]]:
    """Row and column, in a windmill's own pixels, of the spar and the two of cloth beside it, so many steps from the hub."""
    return [(11 + dy * step, 11 + dx * step + (dx > 0) + dx * dy * side) for side in range(3)]


def _tower(top: int, left: int) -> np.ndarray:
    """Pixels of a windmill without its sails."""
    found = np.zeros((SIZE, SIZE), bool)
    for y in range(12, 28):
        reach = 3.0 + 2.6 * (y - 12) / 15
        found[top + y, left + round(11.5 - reach) : left + round(11.5 + reach) + 1] = True
    return found


def _uncovered(picture: np.ndarray, covered: np.ndarray, tower: np.ndarray, cap: np.ndarray) -> np.ndarray:
    """The picture with what is beside covered pixels mirrored into them, row by row, the tower's into the tower alone."""
    found = picture.copy()
    around = _grown(tower | cap, 0, 2)  # its edge is painted softly
    for inside, free in ((tower, tower & ~covered), (~tower, ~around & ~covered)):
        for y, x in np.argwhere(covered & inside):
            columns = np.flatnonzero(free[y])
            if len(columns):
                nearest = int(columns[np.abs(columns - x).argmin()])
                mirrored = 2 * nearest - x
                found[y, x] = picture[y, mirrored if 0 <= mirrored < SIZE and free[y, mirrored] else nearest]
    return found


def _grown(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A mask and all within so many rows and columns of it."""
    shifts = [(dy, dx) for dy in range(-rows, rows + 1) for dx in range(-columns, columns + 1)]
    padded = np.pad(mask, ((rows, rows), (columns, columns)))
    return np.any([padded[rows + dy : rows + dy + SIZE, columns + dx : columns + dx + SIZE] for dy, dx in shifts], axis=0)


def _fire(frames: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> None:
    """Flames flicker: warm bright pixels swap with those above and below."""
    still = frames[0].copy()
    hot = (still[..., 0] > 0.75) & (still[..., 1] > 0.35) & (still[..., 2] < 0.6)
    burning = np.zeros_like(hot)
    for thing in plan.things:
        if thing.state == "burning" or thing.kind == "fire":
            top, bottom, left, right = _box(thing)
            burning[top:bottom, left:right] = True
    hot &= burning
    offsets = rng.integers(0, 2, (len(frames) // 2 + 1, SIZE))
    for k in range(len(frames)):
        for x in np.flatnonzero(hot.any(axis=0)):
            shift = int(offsets[k // 2 % len(offsets), x]) if k else 0
            there = np.roll(hot[:, x], -shift) & hot[:, x]
            frames[k, there, x] = np.roll(still[:, x], -shift, axis=0)[there]
            ys = np.flatnonzero(hot[:, x])
            if shift and ys[0] > 0:
                frames[k, ys[0] - 1, x] = still[ys[0], x]


def _smoke(frames: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> None:
    """Puffs rise from chimneys and fires, grow thinner, and begin anew."""
    for thing in plan.things:
        fires = thing.state in ("burning", "burnt")
        if thing.role != "landmark" or not (fires or (thing.kind in ("house", "inn") and thing.state in ("whole", "locked"))):
            continue
        top, _, left, _ = _box(thing)
        x0, y0 = left + (17 if thing.kind == "house" and not fires else 12), top + (7 if thing.kind == "house" else 4)
        gray = np.array([0.24, 0.22, 0.25] if fires else [0.78, 0.78, 0.82])
        rise, puffs = 16, 4
        for k in range(len(frames)):
            for p in range(puffs):
                age = (k / len(frames) + p) / puffs  # 0 to 1
                y, x = round(y0 - age * rise), round(x0 + 2.2 * np.sin(age * 5 + p) * age + 3 * age)
                for dx, dy in ((0, 0), (1, 0), (0, -1), (1, -1))[: 4 if age > 0.25 else 2]:
                    if 0 <= y + dy < SIZE and 0 <= x + dx < SIZE:
                        share = 0.75 * (1 - age)
                        frames[k, y + dy, x + dx] = (1 - share) * frames[k, y + dy, x + dx] + share * gray


def _rain(frames: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> None:
    _without(frames, bright=0.06)
    drops = np.stack([rng.integers(0, SIZE, 42), rng.integers(0, SIZE, 42), rng.integers(2, 4, 42)], axis=1)
    for k in range(len(frames)):
        for x0, y0, cycles in drops:
            y = (y0 + cycles * SIZE * k // len(frames)) % SIZE
            x = (x0 - cycles * SIZE * k // len(frames) // 2) % SIZE
            for step in range(4):
                py, px = (y + step) % SIZE, (x - step // 2) % SIZE
                frames[k, py, px] = 0.45 * frames[k, py, px] + 0.55 * np.array([0.77, 0.84, 0.94])


def _snow(frames: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> None:
    _without(frames, bright=0.10)
    flakes = np.stack([rng.integers(0, SIZE, 54), rng.integers(0, SIZE, 54), rng.integers(0, 7, 54)], axis=1)
    for k in range(len(frames)):
        for x0, y0, sway in flakes:
            y = (y0 + SIZE * k // len(frames)) % SIZE
            x = round(x0 + 1.5 * np.sin(2 * np.pi * k / len(frames) + sway)) % SIZE
            frames[k, y, x] = (0.98, 0.99, 1.0)


_MOTIONS = {"water": _water, "sails": _sails, "fire": _fire, "smoke": _smoke, "rain": _rain, "snow": _snow}


def _without(frames: np.ndarray, *, bright: float) -> None:
    """Takes single bright pixels and thin streaks out of the sky and the land: they move now."""
    for frame in frames:
        padded = np.pad(frame, ((2, 2), (2, 2), (0, 0)), mode="edge")
        around = np.stack([padded[2 + dy : 2 + dy + SIZE, 2 + dx : 2 + dx + SIZE] for dy in (-2, 0, 2) for dx in (-2, -1, 0, 1, 2)])
        middle = np.median(around, axis=0)
        stands_out = (frame - middle).min(axis=-1) > bright
        stands_out[FRONT_ROWS[0] * CELL :] &= (frame[FRONT_ROWS[0] * CELL :].min(axis=-1)) > 0.9  # people keep their light pixels
        frame[stands_out] = middle[stands_out]


def _box(thing: Thing) -> tuple[int, int, int, int]:
    """Rows and columns of pixels that a thing takes: top, bottom, left, right."""
    rows, width = (BACK_ROWS, 24) if thing.role == "landmark" else (FRONT_ROWS, 12)
    left = COLUMNS[thing.slot] * CELL
    return rows[0] * CELL, rows[1] * CELL, left, left + width
