"""What the words of an action name among the facts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import DETERMINERS, bare, colour_in, named_in

_COMMON = frozenset((*lexicon.WEATHERS, *lexicon.TERRAINS, *lexicon.OBJECTS, *lexicon.LANDMARKS, *lexicon.BEASTS))


@dataclass(frozen=True, slots=True)
class Named:
    """What a phrase names.

    Args:
        part: ``character``, ``object``, ``place``, ``landmark``, ``land``, ``kind`` (of an object that is nowhere near), ``beast``,
            ``weather``, ``sky`` or ``nothing``.
        name: the fact's name; of lands and kinds, the kind; of nothing, the words.
        colour: that was asked for.
    """

    part: str
    name: str
    colour: str | None = None


def find(draft: Draft, actor: str, phrase: str | None) -> Named:
    """What a phrase names, from where the actor stands: names first, then roles, what is here, and kinds."""
    said = bare(phrase)
    place, colour = draft.place_of(actor), colour_in(said)
    if not said:
        return Named("nothing", "")
    if said in ("me", "myself", "i"):
        return Named("character", actor)
    generic = (phrase or "").split()[:1] and (phrase or "").split()[0].lower() in DETERMINERS and said in _COMMON
    for part, table in (("character", draft.characters), ("place", draft.places), ("object", draft.objects)):
        if generic and part == "character":
            continue  # "the storm" is weather, whoever is called Storm
        exact = [name for name in table if name.lower() == (phrase or "").strip().lower()] or [name for name in table if bare(name) == said]
        if exact:
            return Named(part, exact[0], colour)
    if not generic and (who := person(draft, actor, said)) is not None:
        return Named("character", who)
    near = [*draft.characters[actor]["carries"], *draft.lying(place)]
    kind = named_in(said, lexicon.OBJECTS)
    fitting = [name for name in near if _fits(draft, name, kind, colour)]
    if fitting:
        return Named("object", fitting[0], colour)
    landmark = named_in(said, lexicon.LANDMARKS)
    if landmark is not None:
        return Named("landmark", landmark, colour)
    if (beast := named_in(said, lexicon.BEASTS)) is not None:
        return Named("beast", beast)
    if kind is not None:
        return Named("kind", kind, colour)
    if (land := named_in(said, lexicon.TERRAINS)) is not None:
        return Named("land", land)
    if (weather := named_in(said, lexicon.WEATHERS)) is not None and said.split()[-1] not in lexicon.SKY_THINGS:
        return Named("weather", weather)
    if any(word in lexicon.SKY_THINGS for word in said.split()):
        return Named("sky", said)
    names = {name.lower(): name for name in (*draft.places, *draft.characters)}
    within = next((name for low, name in names.items() if f" {low} " in f" {said} " and low not in _COMMON), None)
    if within is not None:
        return Named("place" if within in draft.places else "character", within, colour)
    if len(said) > 4 and (alike := get_close_matches(said, names, 1, 0.85)):  # misspelled
        return Named("place" if names[alike[0]] in draft.places else "character", names[alike[0]], colour)
    return Named("nothing", said, colour)


_IT = frozenset(("it", "them", "that", "this", "that one", "this one", "the thing", "these", "those"))
_WHO = frozenset(("him", "her", "them", "that person", "he", "she"))
_THERE = frozenset(("there", "back there", "that place", "over there"))
_TO_ANYBODY = frozenset(
    ["talk", "greet", "befriend", "court", "help", "quarrel", "reconcile", "invite", "teach", "ask", "beg", "give", "trade", "steal"]
)
_OF_PEOPLE = _TO_ANYBODY | {"follow", "harm"}


def referred(draft: Draft, actor: str, action: Action) -> tuple[Action, str]:
    """An action whose pronouns are what the actor's earlier actions were about; where nothing was, the pronoun.

    ``it`` is the last thing or building that the actor's own actions named, ``him`` and ``her`` the last person, ``there`` the last place.
    """
    found: dict[str, Any] = {}
    for field in ("target", "place", "receiver"):
        said = (getattr(action, field) or "").strip().lower()
        if said in _THERE and action.verb in ("stay", "wait", "rest", "sleep", "look", "search"):
            continue  # where one is
        is_person = said in _WHO and (said != "them" or action.verb in _OF_PEOPLE)
        if is_person or said in _IT | _THERE:
            kind = "person" if is_person or (field == "receiver") else "place" if said in _THERE else "thing"
            name = last_named(draft, actor, kind)
            if name is not None:
                found[field] = name
            elif (bare(said) and kind != "person") or (kind == "person" and action.verb not in _TO_ANYBODY):
                return action, said
    return (replace(action, **found) if found else action), ""


def last_named(draft: Draft, actor: str, kind: str) -> str | None:
    """The last thing, person or place that somebody's typed actions named; of people whoever is here, where none was."""
    here = draft.place_of(actor)
    own = [event for event in (*draft.content.get("events", ())[-60:], *draft.events) if event["actor"] == actor and event["action"]]
    for event in reversed(own[-6:]):
        for name in map(str, filter(None, (event["details"].get("to"), event["target"]))):
            fits = {
                "person": name in draft.characters and name != actor,
                "place": (name in draft.places or name in lexicon.TERRAINS or name in lexicon.LANDMARKS) and name != here,
                "thing": name in draft.objects or (name in lexicon.LANDMARKS and event["verb"] != "go") or name in lexicon.OBJECTS,
            }[kind]
            if fits:
                return name
    others = draft.here(here, but=actor) if kind == "person" else []
    return others[0] if others else None


def person(draft: Draft, actor: str, said: str) -> str | None:
    """The character whose name or role the words are; whoever is here comes first."""
    place = draft.place_of(actor)
    order = [*draft.here(place), *draft.characters]
    tokens = said.split()
    for name in order:
        if name.lower() == said or (len(tokens) <= 3 and name.lower() in tokens):
            return name
    for name in order:
        who = draft.characters[name]
        if name != actor and (who["role"] == said or (len(tokens) == 2 and who["role"] == tokens[1] and tokens[0] not in ("the",))):
            return name
    return None


def _fits(draft: Draft, name: str, kind: str | None, colour: str | None) -> bool:
    thing = draft.objects[name]
    return kind is not None and thing["kind"] == kind and (colour is None or thing["colour"] == colour or colour in name.split())


def carried(draft: Draft, actor: str, phrase: str | None) -> str | None:
    """The object in the actor's hands that a phrase names."""
    return _among(draft, draft.characters[actor]["carries"], phrase)


def lying(draft: Draft, place: str, phrase: str | None) -> str | None:
    """The object at a place that a phrase names."""
    return _among(draft, draft.lying(place), phrase)


def _among(draft: Draft, names: list[str], phrase: str | None) -> str | None:
    said = bare(phrase)
    for name in names:
        if bare(name) == said or name.lower() == (phrase or "").lower():
            return name
    kind, colour = named_in(said, lexicon.OBJECTS), colour_in(said)
    return next((name for name in names if _fits(draft, name, kind, colour)), None)
