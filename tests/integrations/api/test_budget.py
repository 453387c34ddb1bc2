"""What a client spends, without a client."""

from __future__ import annotations

import asyncio

import pytest

from wgtorch.core.errors import BudgetError
from wgtorch.integrations.api.budget import BudgetGuard, Spent
from wgtorch.integrations.api.terms import Budget


async def asked(guard: BudgetGuard, budget: Budget, took: Spent | None, share: Spent) -> None:
    await guard.take(share, budget)
    await asyncio.sleep(0.01)
    guard.charge(share, took)


def test_an_estimate_gives_way_to_what_was_counted() -> None:
    guard = BudgetGuard("openai", "m")
    asyncio.run(asked(guard, Budget(), Spent(1, 12, 0.5), Spent(1, 100, 2.0)))
    asyncio.run(asked(guard, Budget(), None, Spent(1, 100, 2.0)))
    assert guard.spent == Spent(1, 12, 0.5)


@pytest.mark.parametrize("budget", [Budget(tokens=250), Budget(money=2.5)])
def test_calls_wait_for_what_others_may_leave_instead_of_giving_up(budget: Budget) -> None:
    guard, most = BudgetGuard("openai", "m"), [0]

    async def one() -> None:
        await guard.take(Spent(1, 100, 1.0), budget)
        most.append(guard.spent.tokens)
        await asyncio.sleep(0.001)
        guard.charge(Spent(1, 100, 1.0), Spent(1, 10, 0.1))

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(12)))

    asyncio.run(many())
    assert guard.spent.calls == 12 and guard.spent.tokens == 120 and max(most) <= 250


def test_what_cannot_fit_however_little_the_others_take_is_refused() -> None:
    guard, budget = BudgetGuard("openai", "m"), Budget(tokens=250)

    async def many() -> list[object]:
        calls = [asked(guard, budget, Spent(1, 100), Spent(1, 100)) for _ in range(4)]
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(many())
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), BudgetError, BudgetError]
    assert "openai m: the budget of 250 tokens is spent: 200 so far, and this call takes 100. Raise it" in str(outcomes[-1])
    assert guard.spent == Spent(2, 200)


def test_money_that_does_not_add_up_to_the_last_bit_keeps_nobody_waiting() -> None:
    guard, share = BudgetGuard("openai", "m"), Spent(1, 0, 0.1)
    for _ in range(3):
        asyncio.run(asked(guard, Budget(), share, share))
    with pytest.raises(BudgetError, match="0.3 money is spent"):
        asyncio.run(asyncio.wait_for(asked(guard, Budget(money=0.3), share, share), 5))


def test_who_is_cancelled_while_waiting_lets_the_next_one_in() -> None:
    guard, budget = BudgetGuard("openai", "m"), Budget(tokens=100)

    async def many() -> None:
        await guard.take(Spent(1, 100), budget)
        first, second = (asyncio.ensure_future(guard.take(Spent(1, 50), budget)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        guard.charge(Spent(1, 100), Spent(1, 10))
        await asyncio.wait_for(second, 5)

    asyncio.run(many())
    assert guard.spent == Spent(2, 60)
