"""Answers that can be relied on: thoughts apart, nothing empty or cut, values out of whatever a model writes around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.waiting import at_some_pace, wait_until
from wgtorch import Graph
from wgtorch.integrations.models.errors import AnswerFormatError, ApiAnswerError, ApiContentError, ApiError, ApiTransportError
from wgtorch.testing import Reply, ScriptedServer

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def message(content: Any, finish: Any = "stop", **more: Any) -> Reply:
    """A chat completion with whatever a server puts into its message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Reply(raw=json.dumps({**body, "usage": {"prompt_tokens": 5, "completion_tokens": 60, "total_tokens": 65}}).encode())


def events(*deltas: dict[str, Any] | bytes) -> Reply:
    """A stream of these pieces, without a reason why it ended."""
    lines = []
    for delta in deltas:
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta}]}
        lines.append(b"data: " + (delta if isinstance(delta, bytes) else json.dumps(chunk).encode()) + b"\n\n")
    return Reply(raw=b"".join(lines), headers={"Content-Type": "text/event-stream"})


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}, {"type": "text", "text": "the answer"}]
TOOLS = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]


def test_an_answer_cut_in_its_thoughts_is_asked_for_with_more_room(server: ScriptedServer, build) -> None:
    server.script(message("", "length", reasoning_content="long thoughts"), "fine")
    out = build(max_tokens=60)(prompt="x")
    assert out["text"] == "fine" and out["usage"]["calls"] == 2 and out["usage"]["completion_tokens"] == 61
    assert server.requests[0].body["max_tokens"] == 60 and server.requests[1].body["max_tokens"] >= 4 * 60
    server.script(*[message("", "length", reasoning_content="long thoughts")] * 2)
    with pytest.raises(ApiAnswerError, match=r"cut in its thoughts.* max_tokens=\d+, in a second try"):
        build(max_tokens=60)(prompt="x")
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("reply", "calls", "words"),
    [
        (message(None), 2, "it is empty"),
        (message("  \n"), 2, "it is empty"),
        (message("", reasoning_content="hm"), 2, "it has thoughts and no text"),
        (message("<think>hm</think>"), 2, "it has thoughts and no text"),
        (message(None, "tool_calls", tool_calls=TOOLS), 1, "called tools and wrote no text"),
        (Reply("Once upon", finish="length"), 2, r"its text was cut, at max_tokens="),
    ],
    ids=["null", "blank", "thoughts", "tags", "tools", "cut"],
)
def test_what_cannot_be_used_is_a_named_failure(server: ScriptedServer, build, reply: Reply, calls: int, words: str) -> None:
    server.respond = lambda seen: reply
    with pytest.raises(ApiAnswerError, match=words) as caught:
        build(max_tokens=60)(prompt="x")
    assert len(server.requests) == calls and (caught.value.provider, caught.value.model) == ("openai", "tiny")


def test_a_cut_text_is_given_where_that_is_allowed(server: ScriptedServer, build) -> None:
    server.script(Reply("Once upon", finish="length"))
    out = build(max_tokens=2, allow_cut=True)(prompt="x")
    assert out["text"] == "Once upon" and out["finish_reason"] == "length" and len(server.requests) == 1


@pytest.mark.parametrize("block_type", ["llm", "llm/anthropic"])
def test_an_answer_that_is_cut_twice_is_no_answer(server: ScriptedServer, build, block_type: str) -> None:
    server.respond = lambda seen: Reply("Once upon", finish="length")
    with pytest.raises(ApiAnswerError, match="its text was cut"):
        build(block_type)(prompt="x")
    assert [seen.body.get("max_tokens", 0) for seen in server.requests][1] >= 1024


def test_a_model_without_more_room_says_so(server: ScriptedServer, build) -> None:
    server.script(Reply("Once", finish="length"), Reply("maximum context length is 512 tokens", status=400))
    with pytest.raises(ApiAnswerError, match=r"its text was cut, at max_tokens=7\.") as caught:
        build(max_tokens=7)(prompt="x")
    assert "maximum context length" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("content", "more", "text", "thoughts"),
    [
        ("<think>hmm</think>\n\nthe answer", {}, "the answer", "hmm"),
        ("hmm</think>the answer", {}, "the answer", "hmm"),
        ("Write `<think>` first and `</think>` after it.", {}, "Write `<think>` first and `</think>` after it.", ""),
        ("the answer", {"reasoning": "hmm"}, "the answer", "hmm"),
        (PARTS, {}, "the answer", "hmm"),
        ("a < b, and <b>bold</b>", {}, "a < b, and <b>bold</b>", ""),
        ("<thought>hmm</thought>the answer", {}, "the answer", "hmm"),
        ("<reasoning>\nhmm</reasoning>the answer", {}, "the answer", "hmm"),
        ("<think>hmm</think>the<think>so</think> answer", {}, "the answer", "hmm\n\nso"),
        ("the <think>hmm</think> answer", {}, "the answer", "hmm"),
    ],
    ids=["tags", "closing tag", "spoken of", "beside", "parts", "none", "thought", "reasoning", "twice", "amid"],
)  # fmt: skip
def test_thoughts_are_kept_apart(server: ScriptedServer, build, content: Any, more: dict[str, Any], text: str, thoughts: str) -> None:
    server.script(message(content, **more))
    out = build()(prompt="x")
    assert (out["text"], out["thoughts"]) == (text, thoughts)


@pytest.mark.parametrize("cuts", [1, 2, 3, 7])
@pytest.mark.parametrize("text", ["<think>hmm</think>\n\nthe answer is 7 < 8", "hm</think>the answer is 7 < 8", "the answer is 7 < 8"])
def test_no_thought_is_told_of_in_a_stream(server: ScriptedServer, build, text: str, cuts: int) -> None:
    server.script(events(*({"content": text[at : at + cuts]} for at in range(0, len(text), cuts)), b"[DONE]"))
    graph = Graph("chat")
    graph.add_node(build("llm", stream=True), "llm")
    graph.infer_exposed_ports()
    told: list[str] = []

    def hear(event: Any) -> None:
        if event.kind == "chunk":
            told.clear() if event.outputs["restart"] else told.append(event.outputs["text"])

    assert graph.run({"prompt": "x"}, callbacks=[hear])["text"] == "the answer is 7 < 8" == "".join(told)


def test_a_second_answer_is_told_in_place_of_the_first(server: ScriptedServer, build) -> None:
    graph = Graph("chat")
    graph.add_node(build("llm", stream=True), "llm")
    graph.infer_exposed_ports()
    server.script(Reply("Once upon", finish="length"), "Once upon a time.")
    heard: list[Any] = []
    graph.run({"prompt": "x"}, callbacks=[lambda event: heard.append(event.outputs) if event.kind == "chunk" else None])
    begun = [part["restart"] for part in heard].index(True)
    assert "".join(part["text"] for part in heard[begun:]) == "Once upon a time."
    server.script(Reply("Once upon", finish="length"))
    pieces: list[str] = []
    with pytest.raises(ApiAnswerError, match="its text was cut"):
        pieces.extend(build().stream(prompt="x"))  # what was given out cannot be taken back
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "text",
    [
        '<think>hmm {</think>\n{"a": 1}',
        'Sure!\n```json\n{"a": 1}\n```\nHope it helps',
        '{"a": 1,}',
        '{"a": 1}{"a": 1}',
        "{'a': 1} // done",
        'The value {in braces} is {"a": 1}.',
        '{"a": 1, "b": "two\nlines"}',
        '{"a": 1, "b": "```\\n{\\"a\\": 2}\\n```"}',
        '"{\\"a\\": 1}"',
        '[{"a": 1}]',
        '{"a": 1, # one\n "b": 2}',
        '{"a": 1, "b": "C:\\Users and \\(x\\)"}',
    ],
)
def test_a_value_is_read_out_of_what_is_around_it(server: ScriptedServer, build, text: str) -> None:
    server.script(text)
    assert build(schema=SCHEMA)(prompt="x")["data"]["a"] == 1 and len(server.requests) == 1


@pytest.mark.parametrize("text", ['{"a": 1}{"a": 2}', '{"a": {"a": 1}, "b": ', '{"a": 1.5}', '{"b": {"a": 1} "c": 2}', '{"a": NaN}', ""])
def test_what_is_no_one_value_is_asked_for_once_more(server: ScriptedServer, build, text: str) -> None:
    server.script(text, '{"a": 3}')
    assert build(schema=SCHEMA)(prompt="x")["data"] == {"a": 3} and len(server.requests) == 2
    server.script(text, "no")
    with pytest.raises(AnswerFormatError) as caught:
        build(schema=SCHEMA)(prompt="x")
    assert isinstance(caught.value, ApiError)


def test_a_cut_value_is_given_more_room_and_a_whole_one_needs_none(server: ScriptedServer, build) -> None:
    server.script(Reply('{"a": ', finish="length"), '{"a": 3}', Reply('{"a": 4} and', finish="length"))
    assert build(schema=SCHEMA, max_tokens=3)(prompt="x")["data"] == {"a": 3} and server.requests[1].body["max_tokens"] >= 12
    assert build(schema=SCHEMA, max_tokens=3)(prompt="x")["data"] == {"a": 4} and len(server.requests) == 3


def test_refusals_stay_refusals(server: ScriptedServer, build) -> None:
    server.script(Reply(refusal="I cannot."), Reply("half", finish="content_filter"))
    server.script(message([{"type": "refusal", "refusal": "I cannot."}]))
    server.script(*(message("", finish) for finish in ("SAFETY", "sensitive", "RECITATION")))
    refuses, filtered = "the model refuses: I cannot", "cut by the content filter"
    for words in (refuses, filtered, refuses, filtered, filtered, filtered):
        with pytest.raises(ApiContentError, match=words):
            build()(prompt="x")
    assert len(server.requests) == 6


def test_a_stream_may_take_as_long_as_it_gives_something(server: ScriptedServer, build) -> None:
    def check(limit: float) -> None:
        server.script(Reply("one two three four", drip=0.4 * limit))
        assert "".join(build(timeout=limit, retries=0).stream(prompt="x")) == "one two three four"

    at_some_pace(check, 0.4, 2.0, 10.0)
    server.script(Reply("one two three four", drip=1.0))
    with pytest.raises(ApiTransportError, match="no whole answer in time"):
        list(build(timeout=0.4, retries=0).stream(prompt="x"))
    wait_until(lambda: server.requests[-1].ended)


def test_done_ends_a_stream_that_gives_no_reason(server: ScriptedServer, build) -> None:
    server.script(events({"content": "hi"}, {"content": " you"}, b"[DONE]"), events({"content": "hi"}))
    assert "".join(build(retries=0).stream(prompt="x")) == "hi you"
    with pytest.raises(ApiTransportError, match="broke off"):
        list(build(retries=0).stream(prompt="x"))


@pytest.mark.parametrize(
    "raw", [b"[1]", b'{"choices": "x"}', b'{"choices": [3]}', b'{"choices": [{"message": 3}]}', b'{"choices": {"a": 1}}']
)
def test_answers_in_forms_that_nobody_expects_are_errors_of_ours(server: ScriptedServer, build, raw: bytes) -> None:
    server.respond = lambda seen: Reply(raw=raw)
    for ask in (lambda llm: llm(prompt="x"), lambda llm: list(llm.stream(prompt="x"))):
        with pytest.raises(ApiError):
            ask(build(retries=0))


def test_words_that_come_in_pieces_of_a_stream_are_told_whole(server: ScriptedServer, build) -> None:
    server.script(events({"refusal": "I can"}, {"refusal": "not."}, b"[DONE]"))
    with pytest.raises(ApiContentError, match=r"the model refuses: I cannot\."):
        list(build(retries=0).stream(prompt="x"))
    broken = events({"content": "hi"})
    assert broken.raw is not None
    server.script(Reply(raw=broken.raw + b'event: error\ndata: {"message": "the GPU fell off"}\n\n', headers=broken.headers))
    with pytest.raises(ApiTransportError, match="the GPU fell off"):
        list(build(retries=0).stream(prompt="x"))
