"""A loop inside of a loop inside of a pipeline, with routes and draws: every way of running it is as the plain run, bit for bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, NodeCache, Paused, Pipeline, Port, Rng

INPUTS = {"x": torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))[1], "start": torch.ones(2, 4)}
PLACES = ["o/first", "o/inner", "o/last", "o/inner/encode", "o/inner/noise", "o/inner/step", "o/inner/route", "o/inner/join"]


class Encode(Block):
    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Noise(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        assert rng is not None
        return x + rng.normal(tuple(x.shape))


class Step(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x / 2 + c


class Route(Block):
    outputs = {"large": "tensor", "small": "tensor"}
    routes = ("large", "small")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"large" if x.abs().mean() > 0.6 else "small": x}


class Scale(Block):
    outputs = {"y": "tensor"}

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Join(Block):
    inputs = {"x": Port(dtype="tensor", aggregation="first")}
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return x


def nested() -> Pipeline:
    inner = Graph("inner", metadata={"num_loop_steps": 3})
    blocks = {
        "encode": Encode(),
        "noise": Noise(),
        "step": Step(),
        "route": Route(),
        "large": Scale(0.5),
        "small": Scale(2.0),
        "join": Join(),
    }
    for name, block in blocks.items():
        inner.add_node(block, name, auto_connect=False)
    for edge in ["noise.y step.x", "encode.y step.c", "step.y route.x", "route.large large.x", "route.small small.x", "large.y join.x"]:
        inner.add_edge(*edge.split())
    for edge in ["small.y join.x", "join.y step.x"]:
        inner.add_edge(*edge.split())
    inner.expose_input("encode", "x")
    inner.expose_input("noise", "x", "start")
    inner.expose_output("join", "y")
    outer = Graph("outer", metadata={"num_loop_steps": 2})
    for name, child in {"first": Encode(), "inner": inner, "last": Scale(0.9)}.items():
        outer.add_node(child, name, auto_connect=False)
    for edge in ["first.y inner.start", "inner.y last.x", "last.y inner.start"]:
        outer.add_edge(*edge.split())
    outer.expose_input("first", "x", "start")
    outer.expose_input("inner", "x")
    outer.expose_output("last", "y")
    pipeline = Pipeline("p")
    pipeline.add_graph(outer, "o")
    pipeline.infer_exposed_ports()
    return pipeline


@torch.no_grad()
@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("place", PLACES)
def test_a_run_goes_on_from_any_place_of_it(place: str, where: str, tmp_path: Path) -> None:
    pipeline = nested()
    want = pipeline.run(INPUTS, seed=3)["y"]
    for iteration in (None,) if place == "o/first" else (None, 0, 1):
        at = {where: place} if iteration is None else {where: place, "iteration": iteration}
        paused = pipeline.run_until(INPUTS, seed=3, **at)  # type: ignore[arg-type]
        loaded = Paused.load(paused.save(tmp_path / f"{iteration}"))
        assert torch.equal(nested().resume(loaded)["y"], want)


@torch.no_grad()
def test_it_may_stop_in_an_iteration_of_both_loops() -> None:
    pipeline = nested()
    want = pipeline.run(INPUTS, seed=3)["y"]
    for outer in range(2):
        for inner in range(3):
            paused = pipeline.run_until(INPUTS, before="o/inner/step", iteration=[outer, inner], seed=3)
            assert torch.equal(pipeline.resume(paused)["y"], want)


@torch.no_grad()
def test_a_stream_may_be_left_at_any_event() -> None:
    pipeline = nested()
    want = pipeline.run(INPUTS, seed=3)["y"]
    events = list(pipeline.stream(INPUTS, seed=3))
    assert torch.equal((events[-1].outputs or {})["y"], want)
    starts = Counter(event.path for event in events if event.kind == "start")
    assert (starts["o/first"], starts["o/inner"], starts["o/inner/step"], starts["o/inner/join"]) == (1, 2, 6, 6)
    for count in range(1, len(events), 3):
        stream = pipeline.stream(INPUTS, seed=3)
        for _ in range(count):
            next(stream)
        stream.close()
    assert torch.equal(pipeline.run(INPUTS, seed=3)["y"], want)


@torch.no_grad()
@pytest.mark.parametrize("saved", [False, True])
def test_it_is_kept_and_batched_and_looked_at(saved: bool, tmp_path: Path) -> None:
    pipeline, cache = nested(), NodeCache(directory=tmp_path if saved else None)
    want, other = (pipeline.run(INPUTS, seed=seed)["y"] for seed in (3, 4))
    for _ in range(2):
        assert torch.equal(pipeline.run(INPUTS, seed=3, cache=cache)["y"], want)
        assert torch.equal(pipeline.run(INPUTS, seed=4, cache=cache)["y"], other)
    assert torch.equal(pipeline.run(INPUTS, seed=3, debug=True)["y"], want)
    found = pipeline.batch([INPUTS, {"x": "no", "start": INPUTS["start"]}, INPUTS], seed=[3, 5, 4])
    assert isinstance(found[1], Exception)
    for one, expected in ((found[0], want), (found[2], other)):
        assert isinstance(one, dict)
        torch.testing.assert_close(one["y"], expected)
