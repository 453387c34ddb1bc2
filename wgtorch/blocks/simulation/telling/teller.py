"""Tells what happened, from the facts alone: by grammar, with causes and callbacks."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from wgtorch.blocks.simulation.facts import WORLD, Content, Event
from wgtorch.blocks.simulation.lexicon import agreed, with_article
from wgtorch.blocks.simulation.memory import IMPORTANCE, memories
from wgtorch.blocks.simulation.seasons import time_of_day
from wgtorch.blocks.simulation.telling import sentences
from wgtorch.blocks.simulation.telling.words import ADJECTIVES, GROWS, HOW_LISTS, LAND, LIKENESS, LINKS, SKY, SPOTS, VERBS, WHEN
from wgtorch.core.registry import Registry

TOLD_BESIDE = 2
"""Events of others that one outcome tells of."""
_PEOPLE_VERBS = frozenset(["talk", "greet", "befriend", "court", "help", "quarrel", "reconcile", "invite", "teach"])


class Teller(Protocol):
    """What words the outcome of an episode and the intent of the next."""

    def outcome(self, before: Content, after: Content, events: Sequence[Event], rng: random.Random) -> str:
        """What came of it, from the events and the facts before and after them."""

    def intent(self, content: Content, events: Sequence[Event], rng: random.Random) -> str:
        """What is wanted, and why."""


Tellers: Registry[type[Teller]] = Registry("teller", group="wgtorch.tellers")


class GrammarTeller:
    """Tells by patterns: the hour and the sky, what the traveller did, what others did, and what it goes back to."""

    def outcome(self, before: Content, after: Content, events: Sequence[Event], rng: random.Random) -> str:
        return agreed(" ".join(filter(None, self.sentences(before, after, events, rng))))

    def sentences(
        self,
        before: Content,
        after: Content,
        events: Sequence[Event],
        rng: random.Random,
        *,
        opening: str = "",
        told: Mapping[int, str] = MappingProxyType({}),
    ) -> list[str]:
        """The telling, part by part: the scene, each event, and at times what is on somebody's mind.

        Args:
            before, after: the facts.
            events: of the episode.
            rng: draws.
            opening: the scene in other words than the grammar's.
            told: by id, events in other words; of one that somebody asked for, what came of it.
        """
        own, others = told_events(after, events)
        parts = [opening or self._opening(after, rng)]
        for event in own:
            parts.append(self._event(before, after, event, rng, told.get(event["id"], "")))
        for index, event in enumerate(others):
            words = told.get(event["id"], "")
            text = self._event(before, after, event, rng, words)
            link = rng.choice(LINKS) if index == 0 and not words and rng.random() < 0.4 and event["verb"] != "weather" else ""
            parts.append(
                f"{link}, {_low(text, after)}" if link and not link.endswith("but") else f"{link} {_low(text, after)}" if link else text
            )
        if not others and rng.random() < 0.7:
            parts.append(self._reflection(before, after, rng))
        return parts

    def intent(self, content: Content, events: Sequence[Event], rng: random.Random) -> str:
        hero = content["traveller"]
        asked = [event for event in events if event["action"]]
        if asked:
            told = []
            for event in asked:
                who = _cap(event["actor"]) if event["actor"] != WORLD else "Somebody"
                speaks = event["verb"] in ("remark", *_LEFT_UNDONE) or _IN_PERSON.match(event["action"])
                said = "asks" if event["verb"] == "ask" else "says" if speaks else "is to"
                told.append(f"{who} {said} “{_shown(event['action'])}”{_why_asked(content, event)}. {verdict_of(event)}")
            return agreed(" ".join(told))
        wishes = [
            (who, content["threads"][c["goal"]])
            for who, c in content["characters"].items()
            if c["present"] and c["goal"] in content["threads"]
        ]
        opened = [e for e in events if e["verb"] == "want"]
        found = [(e["actor"], e["details"]["wish"], e["caused_by"]) for e in opened] + [
            (who, t["what"]["words"], t["why"]) for who, t in wishes
        ]
        found.sort(key=lambda entry: entry[0] != hero)
        parts = []
        for who, wish, why in found[:2]:
            cause = self._cause(
                content, [content["events"][number - 1] for number in sorted(why) if number <= len(content["events"])], who, rng
            )
            wants = rng.choice(
                (
                    "{A} wants to {W}",
                    "{A} is bound to {W}",
                    "It is for {A} to {W}",
                    "{A} still hopes to {W}",
                    "Nothing keeps {A} from trying to {W}",
                )
            )
            parts.append(wants.format(A=_cap(who) if wants.startswith("{A}") else who, W=wish) + (f", {cause}" if cause else "") + ".")
        return agreed(" ".join(parts)) or f"{_cap(hero)} goes on without a plan."

    # --- parts --------------------------------------------------------------------------------------------------------

    def _opening(self, after: Content, rng: random.Random) -> str:
        where = after["characters"][after["traveller"]]["place"]
        place = after["places"][where]
        when, sky = rng.choice(WHEN[time_of_day(after["clock"])]), chosen(SKY[after["weather"]], rng)
        things = [f"{rng.choice(ADJECTIVES)} {noun}" for noun in rng.sample(LAND[place["terrain"]], 2)]
        detail = rng.choice((
            f"{things[0]} {rng.choice(VERBS)} {rng.choice(SPOTS)}",
            f"{things[0]} and {things[1]} {rng.choice(VERBS)} {rng.choice(SPOTS)}",
            f"the {things[0]} {rng.choice(GROWS)} {rng.choice(LIKENESS)}",
            f"between {things[0]} and {things[1]} {rng.choice(SPOTS)} could be seen",
        ))  # fmt: skip
        return rng.choice((f"{when} {sky}; {detail}.", f"{when}, while {detail}, {sky}.", f"{_cap(detail)}; {_small(when)} {sky}."))

    def _event(self, before: Content, after: Content, event: Event, rng: random.Random, words: str = "") -> str:
        if event["action"]:
            return self._tried(before, after, event, rng, words)
        if words:
            return words
        core = self._told(after, event, rng)
        causes = causes_of(before, event) if rng.random() < (0.9 if event["verb"] == "want" else 0.6) else []
        cause = self._cause(before, [e for e in causes if (e["verb"], event["verb"]) != ("take", "finish")], event["actor"], rng)
        text = f"{core}, {cause}" if cause else core
        if event["status"] == "partly" and event["verb"] != "go":
            return f"{_cap(text)}. {_cap(rng.choice(sentences.PARTLY).format(B=event['because']))}"
        if event["status"] in ("refused", "unclear"):
            return f"{_cap(event['actor'])} tried in vain: {event['because']}."
        speech = self._speech(after, event, rng) if event["verb"] == "talk" else ""
        return f"{_cap(text)}. {speech}".rstrip()

    def _tried(self, before: Content, after: Content, event: Event, rng: random.Random, words: str = "") -> str:
        actor = event["actor"] if event["actor"] != WORLD else "somebody"
        patterns = {"ask": sentences.ASKED, "look": sentences.TRIED, "remark": sentences.SAID}.get(event["verb"], sentences.TRIED)
        head = chosen(patterns, rng).format(A=actor, X=_shown(event["action"]), P=event["where"] or "no place")
        told = [_cap(head)]
        answer = event["details"].get("answer")
        if event["verb"] == "remark":
            return told[0]
        if words:
            return f"{told[0]} {words}"
        if answer:
            told.append(_cap(rng.choice(sentences.ANSWERED).format(A=actor, Y=answer)))
        elif event["status"] == "unclear":
            told.append(rng.choice(sentences.UNCLEAR).format(B=event["because"]))
            offers = [offer for offer in event["details"].get("offers", ()) if not offer.endswith("?")]
            told.append(f"One could {', or '.join(offers[:3])}." if offers else "")
        elif event["status"] == "refused":
            told.append(rng.choice(sentences.REFUSED).format(B=event["because"]))
        elif event["status"] == "done" and event["because"]:  # it is so already
            told.append(f"{_cap(event['because'])}.")
        else:
            told.append(f"{_cap(self._told(after, event, rng))}.")
            told.append(self._speech(after, event, rng) if event["verb"] == "talk" else "")
            if event["because"]:
                told.append(rng.choice(sentences.PARTLY).format(B=event["because"]))
            if event["details"].get("found"):
                told.append(f"And there it was: {with_article(event['details']['found'])}.")
            cause = self._cause(before, causes_of(before, event), event["actor"], rng)
            told.append(f"It did not come from nowhere, {cause}." if cause else "")
        return " ".join(filter(None, told))

    def _told(self, after: Content, event: Event, rng: random.Random) -> str:
        verb = event["verb"]
        fields = fields_of(after, event, rng)
        if verb == "weather":
            return chosen(sentences.WEATHER_TURNS[event["target"]], rng).format(**fields)
        patterns = sentences.TOLD.get(
            "go" if event["details"].get("from") and verb != "invite" else verb,
            ("{A} did what was to be done at {P}", "{A} went about it at {P} {H}"),
        )
        if verb in ("go", "return", "enter", "follow") and not event["details"].get("from") and verb != "enter":
            patterns = ("{A} was at {P} already", "there was no way to go: {A} stood at {P}")
        text = chosen(patterns, rng).format(**fields)
        return text.replace(", and ", " and ", 1) if text.count(", and ") > 1 else text

    def _speech(self, after: Content, event: Event, rng: random.Random) -> str:
        """What is said in a talk: news that one knows and the other does not, or what one has at heart."""
        news, fields = event["details"].get("news"), fields_of(after, event, rng)
        known = after["events"][news - 1] if news and news <= len(after["events"]) else None
        patterns = sentences.TOLD.get(known["verb"], ()) if known else ()
        if known and patterns and not known["action"]:
            fields["N"] = _cap(chosen(patterns, rng).format(**fields_of(after, known, rng)))
            return _cap(chosen(sentences.NEWS, rng).format(**fields))
        return _cap(chosen(sentences.WISHES, rng).format(**fields)) if fields["W"] else ""

    def _cause(self, content: Content, causes: Sequence[Event], who: str, rng: random.Random) -> str:
        """The weightiest cause as a clause; empty where there is none to tell of."""
        for event in ranked_causes(causes):
            patterns = sentences.RECALLED.get(event["verb"], ())
            if patterns and (rng.random() < 0.75 or event["verb"] != "want"):
                return chosen(patterns, rng).format(**fields_of(content, event, rng))
        return ""

    def _reflection(self, before: Content, after: Content, rng: random.Random) -> str:
        """What somebody at the traveller's place has on their mind."""
        hero = after["traveller"]
        here = [
            name
            for name, c in after["characters"].items()
            if c["place"] == after["characters"][hero]["place"] and c["present"] and c["kind"] == "person"
        ]
        who = rng.choice(here)
        found = [e for e in memories(before, who, {hero}, count=4) if sentences.RECALLED.get(e["verb"]) and e["verb"] != "want"]
        if not found:
            return ""
        event = rng.choice(found)
        clause = chosen(sentences.RECALLED[event["verb"]], rng).format(**fields_of(before, event, rng))
        return f"{_cap(chosen(sentences.ON_THE_MIND, rng).format(A=who))}, {clause}."


Tellers.register("grammar", GrammarTeller)


_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def chosen(patterns: Sequence[str], rng: random.Random) -> str:
    """One of some patterns, with one of the alternatives in each of its brackets: ``[walked|ran] to {P}``."""
    text = rng.choice(patterns)
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), text, count=1)
    return text


def fields_of(content: Content, event: Event, rng: random.Random) -> dict[str, str]:
    """What the patterns of :mod:`~wgtorch.blocks.simulation.telling.sentences` may name of an event."""
    details, verb = event["details"], event["verb"]
    target = str(event["target"]) if event["target"] is not None else "it"
    mood = content["characters"].get(event["actor"], {}).get("mood", "calm")
    other = details.get("to") if verb in ("give", "trade") else details.get("victim") or details.get("giver") or target
    kind = details.get("struck") or details.get("craft") or details.get("colour") or details.get("role") or details.get("made") or target
    place = details["to"] if details.get("from") and verb != "give" else event["where"] or "some place"
    if verb in ("arrive", "depart"):
        place = target
    return {
        "A": event["actor"],
        "T": with_article(target) if verb == "build" else target,
        "P": str(place),
        "Q": str(details.get("from", "")),
        "O": str(other),
        "G": str(details.get("gave") or details.get("made") or ""),
        "W": str(details.get("wish", "")),
        "V": re.sub(r" that lies at .*$", "", str(details.get("wish", ""))),
        "H": rng.choice(HOW_LISTS.get(mood, HOW_LISTS["calm"])),
        "K": str(kind),
        "S": {"burnt": "burnt", "flooded": "under water", "ruined": "in ruins"}.get(
            str(details.get("state")), str(details.get("state", ""))
        ),
        "L": _land(str(details.get("land", ""))),
        "D": f"{details.get('direction', '')}ward" if details.get("direction") else "",
        "N": str(event["when"]["day"]),
        "Z": sentences.SKY_NOUN.get(str(details.get("was")), "weather"),
    }


_LEFT_UNDONE = ("refrain", "avoid")
_IN_PERSON = re.compile(r"(?i)\W*(?:i|we|let'?s|let us)\b")


def verdict_of(event: Event) -> str:
    """What became of an action, in a sentence: its status and the reason; an answer is for the outcome to give."""
    if event["details"].get("answer") or event["verb"] == "remark":
        return "It changes nothing."
    said = {
        "done": "It is left undone" if event["verb"] in _LEFT_UNDONE else "It can be done",
        "partly": "It can be done in part",
        "refused": "It cannot be done",
        "unclear": "Nobody understands it",
    }[event["status"]]
    return f"{said}: {event['because']}." if event["because"] else f"{said}."


def _land(terrain: str) -> str:
    return {"sea": "a shore", "river": "land along a river", "hills": "hill country", "mountains": "mountain country", "": ""}.get(
        terrain, with_article(terrain)
    )


def told_events(content: Content, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """The events that an outcome tells of: the traveller's and those that somebody asked for, and the weightiest of the others."""
    hero = content["traveller"]
    own = [event for event in events if event["actor"] == hero or event["action"]]
    others = [event for event in events if event not in own and event["verb"] != "weather"]  # the opening tells of the sky
    others.sort(key=lambda event: (-IMPORTANCE.get(event["verb"], 0.1), event["id"]))
    return own, sorted(others[: TOLD_BESIDE if len(own) < 2 else 1], key=lambda event: event["id"])


def causes_of(content: Content, event: Event) -> list[Event]:
    """The events of the ledger that an event was caused by."""
    events = content["events"]
    return [events[number - 1] for number in event["caused_by"] if 0 < number <= len(events)]


def ranked_causes(causes: Sequence[Event]) -> list[Event]:
    """Causes, the weightiest first; what somebody wanted comes last."""
    return sorted(causes, key=lambda event: (-IMPORTANCE.get(event["verb"], 0.0) + (event["verb"] == "want"), -event["id"]))


def _why_asked(content: Content, event: Event) -> str:
    goal: Any = content["characters"].get(event["actor"], {}).get("goal")
    thread: Mapping[str, Any] = content["threads"].get(goal, {}) if goal else {}
    return f", though what {event['actor']} wanted was to {thread['what']['words']}" if thread else ""


def _shown(action: str) -> str:
    text = " ".join(action.split()).strip(' ."“”')
    return text if len(text) <= 120 else f"{text[:119]}…"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


def _low(text: str, content: Content) -> str:
    """The sentence with a small first letter, unless a name stands there."""
    first = text.split(" ", 1)[0].strip(",.;:")
    names = {word for part in ("characters", "places") for name in content[part] for word in name.split()[:1]}
    return text if first in names else _small(text)
