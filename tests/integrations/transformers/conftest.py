"""Folders of tiny models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.integrations.transformers import tiny


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.language_model(tmp_path_factory.mktemp("llm") / "model")


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model without a chat template, that reads 128 tokens."""
    return tiny.language_model(tmp_path_factory.mktemp("plain") / "model", chat=False, positions=128)


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.vision_model(tmp_path_factory.mktemp("vlm") / "model")
