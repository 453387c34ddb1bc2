"""How a place sounds: wind, rain, waves, birds, crickets and fire, made of noise and tones; it ends where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from wgtorch.blocks.pixel_scenes.conditioner import plans_of
from wgtorch.blocks.simulation.scene_plan import ScenePlan
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng

RATE = 22_050
"""Samples of a second."""
_LOUDEST = 0.35  # of full scale: it is a background
_WIND = {"clear": 0.25, "cloudy": 0.35, "rain": 0.35, "snow": 0.45, "fog": 0.15, "storm": 0.9}
_OPEN = {"sea": 1.2, "mountains": 1.4, "desert": 1.2, "hills": 1.1, "meadow": 1.0, "river": 0.9, "marsh": 0.8, "forest": 0.9}


@register_block("sound/pixel_scene")
class PixelSceneSound(Block):
    """The quiet sound of a scene's place and weather, as a loop: wind, rain, thunder, waves, water, birds, crickets, frogs, fire.

    Args:
        seconds: of the loop.
    """

    inputs: Mapping[str, Any] = {
        "scene": Port(dtype="any", optional=True, description="data of a ScenePlan, or a list of B of them"),
        "prompt": Port(dtype="any", optional=True, description="words, or a list of them, where there is no plan"),
    }
    outputs: Mapping[str, Any] = {
        "audio": Port(dtype="audio", description=f"[B, 1, seconds x {RATE}] in [-1, 1]"),
        "rate": Port(dtype="number", description=f"samples of a second: {RATE}"),
    }

    def __init__(self, *, seconds: float = 8.0) -> None:
        super().__init__()
        if not 0.5 <= seconds <= 120:
            raise ValueError(f"PixelSceneSound.seconds: found {seconds}, expected 0.5 to 120")
        self.seconds = seconds

    def forward(self, scene: Any = None, prompt: Any = None, rng: Rng | None = None) -> dict[str, Any]:
        """``audio`` of one plan (B = 1) or of a list of B, and its ``rate``."""
        rng = rng or Rng()
        rows = []
        for k, plan in enumerate(plans_of(scene, prompt, rng, self.block_id)):
            draws = np.random.default_rng(rng.python(k).randrange(2**31))
            rows.append(_mixed(plan, round(self.seconds * RATE), draws))
        return {"audio": torch.from_numpy(np.stack(rows)).float().unsqueeze(1), "rate": RATE}


def _mixed(plan: ScenePlan, count: int, rng: np.random.Generator) -> np.ndarray:
    wind = _WIND[plan.weather] * _OPEN[plan.terrain]
    sound = wind * _noise(count, 120, 700, rng) * _swell(count, 3, rng)
    if plan.weather in ("rain", "storm"):
        sound += (0.5 if plan.weather == "rain" else 0.8) * (_noise(count, 1500, 7000, rng) + 0.6 * _drops(count, 90, rng))
    if plan.weather == "storm":
        sound += _thunder(count, rng)
    if plan.terrain == "sea":
        sound += 1.1 * _noise(count, 80, 1800, rng) * _swell(count, 2, rng) ** 2
    if plan.terrain == "river":
        sound += 0.6 * _noise(count, 500, 3500, rng) * (0.7 + 0.3 * _swell(count, 12, rng))
    quiet = plan.weather in ("clear", "cloudy", "fog")
    if quiet and plan.time in ("dawn", "day") and plan.terrain in ("meadow", "hills", "forest", "river", "marsh"):
        sound += 0.55 * _calls(count, 7 if plan.time == "dawn" else 4, (2200, 4600), 0.09, rng)
    if quiet and plan.time in ("dusk", "night") and plan.terrain not in ("sea", "mountains"):
        sound += 0.22 * _crickets(count, rng)
    if plan.terrain == "marsh" and plan.time in ("dusk", "night"):
        sound += 0.5 * _calls(count, 6, (240, 420), 0.16, rng)
    if any(thing.state == "burning" or thing.kind == "fire" for thing in plan.things):
        sound += 0.35 * _noise(count, 60, 400, rng) + 0.9 * _drops(count, 14, rng)
    return sound * (_LOUDEST / max(float(np.abs(sound).max()), 1.0))


def _noise(count: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Noise between two frequencies, of deviation 0.25; made from its spectrum, so it goes round without a seam."""
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    band = np.exp(-((np.log(np.maximum(frequency, 1e-3)) - np.log((low * high) ** 0.5)) ** 2) / (0.5 * np.log(high / low) ** 2))
    spectrum = band * np.exp(2j * np.pi * rng.random(len(frequency)))
    found = np.fft.irfft(spectrum, count)
    return np.asarray(0.25 * found / found.std())


def _swell(count: int, waves: int, rng: np.random.Generator) -> np.ndarray:
    """A slow rise and fall in [0.2, 1], whole waves in a loop."""
    t = 2 * np.pi * np.arange(count) / count
    found = np.sin(waves * t + rng.uniform(0, 6)) + 0.5 * np.sin((waves + 1) * t + rng.uniform(0, 6))
    return np.asarray(0.6 + 0.4 * found / 1.5)


def _add(sound: np.ndarray, at: int, part: np.ndarray) -> None:
    """Adds a part; what goes over the end goes on at the beginning."""
    np.add.at(sound, (at + np.arange(len(part))) % len(sound), part)


def _drops(count: int, a_second: float, rng: np.random.Generator) -> np.ndarray:
    sound = np.zeros(count)
    for _ in range(round(a_second * count / RATE)):
        length = int(rng.integers(60, 260))
        click = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 5)) * rng.uniform(0.1, 0.5)
        _add(sound, int(rng.integers(0, count)), click)
    return sound


def _calls(count: int, how_many: int, range_of: tuple[float, float], length: float, rng: np.random.Generator) -> np.ndarray:
    """Calls of birds or frogs: short tones that rise or fall, in groups."""
    sound = np.zeros(count)
    for _ in range(max(1, round(how_many * count / RATE / 8))):
        at, tone = int(rng.integers(0, count)), rng.uniform(*range_of)
        for k in range(int(rng.integers(2, 5))):
            steps = round(length * RATE * rng.uniform(0.7, 1.2))
            t = np.arange(steps) / RATE
            sweep = tone * (1 + rng.uniform(-0.2, 0.3) * t / length)
            part = 0.35 * np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * np.sin(np.pi * np.arange(steps) / steps) ** 2
            _add(sound, at + round(k * length * 1.6 * RATE), part)
    return sound


def _crickets(count: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(count) / RATE
    cycles = max(1, round(2.5 * count / RATE)) * RATE / count  # whole chirps in a loop
    chirp = ((np.sin(2 * np.pi * cycles * t) - 0.45) / 0.2).clip(0, 1) * (0.5 + 0.5 * np.sin(2 * np.pi * 38 * t))
    return np.asarray(np.sin(2 * np.pi * rng.uniform(3900, 4300) * t) * chirp * 0.5)


def _thunder(count: int, rng: np.random.Generator) -> np.ndarray:
    sound = np.zeros(count)
    length = min(count, round(2.8 * RATE))
    t = np.arange(length) / RATE
    rumble = _noise(length, 25, 140, rng) * np.exp(-t / 0.9) * np.minimum(1, t / 0.05) * np.minimum(1, (t[-1] - t) / 0.5)
    _add(sound, int(rng.integers(0, count)), 6.0 * rumble)
    return sound
