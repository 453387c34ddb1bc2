"""Typed actions: read, tried against the facts, answered; nothing appears because it was named, and no action is turned round."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from wgtorch.blocks.simulation.episode import after, develop
from wgtorch.blocks.simulation.facts import OPPOSITE, STATUSES
from wgtorch.blocks.simulation.lives import live as passages
from wgtorch.blocks.simulation.readers import RuleActionReader
from wgtorch.blocks.simulation.reading import RuleReader
from wgtorch.blocks.simulation.seasons import time_of_day
from wgtorch.blocks.simulation.telling.teller import GrammarTeller

Facts = Mapping[str, Any]
Must = Callable[[Facts, Facts, Mapping[str, Any]], bool]


def place(facts: Facts) -> str:
    return str(facts["characters"][facts["traveller"]]["place"])


def land(facts: Facts) -> str:
    return str(facts["places"][place(facts)]["terrain"])


def count(facts: Facts, kind: str, **more: Any) -> int:
    standing = [{"kind": entry["landmark"], **entry} for entry in facts["places"].values()] + list(facts["objects"].values())
    return sum(entry["kind"] == kind and all(entry.get(key) == value for key, value in more.items()) for entry in standing)


def same_facts(before: Facts, now: Facts, event: Mapping[str, Any]) -> bool:
    parts = ("places", "characters", "objects", "clock", "weather", "threads")
    return all(before[part] == now[part] for part in parts)


def done(must: Must) -> Must:
    """Where it is done it must hold; where it is refused or not understood, no fact has changed."""
    return lambda a, b, e: must(a, b, e) if e["status"] in ("done", "partly") else same_facts(a, b, e)


def hours(facts: Facts) -> int:
    return int(facts["clock"]["day"] * 24 + facts["clock"]["hour"])


def stays(a: Facts, b: Facts, e: Mapping[str, Any]) -> bool:
    return place(a) == place(b)


def moved(a: Facts, b: Facts, e: Mapping[str, Any]) -> bool:
    return place(a) != place(b)


def towards(direction: str) -> Must:
    return lambda a, b, e: (
        a["places"][place(a)]["neighbours"].get(direction) == place(b)
        and b["places"][place(b)]["neighbours"][OPPOSITE[direction]] == place(a)
    )


def not_newly_at(terrain: str) -> Must:
    return lambda a, b, e: land(b) != terrain or land(a) == terrain


def no_new(kind: str) -> Must:
    return lambda a, b, e: count(b, kind) <= count(a, kind)


def borne(kind: str) -> Must:
    return lambda a, b, e: any(b["objects"][name]["kind"] == kind for name in b["characters"][b["traveller"]]["carries"])


TABLE: dict[str, Must] = {
    "go to the sea": done(lambda a, b, e: land(b) == "sea" if e["status"] == "done" else moved(a, b, e)),
    "go north": done(towards("north")),
    "go back to where I started": done(lambda a, b, e: place(b) == b["start"] or e["status"] == "partly"),
    "go west to the mill": done(lambda a, b, e: towards("west")(a, b, e) and b["places"][place(b)]["landmark"] == "windmill"),
    "enter the castle": no_new("castle"),
    "don't go to the sea": not_newly_at("sea"),
    "leave the castle": lambda a, b, e: b["places"][place(b)]["landmark"] != "castle",
    "forget about the sea": not_newly_at("sea"),
    "run away": done(moved),
    "stay here": stays,
    "stay where I am": stays,
    "avoid the storm": lambda a, b, e: b["weather"] != "storm" or a["weather"] == "storm",
    "hide from the rain": lambda a, b, e: b["weather"] != "rain" or a["weather"] == "rain",
    "there is never any snow in the desert": lambda a, b, e: same_facts(a, b, e) and e["verb"] == "remark",
    "build a ship": done(lambda a, b, e: count(b, "ship") == count(a, "ship") + 1 and land(b) in ("sea", "river")),
    "build a red bridge over the river": done(lambda a, b, e: count(b, "bridge", colour="red") > count(a, "bridge", colour="red")),
    "build a house of gold": lambda a, b, e: e["status"] == "refused" and count(a, "house") == count(b, "house"),
    "dig a tunnel": done(lambda a, b, e: land(b) in ("hills", "mountains")),
    "destroy the tower": done(lambda a, b, e: count(b, "tower") == count(a, "tower") - 1),
    "burn the castle down": lambda a, b, e: (
        count(a, "castle") == count(b, "castle") and (e["status"] != "done" or b["places"][place(b)]["state"] == "burnt")
    ),
    "kill the king": lambda a, b, e: e["status"] == "refused",
    "paint the house black": done(lambda a, b, e: count(b, "house", colour="black") > count(a, "house", colour="black")),
    "talk to the miller": lambda a, b, e: (
        (b["characters"].get(e["target"], {}).get("role") == "miller") or "miller" in e["because"] + e["target"]
    ),
    "ask about the war": same_facts,
    "make friends with a wolf": lambda a, b, e: e["status"] in ("refused", "unclear"),
    "marry the miller's daughter": lambda a, b, e: e["status"] in ("refused", "partly"),
    "give the ring to Anna": done(lambda a, b, e: b["objects"][e["target"]]["bearer"] == "Anna"),
    "take the lamp": lambda a, b, e: e["status"] == "done" and borne("lamp")(a, b, e),
    "open the door": done(stays),
    "eat the apple": lambda a, b, e: e["status"] == "done" and count(b, "apple") == count(a, "apple") - 1,
    "look for treasure": lambda a, b, e: len(b["objects"]) <= len(a["objects"]) or "found" in e["details"],
    "climb the tower and look around": no_new("tower"),
    "light a fire": done(lambda a, b, e: count(b, "fire") == count(a, "fire") + 1),
    "sing a song": lambda a, b, e: e["status"] == "done",
    "rest": lambda a, b, e: e["status"] == "done" and stays(a, b, e),
    "wait one night": lambda a, b, e: (
        e["status"] == "done" and stays(a, b, e) and hours(b) - hours(a) >= 6 and time_of_day(b["clock"]) == "dawn"
    ),
    "sleep until morning": lambda a, b, e: 5 <= b["clock"]["hour"] < 11 and hours(b) > hours(a),
    "wait for snow": lambda a, b, e: stays(a, b, e) and (b["weather"] == "snow" or e["status"] != "done"),
    "make it a sunny day": lambda a, b, e: (b["weather"] == "clear") if e["status"] == "done" else e["status"] == "refused",
    "turn the moon red": lambda a, b, e: e["status"] == "refused",
    "fly to the moon": lambda a, b, e: e["status"] == "refused",
    "what is this place?": same_facts,
    "иди к морю и построй корабль": lambda a, b, e: e["status"] == "unclear" and same_facts(a, b, e),
}
"""The listed actions, and what must hold of the facts before and after, and of the event."""

TURNED_ROUND: dict[str, Must] = {
    "go anywhere but the sea": not_newly_at("sea"),
    "instead of going to the sea stay here": stays,
    "never go near the sea": not_newly_at("sea"),
    "I'd rather not go to the sea": not_newly_at("sea"),
    "I don't want to go to the sea": not_newly_at("sea"),
    "let's not go north": stays,
    "no, stay here": stays,
    "don't leave": stays,
    "do not stay here": done(moved),
    "don't eat the apple": lambda a, b, e: count(a, "apple") == count(b, "apple"),
    "you must not burn the house": lambda a, b, e: all(b["places"][n]["state"] == p["state"] for n, p in a["places"].items()),
    "please don't build a house": lambda a, b, e: count(a, "house") == count(b, "house"),
    "build no tower": lambda a, b, e: count(a, "tower") == count(b, "tower"),
    "paint the house anything but black": lambda a, b, e: count(b, "house", colour="black") == count(a, "house", colour="black"),
    "if it rains, eat the apple": lambda a, b, e: count(a, "apple") == count(b, "apple"),
    "would you mind not eating the apple": lambda a, b, e: count(a, "apple") == count(b, "apple"),
    "drop nothing": borne("lamp"),
    "the castle is burnt": same_facts,
}
SEEDS = (5, 1, 2)


def acted(text: str, seed: int, reader: RuleActionReader | None = None) -> tuple[Facts, Facts, list[dict[str, Any]]]:
    before = list(passages(seed, 2, told=False))[-1].after
    events = develop(before, {"": (reader or RuleActionReader()).read(text)}, random.Random(f"{seed}/act"))
    return before, after(before, events), events


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("text", [*TABLE, *TURNED_ROUND])
def test_an_action_is_answered_as_it_must_be(text: str, seed: int) -> None:
    before, now, events = acted(text, seed)
    event = events[0]
    assert event["action"] == text and event["status"] in STATUSES
    assert event["because"] or event["status"] == "done"
    if event["status"] in ("refused", "unclear"):
        assert event["effects"] == [] and len(events) == 1
    assert ({**TABLE, **TURNED_ROUND})[text](before, now, event)
    assert event["action"] in GrammarTeller().outcome(before, now, events, random.Random(0))
    assert event["action"] in GrammarTeller().intent(before, events, random.Random(0))


@pytest.mark.parametrize(
    ("text", "verb", "target", "place", "receiver"),
    [
        ("Could you please walk to the old mill?", "go", None, "the old mill", None),
        ("hand Anna the apple", "give", "the apple", None, "anna"),
        ("offer the ring to the miller", "give", "the ring", None, "the miller"),
        ("set the tent on fire", "burn", "the tent", None, None),
        ("make the tent red", "colour", "tent", None, None),
        ("keep walking towards the hills", "go", None, "the hills", None),
        ("get out of here", "leave", "here", None, None),
        ("go fishing", "gather", "fish", None, None),
        ("I am hungry", "remark", None, None, None),
        ("where is the nearest inn?", "ask", "nearest inn", None, None),
        ("stay away from the wolf", "avoid", "the wolf", None, None),
        ("put out the fire", "extinguish", "the fire", None, None),
        ("teleport to the castle", "fly", None, None, None),
        ("blargh the fnord", "unknown", None, None, None),
    ],
)
def test_words_are_read(text: str, verb: str, target: str | None, place: str | None, receiver: str | None) -> None:
    (action,) = RuleActionReader().read(text)
    assert (action.verb, action.negated) == (verb, False)
    if target or place or receiver:
        assert (action.target, action.place, action.receiver) == (target, place, receiver)


def test_clauses_are_tried_one_after_the_other_and_it_is_what_was_named() -> None:
    read = RuleActionReader().read("take the lamp and give it to Marek, then go north")
    assert [(action.verb, action.target, action.receiver) for action in read] == [
        ("take", "the lamp", None), ("give", "the lamp", "marek"), ("go", None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (("take the lamp", "drop it"), ("done", "drop", "lamp")),
        (("where is the tower?", "go there"), ("done", "go", None)),
        (("sing a song", "do it again"), ("done", "perform", "song")),
        (("sing a song", "again", "once more"), ("done", "perform", "song")),
        (("drop it",), ("unclear", "drop", "it")),
        (("visit him",), ("unclear", "go", None)),
        (("do it again",), ("unclear", "again", None)),
        (("drop everything",), ("done", "drop", "lamp")),
    ],
    ids=lambda value: " / ".join(map(str, value)),
)
def test_pronouns_mean_what_earlier_actions_were_about(lines: tuple[str, ...], last: tuple[str, str, str | None]) -> None:
    content: Facts = next(iter(passages(5, 2, told=False))).after
    for line in lines:
        events = develop(content, {"": RuleActionReader().read(line)}, random.Random("said"))
        content = after(content, events)
    status, verb, target = last
    assert (events[0]["status"], events[0]["verb"]) == (status, verb)
    assert target is None or events[0]["target"] == target
    assert status != "unclear" or "not clear" in events[0]["because"] or "nothing yet" in events[0]["because"]


def test_names_keep_their_capitals_and_places_may_be_misspelled() -> None:
    before, _, (event,) = acted("give the lamp to Napoleon", 5)
    assert event["because"] == "there is nobody called Napoleon"
    name = next(iter(before["places"]))
    assert acted(f"go to {name[:-2]}{name[-1]}", 5)[2][0]["status"] in ("done", "partly")


def test_what_is_so_already_is_not_told_as_a_change() -> None:
    before, now, events = acted("take the lamp", 5)
    assert GrammarTeller().outcome(before, now, events, random.Random(0)).count("carries the lamp already") == 1
    assert "lamp" not in GrammarTeller().outcome(before, now, events[1:], random.Random(0))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("how many ships are there?", "knows of"), ("is anybody here?", "is at"),
        ("when will it rain?", "sky"), ("what lies north of here?", "north of"),
        ("how do I get to the mountains?", "walk"), ("whose lamp is this?", "carries the lamp"),
        ("are there wolves around?", "wolf"), ("where are my things?", "lamp"),
        ("is it night yet?", "hour"), ("why is grass green?", "has an answer to that"),
    ],
)  # fmt: skip
def test_questions_are_answered_from_the_facts(question: str, answer: str) -> None:
    before, now, (event,) = acted(question, 5)
    assert same_facts(before, now, event)
    assert answer in event["details"]["answer"] or (answer == "is at" and "nobody but" in event["details"]["answer"])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("go to the sea", "The traveller is to “go to the sea”"),
        ("I rest", "The traveller says “I rest”"),
        ("don't go to the sea", "The traveller says “don't go to the sea”"),
        ("what is this place?", "The traveller asks “what is this place?”"),
    ],
)
def test_an_intent_says_how_a_line_was_meant(typed: str, told: str) -> None:
    _, now, events = acted(typed, 1)
    intent = GrammarTeller().intent(now, events, random.Random(1))
    assert intent.startswith(told) and ("It is left undone." in intent) == typed.startswith("don't")


def test_what_is_not_understood_is_offered_near_actions() -> None:
    before, now, (event,) = acted("blargh the fnord", 5)
    assert event["status"] == "unclear" and "blargh" in event["because"]
    [told] = [said for said in GrammarTeller().outcome(before, now, [event], random.Random(0)).split(". ") if said.startswith("One could")]
    assert "look for treasure" in told and "?" not in told  # "One could what is this place?"
    for offer in event["details"]["offers"]:
        _, _, events = acted(offer, 5)
        assert events[0]["status"] in ("done", "partly"), offer


def test_a_question_takes_no_time_and_what_is_done_does() -> None:
    before, now, events = acted("what is this place?", 5)
    assert same_facts(before, now, events[0]) and place(before) in events[0]["details"]["answer"]
    before, now, _ = acted("rest", 5)
    assert hours(now) > hours(before)


def test_a_verb_is_added_in_a_few_lines() -> None:
    from wgtorch.blocks.simulation.action import Action
    from wgtorch.blocks.simulation.ledger import Draft
    from wgtorch.blocks.simulation.resolver import by_facts
    from wgtorch.blocks.simulation.verbs import Verbs, verb

    @verb("test/whistle")
    def whistle(draft: Draft, actor: str, action: Action) -> dict[str, Any]:
        draft.mood(actor, "glad")
        return draft.close(actor, action, "done")

    content = list(passages(5, 1, told=False))[-1].after
    draft = Draft(content, random.Random(0))
    assert by_facts(draft, "the traveller", Action("test/whistle"))["status"] == "done"
    assert "test/whistle" in Verbs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an long apple and a axe", "a long apple and an axe"),
        ("a hour, an house, a honest one", "an hour, a house, an honest one"),
        ("A unknown land, an useful rope", "An unknown land, a useful rope"),
        ("a stones stands there", "stones stand there"),
        ("no berries is to be had at Torfield", "no berries are to be had at Torfield"),
        ("until the stones was red", "until the stones were red"),
        ("the stones of Galmoor is burnt", "the stones of Galmoor are burnt"),
        ("there is no berries at Torfield", "there are no berries at Torfield"),
        ("no stones to climb is at Torfield", "no stones to climb are at Torfield"),
        ("nobody at Torfield has a bread", "nobody at Torfield has bread"),
        ("a bread oven and a honey to trade", "a bread oven and honey to trade"),
        ("“a apple is an long story” says a owl", "“a apple is an long story” says an owl"),
    ],
    ids=lambda text: text[:18],
)
def test_articles_and_verbs_fit_free_words(text: str, expected: str) -> None:
    from wgtorch.blocks.simulation.lexicon import agreed

    assert agreed(text) == expected


@pytest.mark.parametrize(
    ("said", "because"),
    [("fly to the moon", "fly to the moon"), ("fly to", "fly"), ("teleport to the sea", "teleport to the sea"), ("levitate", "levitate")],
    ids=("fly to the moon", "fly to", "teleport", "levitate"),
)
def test_what_nobody_can_do_is_said_whole(said: str, because: str) -> None:
    [passage] = passages(5, 1, {0: said})
    assert passage.events[0]["because"] == f"nobody in this land can {because}"


def test_a_not_behind_the_verb_is_one_too_and_being_brought_somewhere_is_going() -> None:
    [action] = RuleActionReader().read("go not north")
    assert action.negated and action.manner == "north"
    [action] = RuleActionReader().read("could you kindly bring me to the mill")
    assert (action.verb, action.place) == ("go", "the mill")
    [action] = RuleActionReader().read("bring me the lamp")
    assert (action.verb, action.target) == ("beg", "the lamp")


@pytest.mark.parametrize(
    "text", ["talk to whoever is here", "ask everyone about the mill", "give the lamp to the others", "what do people here want?"]
)
def test_nobody_in_particular_is_who_is_here(text: str) -> None:
    met = 0
    for seed in range(12):
        before, _, [event, *_] = acted(text, seed)
        others = [name for name, entry in before["characters"].items() if entry["place"] == place(before) and name != before["traveller"]]
        assert "called" not in event["because"]
        if text.startswith("talk"):
            assert event["target"] in others if others else event["because"] == f"there is nobody at {place(before)}"
        if text.startswith("what") and others:
            assert any(name in event["because"] for name in others) or "nobody" in event["because"]
        met += bool(others)
    assert met


@pytest.mark.parametrize(
    ("said", "targets"),
    [
        ("build a house and a tower", ["a house", "a tower"]),
        ("take the lamp, the sword and some bread", ["the lamp", "the sword", "some bread"]),
        ("paint the house and the tower red", ["the house", "the tower"]),
        ("eat bread and cheese", ["bread", "cheese"]),
        ("don't burn the house and the mill", ["the house", "the mill"]),
    ],
)
def test_each_thing_that_is_named_is_acted_on(said: str, targets: list[str]) -> None:
    actions = RuleActionReader().read(said)
    assert [action.target for action in actions] == targets
    assert actions[0].words == said and len({(action.verb, action.negated, action.manner) for action in actions}) == 1


def test_both_houses_are_built() -> None:
    before, now, events = acted("build a house and a well", 5)
    built = [event for event in events if event["verb"] == "build"]
    assert len(built) == 2 and [event["status"] == "done" for event in built] == [
        count(now, kind) > count(before, kind) for kind in ("house", "well")
    ]


@pytest.mark.parametrize("text", ["sit? I can't sit", "home? I am not going home", "the forest? we do not go to the forest"])
def test_what_is_only_asked_back_and_then_denied_is_not_done(text: str) -> None:
    assert all(action.negated for action in RuleReader().read(text))
