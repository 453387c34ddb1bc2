"""Settings that every test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("wgtorch", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("wgtorch")

_MARKS = {"slow": "takes more than a few seconds", "gpu": "needs a GPU", "network": "needs a network"}


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in _MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}; off by default, run with -m {name}")
    if not config.option.markexpr:
        config.option.markexpr = " and ".join(f"not {name}" for name in _MARKS)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same global generator and leaves PyTorch's switches as they were."""
    torch.manual_seed(0)
    grad = torch.is_grad_enabled()
    yield
    assert torch.is_grad_enabled() is grad, "the test, or what it ran, left the grad mode changed"
