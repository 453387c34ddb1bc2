"""Telling by a language model, as blocks: the facts of an episode as a prompt, and prose that is checked against them.

::

    intent, content --> account --prompt--> llm --text--> narrated --outcome-->
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.blocks.simulation.blocks import SimulationAuthor, events_of, follow
from wgtorch.blocks.simulation.episode import after
from wgtorch.blocks.simulation.facts import Content, Event
from wgtorch.blocks.simulation.genesis import facts_of
from wgtorch.blocks.simulation.lexicon import agreed
from wgtorch.blocks.simulation.telling.narration import SYSTEM, account_of, checked
from wgtorch.blocks.simulation.telling.teller import GrammarTeller
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import CONTENT, INTENT

_TOKENS = (70, 55)
"""Most tokens of an answer: for the scene, and for each statement."""


@register_block("simulation/account")
class SimulationAccount(Block):
    """The facts of an episode in plain words, for a language model; where nothing came about, ``nothing`` is given and no ``prompt``.

    ::

        Dusk, rain. Kelreach, in the hills; a burnt red windmill.
        1. The traveller went from Thorntor to Kelreach, but Irontor is still 1 place further on.
        2. Vilma decided to raise a yellow house from the ruins of Ambermoor.

    Args:
        tries: how many tellings are asked for; the one of which most may stand is taken.
    """

    inputs = {"intent": INTENT, "content": CONTENT}
    outputs = {
        "prompt": Port(description="the facts of the episode in plain words, one text for each try"),
        "nothing": Port(description="True where nothing came about"),
        "system": Port(dtype="text", description="what the model is told first"),
        "max_tokens": Port(dtype="number", description="most tokens of the model's answer"),
    }
    routes = ("prompt", "nothing")
    uses_global_rng = False

    def __init__(self, *, tries: int = 1) -> None:
        super().__init__()
        if isinstance(tries, bool) or not isinstance(tries, int) or tries < 1:
            raise ValueError(f"SimulationAccount.tries: found {tries!r}, expected a whole number of at least 1")
        self.tries = tries

    @staticmethod
    def max_tokens(statements: int) -> int:
        """Most tokens of a telling of so many statements."""
        return _TOKENS[0] + _TOKENS[1] * statements

    def forward(self, intent: Any, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """``prompt``, one text for each try; ``system`` and ``max_tokens``, for the model."""
        episode = _episode(intent, content)
        account = None if episode is None else account_of(*episode)
        count = 0 if account is None else len(account.statements)
        found: dict[str, Any] = {"system": SYSTEM, "max_tokens": self.max_tokens(count)}
        return {**found, **({"nothing": True} if account is None or not count else {"prompt": [account.prompt] * self.tries})}


@register_block("simulation/narrated")
class SimulationNarrated(SimulationAuthor):
    """Takes of a model's prose what agrees with the facts, and words the rest by the grammar.

    The outcome is ``{"text": ..., "narrated": n, "grammar": m, "strays": [...]}``: how many parts are in the model's words and how
    many in the grammar's, and which sentences were left out, each with why. Without prose it is the grammar's text.
    """

    inputs = {"prose": Port(description="what the model wrote: a text, or a list with one for each try")}
    outputs = {"outcome": Port(description="words, or a mapping: text, how many parts are narrated or by grammar, strays")}

    def __init__(self) -> None:
        super().__init__(teller="grammar")

    def forward(
        self,
        intent: Any,
        description: Any = None,
        content: Mapping[str, Any] | None = None,
        rng: Rng | None = None,
        prose: str | Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """The outcome."""
        episode = _episode(intent, content)
        if not prose or episode is None:
            return super().forward(intent, description, content, rng)
        account = account_of(*episode)
        tellings = [checked(text, account) for text in ([prose] if isinstance(prose, str) else prose)]
        best = max(tellings, key=lambda told: (sum(map(bool, told.told)), bool(told.opening)))
        words = {statement.event: text for statement, text in zip(account.statements, best.told, strict=True) if text}
        assert isinstance(self.teller, GrammarTeller)
        parts = self.teller.sentences(*episode, (rng or GLOBAL_RNG).python(), opening=best.opening, told=words)
        narrated = len(words) + bool(best.opening)
        return {
            "outcome": {
                "text": agreed(" ".join(filter(None, parts))),
                "narrated": narrated,
                "grammar": len(account.statements) + 1 - narrated,
                "strays": [{"sentence": sentence, "why": why} for sentence, why in best.strays],
            }
        }


def _episode(intent: Any, content: Mapping[str, Any] | None) -> tuple[Content, Content, list[Event]] | None:
    """Facts before and after an episode, and its events; None for one of plain words."""
    facts, events = facts_of(content, intent), events_of(intent)
    if facts is None or not events or not follow(facts, events):
        return None
    return facts, after(facts, events), list(events)
