"""Typed lines in plain words: spelling, passive voice, politeness, roundabout negation."""

from __future__ import annotations

import pytest

from wgtorch.blocks.simulation.cast import NAMES
from wgtorch.blocks.simulation.normalization import nearest, normalized, vocabulary


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tkae", "take"), ("biuld", "build"), ("hosue", "house"), ("brigde", "bridge"), ("nroth", "north"), ("restt", "rest"),
        ("sleeep", "sleep"),
        ("tresure", "treasure"), ("climp", "climb"), ("repiar", "repair"), ("teh", "the"),
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
        ("the house should be painted red", "paint the house red"),
        ("a bridge has to be built over the river", "build a bridge over the river"),
        ("let a tower be built by somebody", "build a tower"),
        ("I want to be led to the forest", "lead me to the forest"),
        ("the lamp must never be dropped", "do not drop the lamp"),
        ("nothing should be taken", "do not take anything"),
        ("would you be so kind as to light a fire?", "light a fire?"),
        ("go north, if it isn't too much trouble", "go north"),
        ("on no account go north", "do not go north"),
        ("do not, under any circumstances, go north", "do not go north"),
        ("make sure not to drop the lamp", "do not drop the lamp"),
        ("don't forget to drop the lamp", "drop the lamp"),
        ("nobody should enter the house", "do not enter the house"),
        ("without going anywhere, look around", "look around"),
        ("not north, south", "south"),
        ("after resting, go south", "resting, then go south"),
        ("before sleeping, light the lamp", "light the lamp, then sleeping"),
        ("be happy", "be happy"),
        ("go to Marek", "go to Marek"),
    ],
)
def test_a_line_in_plain_words(typed: str, meant: str) -> None:
    assert normalized(typed) == meant
