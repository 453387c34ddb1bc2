"""Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from wgtorch.core.errors import require
from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.failures import broken_off, not_an_answer, refused
from wgtorch.integrations.api.media import base64_of
from wgtorch.integrations.api.providers.base import OnPiece, Provider, register_provider
from wgtorch.integrations.api.secrets import Secret
from wgtorch.integrations.models.requests import Message, TextRequest

_NO_KEY = "none"
_MOST_TOKENS = 4096  # of an answer, where the config does not say; the API wants a number
_STREAMED_FROM = 16384  # the SDK streams longer answers only, as connections that are silent for minutes are cut
_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length"}


@register_provider("anthropic")
class Anthropic(Provider):
    """Claude. Since its API of October 2026 it has neither ``temperature`` nor ``top_p``, nor ever had seeds: left out."""

    endpoint = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"

    def __init__(self, endpoint: str, key: Secret | None) -> None:
        super().__init__(endpoint, key)
        secret = _NO_KEY if key is None else key.reveal()
        self._client: Any = self.sdk.AsyncAnthropic(api_key=secret, base_url=endpoint, max_retries=0, timeout=None)

    @property
    def sdk(self) -> ModuleType:
        return require("anthropic", "api")  # type: ignore[return-value]

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
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
        if request.schema is not None:
            schema = self.sdk.transform_schema(dict(request.schema))  # what the API does not check goes into descriptions
            asked["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if options:
            asked["extra_body"] = dict(options)
        left_out = tuple(name for name in ("temperature", "top_p", "seed") if getattr(request, name) is not None)
        if on_piece is not None or asked["max_tokens"] >= _STREAMED_FROM:
            return await self._streamed(asked, on_piece, left_out)
        answer = await self._client.messages.create(**asked)
        if not isinstance(getattr(answer, "content", None), list):
            raise not_an_answer("the answer holds no content")
        text = "".join(block.text for block in answer.content if block.type == "text")
        _check_allowed(answer.stop_reason)
        return Answer(text, _reason(answer.stop_reason), left_out=left_out, **_tokens(answer.usage))

    async def _streamed(self, asked: Mapping[str, Any], on_piece: OnPiece | None, left_out: tuple[str, ...]) -> Answer:
        pieces: list[str] = []
        read: int | None = None
        written: int | None = None
        reason, ended = None, False
        stream = await self._client.messages.create(**asked, stream=True)
        if not hasattr(stream, "__aiter__"):
            raise not_an_answer("the answer is no stream")
        async with stream:
            async for event in stream:
                if event.type == "message_start":
                    read = _tokens(event.message.usage)["prompt_tokens"]
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    pieces.append(event.delta.text)
                    if on_piece is not None:
                        on_piece(event.delta.text)
                elif event.type == "message_delta":
                    reason = event.delta.stop_reason or reason
                    written = _tokens(event.usage)["completion_tokens"]
                elif event.type == "message_stop":
                    ended = True
        _check_allowed(reason)
        if not ended:
            raise broken_off()
        text = "".join(pieces)
        return Answer(text, _reason(reason), tuple(pieces), prompt_tokens=read, completion_tokens=written, left_out=left_out)


def _message(message: Message) -> dict[str, Any]:
    shown: list[dict[str, Any]] = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64_of(image)}} for image in message.images
    ]
    return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}


def _check_allowed(reason: str | None) -> None:
    if reason == "refusal":
        raise refused("the model refuses to answer")


def _reason(reason: str | None) -> str:
    return _REASONS.get(reason or "end_turn", str(reason))


def _tokens(usage: Any) -> dict[str, Any]:
    """What was read, from the provider's cache or not, and what was written."""
    read = [getattr(usage, name, None) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    known = [count for count in read if isinstance(count, int)]
    written = getattr(usage, "output_tokens", None)
    return {"prompt_tokens": sum(known) if known else None, "completion_tokens": written if isinstance(written, int) else None}
