"""Memory: what a world is, as part of a prompt."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.blocks.memory.choosing import recall
from wgtorch.blocks.memory.counting import counter
from wgtorch.blocks.memory.policies import RetrieveRegistry, SummariseRegistry
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError, PromptTruncatedWarning
from wgtorch.core.port import Port
from wgtorch.ports import FIRST_CONTENT


@register_block("memory")
class Memory(Block):
    """Picks content of a world into a prompt, within a budget of tokens; the same content and query give the same words.

    Each field of the content is a section between tags of its name. Items of a list, and entries of a mapping, go in whole
    or not at all: first the pinned fields, then the newest items of each list, then what the ``retrieve`` policy wants most
    for the query. Items of lists that are left out are summarised by the ``summarise`` policy.

    Example:
        >>> memory = Memory(budget=60)
        >>> memory(content={"style": "ink", "chronicle": ["A came.", "B left."]}, query="B")["context"]
        '<style>\\nink\\n</style>\\n<chronicle>\\n- A came.\\n- B left.\\n</chronicle>'

    Args:
        budget: most tokens of the context.
        tokenizer: folder with a ``tokenizer.json`` that counts them; where left out, one token is counted for every 4 bytes
            of UTF-8, which is more than most tokenizers need.
        pinned: fields that are always there, the most important first; cut, with a warning, only where they alone are too long.
        hidden: fields that never are.
        recent: items of each list that are taken before anything is searched for.
        retrieve: ``relevant`` (shares rare words with the query), ``meaning`` (recency, importance and meaning, by vectors that are
            installed), ``recent``, ``in_order``, or one that
            :func:`~wgtorch.blocks.memory.policies.register_retrieve` named.
        summarise: ``lead`` (first sentences), ``newest`` (last sentences), ``nothing``, or a registered one.
        summary_share: of the budget, kept for summaries, in [0, 1).
        stable_first: what stays stands first, so that a prompt keeps its beginning from episode to episode, for models that keep what
            they read of one: pinned fields, other values, then lists, the chronicle last, each episode with what was noted of names in
            it (of contents that ``memory/keep`` made with ``at_once``). Where not everything fits, older notes that the query asks for
            stand in a section ``recalled`` at the end. Else sections stand in the content's order. A ``summary`` of episodes that
            the ``chronicle`` all holds in full is left out.
    """

    inputs: Mapping[str, Any] = {"content": FIRST_CONTENT, "query": Port(description="what the prompt is about: a text or several")}
    outputs: Mapping[str, Any] = {
        "context": Port(dtype="text", description="the chosen content in sections, of at most budget tokens"),
        "tokens": Port(dtype="number", description="how many tokens the context has"),
        "left_out": Port(dtype="number", description="how many entries are not in the context"),
    }
    uses_global_rng = False

    def __init__(
        self,
        *,
        budget: int = 1500,
        tokenizer: str | None = None,
        pinned: Sequence[str] = ("style", "rules", "story"),
        hidden: Sequence[str] = ("language", "episodes"),
        recent: int = 2,
        retrieve: str = "relevant",
        summarise: str = "lead",
        summary_share: float = 0.2,
        stable_first: bool = False,
    ) -> None:
        super().__init__()
        if budget < 1:
            raise ConfigError(f"memory.budget: found {budget}, expected at least 1 token")
        if recent < 0:
            raise ConfigError(f"memory.recent: found {recent}, expected 0 or more")
        if not 0 <= summary_share < 1:
            raise ConfigError(f"memory.summary_share: found {summary_share}, expected a number in [0, 1)")
        if both := sorted(set(pinned) & set(hidden)):
            raise ConfigError(f"memory: {both[0]!r} is pinned and hidden; leave it out of one")
        self.budget, self.recent, self.summary_share = budget, recent, summary_share
        self.pinned, self.hidden = tuple(pinned), frozenset(hidden)
        self.retrieve = RetrieveRegistry.get(retrieve)
        self.summarise = SummariseRegistry.get(summarise)
        self.stable_first = stable_first
        self.count = counter(tokenizer)

    def forward(self, content: Mapping[str, Any] | None = None, query: Any = None) -> dict[str, Any]:
        """``context`` of at most ``budget`` tokens, how many ``tokens`` it has, and how many notes are ``left_out``."""
        words = "" if query is None else query if isinstance(query, str) else " ".join(map(str, query))
        found = recall(
            content or {},
            words,
            budget=self.budget,
            count=self.count,
            pinned=self.pinned,
            hidden=self.hidden,
            recent=self.recent,
            retrieve=self.retrieve,
            summarise=self.summarise,
            summary_share=self.summary_share,
            stable_first=self.stable_first,
        )
        if found.cut:
            warnings.warn(
                f"{self.block_id}: the pinned fields alone are longer than the budget of {self.budget} tokens; "
                f"cut: {', '.join(found.cut)}. Raise memory's budget, pin fewer fields, or write them shorter.",
                PromptTruncatedWarning,
                stacklevel=2,
            )
        return {"context": found.text, "tokens": found.tokens, "left_out": len(found.left_out)}
