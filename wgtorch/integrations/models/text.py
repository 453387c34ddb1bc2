"""What language and vision models share: one conversation in, one text out, streamed and held to a schema where asked."""

from __future__ import annotations

import functools
import inspect
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError, PortError, RunCancelled
from wgtorch.core.port import Port, Spec
from wgtorch.core.run import background
from wgtorch.core.run.rng import Rng
from wgtorch.core.run.thread_context import in_this_context
from wgtorch.integrations.models.attempts import Attempts
from wgtorch.integrations.models.backends import OnText
from wgtorch.integrations.models.errors import ApiTransportError
from wgtorch.integrations.models.lenient_json import whole_letters
from wgtorch.integrations.models.model_block import ModelBlock, per_row, seed_of, unlisted
from wgtorch.integrations.models.requests import Completion, Message, TextRequest
from wgtorch.integrations.models.structured import asking_for_json, check_schema
from wgtorch.integrations.models.thoughts import AnswerStream, split_thoughts
from wgtorch.ports import ANSWER_TOKENS, LOG_PROB, USAGE

OPTION_PORTS: Mapping[str, Port] = {
    "system": Port(dtype="text", description="what the model is told first"),
    "context": Port(dtype="text", description="text put before the question"),
    "history": Port(dtype="list", description="earlier turns, as {'role': 'user' or 'assistant', 'content': text}"),
    "temperature": Port(dtype="number", description="from 0, the likeliest words, to 10"),
    "top_p": Port(dtype="number", description="share of the probability that words are drawn from, in (0, 1]"),
    "max_tokens": Port(dtype="number", description="most tokens of the answer, at least 1"),
    "stop": Port(dtype="text", description="a text, or several, at which the answer ends"),
    "schema": Port(dtype="dict", description="JSON Schema that the answer has to follow"),
}
"""Inputs beside the question, alike for all questions or a list with one for each; the config holds what they are where nothing feeds
them."""
F = TypeVar("F", bound=Callable[..., Any])


def _shared(
    system: str | None = None,
    context: str | None = None,
    history: list[Mapping[str, str]] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | list[str] | None = None,
    schema: Mapping[str, Any] | None = None,
    answer: str | list[str] | None = None,
    rng: Rng | None = None,
    stream: Callable[..., None] | None = None,
) -> None:
    """What ``forward`` of every text model takes behind its question."""


def takes_options(forward: F) -> F:
    """A ``forward`` whose ``**options`` are those of every text model, which stand in its signature one by one."""
    own = inspect.signature(forward, eval_str=True)
    asked = [parameter for parameter in own.parameters.values() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    signature = own.replace(parameters=[*asked, *inspect.signature(_shared, eval_str=True).parameters.values()])

    @functools.wraps(forward)
    def taken(*args: Any, **named: Any) -> dict[str, Any]:
        return forward(**signature.bind(*args, **named).arguments)

    taken.__signature__ = signature  # type: ignore[attr-defined]
    taken.__annotations__ = {name: each.annotation for name, each in signature.parameters.items() if name != "self"} | {"return": dict}
    return taken  # type: ignore[return-value]


LIKELIHOOD_PORTS: Mapping[str, Port] = {"log_prob": LOG_PROB, "answer_tokens": ANSWER_TOKENS}
"""What a model that is here says of an ``answer`` it is given."""


class TextModel(ModelBlock):
    """A model that answers with text.

    The config's entries are what inputs of the same name are where nothing feeds them. A list of questions gives lists.

    An answer that is empty, or cut, is asked for once more with more room; one that does not follow the schema once more, with
    what is wrong in it. An answer that still cannot be used is an error.

    A model whose weights are here has one more input, ``answer``, of which it says how likely it is. That is what the objective
    ``answering`` trains.

    In a run with a seed every answer has a seed of its own, for models that take one.

    Args:
        backend: ``api`` or ``local``.
        provider: of an API: ``openai``, ``anthropic``, or another registered one.
        model_id: the model's name there.
        endpoint_url: where the API is, if not at the provider's own address.
        checkpoint_ref: folder of a local model.
        system, temperature, top_p, max_tokens, stop, schema: defaults of the inputs.
        allow_cut: a text that was cut at ``max_tokens`` is given as it is, with ``finish_reason`` ``length``; where left out,
            of models that are here, and not of an API's.
        stream: tell callbacks of the text as it comes, with events of kind ``chunk``, whose
            ``outputs`` are ``text``, ``index`` (of the question), and ``restart``, true where what came so far is void.
        source: what else the backend takes.

    Raises:
        ApiError: there is no answer; its subclasses say why.
        ApiAnswerError: the answer is empty or cut, and so is a second one.
        AnswerFormatError: the answer does not follow the schema, nor does a second one.
    """

    inputs: Mapping[str, Any] = {
        **OPTION_PORTS,
        "answer": Port(dtype="text", description="an answer for each prompt: nothing is written, and log_prob says how likely it is"),
    }
    outputs: Mapping[str, Any] = {
        "data": Port(optional=True, description="the value of an answer that follows a schema"),
        "thoughts": Port(dtype="text", optional=True, description="what the model thought before it answered, where it tells"),
        "finish_reason": Port(
            dtype="text", optional=True, description="why the answer ends: stop, length (it was cut), or the provider's word"
        ),
        "usage": USAGE,
        **LIKELIHOOD_PORTS,
    }

    def __init__(
        self,
        *,
        backend: str | None = None,
        provider: str | None = None,
        model_id: str | None = None,
        endpoint_url: str | None = None,
        checkpoint_ref: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | list[str] | None = None,
        schema: dict[str, Any] | None = None,
        allow_cut: bool | None = None,
        stream: bool = False,
        **source: Any,
    ) -> None:
        super().__init__()
        # not read off the config, which is of the constructor of a class below where that has its own
        self.defaults: dict[str, Any] = {
            "system": system,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "stop": stop,
            "schema": schema,
        }
        _check_options(self.defaults, type(self).__name__)
        self.streams = stream
        self._take(backend, provider, model_id=model_id, endpoint_url=endpoint_url, checkpoint_ref=checkpoint_ref, **source)
        self.batched = not self.is_async
        self.allow_cut = not self.is_async if allow_cut is None else allow_cut

    # --- ports --------------------------------------------------------------------------------------------------------

    def get_input_spec(self) -> Spec:
        return self._here(super().get_input_spec(), ("answer",))

    def get_output_spec(self) -> Spec:
        return self._here(super().get_output_spec(), LIKELIHOOD_PORTS)

    def _here(self, spec: Spec, ports: Iterable[str]) -> Spec:
        """Ports without those of models that are here, where the model is elsewhere."""
        return spec if hasattr(self.backend, "score") else {name: port for name, port in spec.items() if name not in ports}

    # --- asking -------------------------------------------------------------------------------------------------------

    def stream(self, **inputs: Any) -> Iterator[str]:
        """The answer to one question, piece by piece as it comes; leaving the loop cancels the call.

        Args:
            inputs: as for the block itself.

        Example:
            >>> for piece in llm.stream(prompt="Tell of the sea."):
            ...     print(piece, end="")
        """
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        left = False

        def on_text(index: int, piece: str | None) -> None:
            if left:
                raise RunCancelled("nobody reads the stream any more")
            if piece is None:
                raise ApiTransportError(f"{self.block_id}: the stream broke off, and what was read of it is void; ask again")
            pieces.put(piece)

        def ask() -> None:
            try:
                self._ask(self._requests(**inputs)[:1], on_text, once=True)
            finally:
                pieces.put(None)

        future = background.start(in_this_context(ask))
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            future.result()
        finally:
            left = True
            future.cancel()

    def _requests(self, *args: Any, **inputs: Any) -> list[TextRequest]:
        raise NotImplementedError

    def _outputs(
        self, requests: Sequence[TextRequest], listed: bool, stream: Callable[..., None] | None, answer: str | Sequence[str] | None
    ) -> dict[str, Any]:
        """Outputs of the block for its requests: answers, or how likely given ones are."""
        if answer is not None:
            return self._likelihood(requests, listed, answer)
        if not requests:
            return {"text": [], "data": [], "thoughts": [], "finish_reason": [], "usage": []}
        answers = self._ask(requests, _telling(stream) if self.streams and stream is not None else None)
        columns: dict[str, list[Any]] = {
            "text": [answer.text for answer in answers],
            "thoughts": [answer.thoughts for answer in answers],
            "finish_reason": [answer.finish_reason for answer in answers],
            "usage": [dict(answer.usage) for answer in answers],
        }
        if any(request.schema is not None for request in requests):
            columns["data"] = [answer.data for answer in answers]
        return {name: unlisted(column, listed) for name, column in columns.items()}

    def _ask(self, requests: Sequence[TextRequest], on_text: OnText | None, *, once: bool = False) -> list[Completion]:
        """Answers that can be used: what was cut is asked for once more with more room, what is wrong once more with why.

        Args:
            requests: the questions.
            on_text: is told of the answers as they come.
            once: what was told cannot be taken back, so nothing is asked for again after it.
        """
        model = self.config.get("model_id") or self.config.get("checkpoint_ref") or ""
        attempts = Attempts(
            [asking_for_json(request) for request in requests],
            self._complete,
            where=f"{self.block_id} {model}".strip(),
            may_be_cut=self.allow_cut,
            once=once,
        )
        return attempts.answers(on_text)

    def _complete(self, requests: Sequence[TextRequest], on_text: OnText | None) -> list[Completion]:
        """The backend's answers, their thoughts apart."""
        started = time.perf_counter()
        streams = [] if on_text is None else [AnswerStream(partial(on_text, index)) for index in range(len(requests))]
        answers: list[Completion] = self.backend.complete(requests, None if on_text is None else partial(_pass_on, streams))
        for stream in streams:
            stream.finish()
        elapsed = time.perf_counter() - started
        found = []
        for answer in answers:
            text, thoughts = split_thoughts(whole_letters(answer.text))
            thoughts = "\n\n".join(filter(None, [answer.thoughts, thoughts]))
            found.append(replace(answer, text=text, thoughts=thoughts, usage={"latency": elapsed, **answer.usage}))
        return found

    def _likelihood(self, requests: Sequence[TextRequest], listed: bool, answer: str | Sequence[str]) -> dict[str, Any]:
        """Outputs of a block that is given the answers."""
        answers = per_row(answer, len(requests), f"{self.block_id}.answer")
        log_prob, tokens = self.backend.score(requests, answers)
        return {"text": unlisted(answers, listed), "log_prob": log_prob, "answer_tokens": tokens}

    def _stand_ins(self, count: int, listed: bool, answer: Any) -> dict[str, Any]:
        """Outputs of a dry run."""
        text = {"text": unlisted([""] * count, listed) if count else []}
        if answer is not None:
            return {**text, "log_prob": torch.zeros(count), "answer_tokens": torch.ones(count, dtype=torch.long)}
        return {**text, "data": {}, "thoughts": "", "finish_reason": "", "usage": {}}

    # --- requests -----------------------------------------------------------------------------------------------------

    def _request(self, text: str, images: tuple[Tensor, ...], row: Mapping[str, Any], rng: Rng | None, index: int) -> TextRequest:
        """One question with its options: those of the row, else the config's."""
        chosen: dict[str, Any] = {name: self.defaults.get(name) if row.get(name) is None else row[name] for name in OPTION_PORTS}
        _check_options(chosen, self.block_id)
        messages = [Message("system", chosen["system"])] if chosen["system"] else []
        messages += [_turn(entry, self.block_id) for entry in chosen["history"] or ()]
        said = f"{chosen['context']}\n\n{text}" if chosen["context"] else text
        stop = chosen["stop"]
        return TextRequest(
            messages=(*messages, Message("user", said, images)),
            temperature=None if chosen["temperature"] is None else float(chosen["temperature"]),
            top_p=None if chosen["top_p"] is None else float(chosen["top_p"]),
            max_tokens=None if chosen["max_tokens"] is None else int(chosen["max_tokens"]),
            stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
            schema=chosen["schema"],
            seed=seed_of(rng, index),
        )

    def _rows(self, options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        """The options of each row; what every row shares, and what a list gives each."""
        rows: dict[str, list[Any]] = {}
        for name, value in options.items():
            shared = name in ("stop", "history")  # lists that belong to one row
            rows[name] = [value] * count if shared else per_row(value, count, f"{self.block_id}.{name}")
        return [{name: column[index] for name, column in rows.items()} for index in range(count)]


def _telling(stream: Callable[..., None]) -> OnText:
    def on_text(index: int, piece: str | None) -> None:
        stream(text=piece or "", index=index, restart=piece is None)

    return on_text


def _pass_on(streams: Sequence[AnswerStream], index: int, piece: str | None) -> None:
    if piece is None:
        streams[index].restart()
    else:
        streams[index](piece)


_ROLES = ("system", "user", "assistant")


def _turn(entry: Any, where: str) -> Message:
    if not isinstance(entry, Mapping) or entry.get("role") not in _ROLES or not isinstance(entry.get("content"), str):
        raise PortError(f"{where}.history: found {entry!r:.80}, expected {{'role': 'user' or 'assistant', 'content': text}}")
    return Message(entry["role"], entry["content"])


def _check_options(options: Mapping[str, Any], where: str) -> None:
    """Refuses options that no model takes."""
    temperature, top_p, max_tokens = options.get("temperature"), options.get("top_p"), options.get("max_tokens")
    if temperature is not None and not 0 <= float(temperature) <= 10:
        raise ConfigError(f"{where}.temperature: found {temperature}, expected 0 to 10")
    if top_p is not None and not 0 < float(top_p) <= 1:
        raise ConfigError(f"{where}.top_p: found {top_p}, expected more than 0 and at most 1")
    if max_tokens is not None and int(max_tokens) < 1:
        raise ConfigError(f"{where}.max_tokens: found {max_tokens}, expected at least 1")
    if options.get("schema") is not None:
        check_schema(options["schema"], f"{where}.schema")
