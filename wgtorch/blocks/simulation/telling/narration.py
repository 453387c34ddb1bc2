"""An episode as plain statements for a language model to tell, and the check of what it told: each sentence against the facts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.cast import ROLES
from wgtorch.blocks.simulation.facts import WORLD, Content, Event
from wgtorch.blocks.simulation.lexicon import with_article
from wgtorch.blocks.simulation.seasons import time_of_day
from wgtorch.blocks.simulation.telling import plain, sentences, words
from wgtorch.blocks.simulation.telling.teller import causes_of, fields_of, ranked_causes, told_events

SYSTEM = "Tell these facts as a story."
"""What the narrator is told to be."""
LONGEST = 60
"""Words of a sentence."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One event in plain words.

    Args:
        event: its id.
        text: the sentence, with its reason.
        verb: of the event.
        actor: who acts; None where nobody does.
        names: names that must be said.
        words: beginnings of words that must be said.
        counted: the place that a number of places is the way to.
        wrong: what would say the opposite.
        reasons: verbs of the events that stand behind it.
    """

    event: int
    text: str
    verb: str
    actor: str | None
    names: frozenset[str]
    wrong: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    counted: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """What a narrator is to tell: where and when it is, and what happened.

    Args:
        time, weather, terrain: of the scene.
        place: its name.
        scene: all of it in plain words.
        statements: in order.
        people: names of characters, of the whole world.
        names: all names of the world.
    """

    time: str
    weather: str
    terrain: str
    place: str
    scene: str
    statements: tuple[Statement, ...]
    people: frozenset[str]
    names: frozenset[str]

    @property
    def prompt(self) -> str:
        """What the model reads."""
        return "\n".join([self.scene, *(f"{index}. {entry.text}." for index, entry in enumerate(self.statements, start=1))])


@dataclass(frozen=True, slots=True)
class Checked:
    """What of a telling may stand.

    Args:
        opening: the scene's sentences; empty where none may stand.
        told: of each statement, the sentences; empty where none may stand.
        strays: sentences that were left out, and why.
    """

    opening: str
    told: tuple[str, ...]
    strays: tuple[tuple[str, str], ...] = field(default=())


# --- the account ----------------------------------------------------------------------------------------------------------


def account_of(before: Content, after: Content, events: Sequence[Event]) -> Account:
    """The account of an episode: of the events that the grammar tells of, too, those that came about.

    Questions, remarks, and what was refused or not understood, are answers to what somebody said and need no narrator.
    """
    hero = after["traveller"]
    where = after["characters"][hero]["place"]
    place = after["places"][where]
    time, weather = time_of_day(after["clock"]), after["weather"]
    own, others = told_events(after, events)
    known = [event for event in (*own, *others) if is_narrated(event)]
    people = frozenset({**before["characters"], **after["characters"]})
    objects = {f"the {name}": name for name in {**before["objects"], **after["objects"]}}
    names = frozenset((*people, *before["places"], *after["places"], *objects))
    return Account(
        time, weather, place["terrain"], where, f"{time.capitalize()}, {_SKY[weather]}. {where}, {_LAND[place['terrain']]}{_landmark(place)}.",
        tuple(_statement(before, after, event, people, names) for event in known), people, names,
    )  # fmt: skip


def is_narrated(event: Event) -> bool:
    """True for what came about, and is more than an answer."""
    return event["status"] in ("done", "partly") and not event["details"].get("answer") and kind_of(event) in plain.PLAIN


def kind_of(event: Event) -> str:
    """By what an event is told."""
    verb = str(event["verb"])
    return "go" if event["details"].get("from") and verb != "invite" else verb


def _statement(before: Content, after: Content, event: Event, people: frozenset[str], names: frozenset[str]) -> Statement:
    kind, fields = kind_of(event), fields_of(after, event, random.Random(0))
    core = plain_words(after, event)
    must = mentioned(core, names)
    if kind not in ("go", "discover", "arrive", "depart"):
        must -= {fields["P"]} - mentioned(fields["W"], names)
    cause, because = told_cause(before, event), event["because"]
    reason = "" if cause is None else _reason(before, cause)
    text = ", ".join(filter(None, (core, reason))) + (f"{', but' if event['status'] == 'partly' else ';'} {because}" if because else "")
    news = news_of(after, event)
    if news is not None:
        text += f"; {fields['O']} had news: {plain_words(after, news)}"
    return Statement(
        event["id"], text[:1].upper() + text[1:], kind, None if event["actor"] == WORLD else event["actor"], must,
        tuple(entry.format(**fields) for entry in plain.WRONG.get(kind, ())) if fields["P"] != fields["Q"] else (),
        _beginnings(kind, fields, names), str(event["details"].get("goal") or ""),
        tuple(entry["verb"] for entry in (cause, news) if entry is not None),
    )  # fmt: skip


_PASSED_OVER = frozenset("a an the be to of from with that lies at for and by in it up out hand ruins craft".split())


def _beginnings(kind: str, fields: Mapping[str, str], names: frozenset[str]) -> tuple[str, ...]:
    """Beginnings of the words that say what an event was about, beside names."""
    found: dict[str, None] = {}
    for letter in re.findall(r"\{([TKGWVLDS])\}", plain.PLAIN[kind]):
        text = fields[letter].removesuffix("ward")
        held = {word for name in mentioned(text, names) for word in lexicon.words(name)}
        for word in lexicon.words(text):
            if word not in held and word not in _PASSED_OVER:
                found[word[: max(3, len(word) - 2)]] = None
    return tuple(found)


def told_cause(content: Content, event: Event) -> Event | None:
    """The event that is told as the reason of another: what somebody else did, or what one had decided oneself."""
    fitting = (
        cause for cause in ranked_causes(causes_of(content, event)) if (cause["actor"] == event["actor"]) == (cause["verb"] == "want")
    )
    return next(fitting, None)


def plain_words(content: Content, event: Event) -> str:
    """An event by its pattern of :data:`~wgtorch.blocks.simulation.telling.plain.PLAIN`."""
    said = plain.PLAIN[kind_of(event)].format(**fields_of(content, event, random.Random(0)))
    return re.sub(r"\ba (?=[aeiou])", "an ", said)


def news_of(content: Content, event: Event) -> Event | None:
    """The earlier event that is told in a talk."""
    number = event["details"].get("news") if event["verb"] == "talk" else None
    known = content["events"][number - 1] if number and number <= len(content["events"]) else None
    return known if known is not None and kind_of(known) in plain.PLAIN and not known["action"] else None


def _reason(content: Content, event: Event) -> str:
    fields = fields_of(content, event, random.Random(0))
    if event["verb"] in plain.REASONS:
        return plain.REASONS[event["verb"]].format(**fields)
    kind = kind_of(event)
    return f"because {plain_words(content, event)}" if kind in plain.PLAIN else ""


_SKY = {"clear": "clear sky", "cloudy": "clouds", "rain": "rain", "snow": "snow", "fog": "fog", "storm": "storm"}
_LAND = {
    "sea": "by the sea", "river": "at a river", "meadow": "among meadows", "hills": "in the hills", "mountains": "in the mountains",
    "desert": "in the desert", "forest": "in the forest", "marsh": "in the marsh",
}  # fmt: skip


def _landmark(place: Mapping[str, Any]) -> str:
    if place["landmark"] is None:
        return ""
    state = "" if place["state"] == "whole" or place["landmark"] == "ruin" else f"{place['state']} "
    colour = f"{place['colour']} " if place["colour"] else ""
    noun = f"{state}{colour}{place['landmark']}"
    return f"; {noun if place['landmark'] == 'stones' else with_article(noun)}"


# --- the check ------------------------------------------------------------------------------------------------------------


def mentioned(text: str, names: Iterable[str]) -> frozenset[str]:
    """The names that a text mentions: spelled as they are, or with a large letter in front."""
    return frozenset(name for name in names if name in text or f"{name[:1].upper()}{name[1:]}" in text if _found(name, text))


def _found(name: str, text: str) -> list[int]:
    first = f"[{re.escape(name[:1])}{re.escape(name[:1].upper())}]"
    return [match.start() for match in re.finditer(rf"(?<![\w-]){first}{re.escape(name[1:])}(?![\w-])", text)]


def checked(prose: str, account: Account) -> Checked:
    """What of a telling agrees with the facts: sentence by sentence, each for the statement that it tells.

    A sentence tells a statement when a word of such events follows who did it, with nobody named between them, and when it holds
    all names that the statement must have. It strays with any name, number, thing, land, colour, hour, sky or deed that neither
    the statement nor the scene has, and with a denial of what came about.
    """
    told: list[list[str]] = [[] for _ in account.statements]
    opening: list[str] = []
    strays: list[tuple[str, str]] = []
    at: int | None = None
    seen: set[str] = set()
    for sentence in split(prose):
        index = next((k for k, entry in enumerate(account.statements) if not told[k] and tells(sentence, entry, account)), None)
        entry = account.statements[index] if index is not None else account.statements[at] if at is not None else None
        if sentence in seen:
            fault = "said twice"
        elif index is None and mentioned(sentence, account.people):
            fault = "tells no statement"
        else:
            fault = stray(sentence, entry, account, tells_it=index is not None)
        if not fault and entry is not None and entry.counted and not _counts_to(entry.counted, sentence, account):
            fault = "counts the way to another place"
        seen.add(sentence)
        if fault:
            strays.append((sentence, fault))
        elif index is not None:
            told[index].append(sentence)
            at = index
        else:
            (opening if at is None else told[at]).append(sentence)
    return Checked(" ".join(opening), tuple(" ".join(found) for found in told), tuple(strays))


def split(prose: str) -> list[str]:
    """The sentences of a text; a last one without an end is left out."""
    found = re.split(r"(?<=[.!?])\s+", " ".join(prose.split()))
    return [sentence for sentence in found if sentence and sentence[-1] in ".!?"]


def tells(sentence: str, statement: Statement, account: Account) -> bool:
    """True where a sentence says that a statement's event happened, by whom, and with all names it must have."""
    if not statement.names <= mentioned(sentence, account.names):
        return False
    said = lexicon.words(sentence)
    if not all(any(word.startswith(begin) for word in said) for begin in statement.words):
        return False
    if any(_found(phrase, sentence) for phrase in statement.wrong):
        return False
    if statement.counted and not _counts_to(statement.counted, sentence, account):
        return False
    people = sorted((place, name) for name in account.people for place in _found(name, sentence))
    for match in re.finditer(rf"(?<![\w-])(?:{plain.SAYS[statement.verb]})(?![\w-])", sentence):
        before = [name for place, name in people if place < match.start()]
        if statement.actor is None or (before and before[-1] == statement.actor):
            return True
    return False


def _counts_to(goal: str, sentence: str, account: Account) -> bool:
    """True where each number stands nearest to the goal's name, of all names but people's."""
    found = [(place, name) for name in account.names - account.people for place in _found(name, sentence)]
    numbers = [match.start() for match in re.finditer(r"\d+", sentence)]
    return all(min(((abs(place - at), name) for place, name in found), default=(0, goal))[1] == goal for at in numbers)


def stray(sentence: str, statement: Statement | None, account: Account, *, tells_it: bool) -> str:
    """What a sentence says that no fact does; empty where there is nothing of the kind."""
    facts = f"{account.scene} {statement.text if statement else ''}"
    low, known = sentence.lower(), facts.lower()
    if foreign := mentioned(sentence, account.names) - mentioned(facts, account.names) - _inside(sentence, facts, account):
        return f"names {', '.join(sorted(foreign))}"
    if any(mark in sentence for mark in '“”"<>{}[]*_#|') or len(sentence.split()) > LONGEST:
        return "is no plain sentence"
    if (sky := re.search(r"\b(?:clear|open|blue) (?:sky|skies|air)\b", low)) and "clear sky" not in known:
        return f"says {sky[0]}"
    tokens = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", sentence)
    held = set(re.findall(r"[^\W_]+", known))
    for index, token in enumerate(tokens):
        word = token.lower()
        if token[:1].isupper() and not set(re.findall(r"[^\W_]+", word)) <= held and (index or word not in _openers()):
            return f"names {token}"
        if (token.isdecimal() or word in _NUMBERS) and word not in held:
            return f"counts {token}"
    allowed = set(held)
    if statement is not None:
        allowed |= set().union(*(_words_of(verb) for verb in (statement.verb, *statement.reasons)))
    if bad := next(
        (
            word
            for word in lexicon.words(sentence)
            if word in _closed(account.time, account.weather, account.terrain) and word not in allowed
        ),
        None,
    ):
        return f"says {bad}"
    denied = [word for word in plain.DENIALS if re.search(rf"(?<!\w){word}(?!\w)", low)]
    if tells_it and statement is not None and any(not re.search(rf"(?<!\w){word}(?!\w)", known) for word in denied):
        return f"denies: {denied[0]}"
    return ""


def _inside(sentence: str, facts: str, account: Account) -> frozenset[str]:
    """Names that are part of longer ones of the facts: ``the ring`` of ``the old ring``."""
    return frozenset(name for name in mentioned(sentence, account.names) if name.removeprefix("the ") in facts)


_NUMBERS = frozenset("two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand dozen both".split()) - {
    "both"
}
_NEAR = {"rain": ("cloudy",), "storm": ("cloudy", "rain"), "cloudy": (), "snow": (), "fog": (), "clear": ()}
_HOUR_WORDS = {
    "dawn": "dawn morning sunrise daybreak sunup", "day": "noon midday daylight afternoon", "dusk": "dusk evening sunset nightfall twilight sundown",
    "night": "night midnight starlight stars moon",
}  # fmt: skip
_NOT_CLOSED = frozenset(
    "light water stone stones rock wood home building hall keep clear pale golden hat cap bag sack sun trees tree field fields".split()
)
"""Words of the lexicon that prose uses of other things."""


@cache
def _closed(time: str, weather: str, terrain: str) -> frozenset[str]:
    """Words that only a fact may bring into prose about such a scene: things, beasts, trades, colours, other lands, hours and skies."""
    found = {word for table in (lexicon.LANDMARKS, lexicon.OBJECTS, lexicon.BEASTS, lexicon.COLOURS, lexicon.DIRECTIONS) for word in table}
    found |= {word for word, kind in lexicon.TERRAINS.items() if kind != terrain}
    found |= {word for word, kind in lexicon.WEATHERS.items() if kind != weather and kind not in _NEAR[weather]}
    found |= {word for kind, said in _HOUR_WORDS.items() if kind != time for word in said.split()}
    return frozenset(
        found - _NOT_CLOSED
        | set(ROLES)
        | set(plain.DEEDS)
        | {"sunny", "sunshine"} - ({"sunny", "sunshine"} if weather == "clear" else set())
    )


@cache
def _words_of(verb: str) -> frozenset[str]:
    """All words by which events of a kind are told and remembered."""
    patterns = (*sentences.TOLD.get(verb, ()), *sentences.RECALLED.get(verb, ()), plain.PLAIN.get(verb, ""), plain.REASONS.get(verb, ""))
    return frozenset(lexicon.words(re.sub(r"\{.\}", " ", " ".join(patterns)).replace("[", " ").replace("]", " "))) | set(
        plain.SAYS.get(verb, "").split("|")
    )


@cache
def _openers() -> frozenset[str]:
    """Words that may stand first in a sentence: those of the telling's own tables, and a few that stand there often."""
    tables: list[Mapping[str, Sequence[str]]] = [
        words.LAND,
        words.SKY,
        words.WHEN,
        words.HOW_LISTS,
        sentences.TOLD,
        sentences.RECALLED,
        sentences.WEATHER_TURNS,
    ]
    found = [text for table in tables for entry in table.values() for text in entry]
    found += [*words.ADJECTIVES, *words.SPOTS, *words.LINKS, *plain.PLAIN.values(), _MORE]
    return frozenset(lexicon.words(re.sub(r"\{.\}", " ", " ".join(found)).replace("[", " ").replace("]", " ").replace("|", " ")))


_MORE = (
    "the a an it its at in on by from with without while when before after as so then there this that these those under over above below beyond between among along across "
    "through behind beside against around near far away once again still soon later meanwhile elsewhere somewhere everywhere here now not no nobody nothing everything all both each every few "
    "many some most much more for since because though although but and or if even only just perhaps maybe what who where how why long low high deep quiet slowly gently softly quietly suddenly "
    "finally today tonight they he she his her their drops flakes mist sky air wind ground grass water light shadows darkness cold warm thin thick heavy bright pale grey rain snow fog clouds thunder storm "
    "nothing's inside outside early late hours half until like having seeing leaving coming wanting knowing thinking no-one someone somebody"
)
