"""Verbs of handling things."""

from __future__ import annotations

from dataclasses import replace

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import bare, named_in, with_article, words
from wgtorch.blocks.simulation.matching import carried, find, lying, person
from wgtorch.blocks.simulation.verbs.rules import Verbs, Verdict, nobody_has, refused, spend, verb, whereabouts


@verb("take")
def take(draft: Draft, actor: str, action: Action) -> Verdict:
    """Picks up what lies here."""
    here, said = draft.place_of(actor), action.target or action.place
    if not bare(said) or bare(said) in ("everything", "all", "anything", "something", "it all", "things"):
        found = [name for name in draft.lying(here) if not draft.objects[name]["fixed"]]
        if not found:
            return refused(draft, actor, action, f"nothing lies at {here} that could be taken")
        said = found[0]
    named = next((name for name in draft.lying(here) if name.lower() == bare(said)), None)
    if named is None and (own := carried(draft, actor, said)) is not None:
        return draft.close(actor, action, "done", f"{actor} carries the {own} already", target=own)
    thing = named or lying(draft, here, said)
    if thing is None:
        return _not_here(draft, actor, action, said)
    if draft.objects[thing]["fixed"]:
        return refused(draft, actor, action, f"the {thing} cannot be carried", thing)
    draft.rests_on("objects", thing, "place")
    spend(draft, actor, 1)
    draft.move(thing, bearer=actor)
    return draft.close(actor, action, "done", target=thing, got=thing, at=here)


def _not_here(draft: Draft, actor: str, action: Action, said: str | None) -> Verdict:
    here, named = draft.place_of(actor), find(draft, actor, said)
    if named.part == "character":
        return refused(draft, actor, action, f"{named.name} is nobody's to take", named.name)
    kind, colour = named_in(said, lexicon.OBJECTS), named.colour
    for other in draft.here(here, but=actor):
        for name in draft.characters[other]["carries"]:
            if draft.objects[name]["kind"] == kind or bare(name) == bare(said):
                return refused(draft, actor, action, f"the {name} belongs to {other}, who might give or trade it", name)
    if named.part == "landmark" and draft.places[here]["landmark"] == named.name and colour in (None, draft.places[here]["colour"]):
        return refused(draft, actor, action, f"nobody can carry {with_article(named.name)}", named.name)
    return refused(draft, actor, action, f"there is no {bare(said)} at {here}", named.name or None)


@verb("give")
def give(draft: Draft, actor: str, action: Action) -> Verdict:
    """Hands something over to somebody who is here."""
    said = action.target
    if action.receiver and lexicon.means_anybody(action.receiver):
        others = draft.here(draft.place_of(actor), but=actor)
        if not others:
            return refused(draft, actor, action, f"there is nobody at {draft.place_of(actor)}", bare(said) or None)
        action = replace(action, receiver=others[0])
    if action.receiver is None and not action.place:
        return refused(draft, actor, action, "nobody was named to give it to", bare(said) or None)
    to = action.receiver or action.place
    thing = carried(draft, actor, said)
    if thing is None:
        return refused(draft, actor, action, f"{actor} carries no {bare(said) or 'such thing'}", bare(said) or None)
    named = find(draft, actor, to)
    if named.part != "character" or named.name == actor:
        return refused(draft, actor, action, f"there is nobody called {bare(to)}", thing)
    if draft.place_of(named.name) != draft.place_of(actor):
        return refused(draft, actor, action, whereabouts(draft, named.name), thing)
    draft.rests_on("objects", thing, "bearer")
    spend(draft, actor, 1)
    draft.move(thing, bearer=named.name)
    draft.feel(named.name, actor, 2)
    draft.mood(named.name, "glad")
    return draft.close(actor, action, "done", target=thing, gave=thing, to=named.name)


@verb("drop")
def drop(draft: Draft, actor: str, action: Action) -> Verdict:
    """Lays down what one carries."""
    if bare(action.target) in ("everything", "all", "it all", "things") and draft.characters[actor]["carries"]:
        own, here = list(draft.characters[actor]["carries"]), draft.place_of(actor)
        spend(draft, actor, 1)
        for name in own:
            draft.move(name, place=here)
        return draft.close(actor, action, "done", target=own[0], left=own[0], at=here)
    thing = carried(draft, actor, action.target)
    if thing is None:
        return refused(draft, actor, action, f"{actor} carries no {bare(action.target) or 'such thing'}", bare(action.target) or None)
    spend(draft, actor, 1)
    draft.move(thing, place=draft.place_of(actor))
    return draft.close(actor, action, "done", target=thing, left=thing, at=draft.place_of(actor))


@verb("steal")
def steal(draft: Draft, actor: str, action: Action) -> Verdict:
    """Takes what somebody here carries; it is not forgotten."""
    here = draft.place_of(actor)
    owner = person(draft, actor, bare(action.receiver or action.place or ""))
    if owner is None and (owner := person(draft, actor, bare(action.target))) is not None:
        action = replace(action, target=next(iter(draft.characters[owner]["carries"]), None))  # "rob Anna"
    others = [owner] if owner is not None else draft.here(here, but=actor)
    for other in others:
        if draft.place_of(other) != here:
            return refused(draft, actor, action, whereabouts(draft, other), other)
        for name in draft.characters[other]["carries"]:
            if bare(name) == bare(action.target) or draft.objects[name]["kind"] == named_in(action.target, lexicon.OBJECTS):
                if actor == draft.hero and draft.rng.random() < 0.5:
                    return refused(draft, actor, action, f"{other} holds on to the {name} and watches", name)
                draft.rests_on("objects", name, "bearer")
                spend(draft, actor, 1)
                draft.move(name, bearer=actor)
                draft.feel(other, actor, -4)
                draft.mood(other, "angry")
                return draft.close(actor, action, "done", target=name, stolen=name, victim=other)
    return nobody_has(draft, actor, action)


@verb("trade")
def trade(draft: Draft, actor: str, action: Action) -> Verdict:
    """Swaps something of one's own for something that somebody here has."""
    here, said = draft.place_of(actor), action.target
    others = [name for name in draft.here(here, but=actor) if draft.characters[name]["kind"] == "person"]
    partner = person(draft, actor, bare(action.receiver or ""))
    if partner is not None and partner not in others:
        return refused(draft, actor, action, whereabouts(draft, partner), bare(said) or None)
    if not others:
        return refused(draft, actor, action, f"there is nobody at {here} to trade with", bare(said) or None)
    others = [partner] if partner is not None else others
    mine = list(draft.characters[actor]["carries"])
    own = carried(draft, actor, said)
    if own is not None and action.manner and action.manner.startswith("for "):
        said = action.manner.removeprefix("for ")
    for other in others:
        wanted = next((name for name in draft.characters[other]["carries"] if bare(said) and _is(draft, name, said)), None)
        theirs = list(draft.characters[other]["carries"])
        if wanted is None and bare(said) and (own is None or said != action.target):
            continue
        give_up = own or next((name for name in mine if name != wanted), None)
        get = wanted or next(iter(theirs), None)
        if give_up is None or get is None:
            return refused(draft, actor, action, f"{actor if give_up is None else other} has nothing to offer for it", bare(said) or None)
        draft.rests_on("objects", get, "bearer")
        draft.rests_on("characters", other, "remembers", actor)
        if draft.feeling(other, actor) < -1:
            return refused(draft, actor, action, f"{other} does not trade with {actor} after what happened", get)
        spend(draft, actor, 2)
        draft.move(give_up, bearer=other)
        draft.move(get, bearer=actor)
        draft.feel(other, actor, 1)
        draft.feel(actor, other, 1)
        return draft.close(actor, action, "done", target=get, got=get, gave=give_up, to=other)
    return refused(draft, actor, action, f"nobody at {here} has {with_article(bare(said))} to trade", bare(said) or None)


def _is(draft: Draft, name: str, said: str | None) -> bool:
    return bare(name) == bare(said) or draft.objects[name]["kind"] == named_in(said, lexicon.OBJECTS)


@verb("eat")
def eat(draft: Draft, actor: str, action: Action) -> Verdict:
    """Eats or drinks up what one carries or what lies here."""
    here, said = draft.place_of(actor), action.target
    own = [*draft.characters[actor]["carries"], *draft.lying(here)]
    if not bare(said) or bare(said) in ("something", "food", "dinner", "lunch", "breakfast", "supper"):
        thing = next((name for name in own if draft.objects[name]["kind"] in lexicon.FOOD), None)
    else:
        thing = carried(draft, actor, said) or lying(draft, here, said)
    if thing is None:
        if named_in(said, lexicon.OBJECTS) == "water" and draft.places[here]["terrain"] in ("river", "marsh", "mountains", "hills"):
            spend(draft, actor, 1)
            draft.mood(actor, "calm")
            return draft.close(actor, action, "done", target="water")
        return refused(
            draft,
            actor,
            action,
            f"{actor} has no {bare(said) or 'food'} to {'drink' if 'drink' in words(action.words) else 'eat'}",
            bare(said) or None,
        )
    if draft.objects[thing]["kind"] not in lexicon.FOOD:
        return refused(draft, actor, action, f"nobody can eat the {thing}", thing)
    draft.rests_on("objects", thing, "bearer" if draft.objects[thing]["bearer"] else "place")
    spend(draft, actor, 1)
    draft.remove(thing)
    draft.mood(actor, "glad")
    return draft.close(actor, action, "done", target=thing, gone=thing)


@verb("open")
def open_it(draft: Draft, actor: str, action: Action) -> Verdict:
    """Opens a door, a chest, a book."""
    here, said = draft.place_of(actor), bare(action.target or action.place)
    place = draft.places[here]
    thing = carried(draft, actor, said) or lying(draft, here, said)
    if thing is not None and draft.objects[thing]["kind"] in ("chest", "book", "letter", "bag", "jar", "door"):
        spend(draft, actor, 1)
        return draft.close(actor, action, "done", target=thing, opened=thing)
    if thing is not None:
        return refused(draft, actor, action, f"there is nothing about the {thing} that opens", thing)
    named = find(draft, actor, said)
    if place["landmark"] in (None, "stones", "ruin", "bridge", "well") or named.part not in ("landmark", "kind", "nothing"):
        return refused(draft, actor, action, f"there is no {said or 'door'} at {here} that opens", said or None)
    if named.part == "landmark" and named.name != place["landmark"]:
        return refused(draft, actor, action, f"no {said} stands at {here}", named.name)
    if named.part == "nothing" or (named.part == "kind" and named.name != "door"):
        return refused(draft, actor, action, f"there is no {said or 'door'} at {here}", said or None)
    if place["state"] == "locked":
        draft.rests_on("places", here, "state")
        key = next((name for name in draft.characters[actor]["carries"] if draft.objects[name]["kind"] == "key"), None)
        if key is None:
            return refused(draft, actor, action, f"the {place['landmark']} is locked and {actor} has no key", place["landmark"])
        spend(draft, actor, 1)
        draft.change("whole", "places", here, "state")
        return draft.close(actor, action, "done", target=place["landmark"], opened=place["landmark"], key=key)
    spend(draft, actor, 1)
    return draft.close(actor, action, "done", target=place["landmark"], opened=place["landmark"])


@verb("lock")
def lock(draft: Draft, actor: str, action: Action) -> Verdict:
    """Locks the building that is here, with a key."""
    here = draft.place_of(actor)
    place = draft.places[here]
    if place["landmark"] not in ("house", "castle", "tower", "windmill", "inn") or place["state"] != "whole":
        return refused(draft, actor, action, f"there is no door at {here} that could be shut", bare(action.target) or None)
    key = next((name for name in draft.characters[actor]["carries"] if draft.objects[name]["kind"] == "key"), None)
    if key is None:
        return refused(draft, actor, action, f"{actor} has no key", place["landmark"])
    draft.rests_on("places", here, "state")
    spend(draft, actor, 1)
    draft.change("locked", "places", here, "state")
    return draft.close(actor, action, "done", target=place["landmark"], locked=place["landmark"])


@verb("read")
def read(draft: Draft, actor: str, action: Action) -> Verdict:
    """Reads a book, a letter or a map; a map shows places."""
    thing = carried(draft, actor, action.target) or lying(draft, draft.place_of(actor), action.target)
    if thing is None or draft.objects[thing]["kind"] not in ("book", "letter", "map", "sign"):
        return refused(draft, actor, action, f"{actor} has no {bare(action.target) or 'book'} to read", bare(action.target) or None)
    draft.rests_on("objects", thing, "bearer" if draft.objects[thing]["bearer"] else "place")
    spend(draft, actor, 2)
    shown = []
    if draft.objects[thing]["kind"] == "map" and actor == draft.hero:
        shown = [name for name in draft.places[draft.place_of(actor)]["neighbours"].values() if not draft.places[name]["known"]]
        for name in shown:
            draft.change(True, "places", name, "known")
    draft.mood(actor, "curious")
    return draft.close(actor, action, "done", target=thing, saw=shown)


@verb("throw")
def throw(draft: Draft, actor: str, action: Action) -> Verdict:
    """Throws away what one carries; it lies here then."""
    here, land = draft.place_of(actor), named_in(action.place or action.receiver, lexicon.TERRAINS)
    if land is not None and land != draft.places[here]["terrain"]:
        return refused(draft, actor, action, f"there is no {land} at {here}", bare(action.target) or None)
    return drop(draft, actor, replace(action, receiver=None))


@verb("use")
def use(draft: Draft, actor: str, action: Action) -> Verdict:
    """Uses a thing for what it is for."""
    thing = carried(draft, actor, action.target) or lying(draft, draft.place_of(actor), action.target)
    if thing is None:
        return refused(draft, actor, action, f"there is no {bare(action.target) or 'such thing'} at hand", bare(action.target) or None)
    kind = draft.objects[thing]["kind"]
    if kind in ("lamp",):
        return Verbs.get("light")(draft, actor, replace(action, target=thing))
    if kind in ("book", "letter", "map"):
        return read(draft, actor, replace(action, target=thing))
    if kind in lexicon.FOOD:
        return eat(draft, actor, replace(action, target=thing))
    return draft.close(actor, action, "unclear", f"it is not clear what the {thing} should be used for", target=thing)
