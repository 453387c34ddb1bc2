"""What servers refuse is learnt once, remembered for their address and model, and never costs an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from wgtorch.core.run.rng import Rng
from wgtorch.integrations.api import close_clients
from wgtorch.integrations.api.capabilities import Capabilities, forget, known_of, remember
from wgtorch.integrations.models.errors import ApiAuthenticationError, ApiError, ApiRequestError, ApiTransportError
from wgtorch.testing import Reply, ScriptedServer
from wgtorch.testing.replies import Seen

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def refusal(body: Any, status: int = 400) -> Reply:
    return Reply(raw=json.dumps(body).encode(), status=status)


def refusing(is_refused: Callable[[dict[str, Any]], bool], answer: Reply, text: str = "fine") -> Callable[[Seen], Reply | str]:
    return lambda seen: answer if is_refused(seen.body) else text


def form_of(body: dict[str, Any]) -> str:
    return (body.get("response_format") or {}).get("type", "words")


def has_system(body: dict[str, Any]) -> bool:
    return any(turn["role"] == "system" for turn in body["messages"])


CASES: dict[str, tuple[Callable[[dict[str, Any]], bool], Reply, Callable[[Any], Any], int]] = {
    "system": (
        has_system,
        refusal({"error": {"message": "System role not supported"}}),
        lambda build: build(system="Be brief.")(prompt="x"),
        2,
    ),
    "system in a template": (
        has_system,
        refusal({"error": {"message": "Jinja: Conversation roles must alternate user/assistant"}}, 500),
        lambda build: build(system="Be brief.", retries=0)(prompt="x"),
        2,
    ),
    "max_tokens": (
        lambda body: "max_tokens" in body,
        refusal({"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "param": "max_tokens"}}),
        lambda build: build(max_tokens=5)(prompt="x"),
        2,
    ),
    "seed": (
        lambda body: "seed" in body,
        refusal({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, 422),
        lambda build: build()(prompt="x", rng=Rng(3, "place")),
        2,
    ),
    "stream_options": (
        lambda body: "stream_options" in body,
        refusal({"detail": "Unknown field: stream_options"}),
        lambda build: list(build().stream(prompt="x")),
        2,
    ),
    "streaming": (
        lambda body: "stream" in body,
        refusal({"error": {"message": "Streaming is not supported for this model"}}),
        lambda build: list(build().stream(prompt="x")),
        2,
    ),
    "response_format of pictures": (
        lambda body: "response_format" in body,
        refusal({"error": {"message": "Unknown parameter: 'response_format'."}}),
        lambda build: build("image_generator")(prompt="x"),
        2,
    ),
    "picture as an object": (
        lambda body: isinstance(body["messages"][0]["content"][0].get("image_url"), dict),
        refusal({"error": "messages.0.content.0.image_url: expected a string"}, 422),
        lambda build: build("vlm")(image=torch.zeros(3, 4, 4), prompt="x"),
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "Only user and assistant roles are supported!",
        "messages.0.role: Input should be 'user' or 'assistant'",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "System role not supported",
    ],
)
def test_a_server_without_a_system_role_says_so_in_many_words(server: ScriptedServer, build, words: str) -> None:
    server.respond = lambda seen: Reply(words, status=400) if has_system(seen.body) else seen.prompt
    llm = build(system="Be brief.", retries=0)
    assert [llm(prompt="x")["text"] for _ in range(2)] == ["Be brief.\n\nx"] * 2 and len(server.requests) == 3


@pytest.mark.parametrize("name", list(CASES))
def test_what_a_server_refuses_is_left_out_or_said_otherwise(server: ScriptedServer, build, name: str) -> None:
    is_refused, answer, ask, calls = CASES[name]
    server.respond = refusing(is_refused, answer)
    ask(build)
    assert len(server.requests) == calls
    ask(build)
    assert len(server.requests) == calls + 1, "what was learnt is sent right at once"


def test_what_was_refused_goes_another_way(server: ScriptedServer, build) -> None:
    server.respond = refusing(has_system, CASES["system"][1])
    build(system="Be brief.")(prompt="Name a colour.")
    assert server.requests[-1].prompt == "Be brief.\n\nName a colour."
    close_clients()
    server.respond = refusing(*CASES["max_tokens"][:2])
    build(max_tokens=5)(prompt="x")
    assert server.requests[-1].body["max_completion_tokens"] == 5
    close_clients()
    server.respond = refusing(lambda body: "stop" in body, refusal({"error": "unknown field 'stop'"}), "one END two")
    assert build(stop="END")(prompt="x")["text"] == "one ", "a stop text that the server does not know of still ends the answer"


@pytest.mark.parametrize("words", ["response_format is not supported", "bad request", "json_schema: unknown variant"])
@pytest.mark.parametrize("knows", ["json_object", "words"])
def test_a_schema_is_asked_for_in_the_strictest_way_that_works(server: ScriptedServer, build, words: str, knows: str) -> None:
    refused = ("json_schema",) if knows == "json_object" else ("json_schema", "json_object")
    server.respond = refusing(lambda body: form_of(body) in refused, refusal({"error": words}), '{"a": 1}')
    assert build(schema=SCHEMA)(prompt="x")["data"] == {"a": 1}
    assert form_of(server.requests[-1].body) == knows and len(server.requests) == len(refused) + 1
    assert '"required": ["a"]' in server.requests[-1].system
    build(schema=SCHEMA)(prompt="y")
    assert len(server.requests) == len(refused) + 2


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"error": "model 'm' not found, try pulling it first"}, 404, ApiRequestError, "try pulling it first"),
        ({"error": {"message": "The model `m` does not exist"}}, 400, ApiRequestError, "does not exist"),
        ({"detail": "Not Found"}, 404, ApiRequestError, "Not Found"),
        ({"detail": [{"loc": ["body", "logit_bias"], "msg": "not a dictionary"}]}, 422, ApiRequestError, "logit_bias: not a dictionary"),
        ([{"error": {"message": "API key not valid", "code": 400}}], 400, ApiAuthenticationError, "API key not valid"),
        ({"error": {"message": "temperature must be between 0 and 2"}}, 400, ApiRequestError, "between 0 and 2"),
        ({"message": "slow down"}, 503, ApiTransportError, "slow down"),
        ({"error": {"message": "Failed", "metadata": {"raw": '{"error":"it is full"}'}}}, 502, ApiTransportError, "it is full"),
        ({"errors": ["no such model", "second"]}, 400, ApiRequestError, "no such model; second"),
    ],
    ids=["missing", "missing in words", "detail", "place", "list", "value", "message", "raw", "errors"],
)  # fmt: skip
def test_other_errors_stay_errors_after_one_request_in_the_providers_words(
    server: ScriptedServer, build, body: Any, status: int, kind: type[ApiError], words: str
) -> None:
    server.respond = lambda seen: refusal(body, status)
    with pytest.raises(kind, match=words) as caught:
        build(schema=SCHEMA, temperature=0.5, max_tokens=9, system="Be brief.", retries=0)(prompt="x")
    assert len(server.requests) == 1 and type(caught.value) is kind and caught.value.status == status


def test_a_page_of_a_proxy_is_told_in_its_words(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: Reply(raw=b"<html><style>b {}</style><body><h1>502</h1> Bad Gateway</body></html>", status=502)
    with pytest.raises(ApiTransportError, match="502 Bad Gateway"):
        build(retries=0)(prompt="x")


def test_pictures_at_an_address_are_fetched(server: ScriptedServer, build) -> None:
    from wgtorch.testing.protocols import _picture

    content = _picture(Seen("/", {}, b"{}", 0.0))

    def respond(seen: Seen) -> Reply:
        if seen.path.endswith("/pictures/x.png"):
            return Reply(raw=content)
        return Reply(raw=json.dumps({"data": [{"url": server.anthropic_url + "/pictures/x.png"}]}).encode())

    server.respond = respond
    assert build("image_generator")(prompt="x")["image"].shape == (1, 3, 16, 16)
    assert "authorization" not in server.requests[-1].headers
    server.respond = lambda seen: Reply(raw=b'{"data": [{"url": "file:///etc/passwd"}]}')
    with pytest.raises(ApiError, match="not followed"):
        build("image_generator", retries=0)(prompt="x")


def test_what_was_learnt_is_kept_for_the_next_process_but_not_of_this_machine(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_CACHE", str(tmp_path))
    forget()
    learnt = Capabilities(without=("seed",), schema="words", system="user")
    remember("https://llm.example.org/v1", "m", "complete", learnt)
    remember("http://127.0.0.1:8000/v1", "m", "complete", learnt)
    forget()
    assert known_of("https://llm.example.org/v1", "m", "complete") == learnt
    assert (
        known_of("https://llm.example.org/v1", "other", "complete")
        == known_of("http://127.0.0.1:8000/v1", "m", "complete")
        == Capabilities()
    )
    (tmp_path / "api_capabilities.json").write_text("{broken")
    forget()
    assert known_of("https://llm.example.org/v1", "m", "complete") == Capabilities()
    forget()


def test_a_server_that_knows_no_stream_may_answer_in_one_piece(server: ScriptedServer, build) -> None:
    server.script(Reply(raw=b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "whole"}}]}'))
    assert list(build().stream(prompt="x")) == ["whole"] and server.requests[0].body["stream"] is True
