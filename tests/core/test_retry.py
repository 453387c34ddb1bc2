"""Retries of single nodes: how often, after how long, after which errors."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch import Block, Graph, NodeCache, Pipeline, Rng
from wgtorch.core.errors import RunCancelled, StructureError, StructureTypeError, UnknownNameError
from wgtorch.core.run import retry


class Flaky(Block):
    """Fails as often as it is told, then draws."""

    outputs = {"y": "tensor"}

    def __init__(self, failures: int = 2, error: str = "connection") -> None:
        super().__init__()
        self.failures, self.error, self.calls = failures, error, 0

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.calls += 1
        if self.calls <= self.failures:
            raise {"connection": ConnectionError, "value": ValueError, "cancelled": RunCancelled}[self.error](f"call {self.calls}")
        return x + rng.normal(x.shape) + torch.rand_like(x)


class WaitsFlaky(Flaky):
    async def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, rng)


class FailsFromOutside(Block):
    """Fails because of something that is not its own, as a line does; what it counts it does not read."""

    outputs = {"y": "tensor"}

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.calls, self.line = 0, queue.SimpleQueue[None]()
        for _ in range(failures):
            self.line.put(None)

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.calls += 1
        if not self.line.empty():
            self.line.get()
            raise ConnectionError("busy")
        return x + rng.normal(x.shape)


def graph_of(block: Block, **place: Any) -> Graph:
    graph = Graph("g")
    graph.add_node(block, "n", **place)
    graph.infer_exposed_ports()
    return graph


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between calls, without waiting them."""
    waited: list[float] = []
    monkeypatch.setattr(retry, "_wait", lambda seconds, run, node: waited.append(seconds))
    return waited


X = {"x": torch.zeros(1, 2)}


@pytest.mark.parametrize("kind", [Flaky, WaitsFlaky])
def test_a_call_is_made_again_and_draws_what_it_would_have_drawn(kind: type[Flaky], waits: list[float]) -> None:
    block = kind()
    told: list[Any] = []
    graph = graph_of(block, retry={"times": 4, "wait": 1.0, "factor": 3.0})
    found = graph.run(X, seed=1, callbacks=told.append)["y"]
    assert torch.equal(found, graph_of(kind(0)).run(X, seed=1)["y"])
    assert (block.calls, waits) == (3, [1.0, 3.0])
    assert [(e.kind, e.path, e.step, e.total, str(e.error)) for e in told if e.kind == "retry"] == [
        ("retry", "n", 0, 4, "call 1"),
        ("retry", "n", 1, 4, "call 2"),
    ]


def test_the_last_error_is_raised_with_the_number_of_calls(waits: list[float]) -> None:
    block = Flaky(9)
    with pytest.raises(ConnectionError, match="call 3") as raised:
        graph_of(block, retry=2).run(X)
    assert "n was called 3 times" in raised.value.__notes__
    assert waits == [0.5, 1.0]
    graph = graph_of(Flaky(9), retry={"times": 5, "wait": 4.0, "longest": 10.0})
    with pytest.raises(ConnectionError):
        graph.run(X)
    assert waits[2:] == [4.0, 8.0, 10.0, 10.0, 10.0]


@pytest.mark.parametrize(("on", "error", "calls"), [
    ("any", "value", 3), ("transport", "value", 1), ("transport", "connection", 3),
    (lambda error: "call 1" in str(error), "value", 2), ("any", "cancelled", 1),
    (ConnectionError, "value", 1), (ConnectionError, "connection", 3), ((KeyError, ValueError), "value", 3),
], ids=["any", "not_transport", "transport", "function", "cancelled", "other_class", "class", "classes"])  # fmt: skip
def test_a_condition_says_what_is_worth_another_call(on: Any, error: str, calls: int, waits: list[float]) -> None:
    block = Flaky(error=error)
    graph = graph_of(block, retry={"times": 3, "on": on})
    if calls < 3:
        with pytest.raises((ValueError, RunCancelled)):
            graph.run(X)
    else:
        graph.run(X)
    assert block.calls == calls


def test_a_level_a_mapped_item_and_a_kept_result_are_tried_again(waits: list[float]) -> None:
    pipeline, block = Pipeline("p"), FailsFromOutside(1)
    pipeline.add_graph(graph_of(block), "g", map=["x"], retry=1)
    pipeline.infer_exposed_ports()
    items = {"x": [torch.zeros(1, 2), torch.ones(1, 2)]}
    cache = NodeCache()
    found = pipeline.run(items, seed=1, cache=cache)["y"]
    assert block.calls == 3
    pipeline.run(items, seed=1, cache=cache)
    assert block.calls == 3
    assert all(torch.equal(a, b) for a, b in zip(found, pipeline.run(items, seed=1)["y"], strict=True))


def test_a_wait_ends_when_the_run_is_cancelled() -> None:
    stop = threading.Event()
    block = Flaky(9)
    graph = graph_of(block, retry={"times": 3, "wait": 3600.0, "longest": 3600.0})
    with pytest.raises(RunCancelled):
        graph.run(X, cancelled=stop.is_set, callbacks=lambda event: stop.set() if event.kind == "retry" else None)
    assert block.calls == 1


def test_a_config_holds_it(waits: list[float]) -> None:
    graph = graph_of(Flaky(1))
    graph.configure_node("n", retry={"times": 3, "on": "transport"})
    assert graph.node_specs["n"].retry == {"times": 3, "wait": 0.5, "factor": 2.0, "longest": 30.0, "on": "transport"}
    template = Graph.from_template("text_to_image", steps=1)
    template.configure_node("codec", retry=2)
    again = Graph.from_config(template.to_config())
    assert again.node_specs["codec"].retry == template.node_specs["codec"].retry
    template.configure_node("codec", retry={"on": lambda error: True})
    with pytest.raises(StructureError, match="retry's condition is a bare function; register it with register_retry"):
        template.to_config()


@pytest.mark.parametrize(("given", "error", "message"), [
    (0, StructureTypeError, "times is 0; expected a whole number from 1"),
    (True, StructureTypeError, "retry=True is bool"),
    ("3", StructureTypeError, "expected how many calls more"),
    ({"time": 3}, StructureTypeError, "retry has no 'time'.*times"),
    ({"wait": -1}, StructureTypeError, "wait is -1; expected a number from 0"),
    ({"factor": 0.5}, StructureTypeError, "factor is 0.5; expected a number from 1"),
    ({"wait": float("nan")}, StructureTypeError, "wait is nan; expected a number from 0"),
    ({"on": "transprt"}, UnknownNameError, "unknown condition of retries 'transprt'.*transport"),
    ({"on": bool}, StructureTypeError, "retry's on is .*bool.*classes of errors"),
    ({"on": ()}, StructureTypeError, "retry's on is .*classes of errors"),
], ids=["zero", "bool", "text", "unknown", "negative", "factor", "nan", "condition", "class", "nothing"])  # fmt: skip
def test_mistakes_are_told(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        graph_of(Flaky(), retry=given)
