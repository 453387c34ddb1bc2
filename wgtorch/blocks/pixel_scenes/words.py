"""Facts of a picture in a sentence or two, and where they differ from a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TIME = {"dawn": "at dawn", "day": "by day", "dusk": "at dusk", "night": "at night"}
_WEATHER = {
    "clear": "under a clear sky",
    "cloudy": "under clouds",
    "rain": "in the rain",
    "snow": "in the snow",
    "fog": "in the fog",
    "storm": "in a thunderstorm",
}
_TERRAIN = {
    "sea": "the shore of the sea",
    "river": "a river",
    "meadow": "a meadow",
    "hills": "hills",
    "mountains": "mountains",
    "desert": "a desert",
    "forest": "a forest",
    "marsh": "a marsh",
}
_SLOT = {
    "back_left": "behind on the left", "back_middle": "behind in the middle", "back_right": "behind on the right",
    "front_far_left": "far left", "front_left": "on the left", "front_middle": "in the middle", "front_right": "on the right",
    "front_far_right": "far right",
}  # fmt: skip
_HAT = {"hood": "a hood", "cap": "a cap", "wide": "a wide hat", "crown": "a crown", "scarf": "a scarf"}
_BUILD = {"small": "small ", "middle": "", "large": "large "}
_PLURAL = ("stones",)


def sentence(facts: Mapping[str, Any]) -> str:
    """The facts of a picture (keys of a plan's data) as a person would say them; names are never in it.

    >>> sentence({"time": "dusk", "weather": "rain", "terrain": "hills", "things": []})
    'Hills at dusk, in the rain. Nothing and nobody is there.'
    """
    land = _TERRAIN[facts["terrain"]]
    first = f"{land[0].upper()}{land[1:]} {_TIME[facts['time']]}, {_WEATHER[facts['weather']]}."
    things = [f"{_thing(thing)} {_SLOT[thing['slot']]}" for thing in facts["things"]]
    if not things:
        return f"{first} Nothing and nobody is there."
    return f"{first} There is {_list(things)}."


def _thing(thing: Mapping[str, Any]) -> str:
    look = thing.get("look")
    if look is None:
        words = [word for word in (thing.get("state") if thing.get("state") != "whole" else None, thing.get("colour")) if word]
        name = " ".join([*words, thing["kind"]])
        return name if thing["kind"] in _PLURAL else _a(name)
    if thing["kind"] != "person":
        return _a(f"{look['coat']} {thing['kind']}")
    hat = f" and {_HAT[look['hat']]}" if look.get("hat", "none") != "none" else ""
    return f"{_a(_BUILD[look['build']] + 'person')} with {look['hair']} hair, in {_a(look['coat'] + ' coat')}{hat}"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def discrepancies(scene: Mapping[str, Any], seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where what is seen in a picture differs from the plan that it was painted by.

    Who is the hero and what somebody is called cannot be seen, so neither counts; nor does the colour of a thing that was given none.

    Args:
        scene: data of a plan.
        seen: `attributes` of the describer.

    Returns:
        Findings ``{"path", "asked", "seen"}``, as ``{"path": "things.back_left.colour", "asked": "red", "seen": "blue"}``; an absent
        thing is None.
    """
    found = [{"path": key, "asked": scene[key], "seen": seen[key]} for key in ("time", "weather", "terrain") if scene[key] != seen[key]]
    asked = {thing["slot"]: _comparable(thing) for thing in scene.get("things", ())}
    there = {thing["slot"]: _comparable(thing) for thing in seen.get("things", ())}
    for slot in _SLOT:
        a, b = asked.get(slot), there.get(slot)
        if a == b:
            continue
        if a is None or b is None or a["kind"] != b["kind"]:
            found.append({"path": f"things.{slot}.kind", "asked": a and a["kind"], "seen": b and b["kind"]})
            continue
        wrong = [key for key in a if a[key] != b.get(key) and not (key == "colour" and a[key] is None)]
        found += [{"path": f"things.{slot}.{key}", "asked": a[key], "seen": b.get(key)} for key in wrong]
    return found


def _comparable(thing: Mapping[str, Any]) -> dict[str, Any]:
    look = thing.get("look")
    facts: dict[str, Any] = {"kind": thing["kind"]}
    if look is None:
        return facts | {"colour": thing.get("colour"), "state": thing.get("state", "whole")}
    keys = ("coat", "hat", "hair", "build") if thing["kind"] == "person" else ("coat",)
    return facts | {key: look.get(key) for key in keys}
