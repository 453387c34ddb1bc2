"""Reading actions by a language model, where rules and the small reader find no verb: other languages, and turns of phrase.

::

    reader --actions--> unread --prompt--> llm --data, text--> sure --log_prob--> read --actions-->

``sure`` is the same model once more, asked how likely it finds its answer by itself, where it can say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.phrases import VERBS
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.ports import ACTIONS, ANSWER_TOKENS, LOG_PROB

SYSTEM = "Read the action."
"""What the reader's model is told first."""
LONGEST = 240
"""Characters of a line that the model is asked about."""
PARTS = ("target", "place", "receiver", "manner")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "actions": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "verb": {"enum": list(VERBS)},
                    **{name: {"type": "string", "minLength": 1, "maxLength": 40} for name in PARTS},
                    "negated": {"const": True},
                },
                "required": ["verb"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["actions"],
    "additionalProperties": False,
}
"""What the model answers: each action with its verb, and what else was said of it."""
_FOREIGN = "nobody in this land speaks that language"
_DENIED = re.compile(
    r"(?<!\w)(?:nicht|kein|keine|keinen|niemals|nie|pas|jamais|no|nunca|non|mai|не|нет|никогда|not|never|don't|won't)(?!\w)", re.IGNORECASE
)


@register_block("reader/unread")
class UnreadLines(Block):
    """The lines of which a reader found no verb, for a language model; where there are none, ``nothing`` is given and no ``prompt``.

    Lines that are no words, or too many, are not among them.
    """

    inputs = {"actions": ACTIONS}
    outputs = {
        "prompt": Port(description="the lines of which no verb was found, as a list"),
        "nothing": Port(description="True where there is no such line"),
        "system": Port(dtype="text", description="what the model is told first"),
        "schema": Port(dtype="dict", description="JSON Schema of the model's answers"),
    }
    routes = ("prompt", "nothing")
    uses_global_rng = False

    def forward(self, actions: Mapping[str, Any]) -> dict[str, Any]:
        """``prompt``: the lines as a list; ``system`` and ``schema``, for the model."""
        lines = [clauses[0]["words"] for clauses in actions.values() if is_unread(clauses)]
        return {"system": SYSTEM, "schema": SCHEMA, **({"prompt": lines} if lines else {"nothing": True})}


@register_block("reader/read")
class ReadLines(Block):
    """Takes over what a language model read, where it holds: a verb, a negation where the line has one, and where the model is sure.

    Args:
        least: log-probability of an answer, in nats per token, from which it is taken; of a model that says none, every answer is.
    """

    inputs = {
        "actions": ACTIONS,
        "data": Port(description="the model's readings of the unread lines, in their order"),
        "log_prob": LOG_PROB,
        "tokens": ANSWER_TOKENS,
    }
    outputs = {"actions": Port(dtype="dict", description="the actions, with the model's reading of those without a verb")}
    uses_global_rng = False

    def __init__(self, *, least: float = -0.03) -> None:
        super().__init__()
        if not least <= 0:
            raise ValueError(f"ReadLines.least: found {least!r}, expected a number of at most 0")
        self.least = least

    def forward(
        self, actions: Mapping[str, Any], data: Any = None, log_prob: Tensor | None = None, tokens: Tensor | None = None
    ) -> dict[str, Any]:
        """``actions``, with the model's reading in place of those without a verb."""
        given = list(data) if isinstance(data, Sequence) and not isinstance(data, str) else []
        if log_prob is not None and tokens is not None:
            sure = (log_prob / tokens >= self.least).tolist()
            given = [answer if holds else None for answer, holds in zip(given, sure, strict=True)]
        answers = iter(given)
        found = {}
        for who, clauses in actions.items():
            read = meant(next(answers, None), clauses[0]["words"]) if is_unread(clauses) else []
            found[who] = [entry.to_data() for entry in read] or clauses
        return {"actions": found}


def is_unread(clauses: Sequence[Mapping[str, Any]]) -> bool:
    """True for a reading of one action without a verb, of a line that a model may know."""
    entry = clauses[0]
    return entry["verb"] == UNKNOWN_VERB and entry.get("manner") in (None, _FOREIGN) and len(entry["words"]) <= LONGEST


def meant(answer: Any, said: str) -> list[Action]:
    """The actions of an answer to :data:`SCHEMA`; none where it finds no verb, or misses that the line is a denial."""
    entries = answer.get("actions", ()) if isinstance(answer, Mapping) else ()
    read = []
    for index, entry in enumerate(entries):
        if entry.get("verb") in VERBS:
            target, place, receiver, manner = (_part(entry, name) for name in PARTS)
            negated, words = bool(entry.get("negated")), said if not index else ""
            read.append(Action(entry["verb"], target, place, manner, negated=negated, receiver=receiver, words=words))
    if not read or read[0].verb == UNKNOWN_VERB or (_DENIED.search(said) and not any(action.negated for action in read)):
        return []
    return [action for action in read if action.verb != UNKNOWN_VERB]


def _part(entry: Mapping[str, Any], name: str) -> str | None:
    return lexicon.bare(str(entry.get(name) or "")) or None
