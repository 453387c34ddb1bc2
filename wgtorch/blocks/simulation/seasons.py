"""Clock and weather: hours that go on, and a sky that changes as skies do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from wgtorch.core.registry import Registry

HOURS_OF_A_PASS = 3
Skies: Registry[Callable[..., str]] = Registry("weather", group="wgtorch.weathers")
"""``(weather, terrain, rng) -> weather``: how the sky goes on after a few hours."""

_NEXT = {
    "clear": {"clear": 9, "cloudy": 3, "fog": 1},
    "cloudy": {"cloudy": 5, "clear": 3, "rain": 3, "snow": 1, "fog": 1},
    "rain": {"rain": 4, "cloudy": 3, "storm": 2, "clear": 1},
    "snow": {"snow": 5, "cloudy": 3, "clear": 1},
    "fog": {"fog": 2, "clear": 3, "cloudy": 2},
    "storm": {"rain": 4, "storm": 1, "cloudy": 2},
}
_SNOWLESS = ("desert", "marsh", "sea")


def drifting(weather: str, terrain: str, rng: random.Random) -> str:
    """The weather a few hours later: a Markov chain without leaps, no snow where it never falls."""
    weights = {kind: weight for kind, weight in _NEXT[weather].items() if not (kind == "snow" and terrain in _SNOWLESS)}
    if terrain == "mountains" and "snow" in weights:
        weights["snow"] *= 3
    return rng.choices(list(weights), list(weights.values()))[0]


Skies.register("drifting", drifting)


def fits(weather: str, terrain: str) -> bool:
    """True where such weather can be."""
    return not (weather == "snow" and terrain in _SNOWLESS)


def later(clock: Mapping[str, int], hours: int) -> dict[str, int]:
    """The clock so many hours later."""
    whole = clock["day"] * 24 + clock["hour"] + hours
    return {"day": whole // 24, "hour": whole % 24}


def hours_until(clock: Mapping[str, int], hour: int) -> int:
    """Hours until the clock next says so; 24 when it says so now."""
    return (hour - clock["hour"] - 1) % 24 + 1


def time_of_day(clock: Mapping[str, int]) -> str:
    """``dawn`` (5 to 8), ``day`` (8 to 18), ``dusk`` (18 to 21) or ``night``."""
    hour = clock["hour"]
    return "dawn" if 5 <= hour < 8 else "day" if 8 <= hour < 18 else "dusk" if 18 <= hour < 21 else "night"


def moment(clock: Mapping[str, int]) -> dict[str, Any]:
    """Clock and time of day."""
    return {**clock, "time": time_of_day(clock)}
