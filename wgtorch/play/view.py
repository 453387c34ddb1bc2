"""All that the page shows, as data: from the facts of a world where it has such, from its slots where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.play.episodes import slot_text
from wgtorch.play.game import Game
from wgtorch.report.words import words

SUGGESTED = 4
_HOURS = ((5, "night"), (8, "dawn"), (18, "day"), (21, "dusk"), (24, "night"))


def view_of(game: Game) -> dict[str, Any]:
    """What the page shows now."""
    world = game.world
    content: Mapping[str, Any] = world.content
    state = world.state
    episodes = game.episodes[game.branch].told()
    slots = {} if state is None else {slot: slot_text(state[slot]) for slot in state.schema}
    return {
        "world": world.world_id,
        "title": _title(content) or world.world_id,
        "passes": world.life.passes,
        "seed": world.life.seed,
        "busy": game.is_busy,
        "stage": game.stage,
        "running": game.action,
        "paused": game.paused_after,
        "error": game.error,
        "cycle": list(world.cycle),
        "pauses": sorted(game.pauses),
        "episodes": episodes,
        "slots": slots,
        "suggestions": suggestions(content, state),
        "map": map_of(content),
        "cast": cast_of(content),
        "carried": carried_by(content, content.get("traveller")),
        "clock": clock_of(content),
        "branch": game.branch,
        "branches": [{"name": name, "passes": branch.life.passes, "parent": game.parents[name]} for name, branch in game.branches.items()],
        "can": {"undo": game.can_go_back, "branch": game.can_branch},
    }


def suggestions(content: Mapping[str, Any], state: Any) -> list[str]:
    """Up to four things that one might do now: those that the world names, or what the facts around the traveller allow."""
    intent = state["intent"] if state is not None and "intent" in state else None
    named = intent.get("suggestions") if isinstance(intent, Mapping) else None
    if named:
        return [words(entry) for entry in named][:SUGGESTED]
    who = _traveller(content)
    if who is None:
        return ["look around", "wait", "go on", "ask what happened here"]
    here = content["places"].get(who["place"], {})
    name = content["traveller"]
    people = [other for other, entry in content["characters"].items() if _is_here(entry, who["place"]) and other != name]
    lying = [thing for thing, entry in content.get("objects", {}).items() if entry.get("place") == who["place"] and not entry.get("fixed")]
    found = [f"talk to {people[0]}"] if people else []
    found += [f"take the {lying[0]}"] if lying else []
    found += [f"go {direction}" for direction in here.get("neighbours", {})]
    return [*found[:SUGGESTED], "wait", "look around", "sing", "sleep"][:SUGGESTED]


def map_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Known places with their cells, and the ways between them; neighbours of known places show as unknown."""
    places, who = content.get("places"), _traveller(content)
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
    who = _traveller(content)
    if who is None:
        return []
    name = content["traveller"]
    met = {other for other, entry in content["characters"].items() if name in entry.get("remembers", {})}
    found = []
    for other, entry in content["characters"].items():
        here = _is_here(entry, who["place"])
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


def _wish(content: Mapping[str, Any], goal: Any) -> str:
    """What a goal is in words: that of a thread, where the world keeps such."""
    thread = (content.get("threads") or {}).get(goal) if isinstance(goal, str) else None
    return words(thread["what"]["words"] if isinstance(thread, Mapping) and "words" in (thread.get("what") or {}) else goal)


def _traveller(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    characters, places = content.get("characters"), content.get("places")
    who = characters.get(content.get("traveller")) if isinstance(characters, Mapping) else None
    return who if isinstance(who, Mapping) and isinstance(places, Mapping) and who.get("place") in places else None


def _is_here(entry: Mapping[str, Any], place: str) -> bool:
    return entry.get("place") == place and entry.get("present", True) is not False


def _thing(name: str, entry: Mapping[str, Any]) -> str:
    state = entry.get("state")
    return name if state in (None, "whole") else f"{name} ({state})"


def _title(content: Mapping[str, Any]) -> str:
    text = words(content.get("title") or content.get("opening") or content.get("story"))
    return text.split("\n")[0][:120]
