"""What a client spends, without a client."""

from __future__ import annotations

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from wgtorch.integrations.api import clients, set_price
from wgtorch.integrations.api.answers import Answer, Question
from wgtorch.integrations.api.budget import BudgetGuard, Spent
from wgtorch.integrations.api.terms import Budget
from wgtorch.integrations.api.token_estimates import TokenEstimates
from wgtorch.integrations.models.errors import BudgetError
from wgtorch.integrations.models.requests import Message, TextRequest
from wgtorch.storage.media import png_bytes
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


PICTURE = base64.b64encode(png_bytes(torch.zeros(3, 4, 4))).decode()


def sent(tokens: tuple[int, int], **more: Any) -> Reply:
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Reply(raw=json.dumps({"created": 1, "usage": usage, **more}).encode(), delay=0.01)


@pytest.mark.parametrize(
    ("block_type", "inputs", "reply"),
    [
        ("image_generator", {"prompt": [f"hill {n}" for n in range(40)]}, lambda seen: sent((20, 1000), data=[{"b64_json": PICTURE}])),
        (
            "speech_to_text",
            {"audio": [torch.zeros(1, 800)] + [torch.zeros(1, 160_000 + n) for n in range(20)]},
            lambda seen: sent((len(seen.content) // 320, 9), text="heard"),
        ),
        (
            "embedder",
            {"text": ["x" * 400, *[f"{'я' * 300}{n}" for n in range(40)]]},  # whose letters become more tokens than those before
            lambda seen: sent(
                (sum(len(text.encode()) // (1 if "я" in text else 4) for text in seen.body["input"]), 0), data=[{"embedding": [1.0]}]
            ),
        ),
        ("llm", {"prompt": ["x"] * 40, "max_tokens": 5}, lambda seen: Reply("fine", tokens=(500, 5), delay=0.01)),  # a hidden system prompt
    ],
    ids=["pictures", "recordings", "letters", "template"],
)
def test_no_kind_of_call_passes_a_budget_together_with_others(server, build, block_type: str, inputs, reply) -> None:
    server.respond = reply
    block = build(block_type, budget={"tokens": 5000}, limits={"in_flight": 64}, retries=0)
    if block_type == "embedder":  # of one text a call
        first, *others = inputs["text"]
        block(text=first)
        with ThreadPoolExecutor(40) as threads, pytest.raises(BudgetError):
            list(threads.map(lambda text: block(text=text), others))
    else:
        with pytest.raises(BudgetError):
            block(**inputs)
    spent = clients()[0].spent
    assert 3000 < spent.tokens <= 5000 and spent.calls == len(server.requests)


def test_a_bound_holds_for_whatever_a_template_puts_around_the_parts_of_a_request() -> None:
    def asked(*texts: str, **more: Any) -> Question:
        return Question("complete", TextRequest(tuple(Message("user", text) for text in texts), max_tokens=5, **more), "p", "m")

    estimates = TokenEstimates()
    for text, counted in (("word " * 400, 700), ("x", 301)):  # 300 around each, and four bytes a token
        estimates.learn(asked(text), Answer("seen", prompt_tokens=counted, completion_tokens=4))
        assert estimates.most(asked("x")).prompt >= 301
    assert estimates.most(asked(*"abcdefgh")).prompt >= 300 + 8 * 5
    assert not estimates.most(asked("x", schema={"type": "object"})).is_sure, "another form, around which there may be more"
