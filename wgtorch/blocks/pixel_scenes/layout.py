"""Where things of a plan stand in a picture of 64 x 64 pixels, and plans by chance."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from wgtorch.blocks.simulation.scene_plan import (
    BACK,
    BEASTS,
    BUILDS,
    COLOURS,
    FRONT,
    HAIRS,
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

SIZE = 64
"""Side of a picture in its own pixels."""
CELL = 4
"""Side in pixels of a cell of the grid that things stand on."""
GRID = SIZE // CELL
COLUMNS: Mapping[str, int] = {
    "back_left": 1, "back_middle": 5, "back_right": 9,
    "front_far_left": 0, "front_left": 3, "front_middle": 6, "front_right": 10, "front_far_right": 13,
}  # fmt: skip
"""The first column of each slot, in cells."""
BACK_ROWS, BACK_WIDTH = (5, 12), 6
"""Rows of the grid, from and to, and columns that a landmark takes."""
FRONT_ROWS, FRONT_WIDTH = (11, 15), 3
"""The same of people, beasts and objects."""


USUAL = (0, 1, 2, 3, 4, 4, 5, 5)
"""How many things a plan by chance holds."""


def any_plan(
    rng: random.Random, *, held_out: bool | None = None, things: int | Sequence[int] | None = None, objects: float = 0.5
) -> ScenePlan:
    """A plan by chance.

    Args:
        rng: where it comes from.
        held_out: True for plans with a combination that training leaves out, False for plans without one, None for either.
        things: how many things it holds, 0 to 5, or the numbers to choose from, one named twice being twice as likely; more often many
            than few where left out.
        objects: share of objects among what is neither landmark nor hero; the others are people and beasts.
    """
    while True:
        plan = _any(rng, things if isinstance(things, int) else rng.choice(things or USUAL), objects)
        if held_out is None or is_held_out(plan) == held_out:
            return plan


def is_held_out(plan: ScenePlan) -> bool:
    """Whether a plan has a combination that no training picture shows: about a tenth of the landmarks by colour, and of coats by hat."""
    return any(_left_out(thing) for thing in plan.things)


def _left_out(thing: Thing) -> bool:
    if thing.role == "landmark" and thing.colour is not None:
        return (LANDMARKS.index(thing.kind) + 3 * COLOURS.index(thing.colour)) % 11 == 5
    if thing.role == "object" and thing.colour is not None:
        return (OBJECTS.index(thing.kind) + 3 * COLOURS.index(thing.colour)) % 11 == 5
    if thing.kind == "person" and thing.look is not None:
        return (COLOURS.index(thing.look.coat) + 3 * HATS.index(thing.look.hat)) % 11 == 5
    return False


def any_look(rng: random.Random) -> Look:
    """A look by chance."""
    return Look(rng.choice(COLOURS), rng.choice(HATS), rng.choice(HAIRS), rng.choice(BUILDS))


def _any(rng: random.Random, count: int, objects: float) -> ScenePlan:
    time, weather, terrain = rng.choice(TIMES), rng.choice(WEATHERS), rng.choice(TERRAINS)
    roles = (["landmark"] if rng.random() < min(1.0, count / 3) else []) if count else []
    roles += ["hero"] if len(roles) < count and rng.random() < 0.6 else []
    roles += rng.choices(("object", "character"), (objects, 1 - objects), k=count - len(roles))
    front = iter(rng.sample(FRONT, len(FRONT)))
    things = []
    for role in roles:
        if role == "landmark":
            kind = rng.choice(LANDMARKS)
            if kind == "ship":
                terrain = rng.choice(("sea", "sea", "river"))
            things.append(Thing(role, kind, rng.choice(BACK), _colour(rng), _state(rng)))
        elif role == "object":
            things.append(Thing(role, rng.choice(OBJECTS), next(front), _colour(rng), _state(rng)))
        elif role == "character" and rng.random() < 0.35:
            things.append(Thing(role, rng.choice(BEASTS), next(front), look=Look(rng.choice(COLOURS))))
        else:
            things.append(Thing(role, "person", next(front), look=any_look(rng)))
    return ScenePlan(time, weather, terrain, tuple(things))


def _colour(rng: random.Random) -> str | None:
    return None if rng.random() < 0.12 else rng.choice(COLOURS)


def _state(rng: random.Random) -> str:
    return "whole" if rng.random() < 0.35 else rng.choice(STATES)
