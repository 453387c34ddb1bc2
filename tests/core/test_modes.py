"""Train and eval for the time of one run: felt by nobody else, in no other thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.blocks_for_tests import Affine, Dropout, block_of, chain
from wgtorch.core.block import Block
from wgtorch.core.run.modes import training_mode


class Gate(nn.Module):
    """Tells its mode before and after it waited at the gate."""

    def __init__(self, entered: threading.Event | None = None, go: threading.Event | None = None) -> None:
        super().__init__()
        self.entered, self.go = entered, go
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        if self.entered is not None and self.go is not None:
            self.entered.set()
            assert self.go.wait(60)
        self.modes.append(self.training)
        return x


def wrapped(module: nn.Module) -> Block:
    return Block.wrap(module, inputs={"x": "tensor"}, outputs={"y": "tensor"})


def test_modes_are_given_back_one_by_one() -> None:
    graph = chain(Dropout(), Affine(), Affine(seed=1))
    graph.train()
    graph.nodes["n1"].eval()
    before = {name: module.training for name, module in graph.named_modules()}
    graph.run({"x": torch.ones(1, 4)})
    assert {name: module.training for name, module in graph.named_modules()} == before
    graph.run({"x": torch.ones(1, 4)}, training=True)
    assert {name: module.training for name, module in graph.named_modules()} == before


def test_modes_are_given_back_after_an_error() -> None:
    def fail(x: Any) -> Any:
        raise OSError("no")

    graph = chain(Dropout(), block_of(fail))
    graph.train()
    with pytest.raises(OSError, match="no"):
        graph.run({"x": torch.ones(1)})
    assert all(module.training for module in graph.modules())


def test_run_is_as_in_eval_and_training_as_in_train() -> None:
    graph = chain(Dropout(0.5))
    x = torch.ones(64)
    graph.train()
    assert torch.equal(graph.run({"x": x})["y"], x)
    graph.eval()
    assert (graph.run({"x": x}, training=True)["y"] == 0).any()


def test_frozen_blocks_stay_in_eval_when_training() -> None:
    frozen = Dropout(0.5).freeze()
    graph = chain(frozen, Dropout(0.0))
    x = torch.ones(64)
    assert torch.equal(graph.run({"x": x}, training=True)["y"], x)


def test_what_trains_at_no_place_stays_in_eval_when_training() -> None:
    idle, shared = Dropout(0.5), Dropout(0.5)
    graph = chain(idle, shared, shared)
    graph.set_trainable("n0", False)
    graph.set_trainable("n1", False)
    x = torch.ones(64)
    found = graph.run({"x": x}, training=True, outputs=["n0.y", "n2.y"])
    assert torch.equal(found["n0.y"], x)
    assert (found["n2.y"] == 0).any(), "it trains at another place"
    graph.set_trainable("n0")
    assert (graph.run({"x": x}, training=True, outputs="n0.y")["n0.y"] == 0).any(), "it trains again"
    graph.set_trainable("n0", False)
    graph.set_trainable("n2", False)
    assert torch.equal(graph.run({"x": x}, training=True)["y"], x)


def test_two_threads_in_the_same_mode_run_at_once() -> None:
    meet = threading.Barrier(2, timeout=60)
    graph = chain(block_of(lambda x: (meet.wait(), x)[1]), Dropout())
    graph.train()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(graph.run, {"x": torch.ones(2)}) for _ in range(2)]:
            future.result(timeout=60)
    assert all(module.training for module in graph.modules())


def test_a_run_in_the_other_mode_waits_and_neither_feels_the_other() -> None:
    entered, go, also = threading.Event(), threading.Event(), threading.Event()
    gate = Gate(entered, go)
    graph = chain(wrapped(gate))
    graph.train()

    def training() -> None:
        also.set()
        graph.run({"x": torch.ones(1)}, training=True)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(graph.run, {"x": torch.ones(1)})
        assert entered.wait(60)
        second = pool.submit(training)
        assert also.wait(60)
        time.sleep(0.2)  # long enough for a run that did not wait to be at the gate
        assert not second.done()
        assert gate.modes == [False]
        go.set()
        first.result(timeout=60)
        second.result(timeout=60)
    assert gate.modes == [False, False, True, True]
    assert gate.training


def test_the_last_of_overlapping_runs_gives_the_mode_back() -> None:
    """The first run flips the mode and ends first; the second still needs it."""
    gates = [(threading.Event(), threading.Event()) for _ in range(2)]
    module = nn.Dropout()
    seen = []

    def hold(index: int) -> None:
        with training_mode(module, False):
            gates[index][0].set()
            assert gates[index][1].wait(60)
            seen.append((index, module.training))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hold, 0)
        assert gates[0][0].wait(60)
        second = pool.submit(hold, 1)
        assert gates[1][0].wait(60)
        gates[0][1].set()
        first.result(timeout=60)
        assert not module.training
        gates[1][1].set()
        second.result(timeout=60)
    assert seen == [(0, False), (1, False)]
    assert module.training


def test_a_run_inside_a_run_may_want_the_other_mode() -> None:
    module = nn.Dropout()
    with training_mode(module, False):
        with training_mode(module, True):
            assert module.training
        assert not module.training
    assert module.training


def test_a_run_inside_a_run_in_the_other_mode_when_it_was_started_by_a_waiting_node() -> None:
    """A waiting node is called in a thread of its own; what it runs there is still inside its run."""
    inner = chain(Dropout(0.5))
    seen = []

    def ask(x: Tensor) -> Tensor:
        seen.append(inner.run({"x": x}, training=True))
        return x

    outer = chain(Block.wrap(ask, outputs={"y": "tensor"}, is_async=True))
    outer.add_node(inner, "inner")
    outer.expose_input("inner", "x", "z")
    outer.expose_output("inner", "y", "w")
    worker = threading.Thread(target=lambda: outer.run({"x": torch.ones(64), "z": torch.ones(1)}), daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive(), "the inner run waits for the outer, which waits for the inner"
    assert (seen[0]["y"] == 0).any()


def test_many_threads_in_both_modes_each_see_their_own() -> None:
    class Tell(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            before = self.training
            time.sleep(0.0005)
            return x + 10 * before + self.training

    graph = chain(wrapped(Tell()), wrapped(Tell()))
    graph.train()

    def work(index: int) -> set[float]:
        return {float(graph.run({"x": torch.zeros(())}, training=bool(index % 2))["y"]) for _ in range(10)}

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    assert found == [{22.0} if index % 2 else {0.0} for index in range(6)]
    assert all(module.training for module in graph.modules())
