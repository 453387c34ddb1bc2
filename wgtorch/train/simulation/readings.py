"""Data of the action reader that is a language model: what somebody typed, and what it means as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB
from wgtorch.blocks.simulation.cast import NAMES
from wgtorch.blocks.simulation.model_reader import SYSTEM
from wgtorch.blocks.simulation.phrases import FRAMES, VERBS
from wgtorch.blocks.simulation.readers import TAGS
from wgtorch.core.errors import ConfigError
from wgtorch.train.data.base import Data
from wgtorch.train.registries import register_data
from wgtorch.train.simulation import tongues
from wgtorch.train.simulation.actions import line

_WORDS, _NOUNS, _JOINS, _QUESTIONS = (tongues.table(text) for text in (tongues.VERBS, tongues.NOUNS, tongues.JOINS, tongues.QUESTIONS))
_TURNS = tongues.turns()
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
class TypedReadings(Data):
    """Lines as somebody might type them, in English and five other languages: `system`, `prompt` (the line) and `answer` (JSON).

    Lines of English come from the grammar of `typed_actions`, misspelled and bent, and from turns of phrase that hold no verb of
    its tables. Lines that are held out are other ones of the same kinds; every tenth turn of phrase is in them alone.

    Args:
        count: lines of an epoch.
        validation: lines that are held out.
        batch_size: lines of a batch.
        workers: processes that make them.
        seed: of the lines.
    """

    fresh = True

    def __init__(self, *, count: int = 200_000, validation: int = 128, batch_size: int = 16, workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if min(count, validation) < 1:
            raise ConfigError(f"typed_readings: found count {count} and validation {validation}, expected at least 1")
        self.lines, self.held_out = Readings(count, seed), Readings(validation, "validation", held_out=True)

    def train(self) -> Dataset[Any]:
        return self.lines

    def validation(self) -> Dataset[Any]:
        return self.held_out


class Readings(Dataset[dict[str, str]]):
    """Lines and what they mean, by number."""

    def __init__(self, count: int, seed: int | str, *, held_out: bool = False) -> None:
        self.count, self.seed, self.held_out = count, seed, held_out

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, str]:
        rng = random.Random(f"{self.seed}/{index}")
        said, actions = _line(rng, held_out=self.held_out)
        return {"system": SYSTEM, "prompt": said, "answer": json.dumps({"actions": actions}, separators=(",", ":"), ensure_ascii=False)}


def _line(rng: random.Random, *, held_out: bool) -> tuple[str, list[dict[str, Any]]]:
    chance = rng.random()
    if chance < 0.2:
        said, action = _english(rng)
        actions = [action]
    elif chance < 0.5:
        meaning, phrases = rng.choice(_TURNS)
        said = rng.choice([turn for index, turn in enumerate(phrases) if held_out or (len(phrases) < 3 or index)])
        said, actions = _renamed(said, _meant(meaning), rng)
    else:
        said, actions = _foreign(rng, rng.randrange(len(tongues.LANGUAGES)))
    if rng.random() < 0.25:
        said = said[:1].upper() + said[1:]
    if rng.random() < 0.25:
        said += rng.choice((".", "!", "..."))
    return said, actions


def _english(rng: random.Random) -> tuple[str, dict[str, Any]]:
    item = line(rng)
    parts: dict[str, list[str]] = {}
    for word, tag in zip(item["words"], item["tags"], strict=True):
        parts.setdefault(TAGS[tag], []).append(word)
    action: dict[str, Any] = {"verb": VERBS[item["verb"]]}
    if action["verb"] != UNKNOWN_VERB:
        action |= {name: lexicon.bare(" ".join(parts[name])) for name in ("target", "place", "receiver") if name in parts}
        if item["flags"][0]:
            action["negated"] = True
    return " ".join(item["words"]), action


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
        said = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randint(4, 20))).strip() or "x"
    return said, [action]


def _foreign(rng: random.Random, tongue: int) -> tuple[str, list[dict[str, Any]]]:
    if rng.random() < 0.06:
        topic = rng.choice(list(_QUESTIONS))
        return f"{rng.choice(_QUESTIONS[topic][tongue])}?", [{"verb": "ask", "target": topic}]
    said, action = _clause(rng, tongue)
    actions = [action]
    if rng.random() < 0.2:
        more, action = _clause(rng, tongue)
        said, actions = f"{said} {rng.choice(_JOINS['and'][tongue])} {more}", [*actions, action]
    elif rng.random() < 0.15:
        said, actions = _denied(said, tongue), [{**action, "negated": True}]
    if rng.random() < 0.1:
        said = f"{rng.choice(_JOINS['please'][tongue])} {said}"
    return said, actions


def _denied(said: str, tongue: int) -> str:
    first, _, rest = said.partition(" ")
    if tongue == 0:
        return f"{said} nicht"
    if tongue == 1:
        return f"ne {first} pas {rest}".strip()
    return f"{('no', 'non', 'не')[tongue - 2]} {said}"


def _clause(rng: random.Random, tongue: int) -> tuple[str, dict[str, Any]]:
    verb = rng.choice(list(_WORDS))
    said = rng.choice(_WORDS[verb][tongue])

    def word(meaning: str) -> str:
        return rng.choice(_NOUNS[meaning][tongue] if meaning in _NOUNS else _JOINS[meaning][tongue])

    if verb == "go":
        where = rng.choice((*_LANDS, *_LANDS, *_BUILDINGS, *_DIRECTIONS))
        if where in _DIRECTIONS:
            return f"{said} {word(where)}", {"verb": verb, "manner": where}
        return f"{said} {rng.choice(_JOINS['to'][tongue])} {word(where)}", {"verb": verb, "place": where}
    if verb == "give":
        thing, who = rng.choice(_THINGS), rng.choice((*_WHO[:4], "name", "name"))
        name = rng.choice(NAMES)
        spoken = name if who == "name" else word(who)
        return f"{said} {word(thing)} {spoken}", {"verb": verb, "target": thing, "receiver": name if who == "name" else who}
    if verb in ("talk", "greet", "help", "follow", "harm"):
        if rng.random() < 0.5:
            name = rng.choice(NAMES)
            return f"{said} {name}", {"verb": verb, "target": name}
        who = rng.choice(_WHO)
        return f"{said} {word(who)}", {"verb": verb, "target": who}
    if verb == "colour":
        thing, colour = rng.choice(_BUILDINGS), rng.choice(_COLOURS)
        return f"{said} {word(thing)} {word(colour)}", {"verb": verb, "target": thing, "manner": colour}
    if verb in _NOTHING or (verb == "wait" and rng.random() < 0.5):
        return said, {"verb": verb}
    thing = rng.choice(_OF[verb])
    if verb == "wait":
        return f"{said} {word(thing)}", {"verb": verb, "manner": "until morning"}
    key = "place" if verb in ("enter", "leave") else "target"
    if verb == "build" and rng.random() < 0.25:
        colour = rng.choice(_COLOURS)
        return f"{said} {word(thing)} {word(colour)}", {"verb": verb, key: f"{colour} {thing}"}
    return f"{said} {word(thing)}", {"verb": verb, key: thing}


def shares(answers: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, float]:
    """Of pairs of what was read and what was meant: the shares with the right verb, and with all of it right."""
    verbs = [read.get("actions", [{}])[:1] and read["actions"][0].get("verb") == meant["actions"][0]["verb"] for read, meant in answers]
    return {"verb": sum(map(bool, verbs)) / len(answers), "all": sum(read == meant for read, meant in answers) / len(answers)}
