"""Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.capabilities import Capabilities
from wgtorch.integrations.api.failures import not_an_answer, refused
from wgtorch.integrations.api.media import base64_of
from wgtorch.integrations.api.providers.base import OnPiece, SdkProvider, register_provider
from wgtorch.integrations.api.providers.chat_messages import check_ended, count_of, reason_of, said_in
from wgtorch.integrations.api.providers.chat_stream import StreamWatch
from wgtorch.integrations.models.requests import Message, TextRequest

_MOST_TOKENS = 4096  # of an answer, where the config does not say; the API wants a number
_STREAMED_FROM = 16384  # the SDK streams longer answers only, as connections that are silent for minutes are cut


@register_provider("anthropic")
class Anthropic(SdkProvider):
    """Claude. Since its API of October 2026 it has neither ``temperature`` nor ``top_p``, nor ever had seeds: left out."""

    endpoint = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    package, client_class = "anthropic", "AsyncAnthropic"

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        absent = tuple(name for name in ("temperature", "top_p", "seed") if getattr(request, name) is not None)

        async def send(body: Mapping[str, Any]) -> Answer:
            if on_piece is not None or body["max_tokens"] >= _STREAMED_FROM:
                return await self._streamed(body, on_piece)
            return await self._at_once(body, has_schema=request.schema is not None)

        answer = await self.adapted(
            "complete", model, lambda known: self._body(model, request, options, known), send, has_schema=request.schema is not None
        )
        return replace(answer, left_out=(*absent, *answer.left_out))

    def _body(self, model: str, request: TextRequest, options: Mapping[str, Any], known: Capabilities) -> dict[str, Any]:
        told = "\n\n".join(message.text for message in request.messages if message.role == "system")
        asked: dict[str, Any] = {
            "model": model,
            "messages": [_message(message) for message in request.messages if message.role != "system"],
            "max_tokens": request.max_tokens or _MOST_TOKENS,
        }
        if told:
            asked["system"] = told
        if request.stop:
            asked["stop_sequences"] = list(request.stop)
        if request.schema is not None and known.schema == "json_schema":
            schema = self.sdk.transform_schema(dict(request.schema))  # what the API does not check goes into descriptions
            asked["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return {**asked, "extra_body": dict(options)} if options else asked

    async def _at_once(self, asked: Mapping[str, Any], *, has_schema: bool) -> Answer:
        answer = await self._client.messages.create(**asked)
        if getattr(answer, "content", None) is None:
            raise not_an_answer("the answer holds no content", answer)
        _check_allowed(answer.stop_reason)
        text, thoughts = said_in(answer)
        called = [block for block in answer.content if getattr(block, "type", "") == "tool_use"]
        if called and not text and has_schema and len(called) == 1:
            return Answer(json.dumps(called[0].input), thoughts=thoughts, **_tokens(answer.usage))
        reason = "tools" if called and not text else reason_of(answer.stop_reason)
        return Answer(text, reason, thoughts=thoughts, **_tokens(answer.usage))

    async def _streamed(self, asked: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        pieces: list[str] = []
        thoughts: list[str] = []
        read: dict[str, Any] = {}
        written: int | None = None
        reason, ended = None, False
        stream = await self._client.messages.create(**asked, stream=True)
        if not hasattr(stream, "__aiter__"):
            raise not_an_answer("the answer is no stream")
        watch = StreamWatch(stream, lambda: None if on_piece is None else on_piece(""))
        async with stream:
            async for event in stream:
                watch.is_stream = True
                if event.type == "message_start":
                    read = _tokens(event.message.usage)
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    pieces.append(event.delta.text)
                    if on_piece is not None:
                        on_piece(event.delta.text)
                elif event.type == "content_block_delta" and event.delta.type == "thinking_delta":
                    thoughts.append(event.delta.thinking)
                elif event.type == "message_delta":
                    reason = event.delta.stop_reason or reason
                    written = _tokens(event.usage)["completion_tokens"]
                elif event.type == "message_stop":
                    ended = True
        _check_allowed(reason)
        if not ended:
            raise watch.broken_off()
        counted = {**read, "completion_tokens": written}
        return Answer("".join(pieces), reason_of(reason), tuple(pieces), thoughts="".join(thoughts), **counted)


def _message(message: Message) -> dict[str, Any]:
    shown: list[dict[str, Any]] = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64_of(image)}} for image in message.images
    ]
    return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}


def _check_allowed(reason: str | None) -> None:
    if reason == "refusal":
        raise refused("the model refuses to answer")
    check_ended(None, reason)


def _tokens(usage: Any) -> dict[str, Any]:
    """What was read, from the provider's cache or not, and what was written."""
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    *read, written = [count_of(getattr(usage, name, None)) for name in names]
    known = [count for count in read if count is not None]
    return {"prompt_tokens": sum(known) if known else None, "completion_tokens": written, "cached_tokens": read[2]}
