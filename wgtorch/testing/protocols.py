"""Bodies of OpenAI's and Anthropic's protocols."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from wgtorch.storage.media import png_bytes, wav_bytes
from wgtorch.testing.replies import Reply, Seen

Body = tuple[str, list[bytes]]
"""Content type, and the body in the pieces that it is sent in."""


def error_body(path: str, reply: Reply) -> Body:
    """An error, as the provider of this path words it."""
    if path.split("?")[0].endswith("/messages"):
        error: dict[str, Any] = {"type": "error", "error": {"type": reply.code or "api_error", "message": reply.text}}
    else:
        error = {"error": {"message": reply.text, "type": reply.code or "error", "code": reply.code, "param": None}}
    return "application/json", [json.dumps(error).encode()]


def body_of(seen: Seen, reply: Reply) -> Body | None:
    """The body of an answer; None for a path that no provider has."""
    for ending, build in _PATHS.items():
        if seen.path.split("?")[0].endswith(ending):
            return build(seen, reply)
    return None


def _chat(seen: Seen, reply: Reply) -> Body:
    body = seen.body
    usage = _counted(seen, reply, "prompt_tokens", "completion_tokens")
    common = {"id": "chatcmpl-1", "created": 1, "model": body.get("model", "")}
    if not body.get("stream"):
        message = {"role": "assistant", "content": None if reply.refusal else reply.text, "refusal": reply.refusal}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish}
        return _json({**common, "object": "chat.completion", "choices": [choice], "usage": usage})

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _event({**common, "object": "chat.completion.chunk", "choices": [choice]})

    said = [{"refusal": reply.refusal}] if reply.refusal else [{"content": piece} for piece in pieces_of(reply.text)]
    events = [chunk({"role": "assistant", "content": ""}), *(chunk(delta) for delta in said), chunk({}, reply.finish)]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(_event({**common, "object": "chat.completion.chunk", "choices": [], "usage": usage}))
    return "text/event-stream", [*events, b"data: [DONE]\n\n"]


def _responses(seen: Seen, reply: Reply) -> Body:
    body = seen.body
    usage: dict[str, Any] = {**_counted(seen, reply, "input_tokens", "output_tokens"), "total_tokens": 0}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    part = (
        {"type": "refusal", "refusal": reply.refusal} if reply.refusal else {"type": "output_text", "text": reply.text, "annotations": []}
    )
    said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reply.finish)
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": body.get("model", ""), "output": [said], "usage": usage,
        "error": None,
        "status": "incomplete" if why else "completed", "incomplete_details": {"reason": why} if why else None,
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    if not body.get("stream"):
        return _json(whole)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 0, "logprobs": []}
    said_so = pieces_of("" if reply.refusal else reply.text)
    pieces: list[dict[str, Any]] = [{"type": "response.output_text.delta", "delta": piece, **place} for piece in said_so]
    last = {"type": f"response.{whole['status']}", "response": whole, "sequence_number": 1}
    return "text/event-stream", [_event(event, event["type"]) for event in (*pieces, last)]


def _messages(seen: Seen, reply: Reply) -> Body:
    body = seen.body
    usage = _counted(seen, reply, "input_tokens", "output_tokens")
    reason = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}.get(reply.finish, reply.finish)
    reason = "refusal" if reply.refusal else reason
    common = {"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model", "")}
    if not body.get("stream"):
        content = [{"type": "text", "text": reply.text}]
        return _json({**common, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage})
    empty = {**common, "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 0}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": empty},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces_of("" if reply.refusal else reply.text)
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return "text/event-stream", [_event(event, event["type"]) for event in events]


def _embeddings(seen: Seen, reply: Reply) -> Body:
    texts = seen.body.get("input", [])
    texts = [texts] if isinstance(texts, str) else texts
    length = seen.body.get("dimensions") or 8
    vectors = reply.vectors if reply.vectors is not None else [_vector(text, length) for text in texts]
    data = [{"object": "embedding", "index": index, "embedding": list(vector)} for index, vector in enumerate(vectors)]
    read = sum(len(text.split()) for text in texts) if reply.tokens is None else reply.tokens[0]
    return _json({"object": "list", "data": data, "model": seen.body.get("model"), "usage": {"prompt_tokens": read, "total_tokens": read}})


def _images(seen: Seen, reply: Reply) -> Body:
    content = reply.image if reply.image is not None else _picture(seen)
    return _json({"created": 1, "data": [{"b64_json": base64.b64encode(content).decode()}]})


_PATHS: dict[str, Callable[[Seen, Reply], Body]] = {
    "/chat/completions": _chat,
    "/messages": _messages,
    "/responses": _responses,
    "/embeddings": _embeddings,
    "/images/generations": _images,
    "/images/edits": _images,
    "/audio/transcriptions": lambda seen, reply: _json({"text": reply.text}),
    "/audio/speech": lambda seen, reply: ("audio/wav", [_tone() if reply.audio is None else reply.audio]),
}


def pieces_of(text: str) -> list[str]:
    """A text in the pieces that a stream sends it in: words with the space before them."""
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)] if text else []


def _counted(seen: Seen, reply: Reply, read: str, written: str) -> dict[str, int]:
    tokens = reply.tokens or (len(seen.content) // 40 + 1, len(reply.text.split()))
    both = {read: tokens[0], written: tokens[1]}
    return {**both, "total_tokens": sum(tokens)} if read == "prompt_tokens" else both


def _json(value: Any) -> Body:
    return "application/json", [json.dumps(value).encode()]


def _event(value: Any, name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def _vector(text: str, length: int) -> Sequence[float]:
    """Numbers that belong to a text, of length 1 together."""
    raw = hashlib.shake_128(text.encode()).digest(length)
    numbers = [byte / 127.5 - 1 for byte in raw]
    norm = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / norm for number in numbers]


def _picture(seen: Seen) -> bytes:
    """A PNG of one colour, which belongs to the request."""
    width, _, height = str(seen.body.get("size") or "16x16").partition("x")
    colour = hashlib.sha256(seen.prompt.encode()).digest()[:3]
    levels = torch.tensor(list(colour)).view(3, 1, 1) / 255
    return png_bytes(levels.expand(3, int(height), int(width)))


def _tone() -> bytes:
    return wav_bytes(0.5 * torch.sin(2 * math.pi * 440 / 8000 * torch.arange(800))[None], 8000)
