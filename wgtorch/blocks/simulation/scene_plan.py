"""What a picture of an episode is to show, as data: the architect writes it, the painter reads it, the describer is judged by it.

A plan says the land, the hour, the weather and up to five things, each in a slot of its own::

    +--------------------------------------------------------------+
    |                    sky: time, weather                        |
    |   back_left          back_middle          back_right         |   landmarks: large, far
    |                                                              |
    |  front_far_left  front_left  front_middle  front_right  front_far_right   people, beasts, objects: near
    +--------------------------------------------------------------+

Who somebody is stands in :class:`Look`: the same name has the same look in every picture. Nothing here is prose, and no name is
ever read as a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

TIMES = ("dawn", "day", "dusk", "night")
WEATHERS = ("clear", "cloudy", "rain", "snow", "fog", "storm")
TERRAINS = ("sea", "river", "meadow", "hills", "mountains", "desert", "forest", "marsh")
COLOURS = ("red", "blue", "yellow", "white", "green", "black", "grey", "brown", "orange", "purple")
LANDMARKS = (
    "house", "castle", "windmill", "tower", "tent", "ship",
    "bridge", "well", "shrine", "cave", "stones", "inn", "ruin",
)  # fmt: skip
OBJECTS = (
    "lamp", "ring", "apple", "bread", "key", "book", "sword", "rope", "spade", "axe", "chest", "flute", "letter", "herb", "coin",
    "fire", "boat", "statue", "fence", "garden",
)  # fmt: skip
BEASTS = ("wolf", "horse", "dog", "bear", "goat", "raven")
STATES = ("whole", "unfinished", "locked", "burning", "burnt", "ruined", "flooded")
BACK = ("back_left", "back_middle", "back_right")
FRONT = ("front_far_left", "front_left", "front_middle", "front_right", "front_far_right")
SLOTS = (*BACK, *FRONT)
HATS = ("none", "hood", "cap", "wide", "crown", "scarf")
HAIRS = ("black", "brown", "yellow", "white", "red")
BUILDS = ("small", "middle", "large")
LARGEST = 5
"""How many things a picture holds."""
_FORMER = ("palette", "motion")
"""Keys in the plans of older worlds; both followed from the rest."""


@dataclass(frozen=True, slots=True)
class Look:
    """How somebody looks, in every picture.

    Args:
        coat: colour of the clothes, or of a beast's fur.
        hat: one of :data:`HATS`.
        hair: one of :data:`HAIRS`.
        build: one of :data:`BUILDS`.
    """

    coat: str
    hat: str = "none"
    hair: str = "brown"
    build: str = "middle"

    def __post_init__(self) -> None:
        for name, known in (("coat", COLOURS), ("hat", HATS), ("hair", HAIRS), ("build", BUILDS)):
            _one_of("Look", name, getattr(self, name), known)


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a picture.

    Args:
        role: ``landmark``, ``hero``, ``character`` or ``object``.
        kind: of :data:`LANDMARKS`, :data:`OBJECTS`, :data:`BEASTS`, or ``person``.
        slot: one of :data:`SLOTS`: a landmark's in the back row, all others' in the front row.
        colour: of a landmark or an object; None where it has none of its own. That of people is in their look.
        state: of :data:`STATES`.
        name: who or what it is in the world's content; data, never to be read as words.
        look: of a person or beast, None for things.
    """

    role: str
    kind: str
    slot: str
    colour: str | None = None
    state: str = "whole"
    name: str | None = None
    look: Look | None = None

    def __post_init__(self) -> None:
        kinds = {"landmark": LANDMARKS, "object": OBJECTS, "hero": ("person",), "character": ("person", *BEASTS)}
        _one_of("Thing", "role", self.role, tuple(kinds))
        _one_of("Thing", "kind", self.kind, kinds[self.role])
        _one_of("Thing", "slot", self.slot, BACK if self.role == "landmark" else FRONT)
        _one_of("Thing", "state", self.state, STATES)
        if self.colour is not None:
            _one_of("Thing", "colour", self.colour, COLOURS)
        if (self.look is not None) is not (self.role in ("hero", "character")):
            raise ValueError(f"Thing.look: found {self.look!r} for role {self.role!r}; people and beasts have a look, things have none")


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """A whole picture.

    >>> plan = ScenePlan("dusk", "rain", "forest", (Thing("landmark", "tower", "back_left", "red"),))
    >>> ScenePlan.from_data(plan.to_data()) == plan
    True

    Args:
        time: one of :data:`TIMES`.
        weather: one of :data:`WEATHERS`.
        terrain: one of :data:`TERRAINS`.
        things: at most :data:`LARGEST`, no two in one slot, at most one landmark and one hero.
        place: the place's name in the content.
        unpainted: what belongs to the episode and cannot be painted; said, never painted as something else.
    """

    time: str
    weather: str
    terrain: str
    things: tuple[Thing, ...] = ()
    place: str | None = None
    unpainted: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name, known in (("time", TIMES), ("weather", WEATHERS), ("terrain", TERRAINS)):
            _one_of("ScenePlan", name, getattr(self, name), known)
        if len(self.things) > LARGEST:
            raise ValueError(f"ScenePlan.things: found {len(self.things)}, expected at most {LARGEST}")
        for what, values in (
            ("slot", [thing.slot for thing in self.things]),
            ("role", [thing.role for thing in self.things if thing.role in ("landmark", "hero")]),
        ):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"ScenePlan.things: {what} {twice[0]!r} is there more than once; expected each at most once")

    def to_data(self) -> dict[str, Any]:
        """Plain data, as it stands in ``recipe.scene``."""
        data = asdict(self)
        data["things"] = [
            {name: value for name, value in thing.items() if value is not None} for thing in data["things"]
        ]  # an absent key is None
        data["unpainted"] = list(self.unpainted)
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ScenePlan:
        """The plan that :meth:`to_data` wrote.

        Raises:
            ValueError: a key or a value that a plan does not have.
        """
        known = set(cls.__dataclass_fields__)
        data = {name: value for name, value in data.items() if name not in _FORMER}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"scene: unknown key {unknown[0]!r}; expected some of {sorted(known)}")
        things = []
        for entry in data.get("things", ()):
            if unknown := sorted(set(entry) - set(Thing.__dataclass_fields__)):
                raise ValueError(f"scene.things: unknown key {unknown[0]!r}; expected some of {sorted(Thing.__dataclass_fields__)}")
            look = entry.get("look")
            things.append(Thing(**{**entry, "look": Look(**look) if look is not None else None}))
        return cls(**{**data, "things": tuple(things), "unpainted": tuple(data.get("unpainted", ()))})


def _one_of(where: str, name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{where}.{name}: found {value!r}, expected one of {', '.join(known)}")
