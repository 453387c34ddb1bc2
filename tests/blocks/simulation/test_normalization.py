"""Typed lines in plain words: spelling, passive voice, clauses, and what leads to their verbs."""

from __future__ import annotations

import pytest

from wgtorch.blocks.simulation.cast import NAMES
from wgtorch.blocks.simulation.clauses import clauses
from wgtorch.blocks.simulation.leads import Lead, led
from wgtorch.blocks.simulation.lexicon import words
from wgtorch.blocks.simulation.normalization import active, nearest, normalized, vocabulary


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tkae", "take"), ("biuld", "build"), ("hosue", "house"), ("brigde", "bridge"), ("nroth", "north"), ("restt", "rest"),
        ("sleeep", "sleep"),
        ("tresure", "treasure"), ("climp", "climb"), ("repiar", "repair"),
    ],
)  # fmt: skip
def test_a_misspelled_word_is_the_one_it_stands_near(typed: str, meant: str) -> None:
    assert nearest(typed) == meant


@pytest.mark.parametrize(
    "word",
    [
        "mouse",
        "power",
        "monkey",
        "beard",
        "wizard",
        "blargh",
        "fnord",
        "dragon",
        "towers",
        "walked",
        "building",
        "seven",
        "restart",
        "restless",
        "geh",
    ],
)
def test_what_is_a_word_of_its_own_or_near_nothing_is_left(word: str) -> None:
    assert nearest(word) is None


def test_known_words_and_names_are_never_mended() -> None:
    known, meant = vocabulary()
    assert meant < known
    assert not [word for word in (*known, *(name.lower() for name in NAMES)) if nearest(word) is not None]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("i wanna go, dont u", "i want to go, do not you"),
        ("I'll be there, won't I", "I will be there, will not I"),
        ("teh hosue isn't mine", "the house is not mine"),
        ("let's go too the see", "let us go to the sea"),
        ("go to Marek", "go to Marek"),
    ],
)
def test_a_line_is_written_out(typed: str, meant: str) -> None:
    assert normalized(typed) == meant


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("the house should be painted red", "paint the house red"),
        ("a bridge has to be built over the river", "build a bridge over the river"),
        ("let a tower be built by somebody", "build a tower"),
        ("I want to be led to the forest", "lead me to the forest"),
        ("the lamp must never be dropped", "do not drop the lamp"),
        ("nothing should be taken", "do not take anything"),
        ("be happy", "be happy"),
    ],
)
def test_the_passive_voice_is_made_active(told: str, meant: str) -> None:
    assert active(told) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("would you be so kind as to light a fire?", ["light a fire"]),
        ("go north, if it isn't too much trouble", ["go north"]),
        ("on no account go north", ["not go north"]),
        ("do not, under any circumstances, go north", ["not go north"]),
        ("make sure not to drop the lamp", ["not drop the lamp"]),
        ("don't forget to drop the lamp", ["drop the lamp"]),
        ("nobody should enter the house", ["not enter the house"]),
        ("without going anywhere, look around", ["look around"]),
        ("not north, south", ["south"]),
        ("after resting, go south", ["rest", "go south"]),
        ("before sleeping, light the lamp", ["light the lamp", "sleep"]),
        ("I have no intention of taking the lamp", ["not take the lamp"]),
        ("it would be unwise not to rest", ["rest"]),
        ("I can't wait to see the sea", ["see the sea"]),
        ("there is nothing I want less than to eat it", ["not eat it"]),
        ("we have no choice but to go home", ["go home"]),
        ("stop singing and go home", ["not sing", "go home"]),
        ("do not sing or go home", ["not sing", "not go home"]),
        ("rather than steal the bread I ask the baker", ["ask the baker"]),
        ("instead of waiting here we go home", ["go home"]),
        ("don't think I won't burn the letter", ["burn the letter"]),
        ("take the rope to climb down", ["take the rope to climb down"]),
        ("look for tools and supplies", ["look for tools and supplies"]),
        ("put your hands up", ["put your hands up"]),
        ("have the roof mended", ["mend the roof"]),
        ("I do not want the gate opened", ["not open the gate"]),
        ("sleep? no, march on", ["march on"]),
        ("take a quick nap, then give Anna a hug", ["nap", "give a hug anna"]),
    ],
)
def test_clauses_are_led_to_their_verbs(typed: str, meant: str) -> None:
    leads = [led(words(active(clause.lower()))) for clause in clauses(normalized(typed)) or [] if led(words(active(clause.lower())))] or [
        led(words(clause)) or Lead("go", 0, tuple(words(clause)), (), False) for clause in clauses(normalized(typed)) or []
    ]
    assert [" ".join([*["not"] * lead.negated, *lead.rest]) for lead in leads] == meant
