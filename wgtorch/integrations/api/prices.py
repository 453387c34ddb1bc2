"""What tokens cost: a short table of list prices, which the user may extend and correct."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


@dataclass(frozen=True, slots=True)
class Price:
    """Money for a million tokens, and for one call.

    Args:
        prompt: for a million tokens of prompts.
        completion: for a million tokens of answers.
        call: for each call beside, as for a picture.
    """

    prompt: float = 0.0
    completion: float = 0.0
    call: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of one call."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6 + self.call


# US dollars, the providers' list prices as published in spring 2026; discounts and tiers are not in it.
_LISTED = {
    ("openai", "gpt-4.1"): Price(2.0, 8.0),
    ("openai", "gpt-4.1-mini"): Price(0.4, 1.6),
    ("openai", "gpt-4.1-nano"): Price(0.1, 0.4),
    ("openai", "gpt-4o"): Price(2.5, 10.0),
    ("openai", "gpt-4o-mini"): Price(0.15, 0.6),
    ("openai", "gpt-5"): Price(1.25, 10.0),
    ("openai", "gpt-5-mini"): Price(0.25, 2.0),
    ("openai", "gpt-5-nano"): Price(0.05, 0.4),
    ("openai", "text-embedding-3-large"): Price(0.13),
    ("openai", "text-embedding-3-small"): Price(0.02),
    ("anthropic", "claude-haiku-4-5"): Price(1.0, 5.0),
    ("anthropic", "claude-opus-4-5"): Price(5.0, 25.0),
    ("anthropic", "claude-opus-4-7"): Price(5.0, 25.0),
    ("anthropic", "claude-sonnet-4-5"): Price(3.0, 15.0),
    ("anthropic", "claude-sonnet-4-6"): Price(3.0, 15.0),
}
_own: dict[tuple[str, str], Price] = {}
_lock = threading.Lock()


def set_price(provider: str, model_id: str, *, prompt: float = 0.0, completion: float = 0.0, call: float = 0.0) -> None:
    """Says what a model costs, in place of what the table says.

    Args:
        provider: its registered name.
        model_id: the model there.
        prompt, completion: money for a million tokens.
        call: money for each call beside.

    Example:
        >>> set_price("openai", "gpt-5-mini", prompt=0.25, completion=2.0)
    """
    with _lock:
        _own[provider, model_id] = Price(prompt, completion, call)


def price_of(provider: str, model_id: str) -> Price | None:
    """The price of a model, or of the one that a dated name is a version of; None where it is not known."""
    for name in (model_id, _DATED.sub("", model_id)):
        found = _own.get((provider, name)) or _LISTED.get((provider, name))
        if found is not None:
            return found
    return None
