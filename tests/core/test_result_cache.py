"""What nodes that wait brought in a run that failed, and calls that are cancelled while they wait."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
import torch

from wgtorch.core.block import Block
from wgtorch.core.port import MISSING
from wgtorch.core.run import background
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.result_cache import ResultCache
from wgtorch.graph import Graph


def test_a_result_is_given_again_only_for_the_same_call() -> None:
    kept, child = ResultCache(), object()
    kept.keep(("a",), child, {"x": torch.ones(2), "words": ["sea", {"n": 1}]}, "result")
    assert kept.find(("a",), child, {"x": torch.ones(2), "words": ["sea", {"n": 1}]}) == "result"
    assert kept.find(("a",), child, {"x": torch.ones(2), "words": ["sea", {"n": 2}]}) is MISSING
    assert kept.find(("a",), child, {"x": torch.zeros(2), "words": ["sea", {"n": 1}]}) is MISSING
    assert kept.find(("a",), object(), {"x": torch.ones(2), "words": ["sea", {"n": 1}]}) is MISSING
    assert kept.find(("b",), child, {"x": torch.ones(2), "words": ["sea", {"n": 1}]}) is MISSING


class Ask(Block):
    outputs = {"y": "text"}

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.wrong = "bad"

    async def forward(self, x: str) -> dict:
        self.asked.append(x)
        await asyncio.sleep(0.05 if x != self.wrong else 0)
        if x == self.wrong:
            raise ValueError("no answer")
        return {"y": x.upper()}


def test_siblings_of_a_failed_node_come_home_and_are_not_asked_twice() -> None:
    graph = Graph("g")
    for name in ("one", "two"):
        graph.add_node(Ask(), name)
        graph.expose_input(name, "x", name=name)
        graph.expose_output(name, "y", name=f"{name}_y")
    run = RunContext(RunOptions("g", results=ResultCache()), key=1)
    with torch.no_grad():
        with pytest.raises(ValueError, match="no answer"):
            graph(run_context=run, one="bad", two="slow")
        graph.nodes["one"].wrong = ""
        assert graph(run_context=run, one="bad", two="slow") == {"one_y": "BAD", "two_y": "SLOW"}
    assert graph.nodes["one"].asked == ["bad", "bad"] and graph.nodes["two"].asked == ["slow"]


def test_cancelling_reaches_what_a_call_waits_for_however_deep() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    future = background.start(lambda: background.start(lambda: background.submit(forever()).result()).result())
    assert begun.wait(10)
    future.cancel()
    assert ended.wait(10)
    with pytest.raises(CancelledError):
        future.result(10)


def test_a_call_that_would_wait_for_itself_is_refused() -> None:
    async def inner() -> None:
        """Never awaited."""

    async def outer() -> None:
        background.submit(inner()).result()

    with pytest.raises(RuntimeError, match="would wait for itself"):
        background.submit(outer()).result(10)
