"""The cast: who lives in the world at its beginning and who comes to it later, with looks that never change."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from typing import Any

from wgtorch.blocks.simulation.scene_plan import COLOURS, HAIRS, HATS
from wgtorch.core.registry import Registry

CastMakers: Registry[Callable[..., tuple[dict[str, Any], dict[str, Any]]]] = Registry("cast maker", group="wgtorch.cast_makers")
"""``(rng, places, traveller, count) -> (characters, objects)``: who is there at the beginning, and what there is."""

NAMES = (
    "Ada Agnes Aino Albin Alma Amir Anna Anton Astrid Aziz Balint Bela Berta Birgit Boris Branka Bruno Carla Cyril Dagmar "
    "Dario Dora Dunja Edda Egon Elias Elif Elsa Emil Enzo Erik Ester Eva Fadi Felix Fenna Filip Frida Gaspar Gerda Gita "
    "Goran Greta Gustav Hana Hedda Henrik Hilda Hugo Ida Igor Ilse Ines Ingrid Ivo Jana Jaro Jonas Judit Kaja Karim Katja "
    "Kira Klara Lars Lea Leif Leon Lida Linus Liv Lorenz Lotte Luka Maja Malik Marek Marta Matteo Mila Mira Moritz Nadia "
    "Nela Nils Nora Olaf Olga Omar Oskar Otto Pavel Petra Pia Rafik Ragna Rasmus Rita Roza Runa Sami Sana Selma Senta Signe "
    "Silas Sofia Sven Tamara Tarik Theo Thora Tilda Timo Tove Ulrik Ursa Vera Viktor Vilma Wanda Willem Xenia Yara Yusuf "
    "Zdenka Zita Zoran"
).split()
ROLES = (
    "miller", "smith", "fisher", "weaver", "shepherd", "healer", "innkeeper", "carpenter", "potter", "beekeeper", "ferryman", "painter",
    "baker", "hunter", "singer", "mason", "gardener", "scribe", "tinker", "hermit", "guard", "sailor",
)  # fmt: skip
_HOMES = {
    "miller": ("windmill",), "fisher": ("ship",), "sailor": ("ship",), "innkeeper": ("inn",), "guard": ("castle", "tower"),
    "hermit": ("cave", "shrine"), "ferryman": ("bridge",),
}  # fmt: skip
_OWNS = {
    "miller": "bread", "smith": "key", "fisher": "rope", "weaver": "cloak", "shepherd": "flute", "healer": "herb", "innkeeper": "lamp",
    "carpenter": "axe", "potter": "jar", "beekeeper": "honey", "ferryman": "rope", "painter": "brush", "baker": "bread", "hunter": "bow",
    "singer": "flute", "mason": "spade", "gardener": "spade", "scribe": "book", "tinker": "ring", "hermit": "book", "guard": "sword",
    "sailor": "map",
}  # fmt: skip
_BEAST_ROLES = ("dog", "goat", "raven", "horse", "wolf")
_LYING = ("ring", "key", "book", "sword", "chest", "lamp", "coin", "flute", "letter", "spade", "rope", "herb")


def village(rng: random.Random, places: Mapping[str, Any], traveller: str, count: int = 8) -> tuple[dict[str, Any], dict[str, Any]]:
    """The traveller, people with trades who live where their trade is, now and then a beast; what they own, and what lies about.

    Args:
        rng: draws.
        places: the map.
        traveller: name of the one whom actions without a name belong to.
        count: characters, the traveller included.
    """
    start = rng.choice([name for name, place in places.items() if place["terrain"] in ("meadow", "hills", "forest")] or list(places))
    characters: dict[str, Any] = {traveller: new_character(rng, "traveller", start, ())}
    objects: dict[str, Any] = {}
    for kind in ("lamp", "apple"):
        give_new(objects, characters, traveller, kind, rng)
    roles = rng.sample(ROLES, count - 1)
    if rng.random() < 0.5:
        roles[-1] = rng.choice(_BEAST_ROLES)
    for role in roles:
        add_character(rng, role, places, characters, objects)
    for kind in rng.sample(_LYING, 6):
        name = new_object_name(kind, None, objects, rng)
        objects[name] = new_object(kind, place=rng.choice(list(places)))
    return characters, objects


CastMakers.register("village", village)


def add_character(rng: random.Random, role: str, places: Mapping[str, Any], characters: dict[str, Any], objects: dict[str, Any]) -> str:
    """Somebody new, with what belongs to the role, in place.

    Returns:
        The name.
    """
    homes = [name for name, place in places.items() if place["landmark"] in _HOMES.get(role, ("house", "inn", "tent", "castle"))]
    taken_looks = [character["look"] for character in characters.values()]
    name = new_name(rng, characters)
    characters[name] = new_character(rng, role, rng.choice(homes or list(places)), taken_looks)
    if role in _OWNS:
        give_new(objects, characters, name, _OWNS[role], rng)
    return name


def new_name(rng: random.Random, taken: Collection[str]) -> str:
    """A name that nobody has."""
    low = {name.lower() for name in taken}
    free = [name for name in NAMES if name.lower() not in low]
    if free:
        return rng.choice(free)
    number = 2
    while (name := f"{rng.choice(NAMES)} the {number}th").lower() in low:
        number += 1
    return name


def new_character(rng: random.Random, role: str, place: str, taken: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """One character without possessions, whose look nobody else has where that can be."""
    beast = role in _BEAST_ROLES
    for _ in range(40):
        look = {
            "coat": rng.choice(("black", "brown", "grey", "white")) if beast else rng.choice(COLOURS),
            "hat": "none" if beast else rng.choice(HATS),
            "hair": rng.choice(HAIRS),
            "build": "middle" if beast else rng.choice(("small", "middle", "middle", "large")),
        }
        if all((look["coat"], look["hat"]) != (other["coat"], other["hat"]) for other in taken):
            break
    return {
        "kind": role if beast else "person",
        "role": role,
        "place": place,
        "mood": "calm",
        "goal": None,
        "carries": [],
        "remembers": {},
        "avoids": [],
        "look": look,
        "present": True,
    }


def new_object(
    kind: str, *, place: str | None = None, bearer: str | None = None, colour: str | None = None, fixed: bool = False
) -> dict[str, Any]:
    """One object, at a place or with a bearer."""
    return {"kind": kind, "colour": colour, "place": place, "bearer": bearer, "state": "whole", "fixed": fixed}


def new_object_name(kind: str, colour: str | None, taken: Collection[str], rng: random.Random) -> str:
    """A name that no object has: the kind, with an adjective where others of the kind are known."""
    plain = f"{colour} {kind}" if colour else kind
    if plain not in taken:
        return plain
    free = [f"{word} {kind}" for word in _ADJECTIVES if f"{word} {kind}" not in taken]
    if free:
        return rng.choice(free)
    pairs = [f"{one} {two} {kind}" for one in _ADJECTIVES for two in _ADJECTIVES if one != two and f"{one} {two} {kind}" not in taken]
    if pairs:
        return rng.choice(pairs)
    number = 2
    while f"{kind} {number}" in taken:
        number += 1
    return f"{kind} {number}"


_ADJECTIVES = (
    "old small plain carved worn tall heavy bright crooked narrow broad patched twisted silent humming cracked painted long "
    "short round foreign forgotten polished rusty mended knotted speckled hollow"
).split()


def give_new(objects: dict[str, Any], characters: dict[str, Any], bearer: str, kind: str, rng: random.Random) -> str:
    """A new object in somebody's hands, in place.

    Returns:
        Its name.
    """
    name = new_object_name(kind, None, objects, rng)
    objects[name] = new_object(kind, bearer=bearer)
    characters[bearer] = {**characters[bearer], "carries": [*characters[bearer]["carries"], name]}
    return name
