"""What a verb is: a rule that tries an action against the facts, and what is common to such rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import bare, with_article
from wgtorch.blocks.simulation.places import direction_of, way
from wgtorch.blocks.simulation.seasons import HOURS_OF_A_PASS, later
from wgtorch.core.registry import Registry

Verdict: TypeAlias = dict[str, Any]
VerbRule: TypeAlias = Callable[[Draft, str, Action], Verdict]

Verbs: Registry[VerbRule] = Registry("verb", group="wgtorch.verbs")
"""Rules by verb: ``(draft, actor, action) -> event``; each closes exactly one event."""

TIMELESS = frozenset({"ask", "remark", "look", "unknown"})
"""Verbs that take no time: nothing else happens meanwhile."""


def verb(name: str) -> Callable[[VerbRule], VerbRule]:
    """Decorator: makes a rule known under the verb it tries.

    Example:
        >>> @verb("whistle")
        ... def whistle(draft, actor, action):
        ...     draft.mood(actor, "glad")
        ...     return draft.close(actor, action, "done")
    """
    return partial(Verbs.register, name)


def refused(draft: Draft, actor: str, action: Action, because: str, target: str | None = None, **details: Any) -> Verdict:
    """A verdict without effects: it cannot be done, and why."""
    return draft.close(actor, action, "refused", because, target=target, **details)


def spend(draft: Draft, actor: str, hours: int = HOURS_OF_A_PASS) -> None:
    """Lets hours go by with the event in the making; only what the traveller does takes the world's time."""
    if actor == draft.hero:
        draft.change(later(draft.content["clock"], hours), "clock")


def arrive(draft: Draft, actor: str, place: str) -> None:
    """Puts somebody to a place; where the traveller comes is known from then on."""
    draft.change(place, "characters", actor, "place")
    if actor == draft.hero:
        draft.change(True, "places", place, "known")


def far(draft: Draft, actor: str, place: str) -> str:
    """How far and where a place lies, from where somebody is: ``two days' walk to the north``."""
    steps = way(draft.places, draft.place_of(actor), lambda name: name == place)
    if steps is None:
        return "where no way leads"
    if not steps:
        return "right here"
    first = direction_of(draft.places, draft.place_of(actor), steps[0])
    count = {1: "close by", 2: "two walks away", 3: "three walks away", 4: "four walks away"}.get(len(steps), "far away")
    return f"{count}, beginning {first}ward"


def whereabouts(draft: Draft, who: str) -> str:
    """Why somebody cannot be spoken to: they are elsewhere."""
    if not draft.characters[who]["present"]:
        return f"{who} has left the land"
    return f"{who} is not here but at {draft.place_of(who)}"


def nobody_has(draft: Draft, actor: str, action: Action) -> Verdict:
    """A verdict on what nobody here carries."""
    said, here = bare(action.target), draft.place_of(actor)
    return refused(draft, actor, action, f"nobody at {here} has {with_article(said) if said else 'anything of the kind'}", said or None)
