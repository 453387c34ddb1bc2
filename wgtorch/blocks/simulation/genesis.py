"""How a world begins: a map, a cast, a clock and a sky, around what was given."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from wgtorch.blocks.simulation.cast import CastMakers
from wgtorch.blocks.simulation.facts import check_content
from wgtorch.blocks.simulation.places import MapMakers

TRAVELLER = "the traveller"


def begun(
    content: Mapping[str, Any],
    rng: random.Random,
    *,
    places: int = 36,
    characters: int = 8,
    map_maker: str = "grid",
    cast_maker: str = "village",
) -> dict[str, Any]:
    """The content with everything that a simulated world needs; what is there stays as it is.

    Args:
        content: the initial content; ``traveller`` is whose name, and may hold facts of its own.
        rng: draws.
        places: how many the map has.
        characters: how many there are, the traveller included.
        map_maker, cast_maker: names of registered makers.

    Raises:
        ConfigError: facts that were given do not fit.
    """
    whole = {"story": "", "style": "", "traveller": TRAVELLER, **content}
    if "places" not in whole:
        whole["places"] = MapMakers.get(map_maker)(rng, places)
    if "characters" not in whole:
        cast, objects = CastMakers.get(cast_maker)(rng, whole["places"], whole["traveller"], characters)
        whole["characters"], whole["objects"] = cast, {**objects, **whole.get("objects", {})}
    start = whole["characters"][whole["traveller"]]["place"]
    whole["places"] = {**whole["places"], start: {**whole["places"][start], "known": True}}
    first: dict[str, Any] = {
        "start": start, "objects": {}, "threads": {}, "clock": {"day": 1, "hour": 7}, "weather": rng.choice(("clear", "cloudy")),
        "events": [], "chronicle": [], "episodes": 0, "discrepancies": [], "opening": whole["story"],
    }  # fmt: skip
    whole = {**first, **whole}
    check_content(whole)
    return whole


def is_begun(content: Mapping[str, Any] | None) -> bool:
    """True when a content holds a simulated world."""
    return content is not None and all(part in content for part in ("places", "characters", "objects", "clock", "events", "threads"))


def facts_of(content: Mapping[str, Any] | None, intent: Any = None) -> dict[str, Any] | None:
    """The facts of a world: its content, or before its first update what the first intent says the world begins with.

    Facts enter the content by an update only, so a world that has developed and was never updated holds none yet; its intent names
    the seed they are made from (``resolution.genesis``). None where neither knows any.
    """
    if is_begun(content):
        return dict(content or {})
    resolution = intent.get("resolution") if isinstance(intent, Mapping) else None
    genesis = resolution.get("genesis") if isinstance(resolution, Mapping) else None
    if not isinstance(genesis, Mapping):
        return None
    return begun(content or {}, random.Random(genesis["seed"]), **{name: value for name, value in genesis.items() if name != "seed"})
