"""Keys that a config from a file asks for: which, and where they may be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wgtorch import Graph
from wgtorch.core.errors import ConfigError
from wgtorch.core.trust import Trust
from wgtorch.integrations.api.providers import Providers
from wgtorch.testing import ScriptedServer

KEYS = ("AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "WGTORCH_LLM_KEY")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, f"secret-of-{name}")


def config_of(**config: Any) -> dict[str, Any]:
    node = {"node_id": "l", "block_type": config.pop("block_type", "llm"), "config": {"model_id": "m", **config}}
    ends = {"exposed_inputs": [{"node_id": "l", "port_name": "prompt", "name": "prompt"}]}
    ends |= {"exposed_outputs": [{"node_id": "l", "port_name": "text", "name": "text"}]}
    return {"kind": "graph", "graph_id": "g", "nodes": [node], **ends}


def file_of(folder: Path, **config: Any) -> Path:
    path = folder / "g.yaml"
    path.write_text(yaml.safe_dump(config_of(**config)))
    return path


@pytest.mark.parametrize(
    "config",
    [
        {"provider": "openai", "endpoint_url": "http://somewhere", "api_key_env": "AWS_SECRET_ACCESS_KEY"},
        {"provider": "openai", "api_key_env": "AWS_SECRET_ACCESS_KEY"},
        {"provider": "openai", "endpoint_url": "http://somewhere", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "openai", "endpoint_url": "https://api.openai.com.somewhere/v1", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "openai", "endpoint_url": "https://somewhere/api.openai.com", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "openai", "endpoint_url": "http://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "vllm", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "anthropic", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "anthropic", "endpoint_url": "https://api.openai.com/v1", "api_key_env": "ANTHROPIC_API_KEY"},
        {"block_type": "embedder", "provider": "openai", "endpoint_url": "http://somewhere", "api_key_env": "OPENAI_API_KEY"},
    ],
)
def test_a_file_sends_no_key_elsewhere(config: dict[str, Any], tmp_path: Path) -> None:
    graph = config_of(**config)
    if config.get("block_type") == "embedder":
        graph |= {"exposed_inputs": [], "exposed_outputs": []}
    path = tmp_path / "g.yaml"
    path.write_text(yaml.safe_dump(graph))
    name = config["api_key_env"]
    words = rf"g.yaml: g/l: .*\.api_key_env: sends the environment variable {name} to http.*trust=Trust\(env=\('{name}',\)\)"
    with pytest.raises(ConfigError, match=words):
        Graph.from_yaml(path)
    Graph.from_config(graph).save(tmp_path / "saved")
    with pytest.raises(ConfigError, match=rf"g/l: .*{name}"):
        Graph.load(tmp_path / "saved")
    for trust in (True, Trust(env=(name,))):
        Graph.from_yaml(path, trust=trust)
        Graph.load(tmp_path / "saved", trust=trust)


def test_a_providers_key_may_go_home_and_to_addresses_that_the_caller_names(tmp_path: Path, server: ScriptedServer) -> None:
    for more in ({}, {"api_key_env": "OPENAI_API_KEY"}, {"api_key_env": "OPENAI_API_KEY", "endpoint_url": "https://api.openai.com/v1/"}):
        address = Graph.from_yaml(file_of(tmp_path, provider="openai", **more)).nodes["l"].backend.address
        assert address.key_variable == "OPENAI_API_KEY" and address.endpoint == Providers.get("openai").endpoint
    path = file_of(tmp_path, provider="openai", endpoint_url=server.url, api_key_env="OPENAI_API_KEY")
    Graph.from_yaml(path, trust=Trust(endpoints=(server.url,))).run({"prompt": "hello"})
    assert server.requests[0].headers["authorization"] == "Bearer secret-of-OPENAI_API_KEY"
    for other in ("https://elsewhere", server.url.replace("http:", "https:"), "http://127.0.0.1:1"):
        with pytest.raises(ConfigError, match="sends the environment variable OPENAI_API_KEY"):
            Graph.from_yaml(path, trust=Trust(endpoints=(other,)))
    foreign = file_of(tmp_path, provider="openai", endpoint_url=server.url, api_key_env="AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY"):
        Graph.from_yaml(foreign, trust=Trust(endpoints=(server.url,)))


def test_what_reaches_an_address_that_a_file_names(tmp_path: Path, server: ScriptedServer) -> None:
    for more in ({}, {"api_key_env": "WGTORCH_LLM_KEY"}):
        Graph.from_yaml(file_of(tmp_path, provider="openai", endpoint_url=server.url, **more)).run({"prompt": "hello"})
    plain, keyed = server.requests
    assert not any(name in str(plain.headers) for name in KEYS)
    assert keyed.headers["authorization"] == "Bearer secret-of-WGTORCH_LLM_KEY"
    with pytest.raises(ConfigError, match="g/l: llm: system: reads the environment variable AWS_SECRET_ACCESS_KEY"):
        Graph.from_yaml(file_of(tmp_path, endpoint_url=server.url, system="${oc.env:AWS_SECRET_ACCESS_KEY}"))
    assert len(server.requests) == 2


def test_an_address_from_the_environment_is_an_address_that_the_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_URL", "http://somewhere")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY to http://somewhere"):
        Graph.from_yaml(file_of(tmp_path, endpoint_url="${oc.env:WGTORCH_URL}", api_key_env="OPENAI_API_KEY"))


def test_what_the_caller_writes_is_the_callers(server: ScriptedServer) -> None:
    given = {"provider": "openai", "endpoint_url": server.url, "api_key_env": "AWS_SECRET_ACCESS_KEY"}
    Graph.from_config(config_of(**given)).run({"prompt": "hello"})
    graph = Graph("g")
    graph.add_node("llm", "l", config={"model_id": "m", **given})
    graph.infer_exposed_ports()
    graph.run({"prompt": "hello"})
    assert {seen.headers["authorization"] for seen in server.requests} == {"Bearer secret-of-AWS_SECRET_ACCESS_KEY"}
