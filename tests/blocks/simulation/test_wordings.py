"""Turns of phrase that rules read, in any lead and form."""

from __future__ import annotations

import pytest

from wgtorch.blocks.simulation.phrases import PHRASES, VERBS
from wgtorch.blocks.simulation.reading import RuleReader
from wgtorch.blocks.simulation.wordings import begun, frames, heads, idioms


@pytest.mark.parametrize(
    ("text", "verb", "target"),
    [
        ("let's hit the hay", "sleep", None),
        ("she hit the sack at last", "sleep", None),
        ("I want to give Anna a piece of my mind", "quarrel", "anna"),
        ("he buried the hatchet with Bruno", "reconcile", "bruno"),
        ("giving the bear a wide berth would be wise", "avoid", "the bear"),
        ("put the poor beast out of its misery", "harm", "the poor beast"),
        ("I hereby bequeath the ring to Anna", "give", "the ring"),
        ("we adjourned to the tavern", "go", None),
        ("run for it", "flee", None),
        ("search for it in the house", "search", "it"),
        ("take the lamp, for it is dark", "take", "the lamp"),
    ],
)
def test_a_turn_of_phrase_means_what_it_means_whatever_its_verb(text: str, verb: str, target: str | None) -> None:
    (action,) = RuleReader().read(text)
    assert (action.verb, action.target, action.negated) == (verb, target, False)


def test_turns_that_two_verbs_share_and_what_phrases_read_already_are_no_idioms() -> None:
    found = idioms({"take": "take", "bring": "give", "hit": "harm"})
    shapes = {" ".join(words) for entries in found.values() for _, words in entries}
    assert "hit the hay" in shapes and "take {t} with me" not in shapes and "bring {w} along" not in shapes
    assert all(verb in VERBS for entries in found.values() for verb, _ in entries) and set(frames()) <= set(VERBS)
    assert not set(heads(PHRASES)) & set(PHRASES) and heads({})["bequeath"] == "give" and "take" not in heads({})


@pytest.mark.parametrize(
    ("tokens", "rest"),
    [
        ("give the old man a piece of my mind today", "give a piece of my mind the old man today"),
        ("give a piece of my mind", None),
        ("give the old man a piece", None),
    ],
)
def test_a_frame_puts_its_words_in_front_of_what_stands_inside(tokens: str, rest: str | None) -> None:
    found = begun(idioms({"give": "give"})["give"], tokens.split())
    assert (found and (found[0], found[1], " ".join(found[2]))) == (rest and ("quarrel", 6, rest))


@pytest.mark.parametrize(
    "text",
    [
        "steal? me? never!",
        "kill the wolf? are you mad?",
        "I do want to go north, but I won't",
        "over my dead body will I give Anna the ring",
        "enough waiting",
        "hands off the lamp",
        "I'd be lying if I said I wanted to fight",
        "he neither ate nor slept",
        "hardly worth entering the cave, is it?",
        "the idea of marrying Bruno fills me with dread",
        "there's nothing to eat",
    ],
)
def test_what_is_not_wanted_is_not_done(text: str) -> None:
    read = RuleReader().read(text)
    assert all(action.negated or action.verb in ("remark", "avoid", "refrain", "unknown", "ask") for action in read), read


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("I can't not take the ring", "take"),
        ("I see no harm in taking the ring", "take"),
        ("isn't it time to sleep?", "sleep"),
        ("don't you think we should go north?", "go"),
        ("I shouldn't, but I eat the apple", "eat"),
        ("I'm scared, let's go home", "return"),
        ("how about a swim?", "swim"),
        ("bring me to the river", "go"),
    ],
)
def test_what_only_sounds_denied_is_done(text: str, verb: str) -> None:
    assert [(action.verb, action.negated) for action in RuleReader().read(text)] == [(verb, False)]
