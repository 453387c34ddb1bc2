"""Data and objective of the reader of actions: lines from a grammar, spelled and bent as people do, with what they name."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.blocks.simulation.phrases import FRAMES, IMPLIED, PHRASES, VERBS
from wgtorch.blocks.simulation.readers import TAGS, TrainedActionReader
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.data.base import Data
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.registries import register_data, register_objective

VALIDATION = "validation"
_MARKS = (
    "misty distant lonely golden-leaved quiet windy forgotten mossy sunlit frosty humming drowsy steep muddy ancient silver narrow weathered "
    "hidden wide famous battered gloomy cheerful haunted sleepy"
).split()
"""Every line of the grammar holds one of these or of the ends below, so that none is a plain line as people type it in tests."""
_ENDS = (
    "before anybody notices|as the song says|for old times' sake|with all my might|like in the old days|without further ado|one more time for luck|for the fun of it|"
    "as grandmother would|while nobody looks|to everyone's surprise|out of sheer curiosity|with a heavy sigh|as best one can|like a true wanderer|at long last"
).split("|")
_FRONTS = (
    "||||please |kindly |could you |i would like to |i want to |let's |we should |try to |i will |now |then |i think i will |it is time to |you had better |"
    "oh do |i am about to |my plan is to |what if we |the plan is to "
).split("|")
_NOT = (
    "don't ",
    "do not ",
    "never ",
    "i will not ",
    "please don't ",
    "i refuse to ",
    "you must not ",
    "i would rather not ",
    "by no means ",
    "under no circumstances ",
)
_NOISE = (
    "the weather report said so|seven green bottles|my uncle has a moustache|lorem ipsum dolor|round and round|zxcv qwer|blue is a colour|tomorrow maybe|"
    "a sentence about nothing|the quick brown thing|numbers and letters|what a day|bla bla|hm hm hm|once upon|and so forth"
).split("|")
_BENT = {
    "go": "went",
    "take": "took",
    "give": "gave",
    "build": "built",
    "eat": "ate",
    "sing": "sang",
    "sleep": "slept",
    "run": "ran",
    "find": "found",
    "make": "made",
    "burn": "burnt",
    "leave": "left",
}


@register_data("typed_actions")
class TypedActions(Data):
    """Lines as somebody might type them, and what they name: `words`, `verb` [B], `flags` [B, 2] (negated, polite), `tags` per word.

    Args:
        count: lines of an epoch; none comes twice.
        validation: lines that are held out.
        batch_size: lines of a batch.
        workers: processes that make them.
        seed: of the lines.
    """

    fresh = True

    def __init__(self, *, count: int = 200_000, validation: int = 2000, batch_size: int = 256, workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.lines, self.held_out = TypedLines(count, seed), TypedLines(validation, VALIDATION)

    def train(self) -> Dataset[Any]:
        return self.lines

    def validation(self) -> Dataset[Any]:
        return self.held_out

    @staticmethod
    def collate(items: list[Any]) -> Any:
        return {
            "words": [item["words"] for item in items],
            "tags": [item["tags"] for item in items],
            "verb": torch.tensor([item["verb"] for item in items]),
            "flags": torch.tensor([item["flags"] for item in items]),
        }


class TypedLines(Dataset[dict[str, Any]]):
    """Lines of the grammar by number."""

    def __init__(self, count: int, seed: int | str) -> None:
        if count < 1:
            raise ValueError(f"typed_actions: found count {count}, expected at least 1")
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return line(random.Random(f"{self.seed}/{index}"))


def line(rng: random.Random) -> dict[str, Any]:
    """One line: its words, the tag of each, its verb, and whether it is negated and polite."""
    if rng.random() < 0.12:
        return _nonsense(rng)
    phrase = rng.choice(_PHRASES)
    verb = PHRASES[phrase]
    negated = rng.random() < 0.15
    front = rng.choice(_NOT) if negated else rng.choice(_FRONTS)
    tagged = [(word, "other") for word in front.split()]
    arguments = _arguments(verb, phrase, rng)
    action = [(word, "verb") for word in _bent(phrase, rng, negated or bool(front.strip()))]
    if arguments and not front and rng.random() < 0.08:
        tagged += [*arguments, ("i", "other"), *action]
    else:
        tagged += [*action, *arguments]
    if not any(word in _MARKS for word, _ in tagged) or rng.random() < 0.1:
        tagged += [(word, "manner") for word in rng.choice(_ENDS).split()]
    spelled = [(_misspelled(word, rng), tag) for word, tag in tagged]
    pairs = [(word, tag) for text, tag in spelled for word in lexicon.words(text)]
    return {
        "words": [word for word, _ in pairs],
        "tags": [TAGS.index(tag) for _, tag in pairs],
        "verb": VERBS.index(verb),
        "flags": [float(negated), float(front.split()[:1] in (["please"], ["kindly"], ["could"]))],
    }


def _nonsense(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        said = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 9))) for _ in range(rng.randint(1, 6))]
    else:
        said = [*rng.choice(_NOISE).split(), rng.choice(_MARKS), *rng.choice(_NOISE).split()]
    return {"words": said, "tags": [0] * len(said), "verb": VERBS.index(UNKNOWN_VERB), "flags": [0.0, 0.0]}


def _noun(rng: random.Random, *kinds: str) -> list[str]:
    kind = rng.choice(kinds)
    marked = [rng.choice(_MARKS)] if rng.random() < 0.7 else []
    if kind == "person":
        return [rng.choice(NAMES).lower()] if rng.random() < 0.5 else ["the", *marked, rng.choice(ROLES)]
    table = {"land": _LANDS, "building": _BUILDINGS, "thing": _THINGS, "beast": _BEASTS, "colour": _COLOURS}[kind]
    return [rng.choice(("the", "a", "my", "that", "some", "this")), *marked, *rng.choice(table).split()]


def _arguments(verb: str, phrase: str, rng: random.Random) -> list[tuple[str, str]]:
    """What stands behind the verb, tagged."""
    frame = FRAMES.get(verb, "thing")
    last = phrase.split()[-1]
    lead: list[str] | None = [] if last in ("to", "with", "from", "for", "about", "at", "of", "on", "into", "away") else None

    def tag(tokens: list[str], name: str) -> list[tuple[str, str]]:
        return [(word, name) for word in tokens]

    if phrase in IMPLIED or (rng.random() < 0.12 and frame != "hand"):
        return []
    if frame == "move":
        if rng.random() < 0.2:
            return tag([rng.choice(("north", "east", "south", "west"))], "manner")
        joint = lead if lead is not None else [rng.choice(("to", "towards", "into", "to"))]
        return [*tag(joint, "other"), *tag(_noun(rng, "land", "building"), "place")]
    if frame == "hand":
        thing, who = _noun(rng, "thing"), _noun(rng, "person", "beast")
        if rng.random() < 0.3:
            return [*tag(who, "receiver"), *tag(thing, "target")]
        return [*tag(thing, "target"), ("to", "other"), *tag(who, "receiver")]
    if frame == "get":
        found = tag(_noun(rng, "thing"), "target")
        return [*found, ("from", "other"), *tag(_noun(rng, "person"), "receiver")] if rng.random() < 0.4 else found
    if frame == "person":
        return tag(_noun(rng, "person", "person", "beast"), "target")
    if frame == "colour":
        return [*tag(_noun(rng, "building", "thing"), "target"), *tag([rng.choice(_COLOURS)], "manner")]
    return tag(_noun(rng, "thing", "building", "land", "beast"), "target")


def _bent(phrase: str, rng: random.Random, is_led: bool) -> list[str]:
    """The verb phrase, now and then in another form: ``walking``, ``walks``, ``went``."""
    first, *rest = phrase.split()
    chance = rng.random()
    if is_led or chance < 0.75 or len(first) < 3:
        return [first, *rest]
    if chance < 0.83 and first in _BENT:
        first = _BENT[first]
    elif chance < 0.92:
        first = f"{first}s"
    else:
        first = f"{first.removesuffix('e')}ing"
    return [first, *rest]


def _misspelled(word: str, rng: random.Random) -> str:
    """The word, now and then with two letters swapped, one missing or one twice."""
    if len(word) < 4 or rng.random() > 0.08:
        return word
    at = rng.randrange(len(word) - 1)
    return rng.choice((word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]))


_PHRASES = [phrase for phrase, verb in PHRASES.items() if phrase.isascii() and verb in VERBS]
_LANDS, _BUILDINGS, _THINGS = list(lexicon.TERRAINS), list(lexicon.LANDMARKS), list(lexicon.OBJECTS)
_BEASTS, _COLOURS = list(lexicon.BEASTS), list(lexicon.COLOURS)


@register_objective("action_reading")
class ActionReading(Objective):
    """Cross-entropy of the verb, of negation and politeness, and of what each word is part of; for a `reader/trained` block.

    Logs `verb`, `negated` and `tags`, the shares that are right.
    """

    needs = ("words", "tags", "verb", "flags")

    def check(self, target: Block) -> None:
        if not isinstance(target, TrainedActionReader):
            raise ConfigError(
                f"objective action_reading: the target is a {type(target).__name__}; expected a block of type {TrainedActionReader.block_type!r}"
            )

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        assert isinstance(target, TrainedActionReader)
        verb, flags, tags, there = target.logits(batch["words"])
        wanted = torch.zeros(there.shape, dtype=torch.long, device=there.device)
        for row, given in enumerate(batch["tags"]):
            wanted[row, : len(given)] = torch.tensor(given, device=there.device)
        wrong = F.cross_entropy(tags.float()[there], wanted[there])
        loss = F.cross_entropy(verb.float(), batch["verb"]) + F.binary_cross_entropy_with_logits(flags.float(), batch["flags"]) + wrong
        return {
            "loss": loss,
            "verb": (verb.argmax(-1) == batch["verb"]).float().mean(),
            "negated": ((flags[:, 0] > 0) == (batch["flags"][:, 0] > 0.5)).float().mean(),
            "tags": (tags.argmax(-1) == wanted)[there].float().mean(),
        }

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Lines and what is read off them."""
        assert isinstance(target, TrainedActionReader)
        return {"read": [f"{' '.join(said)} -> {target.guess(' '.join(said))}" for said in batch["words"]]}
