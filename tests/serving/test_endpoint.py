"""What a node does when the other side is not what it should be, and what configs may say of endpoints."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("urllib3")

from tests.serving.blocks import graph_of
from tests.serving.scripted import answer, scripted
from tests.world_blocks import around, stage_of, tiny_world
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, EndpointError, PortError, RunTimeoutError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.serving.contracts import contract_of
from wgtorch.serving.endpoint import Endpoint
from wgtorch.serving.remote import remote_child
from wgtorch.serving.server import serving
from wgtorch.serving.wire import CONTENT_TYPE, body
from wgtorch.world import World

X = torch.ones(2)
GIVEN = {"inputs": {"x": "tensor"}, "outputs": {"y": "tensor"}}


def node(url: str, **options: Any) -> Any:
    """A remote graph with a contract given by hand."""
    return remote_child({"endpoint_url": url, "endpoint": {"contract": GIVEN, "retries": 2, **options}}, Graph)


def good(**outputs: Any) -> bytes:
    return answer(content=body({"outputs": outputs}), kind=CONTENT_TYPE)


def test_a_lost_connection_and_a_busy_server_are_tried_again() -> None:
    with scripted(None, answer("503 Busy", Retry_After="0"), good(y=X)) as peer:
        assert torch.equal(node(peer.url).run({"x": X})["y"], X)
        assert len(peer.requests) == 3


def test_tries_come_to_an_end_and_the_error_names_node_and_url() -> None:
    pipeline = Pipeline("p")
    with scripted(None) as peer:
        pipeline.add_graph(node(peer.url), "far")
        pipeline.infer_exposed_ports()
        with pytest.raises(EndpointError, match=f"no answer from {peer.url} after 2 retries") as raised:
            pipeline.run({"x": X}, seed=1)
        assert str(raised.value).startswith("far: ") and raised.value.__notes__ == ["raised in node far of p"]
        assert len(peer.requests) == 3
    with pytest.raises(EndpointError, match="Connection refused. Is its server running"):
        pipeline.run({"x": X})


def test_a_failure_over_there_is_not_tried_again() -> None:
    fault = {"error": {"type": "ZeroDivisionError", "message": "cracked", "findings": [], "node": "a/b"}}
    with scripted(answer("500 Oh", json.dumps(fault).encode())) as peer:
        with pytest.raises(EndpointError, match=r"failed with ZeroDivisionError: cracked, raised in node a/b"):
            node(peer.url).run({"x": X})
        assert len(peer.requests) == 1


def test_a_mistake_of_the_caller_has_the_class_it_would_have_here() -> None:
    with serving(graph_of("serving_test/scale")) as url:
        far = remote_child({"endpoint_url": url, "endpoint": {"contract": {"inputs": {"x": "any"}, "outputs": {"y": "tensor"}}}}, Graph)
        with pytest.raises(EndpointError, match=r"the inputs do not fit; g.x: str 'text'; expected a tensor"):
            far.run({"x": "text"})
        with pytest.raises(PortError, match=r"inputs\.x: object .* cannot be sent"):
            far.run({"x": object()})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer("302 Found", b"{}", Location="http://127.0.0.1:1/"), "answered with status 302"),
        (answer("404 Not Found", b"<html>", "text/html"), "is a wgtorch server there"),
        (answer(content=b"nonsense", kind=CONTENT_TYPE), "gave an answer that cannot be read"),
        (answer(content=b"{}"), "gave an answer that cannot be read"),
        (good(y=X)[:-10], "broke off in the middle of its answer"),
        (good(z=X), "broke its contract: z is not in its contract; y is missing"),
        (good(y="/etc/passwd"), "broke its contract: y is no tensor"),
        (answer(content=body({"outputs": [1]}), kind=CONTENT_TYPE), "gave no outputs"),
        (answer("500 Oh", b"[" * 100_000), "is a wgtorch server there"),
    ],
)
def test_answers_of_something_else_than_our_server(reply: bytes, words: str) -> None:
    with scripted(reply) as peer:
        with pytest.raises(EndpointError) as raised:
            node(peer.url).run({"x": X})
        assert words in str(raised.value) and peer.url in str(raised.value)


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever_and_not_asked_for_again() -> None:
    turns: list[int] = []

    def slow(x: torch.Tensor) -> dict[str, Any]:
        turns.append(1)
        time.sleep(0.3)
        return {"y": x}

    graph = graph_of(Block.wrap(slow, inputs={"x": "tensor"}, outputs={"y": "tensor"}))
    with serving(graph) as url:
        assert torch.equal(node(url).run({"x": X})["y"], X) and turns == [1]
        with pytest.raises(EndpointError, match=r"gave no answer within 0.05 s"):
            node(url, timeout=0.05).run({"x": X})
        pipeline = Pipeline("p")
        pipeline.add_graph(node(url), "far", timeout=0.05)
        pipeline.infer_exposed_ports()
        with pytest.raises(RunTimeoutError, match=r"far took longer than its limit of 0.05 s"):
            pipeline.run({"x": X})
        with pytest.raises((RunTimeoutError, EndpointError), match=r"no answer within|time limit"):
            node(url).run({"x": X}, timeout=0.05)
    assert len(turns) <= 1 + 3, "each was asked for once at most"


def test_the_key_comes_from_the_environment_and_is_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(graph_of("serving_test/scale"), api_key="s3cret") as url:
        far = node(url, api_key_env="WGTORCH_PAINTER_KEY")
        with pytest.raises(EndpointError, match=r"variable WGTORCH_PAINTER_KEY, which is not set"):
            far.run({"x": X})
        monkeypatch.setenv("WGTORCH_PAINTER_KEY", "wrong")
        with pytest.raises(EndpointError, match=r"refuses the call.*api_key_env"):
            far.run({"x": X})
        with pytest.raises(EndpointError, match=r"refuses the call.*api_key_env"):
            Endpoint(url).contract()
        monkeypatch.setenv("WGTORCH_PAINTER_KEY", "s3cret")
        assert torch.equal(far.run({"x": X})["y"], X * 2)
        assert "s3cret" not in str(far.to_config()) + repr(far) + repr(far.endpoint)


def test_a_key_is_not_sent_to_where_an_answer_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_PAINTER_KEY", "s3cret")
    with scripted(good(y=X)) as other, scripted(answer("307 Over there", b"{}", Location=f"{other.url}/run")) as peer:
        with pytest.raises(EndpointError, match="status 307"):
            node(peer.url, api_key_env="WGTORCH_PAINTER_KEY").run({"x": X})
        assert "s3cret" in peer.requests[0] and other.requests == []


def test_a_contract_that_has_changed_since_is_told() -> None:
    with serving(graph_of("serving_test/scale")) as url:
        far = remote_child({"endpoint_url": url}, Graph)
        config = far.to_config()
    changed = {**contract_of(graph_of("serving_test/scale")), "outputs": {"y": "tensor", "z": "tensor"}}
    with serving(graph_of("serving_test/noise")) as url:
        stale = remote_child({**config, "endpoint_url": url, "endpoint": {"contract": {**changed, "digest": "old"}}}, Graph)
        with pytest.raises(EndpointError, match=r"the contract of this endpoint has changed.*Build the caller again"):
            stale.run({"x": X})


def test_a_url_may_come_from_the_environment_and_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(graph_of("serving_test/scale")) as url:
        monkeypatch.setenv("PAINTER_URL", url)
        far = remote_child({"endpoint_url": "${oc.env:PAINTER_URL}"}, Graph)
        assert torch.equal(far.run({"x": X})["y"], X * 2)
        assert far.to_config()["endpoint_url"] == "${oc.env:PAINTER_URL}"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"endpoint_url": "localhost:8000"}, "expected an address such as 'http://localhost:8000'"),
        ({"endpoint_url": "file:///etc/passwd"}, "expected an address"),
        ({"endpoint_url": "http://anna:s3cret@host"}, "holds a password; keys come from the environment"),
        ({"endpoint_url": "http://h", "endpoint": {"api_key_env": "AWS_SECRET_ACCESS_KEY"}}, "name begins with 'WGTORCH_'"),
        ({"endpoint_url": "http://h", "endpoint": {"retires": 3}}, "Did you mean 'retries'"),
        ({"endpoint_url": "http://h", "endpoint": {"timeout": 0}}, "endpoint.timeout"),
        ({"endpoint_url": "http://h", "endpoint": {"contract": {"inputs": {}}}}, "contract.outputs: missing"),
        ({"endpoint_url": "http://h", "endpoint": {"contract": {**GIVEN, "imputs": 1}}}, "did you mean 'inputs'"),
        ({"endpoint_url": "http://h", "endpoint": {"contract": {"inputs": {"x": "tenser"}, "outputs": {}}}}, "did you mean 'tensor'"),
        ({"endpoint_url": "http://h", "endpoint": {"contract": {**GIVEN, "level": "world"}}}, "serves a world; a Graph is needed here"),
        ({"endpoint_url": 3}, "expected string"),
        ({"endpoint_url": "http://h", "url": 3}, "unknown key"),
    ],
)
def test_configs_that_are_not_valid(config: dict[str, Any], words: str) -> None:
    pipeline = Pipeline("p")
    with pytest.raises(ConfigError) as raised:
        pipeline.add_graph(config, "far")
    assert words in str(raised.value) and "s3cret" not in str(raised.value)
    with pytest.raises(ConfigError):
        Pipeline.from_config({"kind": "pipeline", "pipeline_id": "p", "nodes": [{"node_id": "far", **config}]})
    assert list(pipeline.nodes) == []


def test_an_endpoint_of_another_level_is_refused_and_a_stages_contract_must_be_whole() -> None:
    with serving(around("world_test/look", "look")) as url:
        with pytest.raises(ConfigError, match="serves a pipeline; a Graph is needed here"):
            Pipeline("p").add_graph({"endpoint_url": url})
        with pytest.raises(ConfigError, match="serves a pipeline; a Stage is needed here"):
            World("w").add_stage({"endpoint_url": url})
    contract = contract_of(stage_of("s", "world_test/tell", ["intent"], ["outcome"]))
    for broken in ({}, {"role": "x"}, {**contract["stage"], "ports": {}}, {**contract["stage"], "nodes": 3}):
        with pytest.raises(ConfigError, match="contract"):
            World("w").add_stage({"endpoint_url": "http://h", "endpoint": {"contract": {**contract, "stage": broken}}})


def test_an_unknown_key_beside_a_stage_at_an_endpoint_is_named_with_its_path() -> None:
    config = tiny_world().to_config()
    config["stages"]["author"] = {"endpoint_url": "http://h", "role": "author"}
    with pytest.raises(ConfigError, match=r"stages\.author\.role: unknown key"):
        World.from_config(config)
    config["stages"]["author"] = {**tiny_world().to_config()["stages"]["author"], "rool": 1}
    with pytest.raises(ConfigError, match=r"stages\.author\.rool: unknown key. Did you mean 'role'\?"):
        World.from_config(config)


def test_nobody_at_the_url_when_a_contract_is_to_be_fetched() -> None:
    with scripted(None) as peer:
        pass
    with pytest.raises(EndpointError, match=f"no answer from {peer.url}"):
        Pipeline("p").add_graph({"endpoint_url": peer.url, "endpoint": {"retries": 0}})
    with scripted(answer(content=b'{"hello": 1}')) as peer, pytest.raises(EndpointError, match="GET /spec gave no contract"):
        Pipeline("p").add_graph({"endpoint_url": peer.url})
