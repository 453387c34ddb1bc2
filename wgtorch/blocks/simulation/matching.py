"""What the words of an action name among the facts."""

from __future__ import annotations

from dataclasses import dataclass

from wgtorch.blocks.simulation import lexicon
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
    return Named("nothing", said, colour)


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
