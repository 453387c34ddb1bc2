"""OpenAI's Responses protocol (``/responses``), which its newest models are made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wgtorch.core.errors import require
from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.capabilities import Capabilities
from wgtorch.integrations.api.failures import not_an_answer, refused
from wgtorch.integrations.api.media import data_url_of
from wgtorch.integrations.api.providers.base import OnPiece, cut_at, register_provider
from wgtorch.integrations.api.providers.chat_messages import check_allowed, reason_of, said_in, text_of, tokens_of
from wgtorch.integrations.api.providers.chat_stream import StreamWatch
from wgtorch.integrations.api.providers.openai import OpenAI
from wgtorch.integrations.api.secrets import Secret
from wgtorch.integrations.models.requests import Message, TextRequest


@register_provider("openai_responses")
class OpenAIResponses(OpenAI):
    """OpenAI, and servers that speak its Responses protocol, which are told to keep nothing.

    It has neither seeds nor stop texts; an answer is cut at those when it is there.
    """

    calls = ("complete",)

    def __init__(self, endpoint: str, key: Secret | None) -> None:
        super().__init__(endpoint, key)
        types: Any = require("openai.types.responses", "api")
        self._whole, self._stream = types.Response, self.sdk.AsyncStream[types.ResponseStreamEvent]

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        async def send(body: Mapping[str, Any]) -> Answer:
            return await (self._at_once(body, has_schema) if on_piece is None else self._streamed(body, on_piece))

        has_schema = request.schema is not None

        def body(known: Capabilities) -> dict[str, Any]:
            return {**_body(model, request, known), **options, **({} if on_piece is None else {"stream": True})}

        answer = await self.adapted("respond", model, body, send, has_schema=has_schema)
        absent = ("seed",) if request.seed is not None else ()
        return cut_at(replace(answer, left_out=(*absent, *answer.left_out)), request.stop)

    async def _at_once(self, asked: Mapping[str, Any], has_schema: bool) -> Answer:
        return _answer(await self._client.post("/responses", cast_to=self._whole, body=asked), has_schema=has_schema)

    async def _streamed(self, asked: Mapping[str, Any], on_piece: OnPiece) -> Answer:
        pieces: list[str] = []
        last = None
        stream = await self._client.post("/responses", cast_to=self._whole, body=asked, stream=True, stream_cls=self._stream)
        if not hasattr(stream, "__aiter__"):
            raise not_an_answer("the answer is no stream")
        watch = StreamWatch(stream, lambda: on_piece(""))
        async with stream:
            async for event in stream:
                watch.is_stream = True
                if event.type == "response.output_text.delta":
                    pieces.append(event.delta)
                    on_piece(event.delta)
                elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                    last = event.response
                elif event.type == "error":
                    raise not_an_answer("the model failed", event)
        if last is None:
            raise watch.broken_off()
        answer = _answer(last)
        if not pieces and answer.text:
            pieces.append(answer.text)
            on_piece(answer.text)
        return replace(answer, text="".join(pieces), pieces=tuple(pieces))


def _body(model: str, request: TextRequest, known: Capabilities) -> dict[str, Any]:
    told = "\n\n".join(message.text for message in request.messages if message.role == "system")
    asked: dict[str, Any] = {
        "model": model,
        "input": [_turn(message) for message in request.messages if message.role != "system"],
        "store": False,
        "instructions": told or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_tokens,
    }
    if request.schema is not None and known.schema == "json_schema":
        asked["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": dict(request.schema)}}
    elif request.schema is not None and known.schema == "json_object":
        asked["text"] = {"format": {"type": "json_object"}}
    return {name: value for name, value in asked.items() if value is not None}


def _turn(message: Message) -> dict[str, Any]:
    kind = "output_text" if message.role == "assistant" else "input_text"
    shown: list[dict[str, Any]] = [{"type": "input_image", "image_url": data_url_of(image)} for image in message.images]
    return {"role": message.role, "content": [*shown, {"type": kind, "text": message.text}]}


def _answer(response: Any, *, has_schema: bool = False) -> Answer:
    """The text, thoughts and end of a response; where a value is asked for and a function is called with it, its arguments."""
    if not isinstance(getattr(response, "output", None), list):
        raise not_an_answer("the answer holds no output", response)
    if response.status == "failed":
        raise not_an_answer("the model failed", {"error": getattr(response.error, "__dict__", response.error)})
    if response.status in ("queued", "in_progress", "cancelled"):
        raise not_an_answer(f"the answer is not whole: its status is {response.status!r}")
    texts, thoughts = [], []
    for item in response.output:
        if item.type == "message":
            check_allowed(item, None)
            texts.append(said_in(item)[0])
        elif item.type == "reasoning":
            thoughts.append("\n\n".join(filter(None, (text_of(part) for part in item.summary or ()))) or said_in(item)[1])
    reason = getattr(response.incomplete_details, "reason", None)
    if reason == "content_filter":
        raise refused("the answer was cut by the content filter")
    called = [] if any(texts) else [item for item in response.output if item.type == "function_call"]
    more: dict[str, Any] = {"thoughts": "\n\n".join(filter(None, thoughts)), **tokens_of(response.usage)}
    if len(called) == 1 and has_schema:
        return Answer(called[0].arguments or "", **more)
    return Answer("".join(texts), "tools" if called else reason_of(reason), **more)
