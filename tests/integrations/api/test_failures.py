"""What goes wrong on the way: what is tried again, what is not, and what the error says."""

from __future__ import annotations

import email.utils
import pickle
from datetime import UTC, datetime, timedelta

import pytest

from tests.waiting import at_some_pace, wait_until
from wgtorch import Graph
from wgtorch.integrations.api.failures import _retry_after
from wgtorch.integrations.models.errors import (
    ApiAnswerError,
    ApiAuthenticationError,
    ApiContentError,
    ApiError,
    ApiQuotaError,
    ApiRequestError,
    ApiTransportError,
)
from wgtorch.testing import Reply, ScriptedServer, refusal

BOTH = pytest.mark.parametrize("block_type", ["llm", "llm/anthropic"])


@BOTH
def test_a_limit_is_waited_for_as_long_as_the_provider_asks(server: ScriptedServer, build, block_type: str) -> None:
    server.script(Reply("slow down", status=429, headers={"Retry-After": "0.3"}), "fine")
    assert build(block_type)(prompt="x")["text"] == "fine"
    first, second = server.requests
    assert second.began - first.ended >= 0.3


def test_what_one_caller_is_told_to_wait_holds_for_all(server: ScriptedServer, build) -> None:
    server.script(Reply("slow down", status=429, headers={"Retry-After": "0.3"}))
    out = build(limits={"in_flight": 1})(prompt=["a", "b", "c"])
    assert sorted(out["text"]) == ["a", "b", "c"]
    assert min(seen.began for seen in server.requests[1:]) - server.requests[0].ended >= 0.3


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("Sun Nov  6 08:49:37 1994", 0.0)],
)
def test_waits_are_said_in_seconds_or_as_a_date(said: str, seconds: float) -> None:
    assert _retry_after({"retry-after": said}) == seconds
    assert _retry_after({"retry-after": said, "retry-after-ms": "250"}) == 0.25
    soon = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert _retry_after({"retry-after": soon}) == pytest.approx(90, abs=5)


@pytest.mark.parametrize("said", ["soon", "soon, please", "", "99, 99 Nov 9999999 99:99:99"])
def test_a_wait_that_says_nothing_is_none(server: ScriptedServer, build, said: str) -> None:
    server.script(Reply("slow down", status=429, headers={"Retry-After": said}), "fine")
    assert build()(prompt="x")["text"] == "fine" and _retry_after({"retry-after": said}) is None


def test_a_wait_that_is_too_long_is_an_error_at_once(server: ScriptedServer, build) -> None:
    server.script(Reply("come back tomorrow", status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(ApiQuotaError, match=r"openai tiny: status 429, come back tomorrow \(the provider asks to wait 86400 s\)"):
        build()(prompt="x")
    assert len(server.requests) == 1


@BOTH
def test_a_storm_of_errors_is_weathered_or_told(server: ScriptedServer, build, block_type: str) -> None:
    server.script(*[Reply("overloaded", status=status) for status in (500, 529, 503, 502)], "fine")
    assert build(block_type)(prompt="x")["text"] == "fine"
    server.script(*[Reply("overloaded", status=500)] * 3)
    with pytest.raises(ApiTransportError, match=r"tiny: status 500, overloaded after 3 tries") as caught:
        build(block_type, retries=2)(prompt="x")
    assert (caught.value.status, caught.value.model) == (500, "tiny") and isinstance(caught.value, ConnectionError)
    assert pickle.loads(pickle.dumps(caught.value)).status == 500


@BOTH
def test_a_server_that_hangs_is_given_up_and_asked_again(server: ScriptedServer, build, block_type: str) -> None:
    server.respond = lambda seen: "fine"

    def check(limit: float) -> None:
        server.script(Reply(hang=True))
        assert build(block_type, timeout=limit)(prompt="x")["text"] == "fine"

    at_some_pace(check, 0.3, 3.0, 15.0)
    server.script(Reply(hang=True))
    with pytest.raises(ApiTransportError, match="no whole answer in time"):
        build(block_type, timeout=0.3, retries=0)(prompt="x")


def test_a_slow_drip_does_not_hold_a_call_for_ever(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: "fine"

    def check(limit: float) -> None:
        server.script(Reply("a long answer that never ends", drip=0.3))
        assert build(timeout=limit)(prompt="x")["text"] == "fine"

    at_some_pace(check, 0.4, 3.0, 15.0)
    wait_until(lambda: server.requests[0].ended)
    assert server.requests[0].left


@BOTH
def test_a_truncated_stream_is_asked_for_again(server: ScriptedServer, build, block_type: str) -> None:
    graph = Graph("chat")
    graph.add_node(build(block_type, stream=True), "llm")
    graph.infer_exposed_ports()
    server.script(Reply("one two three", cut=4), "one two three")
    parts = []
    out = graph.run({"prompt": "x"}, callbacks=[lambda event: parts.append(event.outputs) if event.kind == "chunk" else None])
    assert out["text"] == "one two three"
    begun = [part["restart"] for part in parts].index(True)
    assert "".join(part["text"] for part in parts[begun:]) == "one two three" and begun > 0


@pytest.mark.parametrize("raw", [b"{not json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 5}}]}', b"<html>"])
def test_answers_that_are_none_are_asked_for_again_and_then_told(server: ScriptedServer, build, raw: bytes) -> None:
    server.script(Reply(raw=raw), "fine")
    assert build()(prompt="x")["text"] == "fine"
    server.script(Reply(raw=raw), Reply(raw=raw))
    with pytest.raises(ApiAnswerError, match="after 2 tries"):
        build(retries=1)(prompt="x")


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (b'{"error": {"message": "quota is gone", "code": 429}}', ApiQuotaError, "status 429, quota is gone"),
        (b'{"choices": null, "error": {"message": "no such model", "code": 404}}', ApiRequestError, "status 404, no such model"),
        (b'{"choices": null, "detail": "the model is loading"}', ApiAnswerError, "holds no message, and says: the model is loading"),
        (b'{"error": {"message": {"en": "words by language"}}}', ApiAnswerError, "words by language"),
        (b"<html><title>Log in</title></html>", ApiAnswerError, "it says: Log in"),
    ],
    ids=["limit", "request", "detail", "by language", "page"],
)
def test_an_error_told_with_status_200_keeps_its_words_and_kind(server: ScriptedServer, build, raw: bytes, kind, words: str) -> None:
    server.script(Reply(raw=raw))
    with pytest.raises(kind, match=words):
        build(retries=0)(prompt="x")


def test_broken_pictures_and_sound_are_asked_for_again(server: ScriptedServer, build) -> None:
    server.script(Reply(image=b"GIF89a"))
    assert build("image_generator")(prompt="x")["image"].shape == (1, 3, 16, 16)
    server.script(Reply(audio=b"MP3"))
    assert build("text_to_speech")(text="x")["sampling_rate"] == 8000
    server.script(Reply(vectors=[[1.0]]))
    assert build("embedder")(text=["x", "y"])["embedding"].shape == (2, 8)
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (refusal("not this"), ApiContentError, "status 400, not this"),
        (Reply(refusal="I will not"), ApiContentError, "the model refuses: I will not"),
        (Reply("half", finish="content_filter"), ApiContentError, "cut by the content filter"),
        (Reply("who are you", status=401), ApiAuthenticationError, "status 401, who are you"),
        (Reply("not yours", status=403), ApiAuthenticationError, "status 403"),
        (Reply("no money", status=429, code="insufficient_quota"), ApiQuotaError, "status 429, no money"),
        (Reply("no such model", status=404), ApiRequestError, "status 404, no such model"),
        (Reply("too long", status=400), ApiRequestError, "Check model_id and options"),
    ],
)
def test_failures_that_stay_are_told_at_once_each_in_its_class(server: ScriptedServer, build, reply, kind, words: str) -> None:
    server.script(reply)
    with pytest.raises(kind, match=words) as caught:
        build()(prompt="x")
    assert len(server.requests) == 1 and caught.value.provider == "openai"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(refusal="no"), ApiContentError),
        (Reply("billing", status=402), ApiQuotaError),
        (Reply("who", status=401, code="authentication_error"), ApiAuthenticationError),
        (Reply("what", status=400, code="invalid_request_error"), ApiRequestError),
    ],
)
def test_anthropics_failures_have_the_same_classes(server: ScriptedServer, build, reply: Reply, kind: type[ApiError]) -> None:
    server.script(reply)
    with pytest.raises(kind):
        build("llm/anthropic")(prompt="x")
    assert len(server.requests) == 1


def test_an_error_names_the_node(server: ScriptedServer, build) -> None:
    graph = Graph("chat")
    graph.add_node(build(), "author")
    graph.infer_exposed_ports()
    server.script(refusal())
    with pytest.raises(ApiContentError) as caught:
        graph.run({"prompt": "x"})
    assert caught.value.__notes__ == ["raised in node author of chat"]


def test_nobody_listens_at_the_address(build) -> None:
    with pytest.raises(ApiTransportError, match=r"no connection.*Check the network and endpoint_url"):
        build(endpoint_url="http://127.0.0.1:9/v1", retries=1)(prompt="x")


def test_a_missing_key_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, build, server: ScriptedServer) -> None:
    with pytest.raises(ApiAuthenticationError, match="set OTHER_API_KEY"):
        build(api_key_env="OTHER_API_KEY")(prompt="x")
    with pytest.raises(ApiAuthenticationError, match="set OPENAI_API_KEY"):
        build(endpoint_url=None)(prompt="x")
    assert server.requests == []
