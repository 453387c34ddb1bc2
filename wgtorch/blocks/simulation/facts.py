"""What a simulated world *is* between passes: its content as typed data, how it is checked, and how it changes.

The content is a plain mapping, so that it is stored, compared and forked like any other. Its facts::

    places      by name: terrain, neighbours by direction, landmark, colour, state, known, at
    characters  by name: kind, role, place, mood, goal, carries, remembers, avoids, look, present
    objects     by name: kind, colour, place or bearer, state, fixed
    threads     by id:   who, kind, what, why, status, opened, closed
    clock       day (from 1) and hour (0 to 23)
    weather     over the traveller
    events      the ledger, oldest first

A fact changes only through an effect of an event: ``{"path": [...], "before": ..., "after": ...}``, where ``after`` None at a path of
two parts takes the whole entry away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from wgtorch.blocks.simulation.scene_plan import BEASTS, COLOURS, STATES, TERRAINS, WEATHERS
from wgtorch.core.errors import ConfigError

Content = Mapping[str, Any]
Effect = Mapping[str, Any]
Event = Mapping[str, Any]
Path = tuple[str, ...]

DIRECTIONS = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
STATUSES = ("done", "partly", "refused", "unclear")
MOODS = ("calm", "glad", "sad", "angry", "afraid", "proud", "curious", "weary", "ashamed", "hopeful")
THREAD_STATUSES = ("open", "done", "failed", "dropped")
WORLD = "the world"
"""The actor of what nobody did: weather, chance, time."""

_TEXT = {"type": "string"}
_NAME = {"type": ["string", "null"]}
_COLOUR = {"enum": [*COLOURS, None]}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 1}}


def _record(properties: Mapping[str, Any], *, optional: Iterable[str] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in set(optional)],
        "additionalProperties": False,
    }


_CLOCK = _record({"day": {"type": "integer", "minimum": 1}, "hour": {"type": "integer", "minimum": 0, "maximum": 23}})
SCHEMAS: dict[str, dict[str, Any]] = {
    "places": _record(
        {
            "terrain": {"enum": list(TERRAINS)},
            "neighbours": {"type": "object", "propertyNames": {"enum": list(DIRECTIONS)}, "additionalProperties": _TEXT},
            "landmark": _NAME,
            "colour": _COLOUR,
            "state": {"enum": list(STATES)},
            "known": {"type": "boolean"},
            "at": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        }
    ),
    "characters": _record(
        {
            "kind": {"enum": ["person", *BEASTS]},
            "role": _TEXT,
            "place": _TEXT,
            "mood": {"enum": list(MOODS)},
            "goal": _NAME,
            "carries": {"type": "array", "items": _TEXT, "uniqueItems": True},
            "remembers": {
                "type": "object",
                "additionalProperties": _record(
                    {"feeling": {"type": "integer", "minimum": -5, "maximum": 5}, "event": {"type": "integer"}}
                ),
            },
            "avoids": {"type": "array", "items": _TEXT},
            "look": {"type": "object"},
            "present": {"type": "boolean"},
        }
    ),
    "objects": _record(
        {"kind": _TEXT, "colour": _COLOUR, "place": _NAME, "bearer": _NAME, "state": {"enum": list(STATES)}, "fixed": {"type": "boolean"}}
    ),
    "threads": _record(
        {
            "who": _TEXT,
            "kind": _TEXT,
            "what": {"type": "object"},
            "why": _IDS,
            "status": {"enum": list(THREAD_STATUSES)},
            "opened": {"type": "integer"},
            "closed": {"type": ["integer", "null"]},
        }
    ),
    "clock": _CLOCK,
    "weather": {"enum": list(WEATHERS)},
    "events": _record(
        {
            "id": {"type": "integer", "minimum": 1},
            "when": _CLOCK,
            "where": _NAME,
            "actor": _TEXT,
            "action": _TEXT,
            "verb": _TEXT,
            "target": _NAME,
            "status": {"enum": list(STATUSES)},
            "because": _TEXT,
            "effects": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"path": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 4}},
                    "required": ["path", "before", "after"],
                    "additionalProperties": True,
                },
            },
            "reads": {"type": "array", "items": {"type": "array", "items": _TEXT}},
            "caused_by": _IDS,
            "details": {"type": "object"},
        }
    ),
}
"""The JSON Schema of one entry of each part of the content."""
ENTITIES = ("places", "characters", "objects", "threads")


@cache
def _validator(part: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(SCHEMAS[part])


def check_entry(part: str, name: str, value: Any) -> None:
    """Checks one entry of the content against its schema.

    Raises:
        ConfigError: it does not fit; the message names the fact, what was found and what was expected.
    """
    error = next(_validator(part).iter_errors(value), None)
    if error is not None:
        where = ".".join([f"content.{part}", *([name] if name else []), *map(str, error.absolute_path)])
        raise ConfigError(f"{where}: {error.message}; facts of a simulated world are described in wgtorch.blocks.simulation.facts")


def check_content(content: Content, *, entries: Iterable[Path] | None = None) -> None:
    """Checks facts against their schemas and against each other.

    Args:
        content: the world's content.
        entries: which facts, as ``(part, name)``; all of them when left out.

    Raises:
        ConfigError: something does not fit: a wrong type, a neighbour that is no place, a bearer that does not carry, two places
            for one thing.
    """
    whole = entries is None
    chosen = [(part, name) for part in ENTITIES for name in content.get(part, {})] if entries is None else list(entries)
    for part, name in chosen:
        if name in content.get(part, {}):
            check_entry(part, name, content[part][name])
            _check_references(content, part, name)
    for part in ("clock", "weather"):
        if part in content:
            check_entry(part, "", content[part])
    if whole:
        for index, event in enumerate(content.get("events", ())):
            check_entry("events", str(index), event)


def _check_references(content: Content, part: str, name: str) -> None:
    entry = content[part][name]

    def require(holds: bool, field: str, expected: str) -> None:
        if not holds:
            raise ConfigError(f"content.{part}.{name}.{field}: found {entry.get(field)!r}, expected {expected}")

    if part == "places":
        for direction, other in entry["neighbours"].items():
            back = content["places"].get(other, {}).get("neighbours", {})
            require(
                back.get(OPPOSITE[direction]) == name, "neighbours", f"{other!r} {direction} of it to have it in the {OPPOSITE[direction]}"
            )
    elif part == "characters":
        require(entry["place"] in content["places"], "place", "the name of a place")
        for thing in entry["carries"]:
            require(content["objects"].get(thing, {}).get("bearer") == name, "carries", f"{thing!r} to be an object that {name!r} bears")
    elif part == "objects":
        require((entry["place"] is None) is not (entry["bearer"] is None), "place", "either a place or a bearer")
        if entry["place"] is not None:
            require(entry["place"] in content["places"], "place", "the name of a place")
        else:
            bearer = content["characters"].get(entry["bearer"], {})
            require(name in bearer.get("carries", ()), "bearer", "a character that carries it")
    elif part == "threads":
        require(entry["who"] in content["characters"], "who", "the name of a character")


def look(content: Content, path: Sequence[str]) -> Any:
    """The fact at a path; None where there is none."""
    value: Any = content
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def applied(content: Content, effects: Iterable[Effect]) -> dict[str, Any]:
    """The content after effects; nothing that is given is changed, and what no effect touches is shared.

    Raises:
        ConfigError: an effect's ``before`` is not the fact that stands there.
    """
    after = dict(content)
    own: set[tuple[str, ...]] = set()
    for effect in effects:
        path = tuple(effect["path"])
        if look(after, path) != effect["before"]:
            raise ConfigError(
                f"content.{'.'.join(path)}: an event changes it from {effect['before']!r}, and it is {look(after, path)!r}; "
                "the event was made for another content"
            )
        target: dict[str, Any] = after
        for depth in range(1, len(path)):
            key = path[depth - 1]
            if path[:depth] not in own:
                target[key] = dict(target.get(key) or {})
                own.add(path[:depth])
            target = target[key]
        if effect["after"] is None and len(path) == 2:
            target.pop(path[-1], None)
            own = {known for known in own if known[:2] != path}
        else:
            target[path[-1]] = effect["after"]
            own = {known for known in own if known[: len(path)] != path}
    return after
