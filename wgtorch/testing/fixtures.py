"""Fixtures for pytest: ``pytest_plugins = ["wgtorch.testing.fixtures"]`` in a ``conftest.py`` brings them.

| fixture | gives |
| --- | --- |
| ``check_block`` | :func:`wgtorch.testing.check_block` |
| ``provider`` | a running :class:`~wgtorch.testing.ScriptedServer`, which plays a provider of models on this machine |
| ``seeded`` | PyTorch's generators seeded with 0 for the test, and as they were after it |
| ``world`` | the default world with small settings: two solver steps, its life in memory |
| ``restored_registries`` | what a test registers (blocks, templates) is gone after it |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import TemplateRegistry
from wgtorch.testing.block_checks import BlockReport
from wgtorch.testing.block_checks import check_block as _check_block
from wgtorch.testing.scripted_server import ScriptedServer
from wgtorch.world import World


@pytest.fixture
def check_block() -> Callable[..., BlockReport]:
    """The function of that name."""
    return _check_block


@pytest.fixture
def provider() -> Iterator[ScriptedServer]:
    """A provider on this machine: ``provider.script("an answer")``, ``endpoint_url=provider.url``, ``provider.requests``."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def seeded() -> Iterator[None]:
    """PyTorch's generators start from 0, and go on after the test where they were before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def world() -> World:
    """The default world, with pictures of two solver steps."""
    built: World = World.from_template("default", steps=2)
    return built


@pytest.fixture
def restored_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and templates that are registered while the test runs are not known after it."""
    for registry in (BlockRegistry, TemplateRegistry):
        each: Any = registry
        each.faults()
        for name in each.names():  # what loads while the copy stands would be gone with it
            each.get(name)
        monkeypatch.setattr(each, "_entries", dict(each._entries))
