"""The ``api`` backend of each block: questions to a client, through a cassette where there is one."""

from __future__ import annotations

import asyncio
import queue
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError, RunCancelled, suggest
from wgtorch.core.run import background
from wgtorch.core.trust import check_key, check_no_keys, check_write
from wgtorch.integrations.api.answers import Answer, Question, digest
from wgtorch.integrations.api.cassette import MODES, Cassette, Mode, cassette_now
from wgtorch.integrations.api.client import Address, Client, Stop, client_at
from wgtorch.integrations.api.media import audio_of, image_of
from wgtorch.integrations.api.providers import Providers
from wgtorch.integrations.api.providers.base import KIND_OF_CALL
from wgtorch.integrations.api.secrets import check_endpoint, check_headers, check_variable, host_of
from wgtorch.integrations.api.terms import Patience, Terms, budget_of, limits_of
from wgtorch.integrations.models.backends import OnText, register_backend
from wgtorch.integrations.models.errors import ApiAnswerError, ApiError, BudgetError
from wgtorch.integrations.models.requests import (
    Completion,
    Embedded,
    EmbedRequest,
    ImageRequest,
    Picture,
    SpeakRequest,
    Spoken,
    TextRequest,
    TranscribeRequest,
)

_EMBEDDED_AT_ONCE = 256  # texts in one request
_LOOK = 0.02  # seconds between looks at whether another process has an answer


class ApiBackend:
    """A model behind an API. Building one connects to nothing, reads no key and imports no SDK.

    Args:
        provider: a registered one.
        model_id: the model's name there.
        endpoint_url: the address, if not the provider's own.
        api_key_env: variable of the environment that holds the key. At an address other than the provider's own there is
            none unless it is named. A config from a file names ``WGTORCH_*``, or the provider's own at the provider's own
            address; anything else as ``trust=`` allows it.
        headers_env: headers that a gateway wants, each with the variable of the environment that holds its value.
        query: what a gateway wants behind every address (``{"api-version": "2024-10-21"}``); no secrets.
        limits: ``in_flight``, ``requests_per_minute``, ``tokens_per_minute``.
        budget: ``calls``, ``tokens``, ``money``.
        timeout: seconds of one try.
        retries: tries after the first.
        backoff: seconds before the second try; doubles.
        max_wait: longest pause between tries, in seconds.
        mode, cassette: as of :class:`~wgtorch.integrations.api.cassette.Cassette`.
        options: what else the model takes, put into the request's body as it is.
    """

    is_async = True
    model = None
    call = "complete"

    def __init__(
        self,
        *,
        provider: str = "openai",
        model_id: str,
        endpoint_url: str | None = None,
        api_key_env: str | None = None,
        headers_env: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 0.5,
        max_wait: float = 60.0,
        mode: Mode | None = None,
        cassette: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        provider_class = Providers.get(provider)
        where = f"{provider} {model_id}"
        if self.call not in provider_class.calls:
            offered = ", ".join(KIND_OF_CALL[call] for call in provider_class.calls)
            raise ConfigError(f"{where}: {provider} offers no {KIND_OF_CALL[self.call]}; it offers {offered}")
        if mode is not None and mode not in MODES:
            raise ConfigError(f"{where}.mode: found {mode!r}; {suggest(mode, MODES)}")
        if api_key_env is not None:
            check_variable(api_key_env, f"{where}.api_key_env")
        endpoint = check_endpoint(endpoint_url, where) if endpoint_url else provider_class.endpoint
        is_home = host_of(endpoint) == host_of(provider_class.endpoint) and endpoint.startswith("https:")
        variable = api_key_env or (provider_class.key_variable if is_home else None)
        if variable is not None:
            check_key(variable, endpoint, where, own=variable == provider_class.key_variable, at_home=is_home)
        headers = check_headers(headers_env or {}, f"{where}.headers_env")
        for _, name in headers:
            check_key(name, endpoint, where, own=False, at_home=is_home)
        check_no_keys(options, f"{where}.options")
        if not isinstance(query or {}, Mapping):
            raise ConfigError(
                f"{where}.query: found {type(query).__name__}, expected names with values, as {{'api-version': '2024-10-21'}}"
            )
        check_no_keys(query, f"{where}.query")
        if cassette is not None and mode not in ("replay", "live"):
            check_write(cassette, f"{where}.cassette", f"record it in code (with cassette({cassette!r}): ...)")
        self.address = Address(
            provider_class,
            model_id,
            endpoint,
            variable,
            headers,
            tuple(sorted((name, str(value)) for name, value in (query or {}).items())),
        )
        patience = Patience(_number(timeout, f"{where}.timeout", 1e-3), int(_number(retries, f"{where}.retries")),
                            _number(backoff, f"{where}.backoff"), _number(max_wait, f"{where}.max_wait"))  # fmt: skip
        self.terms = Terms(limits_of(limits, where), budget_of(budget, where), patience)
        self.mode, self.cassette, self.options = mode, cassette, dict(options or {})

    def client(self) -> Client:
        """The client that this shares with every other backend of the same address, key and model."""
        return client_at(self.address)

    def answers(self, requests: Sequence[Any], on_text: OnText | None = None) -> list[tuple[Answer, dict[str, Any]]]:
        """An answer for each request and its usage: from the cassette where it is there, the others asked for together.

        When one fails for good, calls that have not begun are left, those on their way are waited for, and what came is
        kept: asked for again, it is not paid for again.

        Raises:
            ApiError: of the first request that failed.
        """
        name, model = self.address.provider.name, self.address.model
        questions = [Question(self.call, request, name, model, self.options) for request in requests]
        tape = cassette_now(self.mode, self.cassette)
        found: list[tuple[Answer, dict[str, Any]] | None] = [None] * len(questions)
        for index, question in enumerate(questions if tape is not None and tape.reads else ()):
            assert tape is not None
            answer = tape.find(question)
            if answer is not None:
                _say_again(answer, index, on_text)
                found[index] = (answer, self._usage(answer, None, 0.0, replayed=True))
        missing = [index for index, entry in enumerate(found) if entry is None]
        if tape is not None and tape.mode == "auto":
            self._ask_once(tape, questions, missing, found, on_text)
        elif missing:
            self._ask_all(tape, questions, missing, found, on_text)
        return [entry for entry in found if entry is not None]

    def _ask_all(
        self, tape: Cassette | None, questions: Sequence[Question], missing: Sequence[int], found: list[Any], on_text: OnText | None
    ) -> None:
        asked = _Asked(self, tape, [questions[index] for index in missing], missing, on_text)
        for index, entry in zip(missing, asked.answers(), strict=True):
            found[index] = entry

    def _ask_once(
        self, tape: Cassette, questions: Sequence[Question], missing: list[int], found: list[Any], on_text: OnText | None
    ) -> None:
        """Asks what nobody else asks now, and waits for the answers to what others ask."""
        owner = uuid.uuid4().hex
        while missing:
            mine = [index for index, is_mine in zip(missing, tape.claim([questions[at] for at in missing], owner), strict=True) if is_mine]
            if mine:
                try:
                    self._ask_all(tape, questions, mine, found, on_text)
                finally:
                    tape.release(owner)
            for index in missing:
                if found[index] is None and (answer := tape.find(questions[index])) is not None:
                    _say_again(answer, index, on_text)
                    found[index] = (answer, self._usage(answer, None, 0.0, replayed=True))
            missing = [index for index in missing if found[index] is None]
            if missing and not mine:
                time.sleep(_LOOK)

    def _usage(self, answer: Answer, client: Client | None, latency: float, *, replayed: bool = False) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "provider": self.address.provider.name,
            "model": self.address.model,
            "calls": 1,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "cost": 0.0 if client is None else client.cost_of(answer),
            "latency": latency,
            "replayed": replayed,
        }
        if answer.cached_tokens is not None:
            usage["cached_tokens"] = answer.cached_tokens
        if answer.left_out:
            usage["left_out"] = list(answer.left_out)
        return usage

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address.provider.name} {self.address.model})"


class _Asked:
    """The questions of one call of a block that go to the API, on the background loop, heard of in the caller's thread."""

    def __init__(
        self, backend: ApiBackend, tape: Cassette | None, questions: Sequence[Question], indices: Sequence[int], on_text: OnText | None
    ) -> None:
        self.backend, self.tape, self.questions, self.indices, self.on_text = backend, tape, questions, indices, on_text
        self.client = backend.client()
        self.hears = on_text is not None or (tape is not None and tape.writes)
        self.told: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self.results: list[Any] = [None] * len(questions)
        self.latencies = [0.0] * len(questions)

    def answers(self) -> list[tuple[Answer, dict[str, Any]]]:
        """Waits for all of them."""
        future: Future[None] = background.submit(self._all())
        try:
            if self.hears:  # else nothing is to be done before all are there, and this thread sleeps on
                future.add_done_callback(lambda done: self.told.put((-1, None)))
                while (heard := self.told.get())[0] >= 0:
                    self._hear(*heard)
            future.result()
        except CancelledError:
            raise RunCancelled(f"{self.backend}: the call was cancelled") from None
        finally:
            future.cancel()
        self._raise_first()
        usage = self.backend._usage
        return [(answer, usage(answer, self.client, latency)) for answer, latency in zip(self.results, self.latencies, strict=True)]

    async def _all(self) -> None:
        stop = Stop()
        if len(self.questions) == 1:
            await self._one(0, stop)
            return
        await asyncio.gather(*(self._one(position, stop) for position in range(len(self.questions))))

    async def _one(self, position: int, stop: Stop) -> None:
        question, started = self.questions[position], time.perf_counter()
        on_piece: Callable[[str | None], None] | None = None
        if self.on_text is not None:
            on_piece = lambda piece: self.told.put((position, piece))  # noqa: E731
        try:
            outcome: Answer | BaseException | None = self._kept(question)
            if outcome is None:
                outcome = await self.client.ask(question, self.backend.terms, on_piece, stop)
        except ApiError as error:
            outcome = error
        self.latencies[position] = time.perf_counter() - started
        if self.hears:
            self.told.put((position, outcome))
        else:
            self.results[position] = outcome

    def _hear(self, position: int, news: Any) -> None:
        if isinstance(news, str) or news is None:
            assert self.on_text is not None
            self.on_text(self.indices[position], news)  # type: ignore[arg-type]
            return
        self.results[position] = news
        if self.tape is not None and self.tape.writes and not isinstance(news, BudgetError):
            self.tape.keep(self.questions[position], news)

    def _kept(self, question: Question) -> Answer | None:
        return self.client.take_kept((digest(question.described()), question.draw)) if self.client.keeps else None

    def _raise_first(self) -> None:
        failed = [entry for entry in self.results if not isinstance(entry, Answer)]
        if not failed:
            return
        for question, entry in zip(self.questions, self.results, strict=True):
            if isinstance(entry, Answer):
                self.client.keep_for_later((digest(question.described()), question.draw), entry)
        raise failed[0]


def _say_again(answer: Answer, index: int, on_text: OnText | None) -> None:
    for piece in answer.pieces or ((answer.text,) if answer.text else ()) if on_text is not None else ():
        assert on_text is not None
        on_text(index, piece)


def _number(value: Any, where: str, least: float = 0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise ConfigError(f"{where}: found {value!r}, expected a number from {least:g}")
    return value


# --- one class for each block -----------------------------------------------------------------------------------------


@register_backend("llm/api", "vlm/api")
class ApiTextBackend(ApiBackend):
    """A language or vision model behind an API."""

    def complete(self, requests: Sequence[TextRequest], on_text: OnText | None = None) -> list[Completion]:
        """One answer for each request, in order; calls overlap."""
        answered = self.answers(requests, on_text)
        return [Completion(answer.text, answer.finish_reason, usage, answer.thoughts) for answer, usage in answered]


@register_backend("embedder/api")
class ApiEmbedderBackend(ApiBackend):
    """An embedder behind an API."""

    call = "embed"

    def embed(self, request: EmbedRequest) -> Embedded:
        """One vector for each text; long lists go out in several calls."""
        texts = request.texts
        parts = [
            EmbedRequest(texts[start : start + _EMBEDDED_AT_ONCE], request.dimensions) for start in range(0, len(texts), _EMBEDDED_AT_ONCE)
        ]
        if not parts:
            return Embedded(torch.empty(0, request.dimensions or 0))
        answered = self.answers(parts)
        rows = [torch.frombuffer(bytearray(answer.blob), dtype=torch.float32).view(answer.shape) for answer, _ in answered]
        if len({row.shape[1] for row in rows}) > 1:
            raise ApiAnswerError(f"{self}: vectors of different lengths {sorted({row.shape[1] for row in rows})} in one answer")
        return Embedded(torch.cat(rows), _summed([usage for _, usage in answered]))


@register_backend("image_generator/api")
class ApiImageBackend(ApiBackend):
    """An image generator behind an API."""

    call = "paint"

    def paint(self, requests: Sequence[ImageRequest]) -> list[Picture]:
        """One picture for each request, in order; calls overlap."""
        return [Picture(self._read(answer.blob), usage) for answer, usage in self.answers(requests)]

    def _read(self, content: bytes) -> Tensor:
        try:
            return image_of(content)
        except ValueError as error:
            raise _unreadable(self, error) from None


@register_backend("speech_to_text/api")
class ApiTranscribingBackend(ApiBackend):
    """Speech to text behind an API."""

    call = "transcribe"

    def transcribe(self, requests: Sequence[TranscribeRequest]) -> list[Completion]:
        """One text for each request, in order; calls overlap."""
        return [Completion(answer.text, answer.finish_reason, usage) for answer, usage in self.answers(requests)]


@register_backend("text_to_speech/api")
class ApiSpeakingBackend(ApiBackend):
    """Text to speech behind an API."""

    call = "speak"

    def speak(self, requests: Sequence[SpeakRequest]) -> list[Spoken]:
        """One recording for each request, in order; calls overlap."""
        return [Spoken(*self._read(answer.blob), usage) for answer, usage in self.answers(requests)]

    def _read(self, content: bytes) -> tuple[Tensor, int]:
        try:
            return audio_of(content)
        except ValueError as error:
            raise _unreadable(self, error) from None


def _unreadable(backend: ApiBackend, error: ValueError) -> ApiAnswerError:
    name, model = backend.address.provider.name, backend.address.model
    return ApiAnswerError(f"{name} {model}: the answer cannot be read: {error}", provider=name, model=model)


def _summed(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = dict(usages[0])
    for usage in usages[1:]:
        for name in ("calls", "prompt_tokens", "completion_tokens", "cost"):
            both = (total[name], usage[name])
            total[name] = None if None in both else sum(both)
        total["latency"] = max(total["latency"], usage["latency"])
        total["replayed"] = total["replayed"] and usage["replayed"]
    return total
