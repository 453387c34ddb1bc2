"""Verbs between people."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import bare, named_in, with_article
from wgtorch.blocks.simulation.matching import find
from wgtorch.blocks.simulation.memory import DULL, knows
from wgtorch.blocks.simulation.verbs.rules import VerbRule, Verdict, arrive, nobody_has, refused, spend, verb, whereabouts
from wgtorch.blocks.simulation.verbs.travel import open_ways


def partner(draft: Draft, actor: str, action: Action) -> tuple[str | None, str]:
    """Whom an action is for, if they are here; else the reason."""
    said = action.receiver or action.target or action.place
    here = draft.place_of(actor)
    if lexicon.means_anybody(said):
        others = draft.here(here, but=actor)
        return (others[0], "") if others else (None, f"there is nobody at {here}")
    named = find(draft, actor, said)
    if named.part != "character":
        if named.part == "beast":
            return None, f"there is no {named.name} anywhere near"
        return None, f"there is nobody called {bare(said)} here"
    if named.name == actor:
        return None, f"{actor} is alone with that"
    if draft.place_of(named.name) != here:
        return None, whereabouts(draft, named.name)
    return named.name, ""


def between(name: str) -> Callable[[Callable[[Draft, str, Action, str], Verdict]], VerbRule]:
    """Decorator: makes a rule known under a verb that is done to somebody who is here; it is told whom, and refused where nobody is."""

    def decorate(rule: Callable[[Draft, str, Action, str], Verdict]) -> VerbRule:
        @verb(name)
        @wraps(rule)
        def tried(draft: Draft, actor: str, action: Action) -> Verdict:
            other, why = partner(draft, actor, action)
            if other is None:
                return refused(draft, actor, action, why, bare(action.receiver or action.target or action.place) or None)
            return rule(draft, actor, action, other)

        return tried

    return decorate


@between("talk")
def talk(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Talks with somebody who is here: both think better of each other, and news go from one to the other."""
    draft.rests_on("characters", other, "remembers", actor)
    if draft.characters[other]["kind"] != "person":
        spend(draft, actor, 1)
        draft.feel(other, actor, 1)
        return draft.close(actor, action, "done", target=other)
    if draft.feeling(other, actor) <= -4:
        return refused(draft, actor, action, f"{other} turns away from {actor}", other)
    news = latest_news(draft, other, actor)
    goal = draft.characters[actor]["goal"]
    wish = draft.threads[goal]["what"]["words"] if goal in draft.threads else None
    spend(draft, actor, 2)
    draft.feel(other, actor, 1)
    draft.feel(actor, other, 1)
    return draft.close(actor, action, "done", target=other, news=news, wish=wish, topic=bare(action.manner) or None)


def latest_news(draft: Draft, teller: str, listener: str) -> int | None:
    """The id of the last thing of note that the teller knows of and the listener does not."""
    for event in reversed(draft.content.get("events", ())[-80:]):
        if event["status"] == "done" and event["verb"] not in DULL and knows(event, teller) and not knows(event, listener):
            return int(event["id"])
    return None


@between("greet")
def greet(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """A small kindness: greeting, thanking, comforting, hugging."""
    draft.rests_on("characters", other, "mood")
    spend(draft, actor, 1)
    draft.feel(other, actor, 1)
    if draft.characters[other]["mood"] in ("sad", "afraid", "ashamed", "weary"):
        draft.mood(other, "hopeful")
    return draft.close(actor, action, "done", target=other)


@between("befriend")
def befriend(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Wins somebody's friendship: it takes as long as it takes."""
    draft.rests_on("characters", other, "remembers", actor)
    spend(draft, actor, 2)
    draft.feel(other, actor, 2)
    draft.feel(actor, other, 1)
    if draft.feeling(other, actor) >= 3:
        draft.mood(other, "glad")
        return draft.close(actor, action, "done", target=other)
    return draft.close(actor, action, "partly", f"{other} is not sure of {actor} yet", target=other)


@between("court")
def court(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Asks for somebody's hand."""
    if draft.characters[other]["kind"] != "person":
        return refused(draft, actor, action, f"{other} is {with_article(draft.characters[other]['role'])}", other)
    draft.rests_on("characters", other, "remembers", actor)
    if draft.feeling(other, actor) < 4:
        return refused(draft, actor, action, f"{other} does not know {actor} well enough for that", other)
    spend(draft, actor, 3)
    draft.feel(other, actor, 2)
    draft.feel(actor, other, 2)
    draft.mood(other, "glad")
    return draft.close(actor, action, "partly", f"{other} asks for time until the next new moon", target=other)


@between("help")
def help_out(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Lends somebody a hand with what they have at heart."""
    goal = draft.characters[other]["goal"]
    draft.rests_on("characters", other, "goal")
    spend(draft, actor, 3)
    draft.feel(other, actor, 2)
    draft.mood(other, "hopeful")
    return draft.close(actor, action, "done", target=other, thread=goal)


@between("quarrel")
def quarrel(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Insults, threatens or fights somebody with words; it is remembered."""
    draft.rests_on("characters", actor, "remembers", other)
    spend(draft, actor, 1)
    draft.feel(other, actor, -2)
    draft.feel(actor, other, -1)
    draft.mood(other, "angry")
    return draft.close(
        actor, action, "done", target=other, witnesses=[name for name in draft.here(draft.place_of(actor), but=actor) if name != other]
    )


@between("reconcile")
def reconcile(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Apologises, or makes peace."""
    draft.rests_on("characters", other, "remembers", actor)
    if draft.feeling(other, actor) >= 0 and draft.feeling(actor, other) >= 0:
        return refused(draft, actor, action, f"there is nothing to forgive between {actor} and {other}", other)
    spend(draft, actor, 1)
    draft.feel(other, actor, 3)
    draft.feel(actor, other, 2)
    draft.mood(other, "calm")
    return draft.close(actor, action, "done", target=other)


@between("invite")
def invite(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Asks somebody along: who likes the one who asks comes to the next place."""
    draft.rests_on("characters", other, "remembers", actor)
    if draft.feeling(other, actor) < 2:
        return refused(draft, actor, action, f"{other} would rather stay at {draft.place_of(actor)} than go along with {actor}", other)
    ways = open_ways(draft, actor)
    if not ways:
        return refused(draft, actor, action, f"no way leads out of {draft.place_of(actor)}", other)
    goal, start = draft.rng.choice(ways), draft.place_of(actor)
    arrive(draft, actor, goal)
    draft.change(goal, "characters", other, "place")
    spend(draft, actor, 2)
    draft.feel(other, actor, 1)
    return draft.close(actor, action, "done", target=other, **{"from": start, "to": goal})  # type: ignore[arg-type]


@between("teach")
def teach(draft: Draft, actor: str, action: Action, other: str) -> Verdict:
    """Shows somebody how one's own craft is done."""
    draft.rests_on("characters", other, "remembers", actor)
    spend(draft, actor, 3)
    draft.feel(other, actor, 1)
    draft.mood(other, "curious")
    return draft.close(actor, action, "done", target=other, craft=draft.characters[actor]["role"])


@verb("beg")
def beg(draft: Draft, actor: str, action: Action) -> Verdict:
    """Asks somebody for a thing that they carry."""
    here = draft.place_of(actor)
    others = draft.here(here, but=actor)
    if action.receiver:
        other, why = partner(draft, actor, Action("beg", receiver=action.receiver))
        if other is None:
            return refused(draft, actor, action, why, bare(action.target) or None)
        others = [other]
    for other in others:
        for name in draft.characters[other]["carries"]:
            if bare(name) == bare(action.target) or draft.objects[name]["kind"] == named_in(action.target, lexicon.OBJECTS):
                draft.rests_on("characters", other, "remembers", actor)
                if draft.feeling(other, actor) < 2:
                    return refused(draft, actor, action, f"{other} does not part with the {name} for nothing", name)
                spend(draft, actor, 1)
                draft.move(name, bearer=actor)
                draft.feel(other, actor, -1)
                draft.feel(actor, other, 2)
                return draft.close(actor, action, "done", target=name, got=name, giver=other)
    return nobody_has(draft, actor, action)
