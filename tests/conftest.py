"""Settings that every test shares."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

# Models here are so small that more threads do not make them faster; where processors are busy, threads wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"  # of the programs and notebooks that tests start
settings.register_profile(
    "wgtorch", deadline=None, derandomize=True, database=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wgtorch")
# Looking for garbage every 700 objects, among all that PyTorch and its like hold, was a tenth of all time.
gc.set_threshold(50_000, 10, 10)

_FIRST = ("tests/integrations/", "tests/train", "tests/lora/", "tests/core/")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A worker for each core for the whole suite; one process for tests that are named, where starting workers takes longer."""
    return 0 if config.option.file_or_dir else None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out whole files, so that what the tests of a file share, and what it alone imports, is made once; first what takes longest."""
    from xdist.scheduler import LoadGroupScheduling

    class Files(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).partition("::")[0]

    config.option.loadscopereorder = False
    return Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first, and files of many seconds, so that no worker is left with one of them at the end."""

    def order(item: pytest.Item) -> int:
        if item.get_closest_marker("xdist_group"):
            return 0
        return next((number for number, start in enumerate(_FIRST, 1) if item.nodeid.startswith(start)), len(_FIRST) + 1)

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """What was imported stays, and is not looked through for garbage."""
    given(strategies.none())(lambda nothing: None)()  # older ones of hypothesis look for what refers to their generator, once
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch  # by those who run tests, and not by the process that hands them out

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same global generator and leaves PyTorch's switches as they were."""
    import torch

    torch.manual_seed(0)
    grad = torch.is_grad_enabled()
    yield
    assert torch.is_grad_enabled() is grad, "the test, or what it ran, left the grad mode changed"
