"""Data of the action reader that is a language model: what somebody typed, and what it means as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from wgtorch.blocks.simulation.action import UNKNOWN_VERB
from wgtorch.blocks.simulation.cast import NAMES
from wgtorch.blocks.simulation.model_reader import SYSTEM
from wgtorch.blocks.simulation.phrases import FRAMES
from wgtorch.train.data.base import AtLeastOne
from wgtorch.train.data.made import MadeData, MadeItems
from wgtorch.train.registries import register_data
from wgtorch.train.simulation import tongues

_WORDS, _NOUNS, _JOINS, _QUESTIONS = (tongues.table(text) for text in (tongues.VERBS, tongues.NOUNS, tongues.JOINS, tongues.QUESTIONS))
_PHRASES, _DENIALS = tongues.english_phrases(), tongues.spanish_denials()
_LANDS = ("sea", "river", "forest", "mountains", "meadow", "desert", "hills")
_BUILDINGS = ("house", "castle", "tower", "ship", "bridge", "windmill", "inn", "well", "cave")
_THINGS = ("lamp", "ring", "apple", "bread", "key", "book", "sword", "rope", "chest", "letter", "boat", "fish")
_WHO = ("miller", "smith", "fisher", "baker", "wolf", "dog")
_DIRECTIONS = ("north", "south", "east", "west")
_COLOURS = ("red", "blue", "white", "black", "green")
_NOTHING = ("sleep", "perform", "hide", "flee", "rest", "stay", "swim", "pray", "return")
_OF = {
    "build": _BUILDINGS, "take": _THINGS, "drop": _THINGS, "steal": _THINGS, "destroy": _BUILDINGS, "burn": _BUILDINGS, "repair": _BUILDINGS,
    "eat": ("apple", "bread", "fish"), "climb": ("tower", "castle", "windmill", "tree"), "look": (*_BUILDINGS, *_LANDS, *_THINGS),
    "search": ("treasure", *_THINGS), "plant": ("tree", "flower"), "open": ("chest", "door"), "light": ("fire", "lamp"), "gather": ("wood", "flower", "fish"),
    "read": ("book", "letter"), "enter": _BUILDINGS, "leave": _BUILDINGS, "cook": ("fish", "bread"), "dig": ("well", "treasure"), "avoid": (*_LANDS, "wolf"),
    "wait": ("until morning",), "ask": ("treasure", *_WHO),
}  # fmt: skip


@register_data("typed_readings")
class TypedReadings(MadeData):
    """Lines as somebody might type them, in English and five other languages: `system`, `prompt` (the line) and `answer` (JSON).

    Lines of English are turns of phrase that hold no verb of the rules' tables, since the model is asked where the rules find none. Lines
    that are held out are other ones of the same kinds, and the first of three or more turns for a meaning is in them alone.

    Args:
        count: lines of an epoch.
        validation: lines that are held out.
        batch_size: lines of a batch.
        workers: processes that make them.
        seed: of the lines.
    """

    def __init__(
        self, *, count: AtLeastOne = 200_000, validation: AtLeastOne = 128, batch_size: int = 16, workers: int = 0, seed: int = 0
    ) -> None:
        lines, held_out = Readings(count, seed), Readings(validation, "validation", held_out=True)
        super().__init__(lines, held_out, batch_size=batch_size, workers=workers)


class Readings(MadeItems):
    """Lines and what they mean, by number."""

    def __init__(self, count: int, seed: int | str, *, held_out: bool = False) -> None:
        super().__init__(count, seed=seed)
        self.held_out = held_out

    def __getitem__(self, index: int) -> dict[str, str]:
        rng = self.rng(index)
        said, actions = _line(rng, held_out=self.held_out)
        return {"system": SYSTEM, "prompt": said, "answer": json.dumps({"actions": actions}, separators=(",", ":"), ensure_ascii=False)}


_BEFORE = ("", "", "", "", "now ", "then ", "today ", "and so ", "i want to ", "let me ", "time to ", "i would love to ", "please ")
_BEHIND = ("", "", "", "", " now", " again", " before dark", " at last", " with a smile", " for a change", " right away", " if you please")


def _line(rng: random.Random, *, held_out: bool) -> tuple[str, list[dict[str, Any]]]:
    chance = rng.random()
    if chance < 0.04:
        said, actions = _unheard(rng), [{"verb": UNKNOWN_VERB}]
    elif chance < 0.55:
        meaning, phrases = rng.choice(_PHRASES)
        said = rng.choice([turn for index, turn in enumerate(phrases) if held_out or (len(phrases) < 3 or index)])
        said, actions = _renamed(_dressed(said, rng), _meant(meaning), rng)
    else:
        said, actions = _foreign(rng, rng.randrange(len(tongues.LANGUAGES)))
    if rng.random() < 0.25:
        said = said[:1].upper() + said[1:]
    if rng.random() < 0.25:
        said += rng.choice((".", "!", "..."))
    return said, actions


def _dressed(said: str, rng: random.Random) -> str:
    """A turn of phrase as an order, a wish or with something behind it; what begins with no speaker stays so."""
    if said.startswith("i ") and rng.random() < 0.7:
        said = rng.choice(_BEFORE) + said[2:]
    return said + rng.choice(_BEHIND)


def _unheard(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randint(4, 20))).strip() or "x"


def _meant(meaning: tuple[str, ...]) -> dict[str, Any]:
    verb, *rest = meaning
    if not rest:
        return {"verb": verb}
    action: dict[str, Any] = {"verb": verb}
    if FRAMES.get(verb) == "move":
        action["manner" if rest[0] in _DIRECTIONS else "place"] = rest[0]
        return action
    action["target"] = rest[0]
    if len(rest) > 1:
        action["manner" if verb == "colour" else "receiver"] = rest[1]
    return action


def _renamed(said: str, action: dict[str, Any], rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    """The line about somebody or something else of the same sort, so that what is learned is the turn and not the name."""
    for group in (
        ("Anna", "Bruno"),
        ("miller", "smith", "fisher", "baker"),
        ("lamp", "ring", "key", "book", "apple"),
        ("house", "castle", "tower", "windmill", "bridge"),
        ("red",),
    ):
        for name in group:
            if name in said.split() or f"{name}'s" in said or name in action.values():
                pool = NAMES if group[0] == "Anna" else _COLOURS if group[0] == "red" else _THINGS[:9] if "lamp" in group else group
                other = rng.choice(pool)
                said = said.replace(name, other)
                action = {key: other if value == name else value for key, value in action.items()}
                break
    if action["verb"] == UNKNOWN_VERB and not said:
        said = _unheard(rng)
    return said, [action]


def foreign_line(rng: random.Random) -> str:
    """A line in one of the other languages that are written in Latin letters."""
    return _foreign(rng, rng.randrange(len(tongues.LANGUAGES) - 1))[0]


def _foreign(rng: random.Random, tongue: int) -> tuple[str, list[dict[str, Any]]]:
    if rng.random() < 0.1:
        topic = rng.choice([*_QUESTIONS, *_BUILDINGS, *_WHO])
        if topic in _QUESTIONS:
            return f"{rng.choice(_QUESTIONS[topic][tongue])}?", [{"verb": "ask", "target": topic}]
        return f"{_WHERE[tongue]} {_NOUNS[topic][tongue][0]}?", [{"verb": "ask", "target": topic}]
    denied = rng.random() < 0.15
    said, action = _clause(rng, tongue, denied=denied)
    actions = [action]
    if denied:
        actions = [{**action, "negated": True}]
    elif rng.random() < 0.2:
        more, action = _clause(rng, tongue)
        said, actions = f"{said} {rng.choice(_JOINS['and'][tongue])} {more}", [*actions, action]
    if rng.random() < 0.1:
        said = f"{rng.choice(_JOINS['please'][tongue])} {said}"
    return said, actions


_WHERE = ("wo ist", "où est", "dónde está", "dov'è", "где")
_CONTRACTED = (
    (("zu das ", "zum "), ("zu die ", "zur "), ("zu den ", "zum "), ("zu der ", "zum "), ("zu Norden", "nach Norden")),
    (("à le ", "au "), ("à les ", "aux "), ("de le ", "du ")),
    (("a el ", "al "), ("de el ", "del ")),
    (("a il ", "al "), ("a lo ", "allo "), ("a la ", "alla "), ("a l'", "all'"), ("a le ", "alle "), ("con il ", "col ")),
    (),
)
"""Joints that melt into the article behind them, by language."""


def _denied(verb: str, said: str, rest: str, tongue: int) -> str:
    """``not to do it``, from the verb as it is said and what stands behind."""
    first, _, more = said.partition(" ")
    if tongue == 0:
        return f"{said} nicht {rest}" if verb == "go" or not rest else f"{said} {rest} nicht"
    if tongue == 1:
        return " ".join(filter(None, (f"n'{first}" if first[0] in "aeéêou" else f"ne {first}", "pas", more, rest)))
    if tongue == 2:
        return " ".join(filter(None, ("no", _DENIALS.get(verb, said), rest)))
    return f"{('non', 'не')[tongue - 3]} {said} {rest}".strip()


def _clause(rng: random.Random, tongue: int, *, denied: bool = False) -> tuple[str, dict[str, Any]]:
    verb = rng.choice(list(_WORDS))
    said = rng.choice(_WORDS[verb][tongue])
    rest, action = _behind(verb, rng, tongue)
    told = _denied(verb, said, rest, tongue) if denied else f"{said} {rest}".strip()
    for apart, melted in _CONTRACTED[tongue]:
        told = told.replace(f" {apart}", f" {melted}")
    return told, action


def _behind(verb: str, rng: random.Random, tongue: int) -> tuple[str, dict[str, Any]]:
    """What stands behind a verb, and what the action is then."""

    def word(meaning: str) -> str:
        said = rng.choice(_NOUNS[meaning][tongue] if meaning in _NOUNS else _JOINS[meaning][tongue])
        return said.split(" ", 1)[1] if " " in said and meaning in _NOUNS and rng.random() < 0.1 else said

    if verb == "go":
        where = rng.choice((*_LANDS, *_LANDS, *_BUILDINGS, *_DIRECTIONS))
        if where in _DIRECTIONS:
            return word(where), {"verb": verb, "manner": where}
        noun = word(where)
        joint = "" if tongue == 4 and noun.startswith(("к ", "в ", "на ")) else f"{_JOINS['to'][tongue][0 if rng.random() < 0.7 else -1]} "
        return f"{joint}{noun}", {"verb": verb, "place": where}
    if verb == "give":
        thing, who = rng.choice(_THINGS), rng.choice((*_WHO[:4], "name", "name"))
        name = rng.choice(NAMES)
        to = ("", "à ", "a ", "a ", "")[tongue]
        spoken = f"{to}{name}" if who == "name" else word(who)
        parts = [word(thing), spoken]
        if tongue in (0, 4) and rng.random() < 0.5:
            parts.reverse()
        return " ".join(parts), {"verb": verb, "target": thing, "receiver": name if who == "name" else who}
    if verb in ("talk", "greet", "help", "follow", "harm"):
        if rng.random() < 0.5:
            name = rng.choice(NAMES)
            return name, {"verb": verb, "target": name}
        who = rng.choice(_WHO)
        return word(who), {"verb": verb, "target": who}
    if verb == "colour":
        thing, colour = rng.choice((*_BUILDINGS, "door", "boat")), rng.choice(_COLOURS)
        joint = ("", "en ", "de ", "di ", "в ")[tongue] if rng.random() < 0.4 else ""
        return f"{word(thing)} {joint}{word(colour)}", {"verb": verb, "target": thing, "manner": colour}
    if verb in _NOTHING or (verb == "wait" and rng.random() < 0.5):
        return "", {"verb": verb}
    thing = rng.choice(_OF[verb])
    if verb == "wait":
        return word(thing), {"verb": verb, "manner": "until morning"}
    key = "place" if verb in ("enter", "leave") else "target"
    if verb == "build" and rng.random() < 0.25:
        colour = rng.choice(_COLOURS)
        return f"{word(thing)} {word(colour)}", {"verb": verb, key: f"{colour} {thing}"}
    return word(thing), {"verb": verb, key: thing}


def shares(answers: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, float]:
    """Of pairs of what was read and what was meant: the shares with the right verb, and with all of it right."""
    verbs = [read.get("actions", [{}])[:1] and read["actions"][0].get("verb") == meant["actions"][0]["verb"] for read, meant in answers]
    return {"verb": sum(map(bool, verbs)) / len(answers), "all": sum(read == meant for read, meant in answers) / len(answers)}
