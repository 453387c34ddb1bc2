"""What a node allows itself: limits, a budget, patience. Stated at a place, counted by the client that all places share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from wgtorch.core.errors import ConfigError, suggest

T = TypeVar("T", "Limits", "Budget")


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast an API may be asked.

    Args:
        in_flight: calls at once.
        requests_per_minute: tries begun in any 60 seconds; None has no limit.
        tokens_per_minute: tokens in any 60 seconds, by an estimate until the answer says; None has no limit.
    """

    in_flight: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent on one client in this process; None has no limit.

    Args:
        calls: answers.
        tokens: of prompts and answers.
        money: in the price table's currency.
    """

    calls: int | None = None
    tokens: int | None = None
    money: float | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often to try.

    Args:
        timeout: seconds of one try, from the request to the last byte.
        retries: tries after the first.
        backoff: seconds before the second try; it doubles, and each pause is shortened by up to half at random.
        max_wait: longest pause, in seconds. An API that asks for a longer one (``Retry-After``) is given up.
    """

    timeout: float = 120.0
    retries: int = 5
    backoff: float = 0.5
    max_wait: float = 60.0


@dataclass(frozen=True, slots=True)
class Terms:
    """Everything a call is made under."""

    limits: Limits = Limits()
    budget: Budget = Budget()
    patience: Patience = Patience()


_own: dict[tuple[str, str], Budget] = {}


def set_budget(provider: str, model_id: str, *, calls: int | None = None, tokens: int | None = None, money: float | None = None) -> None:
    """Says in this process what may be spent on a model, in place of what configs say; None has no limit.

    A world that a spent budget has paused is run again after it, by the same call, and goes on where it stopped.

    Args:
        provider: its registered name.
        model_id: the model there.
        calls, tokens, money: as of :class:`Budget`; what was spent before counts.

    Example:
        >>> set_budget("openai", "gpt-5-mini", money=10.0)
    """
    _own[provider, model_id] = budget_of({"calls": calls, "tokens": tokens, "money": money}, f"{provider} {model_id}")


def budget_now(provider: str, model_id: str, stated: Budget) -> Budget:
    """The budget of a call: what :func:`set_budget` said last, else what the config states."""
    return _own.get((provider, model_id), stated)


def limits_of(stated: Mapping[str, Any] | None, where: str) -> Limits:
    """Limits from a config."""
    return _made(Limits, stated, f"{where}.limits")


def budget_of(stated: Mapping[str, Any] | None, where: str) -> Budget:
    """A budget from a config."""
    return _made(Budget, stated, f"{where}.budget")


def _made(kind: type[T], stated: Mapping[str, Any] | None, where: str) -> T:
    known = [field.name for field in fields(kind)]
    for name, value in (stated or {}).items():
        if name not in known:
            raise ConfigError(f"{where}: unknown entry {name!r}; {suggest(name, known)}")
        least = 1 if kind is Limits else 0
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least):
            raise ConfigError(f"{where}.{name}: found {value!r}, expected a number from {least}, or null for none")
    return kind(**dict(stated or {}))
