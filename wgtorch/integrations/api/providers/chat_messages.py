"""Messages of the chat protocol that OpenAI began: what is sent, and what the many servers that speak it send back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from wgtorch.integrations.api.failures import broken_off, not_an_answer, refused
from wgtorch.integrations.api.media import data_url_of
from wgtorch.integrations.models.requests import Message

_REASONS = {
    "end_turn": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop",
    "max_tokens": "length", "model_length": "length", "max_output_tokens": "length", "model_context_window_exceeded": "length",
    "tool_calls": "tools", "function_call": "tools", "tool_use": "tools",
}  # fmt: skip
_FILTERED = ("content_filter", "content-filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive", "refusal")
"""Words of servers for an answer that a filter or the model itself held back."""
_BROKEN = ("error", "timeout", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "network_error", "pause_turn")
"""Words for an answer that is not whole."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""DeepSeek, vLLM and llama.cpp; OpenRouter and Ollama; others; OpenRouter's parts."""
_MOST_TOKENS = 2**53


def message_of(message: Message) -> dict[str, Any]:
    """A turn as it is sent."""
    if not message.images:
        return {"role": message.role, "content": message.text}
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url_of(image)}} for image in message.images]
    return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}


def reason_of(reason: Any) -> str:
    """Why an answer ended, in our words: ``stop``, ``length``, ``tools``, or the server's own."""
    if isinstance(reason, Mapping):  # as some servers have it inside
        reason = reason.get("type") or reason.get("reason")
    word = str(reason or "stop").lower()
    return word if word in ("stop", "length") else _REASONS.get(word, str(reason))


def choice_of(choices: Any) -> Any:
    """The first of the answers that came: a server may send several, and in any order. None where there is none."""
    listed = choices if isinstance(choices, (list, tuple)) else ()
    return min(listed, key=lambda choice: index if isinstance(index := _entry(choice, "index"), int) else 0, default=None)


def said_in(message: Any) -> tuple[str, str]:
    """The text and the thoughts in a message, or in a piece of a streamed one.

    The content is a text, None, or a list of parts; thoughts are parts of it, or entries beside it.
    """
    text, thoughts = _parts(_entry(message, "content"))
    beside = next((found for name in _THOUGHTS if (found := text_of(_entry(message, name)))), "")
    return text, beside or thoughts


def message_in(choice: Any) -> Any:
    """What a choice says: a message, a piece of one, or the plain text of older servers; None where it says nothing."""
    text = _entry(choice, "text")
    found = next((said for name in ("message", "delta") if (said := _entry(choice, name)) is not None), None)
    plain = text if found is None else found
    return {"content": plain} if isinstance(plain, str) else found


def calls_tools(message: Any) -> bool:
    """True for a message, or a piece of one, that calls functions."""
    return bool(_entry(message, "tool_calls") or _entry(message, "function_call"))


def value_in(message: Any) -> str:
    """The value in a message without a text, as JSON: what its server read of it, or the arguments of the one function that it calls."""
    content = _entry(message, "content")
    if content is not None and not isinstance(content, str) and _is_value(content):
        return json.dumps(content, ensure_ascii=False)
    calls = _entry(message, "tool_calls") or [{"function": _entry(message, "function_call")}]
    arguments = _entry(_entry(calls[0], "function"), "arguments") if isinstance(calls, list) and len(calls) == 1 else None
    return arguments if isinstance(arguments, str) else ""


def check_allowed(message: Any, reason: str | None) -> None:
    """Raises where the model refused, or a filter cut the answer."""
    content = _entry(message, "content")
    parts = content if isinstance(content, (list, tuple)) else ()
    if said := _entry(message, "refusal") or next((found for part in parts if (found := _entry(part, "refusal"))), None):
        raise refused(f"the model refuses: {said}")
    if str(reason).lower() in _FILTERED:
        raise refused("the answer was cut by the content filter")


def check_ended(choice: Any, reason: str | None) -> None:
    """Raises where a filter or a failure ended the answer, whatever there is of it."""
    check_allowed(None, reason)
    if str(reason).lower() in _BROKEN:
        words, error = f"the server ended before the answer was whole: {reason}", _entry(choice, "error")
        raise not_an_answer(words, {"error": error}) if error else broken_off(words)


def check_prompt(answer: Any) -> None:
    """Raises where there is no answer since the prompt was blocked, as Gemini says it."""
    if why := _entry(_entry(answer, "prompt_feedback"), "block_reason"):
        raise refused(f"the prompt was blocked: {why}")


def tokens_of(usage: Any) -> dict[str, Any]:
    """Counts of tokens, under any of the names that servers have for them."""

    def count(*names: str) -> int | None:
        return next((value for name in names if (value := count_of(_entry(usage, name))) is not None), None)

    details = _entry(usage, "prompt_tokens_details") or _entry(usage, "input_tokens_details")
    return {
        "prompt_tokens": count("prompt_tokens", "input_tokens"),
        "completion_tokens": count("completion_tokens", "output_tokens"),
        "cached_tokens": count_of(_entry(details, "cached_tokens")),
    }


def _parts(content: Any) -> tuple[str, str]:
    if content is None or isinstance(content, str):
        return content or "", ""
    if isinstance(content, Mapping) and isinstance(content.get("parts"), list):  # Gemini's own form
        content = content["parts"]
    texts, thoughts = [], []
    for part in content if isinstance(content, (list, tuple)) else [content]:
        kind = str(_entry(part, "type") or "text")
        if kind in ("thinking", "reasoning", "reasoning_text") or _entry(part, "thought") is True:
            thoughts.append(text_of(_entry(part, "thinking") or _entry(part, "reasoning") or _entry(part, "text")))
        elif kind in ("text", "output_text"):
            texts.append(text_of(part))
    return "".join(texts), "".join(thoughts)


def _is_value(content: Any) -> bool:
    """True for JSON that a model wrote and its server read: no parts of a message are in it."""
    if isinstance(content, (list, tuple)):
        return bool(content) and all(map(_is_value, content))
    return not isinstance(content, Mapping) or (bool(content) and not {"type", "text", "refusal"} & set(content))


def text_of(value: Any) -> str:
    """The text of a part, of parts, or of what they hold."""
    if isinstance(value, (list, tuple)):
        return "".join(map(text_of, value))
    if isinstance(value, str) or value is None:
        return value or ""
    return next((found for name in ("text", "value", "content", "summary") if (found := text_of(_entry(value, name)))), "")


def count_of(value: Any) -> int | None:
    """A number of tokens, however it is written; None for what cannot be one."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value[:20])
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS else None


def _entry(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
