"""A scripted provider for every test, and blocks that ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wgtorch import Block, BlockRegistry
from wgtorch.integrations.api import close_clients, prices
from wgtorch.testing import ScriptedServer

pytest.importorskip("openai")
pytest.importorskip("anthropic")

Build = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _own_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients and prices of one test are not those of another, whose server had the same port; no key but a test's own is there."""
    monkeypatch.setattr(prices, "_own", {})
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "WGTORCH_API_MODE", "WGTORCH_API_CASSETTE"):
        monkeypatch.delenv(name, raising=False)
    yield
    close_clients()


@pytest.fixture
def build(server: ScriptedServer) -> Build:
    """Builds a block that asks the server; it is quick to try again."""

    def build(block_type: str = "llm", **config: Any) -> Block:
        protocol = config.get("provider", "anthropic" if block_type.endswith("anthropic") else "openai")
        url = server.anthropic_url if protocol == "anthropic" else server.url
        given = {"model_id": "tiny", "endpoint_url": url, "backoff": 0.01, "timeout": 60.0, **config}
        return BlockRegistry.build({"block_type": block_type, "config": given})

    return build
