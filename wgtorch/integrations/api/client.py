"""One client for each provider, address, key and model of the process, whichever nodes and threads use it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from wgtorch.core.run import background
from wgtorch.integrations.api.answers import Answer, Question
from wgtorch.integrations.api.budget import BudgetGuard, Reservation, Spent
from wgtorch.integrations.api.capabilities import forget
from wgtorch.integrations.api.failures import Failure, failure_of
from wgtorch.integrations.api.prices import price_of
from wgtorch.integrations.api.providers.base import OnPiece, Provider
from wgtorch.integrations.api.rate_limiter import RateLimiter
from wgtorch.integrations.api.secrets import Secret, read_key, scrubbed
from wgtorch.integrations.api.terms import Budget, Patience, Terms, budget_now
from wgtorch.integrations.api.token_estimates import Bound, TokenEstimates
from wgtorch.integrations.models.errors import ApiAuthenticationError, ApiError, BudgetError

_KEPT = 4096  # paid answers of failed batches that wait to be asked for again
_FAREWELL = 2.0  # seconds that connections may take to end with the process


@dataclass(frozen=True, slots=True)
class Address:
    """What tells clients apart, beside the key.

    Args:
        provider: the class.
        model: the model's name there.
        endpoint: the address.
        key_variable: variable of the environment that holds the key; None where none is sent.
        headers: of a gateway, each with the variable that holds its value.
        query: of every address, as a gateway wants it.
    """

    provider: type[Provider]
    model: str
    endpoint: str
    key_variable: str | None
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()

    def key(self) -> Secret | None:
        """The key as it is in the environment now.

        Raises:
            ApiAuthenticationError: a key is to be sent, and there is none.
        """
        return None if self.key_variable is None else self._read(self.key_variable, "key")

    def header_values(self) -> dict[str, Secret]:
        """The headers as the environment has them now.

        Raises:
            ApiAuthenticationError: one is not there.
        """
        return {name: self._read(variable, f"value of the header {name}") for name, variable in self.headers}

    def _read(self, variable: str, what: str) -> Secret:
        found = read_key(variable)
        if found is None:
            raise ApiAuthenticationError(
                f"{self.provider.name} {self.model}: found no {what}, expected one in the environment; set {variable}",
                provider=self.provider.name,
                model=self.model,
            )
        return found


@dataclass(slots=True)
class Stop:
    """Shared by the calls of one batch: set when one of them failed for good, so that those not begun are left."""

    error: ApiError | None = None


class Client:
    """Asks one model of one provider, in a line that all its callers share."""

    def __init__(self, address: Address, key: Secret | None, headers: Mapping[str, Secret]) -> None:
        self.address = address
        self._secrets = [*headers.values(), *([] if key is None else [key])]
        self.provider = address.provider(address.endpoint, key)
        if headers or address.query:
            self.provider.pass_gateway(headers, dict(address.query))
        self.line = RateLimiter()
        self.guard = BudgetGuard(address.provider.name, address.model)
        self.estimates = TokenEstimates()
        self._kept: OrderedDict[tuple[str, str], Answer] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spent:
        """What was spent in this process."""
        return self.guard.spent

    async def ask(self, question: Question, terms: Terms, on_piece: Any = None, stop: Stop | None = None) -> Answer:
        """One answer, however many tries it takes.

        Args:
            question: what is asked.
            terms: limits, budget and patience of the place that asks.
            on_piece: told of the text as it comes; of None when a try failed and the text begins anew.
            stop: of the batch that this belongs to.

        Raises:
            ApiError: there is none.
        """
        started = time.monotonic()
        budget = budget_now(self.address.provider.name, self.address.model, terms.budget)
        self._check_price(budget)
        share = await self.guard.take(lambda: self._reservation(question), budget)
        answer: Answer | None = None
        try:
            answer = await self._tries(question, terms, on_piece, stop, started)
            self.estimates.learn(question, answer)
            return answer
        except ApiError as error:
            if stop is not None and not isinstance(error, BudgetError):
                stop.error = stop.error or error
            raise
        finally:
            self.guard.charge(share, None if answer is None else self._took(answer, share))

    async def _tries(self, question: Question, terms: Terms, on_piece: Any, stop: Stop | None, started: float) -> Answer:
        likely = self.estimates.likely(question)
        patience, tokens = terms.patience, likely.prompt + likely.completion
        said = _Watched(on_piece) if on_piece is not None else None
        for number in count():
            place = await self.line.enter(terms.limits, tokens)
            used: int | None = None
            try:
                if stop is not None and stop.error is not None:
                    raise stop.error
                outcome = await self._try(question, patience, said)
                if isinstance(outcome, Answer):
                    used = outcome.tokens
                    return outcome
                if outcome.after is not None and outcome.after <= patience.max_wait:
                    self.line.pause(outcome.after)  # what one caller is told holds for all
            finally:
                self.line.leave(place, used)
            pause = _pause(outcome, patience, number)
            if pause is None:
                raise self._error(outcome, number + 1, time.monotonic() - started)
            if said is not None:
                said.restart()
            await asyncio.sleep(pause)
        raise AssertionError("the loop ends with an answer or an error")

    async def _try(self, question: Question, patience: Patience, on_piece: OnPiece | None) -> Answer | Failure:
        call = getattr(self.provider, question.kind)
        try:
            async with asyncio.timeout(patience.timeout) as clock:
                if isinstance(on_piece, _Watched):  # of a stream, each byte gives it more time
                    on_piece.alive = lambda: clock.reschedule(asyncio.get_running_loop().time() + patience.timeout)
                return await call(question.model, question.request, question.options, on_piece)
        except Exception as error:
            failure = failure_of(error, self.provider.sdk)
            if failure is None:
                raise
            return failure

    def _error(self, failure: Failure, tries: int, elapsed: float) -> ApiError:
        provider, model = self.address.provider.name, self.address.model
        status = f"status {failure.status}, " if failure.status is not None else ""
        often = f" after {tries} tries in {elapsed:.1f} s" if tries > 1 else ""
        wait = f" (the provider asks to wait {failure.after:.0f} s)" if failure.after is not None else ""
        words = f"{provider} {model}: {status}{failure.words.removesuffix('.')}{often}{wait}. {_MEND[failure.kind.__name__]}"
        return failure.kind(scrubbed(words, *self._secrets), provider=provider, model=model, status=failure.status)

    # --- money --------------------------------------------------------------------------------------------------------

    def cost_of(self, answer: Answer) -> float | None:
        """What an answer cost; None where its model has no price, or its tokens were not counted."""
        if self.address.provider.is_free:
            return 0.0
        price = price_of(self.address.provider.name, self.address.model)
        if price is None:
            return None
        return price.of(answer.prompt_tokens or 0, answer.completion_tokens or 0) if answer.tokens is not None or price.call else None

    def _check_price(self, budget: Budget) -> None:
        """Refuses a budget of money for a model that has no price."""
        provider, model = self.address.provider, self.address.model
        if budget.money is not None and not provider.is_free and price_of(provider.name, model) is None:
            raise BudgetError(
                f"{provider.name} {model}: a budget of {budget.money:g} in money, and no price of this model is known. "
                "Give it with set_price().",
                provider=provider.name,
                model=model,
            )

    def _reservation(self, question: Question) -> Reservation:
        """What a call will take, by what was learnt so far."""
        most = self.estimates.most(question)
        return Reservation(self._priced(most) if most.is_sure else None, self._priced(self.estimates.likely(question)))

    def _priced(self, bound: Bound) -> Spent:
        provider = self.address.provider
        price = None if provider.is_free else price_of(provider.name, self.address.model)
        return Spent(1, bound.prompt + bound.completion, 0.0 if price is None else price.of(bound.prompt, bound.completion))

    def _took(self, answer: Answer, share: Spent) -> Spent:
        """What a call took; its share, as far as the provider did not say."""
        cost = self.cost_of(answer)
        return Spent(1, share.tokens if answer.tokens is None else answer.tokens, share.money if cost is None else cost)

    # --- answers that nobody was given --------------------------------------------------------------------------------

    def keep_for_later(self, key: tuple[str, str], answer: Answer) -> None:
        """Keeps an answer that was paid for in a batch that failed, for when it is asked for again."""
        with self._lock:
            self._kept[key] = answer
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    @property
    def keeps(self) -> bool:
        """True while there are answers that nobody was given."""
        return bool(self._kept)

    def take_kept(self, key: tuple[str, str]) -> Answer | None:
        """Gives a kept answer, once."""
        with self._lock:
            return self._kept.pop(key, None)

    def __repr__(self) -> str:
        return f"Client({self.address.provider.name} {self.address.model} at {self.address.endpoint})"


class _Watched:
    """Passes pieces on, says when they are void, and hears of everything that comes."""

    def __init__(self, on_piece: Any) -> None:
        self.alive: Callable[[], None] = lambda: None
        self._on_piece = on_piece
        self._said = False

    def __call__(self, piece: str) -> None:
        self.alive()
        if piece:
            self._said = True
            self._on_piece(piece)

    def restart(self) -> None:
        if self._said:
            self._said = False
            self._on_piece(None)


_MEND: Mapping[str, str] = {
    "ApiAnswerError": "The server does not speak this protocol, or is broken.",
    "ApiAuthenticationError": "Check the key, and that it may use this model.",
    "ApiContentError": "Change the prompt or the picture.",
    "ApiQuotaError": "Wait or buy more, and run again: it goes on where it stopped.",
    "ApiRequestError": "Check model_id and options.",
    "ApiTransportError": "Check the network and endpoint_url, and run again: it goes on where it stopped.",
}


def _pause(failure: Failure, patience: Patience, number: int) -> float | None:
    """Seconds before the next try; None when there is to be none."""
    if not failure.again or number >= patience.retries:
        return None
    if failure.after is not None:
        if failure.after > patience.max_wait:
            return None
        return failure.after * random.uniform(1.0, 1.1)  # never earlier than asked, and not all at once
    return min(patience.max_wait, patience.backoff * 2**number) * random.uniform(0.5, 1.0)


# --- the clients of this process --------------------------------------------------------------------------------------

_clients: dict[tuple[Any, ...], Client] = {}
_clients_lock = threading.Lock()


def client_at(address: Address) -> Client:
    """The client for an address, made when it is first asked for; a forked process makes its own, with its own connections.

    Raises:
        ApiAuthenticationError: there is no key in the environment.
        MissingExtraError: the provider's SDK is not installed.
    """
    key, headers = address.key(), address.header_values()
    secrets = (None if key is None else key.digest(), *(secret.digest() for secret in headers.values()))
    name = (address.provider, address.endpoint, address.model, address.headers, address.query, secrets, os.getpid())
    with _clients_lock:
        if name not in _clients:
            _clients[name] = Client(address, key, headers)
        return _clients[name]


def close_clients() -> None:
    """Ends all connections and forgets what was spent and learnt; the next call makes its client anew."""
    closing = clients()
    with _clients_lock:
        _clients.clear()
    forget()
    for client in closing:
        background.submit(client.provider.close()).result()


@atexit.register
def _hang_up() -> None:
    """Ends and lets go of all before the interpreter takes modules apart, in which the SDKs' clients find nothing that they need to end."""
    closing = clients()
    with _clients_lock:
        _clients.clear()
    for client in closing:
        with contextlib.suppress(Exception):
            background.submit(client.provider.close()).result(_FAREWELL)


def clients() -> list[Client]:
    """All clients of this process, with what they spent."""
    with _clients_lock:
        return [client for name, client in _clients.items() if name[-1] == os.getpid()]
