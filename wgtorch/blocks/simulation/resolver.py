"""The resolver: tries an action against the facts, and answers with a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.matching import referred
from wgtorch.blocks.simulation.reading import RuleReader
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
    """Tries an action by the rule of its verb; negated, by what not doing it means; ``it`` is what the actor's actions were last about."""
    if action.verb == "again":
        return _again(draft, actor, action)
    if action.words:
        action, nobody_knows = referred(draft, actor, action)
        if nobody_knows:
            return draft.close(actor, action, "unclear", f"it is not clear what “{nobody_knows}” is")
    if action.verb == "leave" and action.negated:
        action = replace(action, verb="stay", negated=False)
    elif action.negated and action.verb not in ("avoid", "refrain", "ask", "remark", UNKNOWN_VERB):
        action = replace(action, verb=AVOIDED.get(action.verb, "refrain"), negated=False)
    rule = Verbs.get(action.verb if action.verb in Verbs else UNKNOWN_VERB)
    return rule(draft, actor, action)


def _again(draft: Draft, actor: str, action: Action) -> dict[str, Any]:
    """What the actor was last told to do, tried once more."""
    for event in reversed((*draft.content.get("events", ()), *draft.events)):
        if event["actor"] == actor and event["action"]:
            last = RuleReader().read(event["action"])[0]
            if last.verb != event["verb"] and event["verb"] in Verbs:  # read by more than rules
                last = Action(event["verb"], target=event["target"])
            if last.verb not in ("again", UNKNOWN_VERB):
                return by_facts(draft, actor, replace(last, words=action.words))
    return draft.close(actor, action, "unclear", f"{actor} has done nothing yet that could be done again")


Resolvers.register("facts", by_facts)
