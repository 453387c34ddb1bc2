"""One pass of a simulated world: what is tried, what becomes of it, and what happens beside it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.drama import Dramas
from wgtorch.blocks.simulation.facts import WORLD, Content, Event, applied
from wgtorch.blocks.simulation.ledger import Draft, shortened
from wgtorch.blocks.simulation.mishaps import turn_weather
from wgtorch.blocks.simulation.resolver import Resolver, Resolvers
from wgtorch.blocks.simulation.verbs import TIMELESS


def develop(
    content: Content,
    actions: Mapping[str, Sequence[Action]],
    rng: random.Random,
    *,
    resolver: str = "facts",
    drama: str = "threads",
    sky: str = "drifting",
    scheduling: str = "initiative",
) -> list[dict[str, Any]]:
    """The events of one pass.

    A question, a remark, and what is refused or not understood take no time: nothing else happens then.

    Args:
        content: the world's content; it is not changed.
        actions: what somebody is to do, by their name (empty for the traveller), clause by clause.
        rng: draws.
        resolver, drama, sky, scheduling: names of registered parts.
    """
    draft, resolve = Draft(content, rng), Resolvers.get(resolver)
    given = {actor or draft.hero: clauses for actor, clauses in actions.items() if clauses}
    for actor, clauses in given.items():
        _try(draft, actor, clauses, resolve)
    took_time = any(event["status"] in ("done", "partly") and event["verb"] not in TIMELESS for event in draft.events)
    if given and not took_time:
        return draft.events
    named = any(word in lexicon.WEATHERS for clauses in given.values() for word in lexicon.words(clauses[0].words))
    if not named and not any(effect["path"] == ["weather"] for event in draft.events for effect in event["effects"]):
        turn_weather(draft, sky)  # where an action names weather, the verdict alone says what becomes of it
    Dramas.get(drama)(draft, resolve, acted=tuple(given), scheduling=scheduling)
    return draft.events


def _try(draft: Draft, actor: str, clauses: Sequence[Action], resolve: Resolver) -> None:
    name = _actor(draft, actor)
    if name is None:
        action = Action(UNKNOWN_VERB, words=clauses[0].words)
        draft.close(WORLD, action, "refused", f"there is nobody called {shortened(actor, 60)}", target=shortened(actor, 60))
        return
    for action in clauses:
        event = resolve(draft, name, action)
        if event["status"] not in ("done", "partly") or "goal" in event["details"]:  # one is still on the way
            return


def _actor(draft: Draft, actor: str) -> str | None:
    exact = [name for name in draft.characters if name.lower() == actor.strip().lower()]
    return exact[0] if exact and draft.characters[exact[0]]["present"] else None


def after(content: Content, events: Sequence[Event]) -> dict[str, Any]:
    """The content after events; the ledger holds them."""
    changed = applied(content, [effect for event in events for effect in event["effects"]])
    changed["events"] = [*content["events"], *events]
    return changed
