"""What the facts of a simulated world show people: the map as far as it is known, who is there, what one carries, the hour."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from wgtorch.report.words import words

_HOURS = ((5, "night"), (8, "dawn"), (18, "day"), (21, "dusk"), (24, "night"))
_COLORS = {
    "sea": "#4f8fc9",
    "river": "#6fb3c9",
    "meadow": "#8cc265",
    "hills": "#6da35a",
    "mountains": "#8f8ca0",
    "desert": "#e0b46c",
    "forest": "#3f7d4d",
    "marsh": "#7d8a5c",
}
_CELL = 46


def map_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Known places with their cells, and the ways between them; neighbours of known places show as unknown."""
    places, who = content.get("places"), traveller_in(content)
    if not isinstance(places, Mapping) or who is None:
        return None
    seen = {name for name, place in places.items() if place.get("known") or name == who["place"]}
    beside = {other for name in seen for other in places[name].get("neighbours", {}).values()} - seen
    shown = [
        {
            "name": name if name in seen else None,
            "at": list(place.get("at", (0, 0))),
            "terrain": place.get("terrain") if name in seen else None,
            "landmark": place.get("landmark") if name in seen else None,
            "state": place.get("state") if name in seen else None,
            "here": name == who["place"],
            "way": next((way for way, other in places[who["place"]].get("neighbours", {}).items() if other == name), None),
        }
        for name, place in places.items()
        if name in seen or name in beside
    ]
    return {"places": shown, "count": len(places), "known": len(seen)}


def cast_of(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The characters that the traveller can know: those here first."""
    who = traveller_in(content)
    if who is None:
        return []
    name = content["traveller"]
    met = {other for other, entry in content["characters"].items() if name in entry.get("remembers", {})}
    found = []
    for other, entry in content["characters"].items():
        here = is_here(entry, who["place"])
        if other == name or here or other in met:
            found.append(
                {
                    "name": other,
                    "hero": other == name,
                    "kind": entry.get("kind", "person"),
                    "role": entry.get("role"),
                    "mood": entry.get("mood"),
                    "here": here,
                    "place": entry.get("place"),
                    "goal": _wish(content, entry.get("goal")) if other == name else None,
                    "carries": carried_by(content, other) if here else [],
                    "look": dict(entry.get("look") or {}),
                }
            )
    return sorted(found, key=lambda entry: (not entry["hero"], not entry["here"], str(entry["name"])))


def carried_by(content: Mapping[str, Any], name: Any) -> list[str]:
    """What a character carries, in words."""
    characters, objects = content.get("characters"), content.get("objects", {})
    if not isinstance(characters, Mapping) or name not in characters:
        return []
    return [_thing(thing, objects.get(thing, {})) for thing in characters[name].get("carries", ())]


def clock_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Day, hour, part of the day and weather, where the world has a clock."""
    clock = content.get("clock")
    if not isinstance(clock, Mapping) or "hour" not in clock:
        return None
    hour = int(clock["hour"])
    part = next(name for until, name in _HOURS if hour < until)
    return {"day": clock.get("day"), "hour": hour, "part": part, "weather": words(content.get("weather"))}


def traveller_in(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The character that actions without a name belong to, where a world has facts."""
    characters, places = content.get("characters"), content.get("places")
    who = characters.get(content.get("traveller")) if isinstance(characters, Mapping) else None
    return who if isinstance(who, Mapping) and isinstance(places, Mapping) and who.get("place") in places else None


def is_here(entry: Mapping[str, Any], place: str) -> bool:
    """Whether a character is at a place."""
    return entry.get("place") == place and entry.get("present", True) is not False


def _wish(content: Mapping[str, Any], goal: Any) -> str:
    """What a goal is in words: that of a thread, where the world keeps such."""
    thread = (content.get("threads") or {}).get(goal) if isinstance(goal, str) else None
    return words(thread["what"]["words"] if isinstance(thread, Mapping) and "words" in (thread.get("what") or {}) else goal)


def _thing(name: str, entry: Mapping[str, Any]) -> str:
    state = entry.get("state")
    return name if state in (None, "whole") else f"{name} ({state})"


def map_svg(content: Mapping[str, Any]) -> str:
    """The map as far as it is known, as SVG; empty where there is none."""
    found = map_of(content)
    if found is None:
        return ""
    xs, ys = zip(*(place["at"] for place in found["places"]), strict=True)
    width, height = (max(xs) - min(xs) + 1) * _CELL, (max(ys) - min(ys) + 1) * _CELL
    parts = []
    for place in found["places"]:
        x, y = (place["at"][0] - min(xs)) * _CELL, (max(ys) - place["at"][1]) * _CELL
        fill = _COLORS.get(str(place["terrain"]), "none")
        said = ", ".join(str(place[key]) for key in ("terrain", "landmark") if place[key])
        name = str(place["name"] or "?")[:11]
        fit = f' textLength="{_CELL - 8}" lengthAdjust="spacingAndGlyphs"' if len(name) > 8 else ""
        here, dashes = ' class="here"' if place["here"] else "", "" if place["name"] else ' stroke-dasharray="3 3"'
        parts.append(
            f'<g transform="translate({x} {y})"{here}>'
            f"<title>{escape(str(place['name'] or 'unknown'))}: {escape(said)}</title>"
            f'<rect x="3" y="3" width="{_CELL - 6}" height="{_CELL - 6}" rx="5" fill="{fill}"{dashes}/>'
            f'<text x="{_CELL // 2}" y="{_CELL - 8}"{fit}>{escape(name)}</text></g>'
        )
    label = f"{found['known']} of {found['count']} places are known"
    return f'<svg viewBox="-4 -4 {width + 8} {height + 8}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
