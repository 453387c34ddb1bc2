"""Every config of docs/model_servers.md is built and asked, at a server that speaks its protocol."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import CheckpointError, MissingExtraError
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.api.providers import Providers
from wgtorch.testing import ScriptedServer

PAGE = Path(__file__).parents[3] / "docs" / "model_servers.md"


def configs() -> list[dict[str, Any]]:
    """One for each line in braces, else one for the whole example."""
    found: list[dict[str, Any]] = []
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S):
        parts = text.splitlines() if text.startswith("{") else [text]
        found += [config for part in parts if isinstance(config := yaml.safe_load(part), dict)]
    return found


REMOTE = [config for config in configs() if "provider" in config]
HERE = [config for config in configs() if "backend" in config]


def test_the_page_names_every_provider_and_every_backend_of_a_language_model() -> None:
    ours = {name for name in Providers.names() if not name.startswith("test_")}  # other tests register some
    assert {config["provider"] for config in REMOTE} == ours and len(REMOTE) >= 12
    assert {config["backend"] for config in HERE} == {"local", "llama_cpp", "static", "onnx"}


@pytest.mark.parametrize("config", REMOTE, ids=lambda config: "-".join(map(str, config.values()))[:60])
def test_a_config_of_an_api_is_asked(server: ScriptedServer, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands on the page, but for the address."""
    secrets = {
        config.get("api_key_env") or "WGTORCH_PAGE_KEY": "sk-page-123456",
        **dict.fromkeys(config.get("headers_env", {}).values(), "token"),
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    url = server.anthropic_url if config["provider"] == "anthropic" else server.url
    given = {"api_key_env": "WGTORCH_PAGE_KEY", **config, "endpoint_url": url, "retries": 0}
    llm = BlockRegistry.build({"block_type": "llm", "config": given})
    assert llm(prompt="the sea", rng=Rng(1, "x"))["text"] == "the sea"
    assert "".join(llm.stream(prompt="the sea")) == "the sea"
    server.respond = lambda seen: '{"a": 7}'
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert llm(prompt="the sea", schema=schema)["data"] == {"a": 7}
    for seen in server.requests:
        assert "sk-page-123456" in (seen.headers.get("authorization", "") + seen.headers.get("x-api-key", ""))
        assert all(seen.headers[name.lower()] == "token" for name in config.get("headers_env", {}))
        assert all(f"{name}={value}" in seen.path for name, value in config.get("query", {}).items())
        assert config.get("options", {}).items() <= seen.body.items()


@pytest.mark.parametrize("config", HERE, ids=lambda config: "-".join(map(str, config.values())))
def test_a_config_of_a_model_that_is_here_misses_nothing_but_its_file(config: dict[str, Any]) -> None:
    kind = "embedder" if config["backend"] in ("static", "onnx") else "llm"
    with suppress(CheckpointError, MissingExtraError):  # anything else is a fault of the config
        BlockRegistry.build({"block_type": kind, "config": config})
