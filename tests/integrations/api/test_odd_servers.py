"""Servers that answer oddly: the text or the value that is there, or a failure with a name and the server's own words."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import pytest

from tests.integrations.api.test_answers import SCHEMA, TOOLS, events, message
from wgtorch.integrations.models.errors import (
    AnswerFormatError,
    ApiAnswerError,
    ApiAuthenticationError,
    ApiContentError,
    ApiError,
    ApiQuotaError,
    ApiTransportError,
)
from wgtorch.testing import Reply, ScriptedServer

DETAILS = [
    {"type": "reasoning.text", "text": "hm"},
    {"type": "reasoning.summary", "summary": "m"},
    {"type": "reasoning.encrypted", "data": "?"},
]
EVENTS, PAGE = {"Content-Type": "text/event-stream"}, {"Content-Type": "text/html"}
WHOLE = message("the answer").raw or b""


def body(choice: Any = None, **more: Any) -> Reply:
    """A chat completion of one choice, as it is given."""
    return Reply(raw=json.dumps({"choices": [] if choice is None else [choice], **more}).encode())


def sse(*lines: Any, kind: str = "text/event-stream", end: bytes = b"\n\n", begin: bytes = b"") -> Reply:
    """A stream of these events: a choice, or bytes as they are."""
    texts = [line if isinstance(line, bytes) else b"data: " + json.dumps({"choices": [line]}).encode() for line in lines]
    return Reply(raw=begin + b"\n\n".join(texts) + end, headers={"Content-Type": kind})


def piece(text: str, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish, **more}


ANSWERS = {
    "thoughts in parts": (message("the answer", reasoning_details=DETAILS), "hmm"),
    "thoughts twice": (message("the answer", reasoning="hmm", reasoning_details=DETAILS), "hmm"),
    "thoughts in an entry": (message("the answer", reasoning={"content": "hmm"}), "hmm"),
    "capitals": (message("<THINK>hmm</THINK>the answer"), "hmm"),
    "attributes": (message('<think time="3">hmm</think>\nthe answer'), "hmm"),
    "a longer name": (message("<antThinking>hmm</antThinking>the answer"), "hmm"),
    "nothing thought": (message("<think/>the answer"), ""),
    "a plain message": (body({"message": "the answer", "finish_reason": "stop"}), ""),
    "text in an entry": (message([{"type": "text", "text": {"value": "the answer"}}]), ""),
    "reason in an entry": (message("the answer", {"type": "eos_token"}), ""),
    "channel": (message("<|channel>thought\nhmm<channel|>the answer"), "hmm"),
    "parts of thought": (message([{"type": "reasoning_text", "text": "hmm"}, {"type": "text", "text": "the answer"}]), "hmm"),
    "end token": (message("the answer<|im_end|>"), ""),
    "end tokens": (message("the answer</s><|endoftext|>\n"), ""),
    "one part": (message({"type": "text", "text": "the answer"}), ""),
    "parts of Gemini": (message({"parts": [{"text": "hmm", "thought": True}, {"text": "the answer"}]}), "hmm"),
    "texts": (message(["the ", "answer"]), ""),
    "older protocol": (body({"text": "the answer", "index": 0, "finish_reason": "stop"}), ""),
    "second comes first": (body({"index": 1, "message": {"content": ""}}, choices=[
        {"index": 1, "message": {"content": ""}, "finish_reason": "stop"},
        {"index": 0, "message": {"content": "the answer"}, "finish_reason": "stop"},
    ]), ""),
    "capital reason": (message("the answer", "STOP"), ""),
    "tools and text": (message("the answer", "tool_calls", tool_calls=TOOLS), ""),
    "gzip": (Reply(raw=gzip.compress(WHOLE), headers={"Content-Encoding": "gzip"}), ""),
    "byte order mark": (Reply(raw=b"\xef\xbb\xbf" + WHOLE), ""),
    "NaN and two of a name": (
        Reply(raw=b'{"choices": [], "choices": [{"message": {"content": "the answer"}}], "usage": {"prompt_tokens": NaN}}'), ""
    ),
    "called a page": (Reply(raw=WHOLE, headers=PAGE), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_found_and_its_thoughts_apart(server: ScriptedServer, build, name: str) -> None:
    reply, thoughts = ANSWERS[name]
    server.script(reply)
    out = build(retries=0)(prompt="x")
    assert (out["text"], out["thoughts"], len(server.requests)) == ("the answer", thoughts, 1)
    assert out["finish_reason"] == ("tools" if name == "tools and text" else "stop")


def test_what_a_text_speaks_of_is_not_taken_from_it(server: ScriptedServer, build) -> None:
    for text in ("`<THINK>` begins it", "<s>struck</s>", 'a "<think a=1>" b', "say <|im_end|> and go on", '{"a": "<Think b=1> </THINK>"}'):
        server.script(message(text))
        assert build()(prompt="x")["text"] == text


FAILURES = {
    "blocked prompt": (body(prompt_feedback={"block_reason": "SAFETY"}), ApiContentError, "the prompt was blocked: SAFETY"),
    "filtered whole": (body({"index": 0, "message": None, "finish_reason": "content_filter"}), ApiContentError, "content filter"),
    "broken whole": (message("half an ans", "error"), ApiTransportError, "before the answer was whole"),
    "broken with words": (
        body({"message": {"content": "half"}, "finish_reason": "error", "error": {"code": 502, "message": "upstream died"}}),
        ApiTransportError, "status 502, upstream died",
    ),
    "out of time": (message("half an ans", "timeout"), ApiTransportError, "was whole: timeout"),
    "aborted": (message("half an ans", "abort"), ApiTransportError, "was whole: abort"),
    "half and an error": (body({"message": "half"}, error={"message": "died", "code": 500}), ApiTransportError, "status 500, died"),
    "an error without words": (body(error={"code": 429}), ApiQuotaError, "status 429"),
    "nothing to see": (message("\u200b\ufeff\u00a0"), ApiAnswerError, "it is empty"),
    "tools said to be a stop": (message(None, tool_calls=TOOLS), ApiAnswerError, "called tools and wrote no text"),
    "nested status": (
        body(base_resp={"status_code": 1008, "status_msg": "insufficient balance"}), ApiAnswerError, "says: insufficient balance"
    ),
    "error in words": (body(error="quota exceeded for today"), ApiAnswerError, "says: quota exceeded"),
    "status in a body": (body(error={"message": "bad key", "code": 401}), ApiAuthenticationError, "status 401, bad key"),
    "a number": (message(42), ApiAnswerError, "holds no text"),
    "another protocol": (Reply(raw=b'{"message": {"content": "hi"}, "done": true}'), ApiAnswerError, "holds no message"),
    "too deep": (Reply(raw=b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), ApiAnswerError, "cannot be read"),
    "no gzip": (Reply(raw=WHOLE, headers={"Content-Encoding": "gzip"}), ApiTransportError, "decompressing"),
    "another alphabet": (Reply(raw="{'café'}".encode("latin-1")), ApiAnswerError, "cannot be read"),
    "nothing": (Reply(raw=b"", status=204), ApiAnswerError, "cannot be read"),
    "a circle": (Reply(raw=b"", status=301, headers={"Location": "/v1/chat/completions"}), ApiTransportError, "redirects"),
    "endless wait": (Reply(raw=b"slow", status=429, headers={"Retry-After": "inf"}), ApiQuotaError, "429, slow. Wait"),
    "no wait": (Reply(raw=b"slow", status=429, headers={"Retry-After": "nan"}), ApiQuotaError, "429, slow. Wait"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_has_its_name_and_the_servers_words(server: ScriptedServer, build, name: str) -> None:
    reply, kind, words = FAILURES[name]
    server.respond = lambda seen: reply
    with pytest.raises(ApiError, match=words) as caught:
        build(retries=0)(prompt="x")
    assert type(caught.value) is kind


VALUES = {
    "among the schema's words": '{"type": "object", "properties": {"a": 1}}',
    "under properties": '{"properties": {"a": 1}}',
    "in an entry": '{"answer": {"a": 1}}',
    "a call": '{"name": "answer", "arguments": {"a": 1}}',
    "a call with texts": '<tool_call>\n{"name": "answer", "arguments": "{\\"a\\": 1}"}\n</tool_call>',
    "the schema first": json.dumps(SCHEMA) + '\n{"a": 1}',
    "thrice encoded": json.dumps(json.dumps(json.dumps({"a": 1}))),
    "for a template": '{{"a": 1}}',
    "for a template, nested": '{{"a": 1, "b": {{"c": 2}}}}',
    "for a string": '{\\"a\\": 1}',
    "for a page": "{&quot;a&quot;: 1}",
    "twice alike": '{"a": 1, "a": 1}',
    "tildes": '~~~json\n{"a": 1}\n~~~',
    "open fence": '```json\n{"a": 1}',
    "a program": 'const x = {"a": 1};',
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_found_in_what_is_around_it(server: ScriptedServer, build, name: str) -> None:
    server.script(VALUES[name])
    assert build(schema=SCHEMA)(prompt="x")["data"]["a"] == 1 and len(server.requests) == 1


@pytest.mark.parametrize("more", [{"content": {"a": 1}}, {"content": [{"a": 1}]}, {"content": None, "tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "answer", "arguments": '{"a": 1}'}}]}])  # fmt: skip
def test_a_value_that_the_server_has_read_is_one(server: ScriptedServer, build, more: dict[str, Any]) -> None:
    server.script(message(more.pop("content"), "tool_calls" if more else "stop", **more))
    assert build(schema=SCHEMA)(prompt="x")["data"]["a"] == 1 and len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (json.dumps(SCHEMA), "it repeats the schema"),
        (json.dumps(SCHEMA["properties"]), "it repeats the schema"),
        ('{"a": 1, "a": 2}', "two values of 'a'"),
        ('{"a": NaN}', "NaN and infinity are not JSON"),
        ('{"error": {"a": 1}}', "'a' is a required property"),
        ('{"a": "one"}', "'one' is not of type 'integer'"),
        ("[1]", "is not of type 'object'"),
        ('{"a": 1, "name": "x', "it is not JSON"),
        ('Draft: {"a": 0}\nFinal: {"a": 1}', "2 different values"),
    ],
)
def test_what_is_no_value_is_asked_for_again_with_the_reason(server: ScriptedServer, build, text: str, why: str) -> None:
    server.script(text, '{"a": 3}', text, text)
    assert build(schema=SCHEMA)(prompt="x")["data"] == {"a": 3} and why in server.requests[1].prompt
    with pytest.raises(AnswerFormatError, match=why):
        build(schema=SCHEMA)(prompt="x")


def test_the_schema_is_no_answer_where_everything_would_be(server: ScriptedServer, build) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    server.script(json.dumps(schema), '{"name": "Vilma"}')
    assert build(schema=schema)(prompt="x")["data"] == {"name": "Vilma"}


STREAMS = {
    "byte order mark": sse(piece("the answer", "stop"), begin=b"\xef\xbb\xbf"),
    "no line at the end": sse(piece("the answer", "stop"), end=b""),
    "done with spaces": sse(piece("the answer"), b"data:   [DONE]  "),
    "several lines": sse(b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "the answer"}, "finish_reason": "stop"}]}'),
    "comments, names": sse(b": alive", b"event: message\nid: 4\nretry: 10\n" + b'data: {"choices": []}', piece("the answer", "stop")),
    "carriage returns": Reply(raw=(sse(piece("the "), piece("answer", "stop")).raw or b"").replace(b"\n", b"\r"), headers=EVENTS),
    "messages": sse(*({"index": 0, "message": {"content": text}, "finish_reason": None} for text in ("the ", "answer")), b"data: [DONE]"),
    "message at the end": sse(piece("the answer"), {"index": 0, "delta": {}, "message": {"content": "the answer"}}, piece("", "stop")),
    "texts": sse({"index": 0, "text": "the ", "finish_reason": None}, {"index": 0, "text": "answer", "finish_reason": "stop"}),
    "two answers": sse(piece("wrong", index=1), piece("the answer"), piece("wrong", "length", index=1), piece("", "stop")),
    "null at the end": sse(piece("the answer"), {"index": 0, "delta": None, "finish_reason": "stop"}),
    "called JSON": sse(piece("the answer", "stop"), kind="application/json"),
    "no stream": Reply(raw=WHOLE, headers=EVENTS),
    "halves of a letter": sse(piece("the \ud83d"), piece("\ude00answer", "stop")),
    "tag in pieces": sse(*map(piece, ("<thi", 'nk a="1', '">hm</th', "ink>the answer")), b"data: [DONE]"),
    "more after the end": sse(piece("the answer", "stop"), b"data: [DONE]", b"data: {broken"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_read_in_all_forms(server: ScriptedServer, build, name: str) -> None:
    server.script(STREAMS[name], STREAMS[name])
    told = "".join(build(retries=0).stream(prompt="x"))
    assert told.encode("utf-16", "surrogatepass").decode("utf-16") == ("the answer" if "halves" not in name else "the 😀answer")
    server.script("asked again")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (sse(piece("the "), b'data: {"error": {"message": "too many", "code": 429}}'), ApiQuotaError, "status 429, too many"),
        (sse(piece("the "), b'data: {"error": "GPU fell off"}'), ApiTransportError, "GPU fell off"),
        (sse(piece("the "), piece("", "error", error={"message": "it died", "code": 502})), ApiTransportError, "502, it died"),
        (sse(piece("the "), piece("", "error")), ApiTransportError, "before the answer was whole"),
        (sse(b"data: hello", piece("the answer", "stop"), b"data: [DONE]"), ApiAnswerError, "says: hello"),
        (sse(piece("the answer", "stop"), begin=b'data: {"choices": [], "id": "caf\xe9"}\n\n'), ApiAnswerError, "cannot be read"),
        (Reply(raw=b"<html><body>Please sign in</body></html>", headers=PAGE), ApiAnswerError, "says: Please sign in"),
        (Reply(raw=b'{"message": {"content": "the "}}\n{"done": true}\n', headers=PAGE), ApiAnswerError, "no stream"),
        (Reply(raw=b'data: {"choices": [{"index": 0, "de', headers=EVENTS), ApiTransportError, "broke off"),
        (Reply(raw=b": alive\n\n", headers=EVENTS), ApiTransportError, "broke off"),
        (events({"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": "{"}}]}, b"[DONE]"), ApiAnswerError, "called tools"),
    ],
)  # fmt: skip
def test_a_broken_stream_says_what_is_wrong(server: ScriptedServer, build, reply: Reply, kind: type[ApiError], words: str) -> None:
    server.respond = lambda seen: reply
    with pytest.raises(ApiError, match=words) as caught:
        list(build(retries=0).stream(prompt="x"))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": "5", "completion_tokens": 6.0}, (5, 6)),
        ({"prompt_tokens": -5, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 10**30, "completion_tokens": 1.5}, (None, None)),
        ([1, 2], (None, None)),
        ("5", (None, None)),
        (None, (None, None)),
    ],
)
def test_counts_of_tokens_are_counts_or_unknown(server: ScriptedServer, build, usage: Any, counts: tuple[int | None, int | None]) -> None:
    server.script(body({"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}, usage=usage))
    out = build()(prompt="x")["usage"]
    assert (out["prompt_tokens"], out["completion_tokens"]) == counts


# --- other protocols ----------------------------------------------------------------------------------------------------


def claude(content: Any, stop: str = "end_turn", **more: Any) -> Reply:
    found = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": stop}
    return Reply(raw=json.dumps({**found, "usage": {"input_tokens": -3, "output_tokens": "4"}, **more}).encode())


def response(output: Any, status: str = "completed", **more: Any) -> Reply:
    return Reply(raw=json.dumps({"id": "1", "object": "response", "status": status, "model": "m", "output": output, **more}).encode())


def typed(*events: dict[str, Any]) -> Reply:
    return Reply(
        raw=b"".join(b"event: %s\ndata: %s\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in events), headers=EVENTS
    )


TEXT, SPOKEN = {"type": "text", "text": "the answer"}, {"type": "output_text", "text": "the answer"}
THOUGHT = {"type": "reasoning", "summary": None, "content": [{"type": "reasoning_text", "text": "hmm"}]}
FOUND = {
    "anthropic": [
        claude([{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": None}, TEXT]),
        claude("<think>hmm</think>the answer"),
    ],
    "openai_responses": [
        response([THOUGHT, {"type": "message", "content": [{"type": "odd"}, SPOKEN]}]),
        response(
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hmm"}]}, {"type": "message", "content": "the answer"}]
        ),
    ],
}


@pytest.mark.parametrize("provider", FOUND)
def test_answers_of_other_protocols(server: ScriptedServer, build, provider: str) -> None:
    for reply in FOUND[provider]:
        server.script(reply)
        out = build(provider=provider, retries=0)(prompt="x")
        assert (out["text"], out["thoughts"], out["usage"]["prompt_tokens"]) == ("the answer", "hmm", None)


@pytest.mark.parametrize(
    ("provider", "reply"),
    [
        ("anthropic", claude([{"type": "tool_use", "id": "1", "name": "answer", "input": {"a": 1}}])),
        ("openai_responses", response([{"type": "function_call", "name": "answer", "arguments": '{"a": 1}'}])),
    ],
)
def test_a_call_is_a_value_where_one_is_asked_for(server: ScriptedServer, build, provider: str, reply: Reply) -> None:
    server.script(reply, reply)
    assert build(provider=provider, schema=SCHEMA)(prompt="x")["data"] == {"a": 1}
    with pytest.raises(ApiAnswerError, match="called tools and wrote no text"):
        build(provider=provider)(prompt="x")


START = {"type": "message_start", "message": {"id": "1", "type": "message", "role": "assistant", "content": [], "usage": {}}}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
LIMITED = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}


@pytest.mark.parametrize(
    ("provider", "reply", "kind", "words"),
    [
        ("anthropic", Reply(raw=json.dumps(OVERLOADED).encode()), ApiTransportError, "Overloaded"),
        ("anthropic", typed(START, OVERLOADED), ApiTransportError, "Overloaded"),
        ("anthropic", typed(START, LIMITED), ApiQuotaError, "slow down"),
        ("anthropic", Reply(raw=b"<html>Please sign in</html>", headers=PAGE), ApiAnswerError, "says: Please sign in"),
        ("openai_responses", response([], "failed", error={"code": "rate_limit_exceeded", "message": "slow"}), ApiQuotaError, "429, slow"),
        (
            "openai_responses",
            response([{"type": "message", "content": [SPOKEN]}], "in_progress"),
            ApiAnswerError,
            "its status is 'in_progress'",
        ),
        (
            "openai_responses",
            response([{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]),
            ApiContentError,
            "refuses: no",
        ),
        ("openai_responses", typed({"type": "error", "message": "it died", "code": "server_error"}), ApiTransportError, "it died"),
        ("openai_responses", Reply(raw=b"<html>Please sign in</html>", headers=PAGE), ApiAnswerError, "says: Please sign in"),
    ],
)
def test_failures_of_other_protocols(server: ScriptedServer, build, provider: str, reply: Reply, kind: type[ApiError], words: str) -> None:
    server.respond = lambda seen: reply
    ask = build(provider=provider, retries=0)
    with pytest.raises(ApiError, match=words) as caught:
        list(ask.stream(prompt="x")) if "text" in reply.headers.get("Content-Type", "") else ask(prompt="x")
    assert type(caught.value) is kind


def test_a_response_that_ends_without_its_pieces_is_told_whole(server: ScriptedServer, build) -> None:
    whole = json.loads(response([{"type": "message", "content": [SPOKEN]}]).raw or b"")
    server.script(typed({"type": "response.completed", "response": whole}))
    assert "".join(build(provider="openai_responses").stream(prompt="x")) == "the answer"


def test_half_a_letter_does_not_reach_a_state(server: ScriptedServer, build) -> None:
    server.script(Reply(raw=b'{"choices": [{"message": {"content": "hi \\ud83d"}}]}'))
    assert build()(prompt="x")["text"] == "hi \ufffd"


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ([float("nan"), 1.0], "not finite"),
        ([1.0, 1e300], "not finite"),
        ([None, 1.0], "cannot be understood"),
        ([[1.0, 2.0]], "none of one length"),
        ([], "none of one length"),
        ("@@", "cannot be read"),
    ],
)
def test_vectors_are_finite_numbers(server: ScriptedServer, build, vector: Any, words: str) -> None:
    server.respond = lambda seen: Reply(raw=json.dumps({"data": [{"index": 0, "embedding": vector}]}).encode())
    with pytest.raises(ApiAnswerError, match=words):
        build("embedder", retries=0)(text="x")


def test_vectors_in_base64_are_read_though_nobody_asked_for_that(server: ScriptedServer, build) -> None:
    encoded = base64.b64encode(struct.pack("<2f", 1.0, -2.5)).decode()
    server.respond = lambda seen: Reply(raw=json.dumps({"data": [{"index": 0, "embedding": encoded}]}).encode())
    assert build("embedder")(text="x")["embedding"].tolist() == [[1.0, -2.5]]
