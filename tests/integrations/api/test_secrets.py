"""Keys appear nowhere: what a run leaves behind is searched for them."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from pathlib import Path

import pytest

from tests.integrations.api.answering_world import respond, world_of
from wgtorch import BlockRegistry, Event
from wgtorch.core.errors import ConfigError
from wgtorch.integrations.api import cassette, clients
from wgtorch.integrations.api.secrets import Secret
from wgtorch.integrations.models.errors import ApiAuthenticationError, ApiError
from wgtorch.testing import Reply, ScriptedServer

KEY = "sk-proj-THE/secret+KEY.0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_API_KEY", KEY)


def test_nothing_that_a_run_leaves_behind_holds_the_key(build, server: ScriptedServer, tmp_path: Path, caplog, capfd) -> None:
    server.respond, server.key = respond, KEY
    caplog.set_level(logging.DEBUG)
    events: list[Event] = []
    world = world_of(build, api_key_env="WORLD_API_KEY")
    world.set_storage({"state_dir": str(tmp_path / "life")})
    with cassette(tmp_path / "tape.sqlite", mode="record"):
        world.run(num_steps=2, seed=1, callbacks=[events.append])
        world.save(tmp_path / "saved")
        world.save_checkpoint(tmp_path / "saved.wgt", format="archive")
        world.save_config(tmp_path / "world.yaml")
        server.key = "another"
        failed = ""
        for _ in range(2):
            with pytest.raises(ApiAuthenticationError) as caught:
                world.run(num_steps=1, callbacks=[events.append])
            failed += "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(caught.value))
    page = world.report(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in server.requests) and len(server.requests) > 10
    assert "***" in failed and "Incorrect API key provided" in failed
    assert caught.value.__cause__ is None and caught.value.__context__ is None

    said = [
        failed,
        page._repr_html_(),
        repr(world),
        str(world.to_config()),
        repr(events),
        caplog.text,
        *capfd.readouterr(),
        repr(clients()),
        str(vars(clients()[0])),
    ]
    said += [str(block.__dict__) for block in world.modules()] + [repr(world.life), str(server.requests[0].body)]
    for text in said:
        assert KEY not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
    assert KEY.encode() not in pickle.dumps(copy.deepcopy(world).state) + pickle.dumps(world.stages if hasattr(world, "stages") else 0)


def test_blocks_can_be_copied_and_pickled_and_take_no_key_along(build, server: ScriptedServer) -> None:
    llm = build(api_key_env="WORLD_API_KEY")
    assert llm(prompt="x")["text"] == "x"
    written = pickle.dumps(llm)
    assert KEY.encode() not in written
    assert pickle.loads(written)(prompt="y")["text"] == copy.deepcopy(llm)(prompt="y")["text"] == "y"


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {[secret]}" and secret.scrub(f"a {KEY} b") == "a *** b"
    with pytest.raises(TypeError, match="never written"):
        pickle.dumps(secret)
    assert secret.scrub("sk-proj-THE%2Fsecret%2BKEY.0123456789") == "***"


@pytest.mark.parametrize(
    "config",
    [
        {"api_key_env": KEY},
        {"api_key": KEY},
        {"endpoint_url": f"https://user:{KEY.replace('/', '')}@host/v1"},
        {"endpoint_url": f"https://host/v1?key={KEY}"},
    ],
)
def test_a_key_in_a_config_is_refused_and_not_repeated(config: dict) -> None:
    with pytest.raises(ConfigError) as caught:
        BlockRegistry.build({"block_type": "llm", "config": {"model_id": "m", **config}})
    assert "secret" not in str(caught.value)


def test_a_key_goes_to_its_providers_own_address_only(build, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    build()(prompt="x")
    build("llm/anthropic")(prompt="x")
    assert len(server.requests) == 2
    for seen in server.requests:
        assert KEY not in str(seen.headers)


def test_another_key_is_another_client(build, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = build(api_key_env="WORLD_API_KEY")
    llm(prompt="x")
    monkeypatch.setenv("WORLD_API_KEY", "sk-second-0123456789")
    llm(prompt="y")
    assert len(clients()) == 2 and server.requests[1].headers["authorization"] == "Bearer sk-second-0123456789"


def test_words_of_a_provider_are_scrubbed_of_anything_like_a_key(build, server: ScriptedServer) -> None:
    server.script(Reply("bad key sk-abcdef123456, or Bearer abcdef.123456", status=401))
    with pytest.raises(ApiAuthenticationError, match=r"bad key \*\*\*, or \*\*\*"):
        build()(prompt="x")


@pytest.mark.parametrize("provider", ["openai", "openai_responses", "anthropic"])
def test_headers_of_a_gateway_come_from_the_environment_and_are_shown_to_nobody(
    build, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    secret = "gateway/Secret+1234"
    monkeypatch.setenv("WGTORCH_GATEWAY", secret)
    url = server.anthropic_url if provider == "anthropic" else server.url
    gateway = {"headers_env": {"X-Gateway-Token": "WGTORCH_GATEWAY"}, "query": {"api-version": "2026-10-01"}}
    llm = build(provider=provider, endpoint_url=url, **gateway)
    llm(prompt="x")
    seen = server.requests[-1]
    assert seen.headers["x-gateway-token"] == secret and seen.path.endswith("?api-version=2026-10-01")
    server.script(Reply(f"who is {secret}?", status=400, code="odd"))
    with pytest.raises(ApiError, match=r"who is \*\*\*\?") as caught:
        llm(prompt="y")
    for said in (repr(caught.value), repr(llm.config), repr(clients()), str(vars(clients()[0])), repr(llm.backend.address)):
        assert secret not in said
    monkeypatch.setenv("WGTORCH_GATEWAY", "another")
    llm(prompt="x")
    assert server.requests[-1].headers["x-gateway-token"] == "another", "another value is another client"
    monkeypatch.delenv("WGTORCH_GATEWAY")
    with pytest.raises(
        ApiAuthenticationError, match="no value of the header X-Gateway-Token, expected one in the environment; set WGTORCH_GATEWAY"
    ):
        llm(prompt="x")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"headers_env": {"X-Gateway-Token": KEY}}, "headers_env.X-Gateway-Token: expected the name of a variable"),
        ({"headers_env": {"Host": "WGTORCH_GATEWAY"}}, "found 'Host', expected the name of a header that a gateway reads"),
        ({"headers_env": {"X-A\r\nX-B": "WGTORCH_GATEWAY"}}, "expected the name of a header"),
        ({"headers_env": ["X-A"]}, "expected headers with the variables of their values"),
        ({"query": {"api_key": KEY}}, "query.api_key: looks like a key"),
        ({"query": "api-version=1"}, "query: found str, expected names with values"),
    ],
    ids=["a key", "own", "two", "list", "query", "text"],
)
def test_headers_and_queries_that_are_none_are_refused_without_their_value(build, wrong: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(**wrong)
    assert KEY not in str(caught.value)
