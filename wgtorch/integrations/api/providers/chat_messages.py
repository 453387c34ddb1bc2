"""Messages of the chat protocol that OpenAI began: what is sent, and what the many servers that speak it send back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from wgtorch.integrations.api.failures import refused
from wgtorch.integrations.api.media import data_url_of
from wgtorch.integrations.models.requests import Message

_REASONS = {
    "end_turn": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop",
    "max_tokens": "length", "model_length": "length", "max_output_tokens": "length", "model_context_window_exceeded": "length",
    "tool_calls": "tools", "function_call": "tools", "tool_use": "tools",
}  # fmt: skip
_FILTERED = ("content_filter", "content-filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive", "refusal")
"""Words of servers for an answer that a filter or the model itself held back."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # DeepSeek, vLLM and llama.cpp; OpenRouter and Ollama; others
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")


def message_of(message: Message) -> dict[str, Any]:
    """A turn as it is sent."""
    if not message.images:
        return {"role": message.role, "content": message.text}
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url_of(image)}} for image in message.images]
    return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}


def reason_of(reason: Any) -> str:
    """Why an answer ended, in our words: ``stop``, ``length``, ``tools``, or the server's own."""
    return _REASONS.get(str(reason).lower(), str(reason)) if reason else "stop"


def said_in(message: Any) -> tuple[str, str]:
    """The text and the thoughts in a message, or in a piece of a streamed one.

    The content is a text, None, or a list of parts; thoughts are parts of it, or entries beside it.
    """
    text, thoughts = _parts(getattr(message, "content", None))
    beside = next((found for name in _THOUGHTS if (found := _text(getattr(message, name, None)))), "")
    return text, beside or thoughts


def check_allowed(message: Any, reason: str | None) -> None:
    """Raises where the model refused, or a filter cut the answer."""
    content = getattr(message, "content", None)
    parts = content if isinstance(content, (list, tuple)) else ()
    if said := getattr(message, "refusal", None) or next((found for part in parts if (found := _entry(part, "refusal"))), None):
        raise refused(f"the model refuses: {said}")
    if str(reason).lower() in _FILTERED:
        raise refused("the answer was cut by the content filter")


def tokens_of(usage: Any) -> dict[str, Any]:
    """Counts of tokens, under any of the names that servers have for them."""

    def count(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := _entry(usage, name), int)), None)

    details = _entry(usage, "prompt_tokens_details") or _entry(usage, "input_tokens_details")
    cached = _entry(details, "cached_tokens")
    return {
        "prompt_tokens": count("prompt_tokens", "input_tokens"),
        "completion_tokens": count("completion_tokens", "output_tokens"),
        "cached_tokens": cached if isinstance(cached, int) else None,
    }


class StreamWatch:
    """Hears of every byte of a streamed answer, also of those that hold no text (comments that keep a connection alive).

    Args:
        stream: of an SDK, of which nothing was read yet.
        alive: called for each piece of the body.
    """

    def __init__(self, stream: Any, alive: Callable[[], None]) -> None:
        self.saw_done = False
        """The server said ``[DONE]``: the answer is whole, whether or not it said why it ended."""
        self._alive, self._tail = alive, b""
        self._bytes = stream.response.aiter_bytes
        stream.response.aiter_bytes = self._watched

    async def _watched(self, *args: Any) -> AsyncIterator[bytes]:
        async for piece in self._bytes(*args):
            self._alive()
            self._tail = (self._tail + piece)[-4096:]
            self.saw_done = self.saw_done or _DONE.search(self._tail) is not None
            yield piece


def _parts(content: Any) -> tuple[str, str]:
    if content is None or isinstance(content, str):
        return content or "", ""
    texts, thoughts = [], []
    for part in content if isinstance(content, (list, tuple)) else [content]:
        kind = str(_entry(part, "type") or "text")
        if kind in ("thinking", "reasoning"):
            thoughts.append(_text(_entry(part, "thinking") or _entry(part, "reasoning") or _entry(part, "text")))
        elif kind in ("text", "output_text"):
            texts.append(_text(_entry(part, "text") if not isinstance(part, str) else part))
    return "".join(texts), "".join(thoughts)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "".join(_text(_entry(part, "text")) for part in value)
    return ""


def _entry(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
