"""The resolver: tries an action against the facts, and answers with a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.verbs import Verbs
from wgtorch.core.registry import Registry

AVOIDED = {
    "go": "avoid",
    "enter": "avoid",
    "return": "avoid",
    "follow": "avoid",
    "climb": "avoid",
    "sail": "avoid",
    "stay": "wander",
    "wait": "wander",
}
"""What not to do it means, by verb; for all others it is left alone."""


class Resolver(Protocol):
    """What tries actions: closes exactly one event of the draft, which is the verdict."""

    def __call__(self, draft: Draft, actor: str, action: Action) -> dict[str, Any]:
        """The event: ``status`` is ``done``, ``partly``, ``refused`` or ``unclear``; the last three have a ``because``."""


Resolvers: Registry[Resolver] = Registry("resolver", group="wgtorch.resolvers")


def by_facts(draft: Draft, actor: str, action: Action) -> dict[str, Any]:
    """Tries an action by the rule of its verb; negated, by what not doing it means."""
    if action.verb == "leave" and action.negated:
        action = replace(action, verb="stay", negated=False)
    elif action.negated and action.verb not in ("avoid", "refrain", "ask", "remark", UNKNOWN_VERB):
        action = replace(action, verb=AVOIDED.get(action.verb, "refrain"), negated=False)
    rule = Verbs.get(action.verb if action.verb in Verbs else UNKNOWN_VERB)
    return rule(draft, actor, action)


Resolvers.register("facts", by_facts)
