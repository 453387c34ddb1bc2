"""What a client spends, without a client."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wgtorch.core.errors import BudgetError
from wgtorch.integrations.api import clients, set_price
from wgtorch.integrations.api.answers import Answer, Question
from wgtorch.integrations.api.budget import BudgetGuard, Spent
from wgtorch.integrations.api.terms import Budget
from wgtorch.integrations.api.token_estimates import TokenEstimates
from wgtorch.integrations.models.requests import Message, TextRequest
from wgtorch.testing import Reply


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
        asyncio.run(asyncio.wait_for(asked(guard, Budget(money=0.3), share, share), 60))


def test_who_is_cancelled_while_waiting_lets_the_next_one_in() -> None:
    guard, budget = BudgetGuard("openai", "m"), Budget(tokens=100)

    async def many() -> None:
        await guard.take(Spent(1, 100), budget)
        first, second = (asyncio.ensure_future(guard.take(Spent(1, 50), budget)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        guard.charge(Spent(1, 100), Spent(1, 10))
        await asyncio.wait_for(second, 60)

    asyncio.run(many())
    assert guard.spent == Spent(2, 60)


# --- what is set aside, by what was counted before ----------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [50, None])
@pytest.mark.parametrize("streams", [False, True])
def test_no_token_is_spent_beyond_a_budget_with_pictures(server, build, max_tokens: int | None, streams: bool) -> None:
    server.delay = 0.02
    server.respond = lambda seen: Reply("seen", tokens=(1125, 7))
    vlm = build("vlm", budget={"tokens": 5000}, max_tokens=max_tokens, limits={"in_flight": 64}, retries=0, stream=streams)
    with pytest.raises(BudgetError, match="budget of 5000 tokens is spent"):
        vlm(image=torch.rand(40, 3, 8, 8))
    assert len(server.requests) == 4 and clients()[0].spent == Spent(4, 4 * 1132)


@pytest.mark.parametrize("max_tokens", [60, None])
def test_64_threads_pass_no_budget_together(server, build, max_tokens: int | None) -> None:
    server.respond = lambda seen: Reply("fine", tokens=(40, 60), until=lambda: len(server.requests) == 1 or server.most_at_once > 1)
    llm = build(budget={"tokens": 2000}, max_tokens=max_tokens, limits={"in_flight": 64})

    def one(number: int) -> int:
        try:
            return int(bool(llm(prompt=f"number {number}")["text"]))
        except BudgetError:
            return 0

    with ThreadPoolExecutor(64) as threads:
        answered = sum(threads.map(one, range(64)))
    assert clients()[0].spent.tokens <= 2000 and 15 <= answered == len(server.requests) <= 20
    assert server.most_at_once > 1, "what is known goes at once"


def test_the_one_answer_that_nobody_could_know_may_pass_it_and_no_other(server, build) -> None:
    server.delay = 0.01
    server.respond = lambda seen: Reply("long", tokens=(10, 900))
    with pytest.raises(BudgetError):
        build(budget={"tokens": 500}, limits={"in_flight": 64}, allow_cut=True)(prompt=["x"] * 64)
    assert len(server.requests) == 1


def test_a_long_prompt_is_not_refused_for_what_short_ones_took_around_them(server, build) -> None:
    server.respond = lambda seen: Reply("fine", tokens=(200 + len(seen.prompt) // 4, 5))
    llm = build(budget={"tokens": 4000}, max_tokens=10)
    llm(prompt="x")
    llm(prompt="word " * 1200)
    assert clients()[0].spent.calls == 2
    with pytest.raises(BudgetError):
        llm(prompt="word " * 2400)


def test_a_budget_of_money_counts_pictures_too(server, build) -> None:
    set_price("openai", "tiny", prompt=1.0, completion=1.0)
    server.delay = 0.01
    server.respond = lambda seen: Reply("seen", tokens=(1_000_000, 0))
    with pytest.raises(BudgetError, match="money"):
        build("vlm", budget={"money": 3.5}, max_tokens=50)(image=torch.rand(12, 3, 8, 8))
    assert len(server.requests) == 3 and clients()[0].spent.money <= 3.5


def test_tokens_of_a_picture_are_those_of_its_size() -> None:
    def asked(size: int, text: str = "what?") -> Question:
        return Question("complete", TextRequest((Message("user", text, (torch.zeros(3, size, size),)),), max_tokens=5), "p", "m")

    estimates = TokenEstimates()
    assert not estimates.most(asked(8)).is_sure
    estimates.learn(asked(8), Answer("seen", prompt_tokens=300, completion_tokens=4))
    assert estimates.most(asked(8)).is_sure and 300 <= estimates.most(asked(8)).prompt <= 400
    assert not estimates.most(asked(16)).is_sure
