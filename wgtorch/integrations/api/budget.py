"""What a client spends: set aside by an estimate before a call, put right by what the provider counted after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from wgtorch.integrations.api.terms import Budget
from wgtorch.integrations.models.errors import BudgetError

_COUNTED = ("calls", "tokens", "money")


@dataclass(slots=True)
class Spent:
    """A sum, or one call's share of it.

    Args:
        calls: answers, and calls on their way.
        tokens: of prompts and answers.
        money: by the price table; what has no price is not in it.
    """

    calls: int = 0
    tokens: int = 0
    money: float = 0.0

    def add(self, share: Spent, sign: int = 1) -> None:
        """Adds a share, or takes it away again."""
        self.calls += sign * share.calls
        self.tokens += sign * share.tokens
        self.money += sign * share.money


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set aside for a call.

    Args:
        most: more than it takes for sure; None where nobody knows.
        likely: what it will take; set aside where it goes alone.
    """

    most: Spent | None
    likely: Spent


class BudgetGuard:
    """Counts for all callers of one client; budgets come with each caller. Used inside one event loop only.

    Args:
        provider, model: for messages.
    """

    def __init__(self, provider: str, model: str) -> None:
        self.spent = Spent()
        self._provider, self._model = provider, model
        self._aside = Spent()
        self._is_alone = False  # a call of unknown size is on its way, and nothing goes beside it
        self._gate = asyncio.Lock()
        self._settled = asyncio.Event()

    async def take(self, share: Spent | Callable[[], Reservation], budget: Budget) -> Spent:
        """Sets a call's share aside, so that calls at once cannot pass a budget together.

        What is set aside for others on their way is mostly more than they take, so this waits for them before it gives up. A call
        whose size nobody knows waits until it is alone, and lets none go beside it: at most its own answer passes a budget.

        Args:
            share: what it takes at most; or what tells so, asked again whenever others have ended, since more is known then.
            budget: of the caller.

        Returns:
            What was set aside, for :meth:`charge`.

        Raises:
            BudgetError: it is spent.
        """
        if budget.tokens is None and budget.money is None:
            asked = share if isinstance(share, Spent) else share().likely
            self._refuse_beyond(asked, budget)
            return self._set_aside(asked)
        async with self._gate:  # in the order they came
            while True:
                wanted = Reservation(share, share) if isinstance(share, Spent) else share()
                if wanted.most is not None and not self._is_alone and not self._over(wanted.most, budget):
                    return self._set_aside(wanted.most)
                self._refuse_beyond(wanted.likely, budget)
                if self._aside.calls == 0:
                    self._is_alone = True
                    return self._set_aside(wanted.likely)
                self._settled.clear()
                await self._settled.wait()

    def charge(self, share: Spent, took: Spent | None) -> None:
        """Puts what a call took in place of its share; nothing for a call that failed."""
        self._aside.add(share, -1)
        self.spent.add(share, -1)
        if took is not None:
            self.spent.add(took)
        if self._aside.calls == 0:
            self._is_alone = False
        self._settled.set()

    def _set_aside(self, share: Spent) -> Spent:
        self.spent.add(share)
        self._aside.add(share)
        return share

    def _over(self, share: Spent, budget: Budget) -> list[str]:
        return [name for name in _COUNTED if self._beyond(name, share, budget) > 0]

    def _refuse_beyond(self, share: Spent, budget: Budget) -> None:
        """Refuses what does not fit however little the others on their way take."""
        for name in self._over(share, budget):
            if name == "calls" or self._aside.calls == 0 or self._beyond(name, share, budget) > getattr(self._aside, name):
                raise self._error(name, share, budget)

    def _beyond(self, name: str, share: Spent, budget: Budget) -> float:
        """By how much a share passes the budget, with all that is set aside; negative where it does not."""
        allowed = getattr(budget, name)
        return -1 if allowed is None else getattr(self.spent, name) + getattr(share, name) - allowed

    def _error(self, name: str, share: Spent, budget: Budget) -> BudgetError:
        allowed, so_far, more = (getattr(entry, name) for entry in (budget, self.spent, share))
        return BudgetError(
            f"{self._provider} {self._model}: the budget of {allowed:g} {name} is spent: {so_far:g} so far, and this call takes {more:g}. "
            "Raise it (set_budget(), or in the config) and run again: it goes on where it stopped.",
            provider=self._provider,
            model=self._model,
        )
