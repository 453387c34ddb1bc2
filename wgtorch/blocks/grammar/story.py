"""The grammar: what may come next in the traveller's world, and the sentences that say so.

All functions are pure. A scene is a mapping of the attributes of :mod:`wgtorch.blocks.scenes.scene`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from wgtorch.blocks.scenes.scene import ATTRIBUTES

Attributes = Mapping[str, str]

_HOURS = ATTRIBUTES["time"]
_WEATHER_AFTER = {
    "clear": ("clear", "clear", "cloudy", "fog"),
    "cloudy": ("clear", "cloudy", "rain", "snow"),
    "rain": ("rain", "storm", "cloudy", "clear"),
    "snow": ("snow", "cloudy", "clear"),
    "fog": ("clear", "cloudy", "fog"),
    "storm": ("rain", "cloudy", "clear"),
}
_NEIGHBOURS = {
    "sea": ("meadow", "hills", "forest"),
    "meadow": ("sea", "hills", "forest", "desert"),
    "hills": ("meadow", "mountains", "forest", "sea"),
    "mountains": ("hills", "forest", "desert"),
    "desert": ("mountains", "meadow", "sea"),
    "forest": ("meadow", "hills", "mountains", "sea"),
}
_WHERE = {
    "sea": "the sea",
    "meadow": "the green meadow",
    "hills": "the rolling hills",
    "mountains": "the high mountains",
    "desert": "the wide desert",
    "forest": "the pine forest",
}
_WHEN = {"dawn": "At dawn", "day": "By day", "dusk": "At dusk", "night": "At night"}
_SKY = {
    "clear": "under a clear sky",
    "cloudy": "under clouds",
    "rain": "in the rain",
    "snow": "in the snow",
    "fog": "in the fog",
    "storm": "in a storm",
}
_HOPES = (
    "hopes to find {thing} there",
    "has heard of {thing} there",
    "remembers a song about {thing} there",
    "looks for {thing}",
)
_MOODS = {
    "clear": "The air was still.",
    "cloudy": "The light was grey and even.",
    "rain": "Everything dripped.",
    "snow": "The snow swallowed every sound.",
    "fog": "Nothing had an edge.",
    "storm": "Lightning showed the land in pieces.",
}
_NIGHT_MOODS = {**_MOODS, "clear": "The stars were very near.", "cloudy": "Not one star was to be seen."}


def next_scene(now: Attributes, places: Mapping[str, Attributes], wish: Attributes, rng: random.Random) -> dict[str, str]:
    """What is to be seen in the next episode.

    Args:
        now: the scene the traveller stands in; may be empty.
        places: what is known to stand where, by terrain. A place that is known looks as it did.
        wish: attributes that an action named; they win.
        rng: chooses the rest.
    """
    time = wish.get("time") or (_HOURS[(_HOURS.index(now["time"]) + 1) % len(_HOURS)] if "time" in now else _HOURS[0])
    weather = wish.get("weather") or rng.choice(_WEATHER_AFTER[now["weather"]] if "weather" in now else ("clear", "cloudy"))
    if wish.get("landmark") == "ship":
        terrain = "sea"
    else:
        terrain = wish.get("terrain") or rng.choice(_NEIGHBOURS[now["terrain"]] if "terrain" in now else ATTRIBUTES["terrain"])
    known = places.get(terrain, {})
    thing = dict(known) if "landmark" in known and "landmark" not in wish else new_landmark(terrain, wish, rng)
    if thing["landmark"] == "ship" and terrain != "sea":
        thing["landmark"] = "house"
    return {"time": time, "weather": weather, "terrain": terrain, **thing}


def new_landmark(terrain: str, wish: Attributes, rng: random.Random) -> dict[str, str]:
    """A landmark for a place nobody has seen, with its colour and place in the picture."""
    choices = ("ship", "ship", "tower", "house") if terrain == "sea" else ("house", "castle", "windmill", "tower", "tent")
    landmark = wish.get("landmark") or rng.choice(choices)
    if landmark == "none":
        return {"landmark": "none"}
    return {
        "landmark": landmark,
        "color": wish.get("color") or rng.choice(ATTRIBUTES["color"]),
        "place": wish.get("place") or rng.choice(ATTRIBUTES["place"]),
    }


def thing_in(scene: Attributes) -> str:
    """The landmark in words: ``a red castle``; empty where there is none."""
    landmark = scene.get("landmark", "none")
    return "" if landmark == "none" else f"a {scene['color']} {landmark}" if scene.get("color") else f"a {landmark}"


def intent_of(scene: Attributes, before: Attributes, traveller: str, known: bool, action: str, rng: random.Random) -> str:
    """What should happen next, as a sentence whose first-named time, weather, place and thing are those of ``scene``."""
    text = f"{_WHEN[scene['time']]}, {_SKY[scene['weather']]}, {traveller} comes to {_WHERE[scene['terrain']]}"
    thing = thing_in(scene)
    if thing:
        side = {"left": "on the left", "right": "on the right"}.get(scene.get("place", ""), "in the middle")
        hope = "knows {thing} there from before" if known else rng.choice(_HOPES)
        text += f" and {hope.format(thing=thing)}, {side}"
    if before.get("terrain") and before["terrain"] != scene["terrain"]:
        text += f", leaving {_WHERE[before['terrain']]} behind"
    said = action.strip().rstrip(".")
    return f'{text}. {traveller[:1].upper()}{traveller[1:]} means to "{said}".' if said else f"{text}."


def outcome_of(seen: Attributes, meant: Attributes, before: Attributes, traveller: str) -> str:
    """What really happened: what the pictures show, and how it differs from what was meant."""
    seen_thing, meant_thing = thing_in(seen), thing_in(meant)
    text = f"{_WHEN[seen['time']]}, {_SKY[seen['weather']]}, {traveller} came to {_WHERE[seen['terrain']]}"
    text += f" and found {seen_thing}." if seen_thing else " and found nothing built."
    surprises = [
        f"It was not {_WHERE[meant['terrain']]}, though the plan had said so."
        if meant.get("terrain", seen["terrain"]) != seen["terrain"]
        else "",
        f"Where {meant_thing} was hoped for, there was {seen_thing or 'none'}." if meant_thing and meant_thing != seen_thing else "",
        f"The weather had turned: {seen['weather']} instead of {meant['weather']}."
        if meant.get("weather", seen["weather"]) != seen["weather"]
        else "",
    ]
    again = before.get("terrain") == seen["terrain"]
    tail = "It was the same land as before." if again else (_NIGHT_MOODS if seen["time"] == "night" else _MOODS)[seen["weather"]]
    return " ".join(filter(None, [text, *surprises, tail]))


def updated_content(content: Mapping[str, Any], seen: Attributes, outcome: str, memory: int) -> dict[str, Any]:
    """The world after an episode: where the traveller stands, what is known of each land, and the story so far.

    Args:
        content: the world before.
        seen: attributes of what really happened.
        outcome: the words for it.
        memory: episodes that ``story`` tells in full; ``chronicle`` keeps them all.
    """
    chronicle = [*content.get("chronicle", []), outcome]
    places = dict(content.get("places", {}))
    if "terrain" in seen:
        places[seen["terrain"]] = {name: seen[name] for name in ("landmark", "color", "place") if name in seen}
    opening = content.get("opening", content.get("story", ""))
    forgotten = len(chronicle) - memory
    bridge = f"{forgotten} episode{'s' if forgotten > 1 else ''} passed, through {', '.join(sorted(places))}." if forgotten > 0 else ""
    story = " ".join(filter(None, [opening, bridge, *chronicle[-memory:]]))
    return {
        **content,
        "opening": opening,
        "story": story,
        "scene": dict(seen),
        "places": places,
        "chronicle": chronicle,
        "episodes": len(chronicle),
    }
