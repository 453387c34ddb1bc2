"""What a client spends, without a client."""

from __future__ import annotations

import asyncio

import pytest

from wgtorch.core.errors import BudgetError
from wgtorch.integrations.api.purse import Purse, Spent
from wgtorch.integrations.api.terms import Budget


async def asked(purse: Purse, budget: Budget, took: Spent | None, share: Spent) -> None:
    await purse.take(share, budget)
    await asyncio.sleep(0.01)
    purse.settle(share, took)


def test_an_estimate_gives_way_to_what_was_counted() -> None:
    purse = Purse("openai", "m")
    asyncio.run(asked(purse, Budget(), Spent(1, 12, 0.5), Spent(1, 100, 2.0)))
    asyncio.run(asked(purse, Budget(), None, Spent(1, 100, 2.0)))
    assert purse.spent == Spent(1, 12, 0.5)


@pytest.mark.parametrize("budget", [Budget(tokens=250), Budget(money=2.5)])
def test_calls_wait_for_what_others_may_leave_instead_of_giving_up(budget: Budget) -> None:
    purse, most = Purse("openai", "m"), [0]

    async def one() -> None:
        await purse.take(Spent(1, 100, 1.0), budget)
        most.append(purse.spent.tokens)
        await asyncio.sleep(0.001)
        purse.settle(Spent(1, 100, 1.0), Spent(1, 10, 0.1))

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(12)))

    asyncio.run(many())
    assert purse.spent.calls == 12 and purse.spent.tokens == 120 and max(most) <= 250


def test_what_cannot_fit_however_little_the_others_take_is_refused() -> None:
    purse, budget = Purse("openai", "m"), Budget(tokens=250)

    async def many() -> list[object]:
        calls = [asked(purse, budget, Spent(1, 100), Spent(1, 100)) for _ in range(4)]
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(many())
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), BudgetError, BudgetError]
    assert "openai m: the budget of 250 tokens is spent: 200 so far, and this call takes 100. Raise it" in str(outcomes[-1])
    assert purse.spent == Spent(2, 200)


def test_money_that_does_not_add_up_to_the_last_bit_keeps_nobody_waiting() -> None:
    purse, share = Purse("openai", "m"), Spent(1, 0, 0.1)
    for _ in range(3):
        asyncio.run(asked(purse, Budget(), share, share))
    with pytest.raises(BudgetError, match="0.3 money is spent"):
        asyncio.run(asyncio.wait_for(asked(purse, Budget(money=0.3), share, share), 5))


def test_who_is_cancelled_while_waiting_lets_the_next_one_in() -> None:
    purse, budget = Purse("openai", "m"), Budget(tokens=100)

    async def many() -> None:
        await purse.take(Spent(1, 100), budget)
        first, second = (asyncio.ensure_future(purse.take(Spent(1, 50), budget)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        purse.settle(Spent(1, 100), Spent(1, 10))
        await asyncio.wait_for(second, 5)

    asyncio.run(many())
    assert purse.spent == Spent(2, 60)
