"""Settings that every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# Models here are so small that more threads do not make them faster; where processors are busy, threads wait for one another.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the programs and notebooks that tests start
settings.register_profile(
    "wgtorch", deadline=None, derandomize=True, database=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wgtorch")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A worker for each core for the whole suite; one process for tests that are named, where starting workers takes longer."""
    return 0 if config.option.file_or_dir else None


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same global generator and leaves PyTorch's switches as they were."""
    torch.manual_seed(0)
    grad = torch.is_grad_enabled()
    yield
    assert torch.is_grad_enabled() is grad, "the test, or what it ran, left the grad mode changed"
