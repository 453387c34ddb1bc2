"""The map: places on a grid, named and joined, made from the seed and revealed by walking."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from wgtorch.blocks.simulation.facts import DIRECTIONS, OPPOSITE
from wgtorch.blocks.simulation.scene_plan import TERRAINS
from wgtorch.core.errors import ConfigError
from wgtorch.core.registry import Registry

Places = Mapping[str, Mapping[str, Any]]
MapMakers: Registry[Callable[..., dict[str, dict[str, Any]]]] = Registry("map maker", group="wgtorch.map_makers")
"""``(rng, count) -> places``: what makes a map."""

_ROOTS = [
    "Alder",
    "Amber",
    "Ash",
    "Barrow",
    "Birch",
    "Bram",
    "Brindle",
    "Carrow",
    "Cinder",
    "Cold",
    "Crow",
    "Deep",
    "Dun",
    "Elder",
    "Ember",
    "Fal",
    "Fern",
    "Finch",
    "Flint",
    "Gal",
    "Gorse",
    "Grim",
    "Harrow",
    "Hart",
    "Hazel",
    "Heron",
    "High",
    "Hollow",
    "Iron",
    "Ivy",
    "Kel",
    "Kestrel",
    "Lark",
    "Linden",
    "Long",
    "Marl",
    "Moss",
    "Nettle",
    "Nor",
    "Oak",
    "Otter",
    "Pel",
    "Quill",
    "Raven",
    "Rook",
    "Row",
    "Rush",
    "Salt",
    "Sedge",
    "Sel",
    "Silver",
    "Sorrel",
    "Stone",
    "Swan",
    "Tarn",
    "Thistle",
    "Thorn",
    "Tor",
    "Under",
    "Vale",
    "Wend",
    "Wick",
    "Willow",
    "Wind",
    "Wyn",
    "Yar",
    "Yew",
]
_ENDINGS = {
    "sea": ("haven", "strand", "mouth", "cove", "ness"),
    "river": ("ford", "water", "weir", "brook"),
    "meadow": ("field", "lea", "ham", "mead"),
    "hills": ("down", "tor", "rigg", "barrow"),
    "mountains": ("crag", "horn", "spire", "fell"),
    "desert": ("waste", "reach", "drift", "scour"),
    "forest": ("wood", "holt", "shaw", "grove"),
    "marsh": ("fen", "mire", "moor", "sedge"),
}
LANDMARKS_OF = {
    "sea": ("ship", "tower", "house", "ship", "inn"),
    "river": ("bridge", "windmill", "house", "inn"),
    "meadow": ("house", "windmill", "inn", "well", "tent"),
    "hills": ("tower", "stones", "castle", "house"),
    "mountains": ("castle", "cave", "tower", "shrine"),
    "desert": ("tent", "well", "ruin", "stones"),
    "forest": ("house", "shrine", "cave", "tent"),
    "marsh": ("ruin", "house", "stones", "shrine"),
}
PAINTABLE_COLOURS = ("red", "blue", "yellow", "white")
_SHARE_BUILT = 0.62


def grid_map(rng: random.Random, count: int = 36) -> dict[str, dict[str, Any]]:
    """Places on a grid without gaps, lands in patches, each land at least once.

    Args:
        rng: draws.
        count: how many places, at least one for each land.
    """
    if count < len(TERRAINS):
        raise ConfigError(f"map: found {count} places, expected at least {len(TERRAINS)}, one for each land")
    cells = [(0, 0)]
    while len(cells) < count:
        x, y = rng.choice(cells)
        dx, dy = rng.choice(list(DIRECTIONS.values()))
        if (x + dx, y + dy) not in cells and abs(x + dx) <= 4 and abs(y + dy) <= 4:
            cells.append((x + dx, y + dy))
    centres = rng.sample(cells, min(len(cells), len(TERRAINS) + 4))
    lands = [*rng.sample(TERRAINS, len(TERRAINS)), *rng.sample(TERRAINS, 4)]
    places: dict[str, dict[str, Any]] = {}
    for cell in cells:
        nearest = min(range(len(centres)), key=lambda k: (abs(cell[0] - centres[k][0]) + abs(cell[1] - centres[k][1]), k))
        add_place(places, cell, lands[nearest], rng)
    return places


MapMakers.register("grid", grid_map)


def add_place(places: dict[str, dict[str, Any]], cell: tuple[int, int], terrain: str, rng: random.Random) -> str:
    """Puts a new place on a free cell and joins it to those around it, in place.

    Returns:
        Its name.
    """
    name = new_place_name(terrain, places, rng)
    built = rng.random() < _SHARE_BUILT
    landmark = rng.choice(LANDMARKS_OF[terrain]) if built else None
    by_cell = {tuple(place["at"]): other for other, place in places.items()}
    neighbours = {}
    for direction, (dx, dy) in DIRECTIONS.items():
        other = by_cell.get((cell[0] + dx, cell[1] + dy))
        if other is not None:
            neighbours[direction] = other
            places[other] = {**places[other], "neighbours": {**places[other]["neighbours"], OPPOSITE[direction]: name}}
    places[name] = {
        "terrain": terrain,
        "neighbours": neighbours,
        "landmark": landmark,
        "colour": rng.choice(PAINTABLE_COLOURS) if landmark not in (None, "cave", "stones", "ruin") else None,
        "state": "ruined" if landmark == "ruin" else "whole",
        "known": False,
        "at": list(cell),
    }
    return name


def new_place_name(terrain: str, taken: Collection[str], rng: random.Random) -> str:
    """A name that no place has."""
    for _ in range(200):
        name = rng.choice(_ROOTS) + rng.choice(_ENDINGS[terrain])
        if name not in taken:
            return name
    name, number = rng.choice(_ROOTS) + rng.choice(_ENDINGS[terrain]), 2
    while f"New {name} {number}" in taken:
        number += 1
    return f"New {name} {number}"


def way(places: Places, start: str, goal: Callable[[str], bool], avoid: Callable[[str], bool] = lambda name: False) -> list[str] | None:
    """The shortest way from a place to one that the goal accepts, without the start; None where there is none.

    Ties go to the direction that is named first in :data:`DIRECTIONS`.
    """
    if goal(start):
        return []
    came: dict[str, str] = {start: start}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for direction in DIRECTIONS:
            other = places[here]["neighbours"].get(direction)
            if other is None or other in came or avoid(other):
                continue
            came[other] = here
            if goal(other):
                steps = [other]
                while came[steps[0]] != start:
                    steps.insert(0, came[steps[0]])
                return steps
            waiting.append(other)
    return None


def direction_of(places: Places, start: str, neighbour: str) -> str | None:
    """In which direction a neighbour lies."""
    return next((name for name, other in places[start]["neighbours"].items() if other == neighbour), None)
