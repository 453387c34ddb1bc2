"""Finds contradictions in a simulated world: within the ledger, between ledger and facts, and between facts and what is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wgtorch.blocks.simulation.facts import WORLD, Content, Event, applied, look
from wgtorch.blocks.simulation.memory import memories
from wgtorch.blocks.simulation.places import way
from wgtorch.blocks.simulation.seasons import time_of_day
from wgtorch.blocks.simulation.telling.sentences import RECALLED, TOLD
from wgtorch.blocks.simulation.telling.words import WHEN
from wgtorch.blocks.simulation.verbs.travel import STEPS
from wgtorch.core.errors import ConfigError

KINDS = ("place", "person", "object", "time")
_TOGETHER = frozenset("talk greet befriend court help quarrel reconcile teach give trade steal beg".split())
_FIXED = {"characters": ("role", "kind", "look"), "places": ("terrain", "at"), "objects": ("kind", "fixed")}
_SKY_WORDS = {
    "rain": ("rain",), "snow": ("snow", "flakes"), "fog": ("fog",), "storm": ("storm", "thunder", "lightning"), "cloudy": ("clouds",),
    "clear": ("clear air", "clear sky"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something that cannot be as it is told.

    Args:
        kind: ``place``, ``person``, ``object`` or ``time``.
        where: the event or the text it stands in.
        what: what was found, and what the facts say.
    """

    kind: str
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One episode as it is checked: the facts before and after, its events, and the words for it."""

    before: Content
    after: Content
    events: Sequence[Event]
    outcome: str = ""


def contradictions(passages: Iterable[Passage]) -> list[Contradiction]:
    """All contradictions of some episodes, each checked against the facts before it."""
    return [found for passage in passages for found in (*_ledger(passage), *_facts(passage), *_telling(passage))]


def is_caused(event: Event, cause: Event) -> bool:
    """True in the strict sense: the cause changed, or made, a fact which the event reads."""
    changed = [tuple(effect["path"]) for effect in cause["effects"]]
    return any(path == tuple(read) or path == tuple(read)[:2] for path in changed for read in event["reads"])


# --- ledger ---------------------------------------------------------------------------------------------------------------


def _kind_of(path: Sequence[str]) -> str:
    if path[0] == "characters":
        return "place" if path[-1] == "place" else "object" if path[-1] == "carries" else "person"
    return {"places": "place", "objects": "object", "clock": "time", "weather": "time", "threads": "person"}.get(path[0], "person")


def _ledger(passage: Passage) -> Iterator[Contradiction]:
    facts, clock = passage.before, _hours(passage.before["clock"])
    first = len(passage.before["events"]) + 1
    for number, event in enumerate(passage.events, start=first):
        where = f"event {event['id']}"
        if event["id"] != number:
            yield Contradiction("time", where, f"its id is {event['id']}, and it is the {number}th event")
        if any(cause >= event["id"] for cause in event["caused_by"]):
            yield Contradiction("time", where, f"caused by {event['caused_by']}, which did not come before it")
        yield from _actor(event, facts, where)
        for effect in event["effects"]:
            path = effect["path"]
            if look(facts, path) != effect["before"]:
                yield Contradiction(_kind_of(path), where, f"{'.'.join(path)} was {look(facts, path)!r}, not {effect['before']!r}")
            if len(path) > 2 and path[2] in _FIXED.get(path[0], ()):
                yield Contradiction(
                    "place" if path[0] == "places" else "person" if path[0] == "characters" else "object",
                    where,
                    f"{'.'.join(path)} never changes",
                )
            yield from _move(event, effect, facts, where)
            try:
                facts = applied(facts, [{**effect, "before": look(facts, path)}])
            except ConfigError:
                continue
        now = _hours(event["when"])
        if not clock <= now or now != _hours(facts["clock"]):
            yield Contradiction(
                "time", where, f"it is told of day {event['when']['day']}, hour {event['when']['hour']}; the clock says {facts['clock']}"
            )
        clock = max(clock, now)
        yield from _settled(event, facts, where)


def _actor(event: Event, facts: Content, where: str) -> Iterator[Contradiction]:
    actor = event["actor"]
    if actor == WORLD or event["verb"] == "arrive":
        return
    if actor not in facts["characters"]:
        yield Contradiction("person", where, f"{actor!r} acts and is nobody")
        return
    if not facts["characters"][actor]["present"]:
        yield Contradiction("person", where, f"{actor} acts and has left")
    if event["verb"] in _TOGETHER and event["status"] in ("done", "partly"):
        details = event["details"]
        other = details.get("to") or details.get("victim") or details.get("giver") or event["target"]
        if other not in facts["characters"]:
            yield Contradiction("person", where, f"{other!r} is met and is nobody")
        elif not facts["characters"][other]["present"] or facts["characters"][other]["place"] != facts["characters"][actor]["place"]:
            yield Contradiction("person", where, f"{other} is met by {actor} and is not there")
    for key in ("gave", "got", "left", "stolen", "opened", "lost"):
        thing = event["details"].get(key)
        if thing is not None and thing not in facts["objects"] and thing not in {place["landmark"] for place in facts["places"].values()}:
            yield Contradiction("object", where, f"{thing!r} is handled and does not exist")
    holder = {"gave": actor, "left": actor, "lost": actor, "stolen": event["details"].get("victim")}
    for key, expected in holder.items():
        thing = event["details"].get(key)
        if thing in facts["objects"] and facts["objects"][thing]["bearer"] != expected:
            yield Contradiction("object", where, f"{thing!r} was with {facts['objects'][thing]['bearer']!r}, not with {expected!r}")


def _move(event: Event, effect: Mapping[str, Any], facts: Content, where: str) -> Iterator[Contradiction]:
    path, value = effect["path"], effect["after"]
    if path[0] == "characters" and path[-1] == "place" and len(path) == 3:
        if value not in facts["places"]:
            yield Contradiction("place", where, f"{path[1]} goes to {value!r}, which is no place")
        else:
            steps = way(facts["places"], effect["before"], lambda name: name == value) if effect["before"] in facts["places"] else None
            if steps is None or len(steps) > STEPS:
                yield Contradiction("place", where, f"{path[1]} comes from {effect['before']!r} to {value!r}, which is too far")
    if path[0] == "objects" and path[-1] == "bearer" and value is not None and value not in facts["characters"]:
        yield Contradiction("object", where, f"{path[1]!r} goes to {value!r}, who is nobody")


def _settled(event: Event, facts: Content, where: str) -> Iterator[Contradiction]:
    actor = event["actor"]
    if event["where"] is not None and event["where"] not in facts["places"]:
        yield Contradiction("place", where, f"it happens at {event['where']!r}, which is no place")
    elif actor in facts["characters"] and event["where"] != facts["characters"][actor]["place"]:
        yield Contradiction("place", where, f"it happens at {event['where']!r}, and {actor} is at {facts['characters'][actor]['place']!r}")
    for effect in event["effects"]:
        if effect["path"][0] == "objects" and (name := effect["path"][1]) in facts["objects"]:
            thing = facts["objects"][name]
            carrying = [who for who, c in facts["characters"].items() if name in c["carries"]]
            if carrying != ([thing["bearer"]] if thing["bearer"] else []) or (thing["place"] is None) is (thing["bearer"] is None):
                yield Contradiction(
                    "object", where, f"{name!r} is at {thing['place']!r} and with {thing['bearer']!r}; carried by {carrying}"
                )


def _facts(passage: Passage) -> Iterator[Contradiction]:
    """What changed without an event."""
    facts: Mapping[str, Any] = passage.before
    for event in passage.events:
        for effect in event["effects"]:
            try:
                facts = applied(facts, [{**effect, "before": look(facts, effect["path"])}])
            except ConfigError:
                continue
    for part in ("places", "characters", "objects"):
        for name in {**facts[part], **passage.after[part]}:
            one, two = facts[part].get(name), passage.after[part].get(name)
            if one != two:
                keys = [key for key in {**(one or {}), **(two or {})} if (one or {}).get(key, ...) != (two or {}).get(key, ...)]
                yield Contradiction(_kind_of((part, name, *keys[:1])), "facts", f"{part}.{name}: {keys} changed without an event")
    if facts["clock"] != passage.after["clock"] or facts["weather"] != passage.after["weather"]:
        yield Contradiction("time", "facts", "the clock or the sky changed without an event")


# --- telling --------------------------------------------------------------------------------------------------------------


class _Names:
    """All names of a world, as they may be mentioned in a text."""

    def __init__(self, content: Content) -> None:
        self.kinds = dict.fromkeys(content["characters"], "person") | dict.fromkeys(content["places"], "place")
        self.kinds |= {f"the {name}": "object" for name in content["objects"] if name not in _PATTERN_NOUNS}
        self._spelled = [(name, spelled) for name in self.kinds for spelled in {name, name[:1].upper() + name[1:]}]

    def __call__(self, text: str) -> dict[str, str]:
        """Kinds by the names that a text mentions: a name is spelled as it is, or with a large letter in front."""
        found = (name for name, spelled in self._spelled if spelled in text and re.search(rf"(?<!\w){re.escape(spelled)}(?![\w-])", text))
        return {name: self.kinds[name] for name in found}


_PATTERN_NOUNS = frozenset(
    noun for patterns in (*TOLD.values(), *RECALLED.values()) for text in patterns for noun in re.findall(r"[Tt]he ([a-z-]+)", text)
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[.!?]”)\s+")
_WORDS_OF_TIME = {phrase.lower(): time for time, phrases in WHEN.items() for phrase in phrases}
_PLAIN_WORDS_OF_TIME = {
    "dawn": "dawn", "daybreak": "dawn", "sunrise": "dawn", "noon": "day", "afternoon": "day", "daylight": "day", "dusk": "dusk", "sunset": "dusk",
    "nightfall": "dusk", "midnight": "night",
}  # fmt: skip


def _telling(passage: Passage) -> Iterator[Contradiction]:
    if not passage.outcome:
        return
    everything = _merged(passage)
    names = _Names(everything)
    ledger = list(passage.before["events"])
    hero = passage.after["traveller"]
    here = passage.after["characters"][hero]["place"]
    sources = [
        _source([event, *(ledger[n - 1] for n in event["caused_by"] if n <= len(ledger)), *_news(event, ledger)])
        for event in passage.events
    ]
    for name, who in passage.after["characters"].items():
        if who["place"] == here and who["present"]:
            sources += [f"{name} {_source([event])}" for event in memories(passage.before, name, {hero}, count=4)]
    sources.append(f"{here} ; {passage.after['places'][here]['landmark']}")
    allowed = [set(names(_with_articles(source, names))) for source in sources]
    days = [set(map(int, re.findall(r"day (\d+)", source))) for source in sources]
    for sentence in _SENTENCES.split(passage.outcome):
        said = names(sentence)
        fitting = [index for index, known in enumerate(allowed) if set(said) <= known]
        if said and not fitting:
            best = max(allowed, key=lambda known: len(set(said) & known), default=set())
            for name in sorted(set(said) - best):
                yield Contradiction(said[name], "outcome", f"{sentence!r} names {name!r}, which has no part in it")
        for day in map(int, re.findall(r"day (\d+)", sentence)):
            if not any(day in days[index] for index in fitting or range(len(days))):
                yield Contradiction("time", "outcome", f"{sentence!r}: nothing that is told of happened on day {day}")
    yield from _hour_told(passage)


def _merged(passage: Passage) -> dict[str, Any]:
    return {part: {**passage.before[part], **passage.after[part]} for part in ("characters", "places", "objects")}


def _news(event: Event, ledger: Sequence[Event]) -> list[Event]:
    news = event["details"].get("news")
    return [ledger[news - 1]] if news and news <= len(ledger) else []


_UNTOLD = frozenset(("seen_by", "witnesses", "heard"))


def _source(events: Sequence[Event]) -> str:
    """All words that events hold, and the days they are of."""
    found: list[str] = []
    for event in events:
        found += [
            event["actor"],
            str(event["target"]),
            str(event["where"]),
            event["action"],
            event["because"],
            f"day {event['when']['day']}",
        ]
        found += list(_texts({key: value for key, value in event["details"].items() if key not in _UNTOLD}))
    return " ; ".join(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _with_articles(source: str, names: _Names) -> str:
    """The source with ``the`` before each of its parts, so that objects are found where they stand without it."""
    return source + " ; " + " ; ".join(f"the {part}" for part in source.split(" ; "))


def _hour_told(passage: Passage) -> Iterator[Contradiction]:
    time, weather = time_of_day(passage.after["clock"]), passage.after["weather"]
    opening = " ".join(_SENTENCES.split(passage.outcome)[:1]).lower()
    phrases = [phrase for phrase in _WORDS_OF_TIME if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", opening)]
    longest = [phrase for phrase in phrases if not any(phrase != other and phrase in other for other in phrases)]
    for phrase in longest:
        if _WORDS_OF_TIME[phrase] != time:
            yield Contradiction("time", "outcome", f"{phrase!r} is told, and it was {time}")
    rest = opening
    for phrase in longest:
        rest = rest.replace(phrase, " ")
    for word, hour in _PLAIN_WORDS_OF_TIME.items():
        if hour != time and re.search(rf"(?<!\w){word}(?!\w)", rest):
            yield Contradiction("time", "outcome", f"{word!r} is told, and it was {time}")
    for kind, found in _SKY_WORDS.items():
        beside = kind == weather or (kind in ("rain", "cloudy") and weather in ("storm", "cloudy", "rain"))
        if not beside and any(re.search(rf"(?<![\w-]){word}(?![\w-])", rest) for word in found):
            yield Contradiction("time", "outcome", f"{kind} is told, and the sky was {weather}")


def _hours(clock: Mapping[str, int]) -> int:
    return clock["day"] * 24 + clock["hour"]
