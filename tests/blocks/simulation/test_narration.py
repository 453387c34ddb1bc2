"""What a narrator's model is told, what of its prose may stand, and what it is trained on."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from wgtorch.blocks.simulation.checker import Passage, contradictions
from wgtorch.blocks.simulation.lives import live
from wgtorch.blocks.simulation.model_reader import meant
from wgtorch.blocks.simulation.telling.narration import Account, Statement, account_of, checked, mentioned
from wgtorch.blocks.simulation.telling.teller import GrammarTeller
from wgtorch.train.simulation.narration import Narrations, composed
from wgtorch.train.simulation.readings import Readings

ACCOUNT = Account(
    "dusk",
    "rain",
    "hills",
    "Irontor",
    "Dusk, rain. Irontor, in the hills; a burnt red tower.",
    (
        Statement(
            1, "Anna gave the ring to Bruno at Irontor", "give", "Anna",
            frozenset(("Anna", "Bruno", "the ring")), ("to Anna", "from Bruno"),
        ),
        Statement(
            2, "Bruno went from Irontor to Marlham, but Kelreach is still 2 places further on", "go", "Bruno",
            frozenset(("Bruno", "Irontor", "Marlham")), ("from Marlham", "to Irontor"),
        ),
    ),
    frozenset(("Anna", "Bruno", "Cyril", "the traveller")),
    frozenset(("Anna", "Bruno", "Cyril", "the traveller", "Irontor", "Marlham", "Kelreach", "Selhaven", "the ring", "the lamp")),
)  # fmt: skip
SCENE = "Rain fell on Irontor at dusk."
GAVE = "Anna handed the ring to Bruno."
WENT = "Bruno left Irontor and came to Marlham, with Kelreach still 2 places away."


def test_prose_that_agrees_with_the_facts_stands_whole() -> None:
    found = checked(f"{SCENE} The wet heather shone. {GAVE} {WENT} The road was soft.", ACCOUNT)
    assert found.opening == f"{SCENE} The wet heather shone."
    assert found.told == (GAVE, f"{WENT} The road was soft.") and not found.strays


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("Bruno handed the ring to Anna.", "tells no statement"),
        ("Anna handed the lamp to Bruno.", "tells no statement"),
        ("Cyril handed the ring to Bruno.", "tells no statement"),
        ("Anna handed the ring to Elena.", "tells no statement"),
        ("Anna handed the ring to Bruno and Elena.", "names Elena"),
        ("Anna handed the ring to Bruno and the lamp.", "names the lamp"),
        ("Anna handed the ring to Bruno at Selhaven.", "names Selhaven"),
        ("Anna handed the ring to Bruno three times.", "counts three"),
        ("Anna handed the ring to Bruno in the morning.", "says morning"),
        ("Anna handed the ring to Bruno in the snow.", "says snow"),
        ("Anna handed the blue ring to Bruno.", "tells no statement"),
        ("Anna handed the ring to Bruno and the wolf.", "says wolf"),
        ("Anna handed the ring to Bruno and died.", "says died"),
        ("Anna handed the ring to Bruno in the clear air.", "says clear air"),
        ("Anna handed the ring to Bruno by the sea.", "says sea"),
        ("Anna never handed the ring to Bruno.", "denies: never"),
        ("Anna almost gave the ring to Bruno.", "denies: almost"),
        ("“Take it,” and Anna gave the ring to Bruno.", "is no plain sentence"),
        ("Anna gave *the ring* to Bruno.", "is no plain sentence"),
    ],
    ids=lambda value: value if len(value) < 22 else None,
)
def test_a_sentence_that_strays_is_left_out_and_says_why(sentence: str, why: str) -> None:
    found = checked(f"{SCENE} {sentence} {WENT}", ACCOUNT)
    assert found.told == ("", WENT)
    assert [(text, reason.startswith(why)) for text, reason in found.strays] == [(sentence, True)], found.strays


def test_a_way_that_is_turned_round_tells_nothing() -> None:
    assert checked("Bruno left Marlham and came to Irontor.", ACCOUNT).told == ("", "")
    goal = ACCOUNT.statements[1]
    account = replace(ACCOUNT, statements=(ACCOUNT.statements[0], replace(goal, counted="Kelreach")))
    assert checked(WENT, account).told == ("", WENT)
    assert checked("Bruno left Irontor and came to Marlham, with Irontor still 2 places away.", account).told == ("", "")
    assert checked(f"{WENT} Irontor was still 2 places off.", account).strays[0][1] == "counts the way to another place"
    assert checked("The road led Bruno from Marlham to Irontor.", ACCOUNT).told == ("", "")


def test_a_statement_is_told_once_and_a_last_sentence_without_an_end_is_left_out() -> None:
    found = checked(f"{GAVE} {GAVE} Bruno walked from Irontor to Marl", ACCOUNT)
    assert found.told == (GAVE, "") and found.strays[0][1] == "said twice"


def test_names_are_found_whole() -> None:
    assert mentioned("Annabel saw Anna-Maria and the rings", ("Anna", "the ring")) == frozenset()
    assert mentioned("The ring was Anna's.", ("Anna", "the ring")) == {"Anna", "the ring"}


def test_accounts_of_lives_say_what_happened() -> None:
    told = 0
    for passage in live(3, 40, {5: "fly to the moon", 9: "what is this place?", 12: "sing a song"}, told=False):
        account = account_of(passage.before, passage.after, passage.events)
        told += len(account.statements)
        by_id = {event["id"]: event for event in passage.events}
        for statement in account.statements:
            event = by_id[statement.event]
            assert event["status"] in ("done", "partly") and "{" not in statement.text
            assert statement.actor is None or statement.actor.lower() in statement.text.lower()
        assert account.prompt.count("\n") == len(account.statements)
    assert told > 60


def test_what_the_narrator_learns_from_passes_the_check_and_contradicts_nothing() -> None:
    data = Narrations(count=80, validation=8, seed=1)
    assert set(data.train()[0]) == {"system", "prompt", "answer"}
    assert {data.train()[n]["prompt"] for n in range(40)}.isdisjoint(data.validation()[n]["prompt"] for n in range(8))
    passages, by_hand = [], 0
    for index, passage in enumerate(live(11, 60, told=False)):
        account = account_of(passage.before, passage.after, passage.events)
        events = {event["id"]: event for event in passage.events}
        prose = composed(account, passage.before, passage.after, events, random.Random(index))
        found = checked(prose, account)
        by_hand += sum(not text for text in found.told)
        teller = GrammarTeller()
        told = {entry.event: text for entry, text in zip(account.statements, found.told, strict=True) if text}
        parts = teller.sentences(passage.before, passage.after, passage.events, random.Random(index), opening=found.opening, told=told)
        passages.append(Passage(passage.before, passage.after, passage.events, " ".join(parts)))
    assert by_hand == 0
    assert contradictions(passages) == []


READ: list[tuple[Any, str, list[Mapping[str, Any]]]] = [
    ({"actions": [{"verb": "go", "place": "the sea"}]}, "иди к морю", [{"verb": "go", "place": "sea"}]),
    ({"actions": [{"verb": "go"}, {"verb": "build", "target": "ship"}]}, "x", [{"verb": "go"}, {"verb": "build", "target": "ship"}]),
    ({"actions": [{"verb": "go", "place": "sea"}]}, "не иди к морю", []),
    ({"actions": [{"verb": "go", "place": "sea", "negated": True}]}, "не иди к морю", [{"verb": "go", "negated": True}]),
    ({"actions": [{"verb": "unknown"}]}, "brillig", []),
    ({"actions": [{"verb": "frobnicate"}]}, "x", []),
    (None, "x", []),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "said", "expected"), READ, ids=range(len(READ)))
def test_what_a_model_read_holds_only_with_a_verb_and_the_negation_of_the_line(
    answer: Any, said: str, expected: list[Mapping[str, Any]]
) -> None:
    found = [action.to_data() for action in meant(answer, said)]
    assert len(found) == len(expected)
    assert all(entry.items() <= action.items() for entry, action in zip(expected, found, strict=True))


def test_lines_to_read_hold_the_schema_and_other_languages() -> None:
    from jsonschema import validate

    from wgtorch.blocks.simulation.model_reader import SCHEMA

    lines = [Readings(300, 0)[index] for index in range(300)]
    for line in lines:
        validate(json.loads(line["answer"]), SCHEMA)
    assert any(not line["prompt"].isascii() for line in lines)
    assert sum('"negated":true' in line["answer"] for line in lines) > 10
