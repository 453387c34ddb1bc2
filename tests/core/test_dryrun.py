"""Dry runs: what a run would do, without doing it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.blocks_for_tests import (
    Affine,
    GlobalNoise,
    KeyedNoise,
    Pause,
    Relu,
    Scale,
    Split,
    as_pipeline,
    as_stage,
    block_of,
    chain,
    counter,
    probe,
)
from wgtorch.core.block import Block
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.world_runtime.state import State


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape)


@pytest.mark.parametrize("kind", [True, "fake"])
def test_nothing_is_computed(kind: Any) -> None:
    seen: list[Any] = []
    graph = chain(probe(seen), Affine())
    graph.run({"x": ones(2, 4)}, dry_run=True)
    assert seen == []
    before = torch.get_rng_state()
    chain(GlobalNoise(), KeyedNoise()).run({"x": ones(2, 4)}, dry_run=kind)
    assert torch.equal(torch.get_rng_state(), before)


def test_order_by_path_through_all_levels() -> None:
    inner = chain(Scale(), Scale(), name="inner")
    pipeline = Pipeline("p")
    pipeline.add_graph(inner, "first")
    pipeline.add_graph(inner, "again")
    pipeline.add_edge("first.y", "again.x")
    pipeline.infer_exposed_ports()
    report = pipeline.run({"x": ones(2)}, dry_run=True)
    assert report.order == ("first/n0", "first/n1", "again/n0", "again/n1")
    assert report.is_valid


def test_a_partial_dry_run_lists_only_what_would_run() -> None:
    graph = chain(Scale(), Scale(), Scale(), name="g")
    assert graph.run({"x": ones(1)}, outputs=["n1.y"], dry_run=True).order == ("n0", "n1")
    assert graph.run({"n0.y": ones(1)}, dry_run=True).order == ("n1", "n2")


def test_a_partial_dry_run_through_levels_lists_only_what_would_run() -> None:
    pipeline = as_pipeline(chain(Scale(), Scale(), name="g"), "first", "p")
    assert pipeline.run({"x": ones(1)}, outputs=["first/n0.y"], dry_run=True).order == ("first/n0",)


def test_a_missing_input_is_a_finding_and_not_an_error() -> None:
    report = chain(Scale(), name="g").run({}, dry_run=True)
    assert not report.is_valid
    assert [str(found) for found in report.findings] == ["g.x: missing input"]


def test_a_structure_that_cannot_run_gives_all_findings() -> None:
    graph = Graph("g")
    graph.add_node(block_of(lambda p, q: p), "a")
    graph.expose_output("a", "y")
    report = graph.run({}, dry_run=True)
    assert len(report.findings) == 2
    assert "g/a.p: required, but nothing feeds it" in str(report.findings[0])


def test_calls_over_a_network_are_counted_once_for_each_turn() -> None:
    graph = chain(Pause(), Scale(), Pause())
    assert graph.run({"x": 1}, dry_run=True).api_calls == 2
    loop = chain(Pause(), Scale())
    loop.add_edge("n1.y", "n0.x")
    loop.metadata["num_loop_steps"] = 5
    assert loop.run({"x": ones(1)}, dry_run=True).api_calls == 5
    assert loop.run({"x": ones(1)}, dry_run=True, num_loop_steps=3).api_calls == 3
    assert as_pipeline(loop).run({"x": ones(1)}, dry_run=True).api_calls == 5


def test_calls_over_a_mapped_list_are_counted_for_each_item_when_it_is_there() -> None:
    graph = Graph("g")
    graph.add_node(Pause(), "ask", map="x")
    graph.infer_exposed_ports()
    assert graph.run({"x": [1, 2, 3]}, dry_run="fake").api_calls == 3


def test_weights_are_counted_once() -> None:
    shared = Affine(4)
    report = chain(shared, shared).run({"x": ones(1, 4)}, dry_run=True)
    assert report.weight_bytes == (16 + 4) * 4


def test_fake_runs_report_shapes() -> None:
    graph = Graph("g")
    graph.add_node(Affine(4), "a")
    graph.add_node(Split(), "b")
    graph.add_node(block_of(lambda x, z: torch.cat([x, z], dim=1), y="tensor"), "c")
    for ends in ("a.y b.x", "b.double c.x", "b.square c.z"):
        graph.add_edge(*ends.split())
    graph.infer_exposed_ports()
    report = graph.run({"x": ones(3, 4)}, dry_run="fake")
    assert report.shapes == {"a.y": (3, 4), "b.double": (3, 4), "b.square": (3, 4), "c.y": (3, 8)}
    assert report.is_valid
    assert "c.y: [3, 8]" in str(report)


def test_fake_runs_find_shapes_that_do_not_fit() -> None:
    graph = chain(Affine(4), Affine(5, seed=1), name="g")
    with pytest.raises(RuntimeError) as caught:
        graph.run({"x": ones(2, 4)}, dry_run="fake")
    assert any("n1" in note for note in caught.value.__notes__)


def test_peak_memory_of_a_chain_does_not_grow_with_its_length() -> None:
    def peak(length: int) -> int:
        return chain(*(Relu() for _ in range(length))).run({"x": ones(64, 64)}, dry_run="fake").peak_bytes

    one = 64 * 64 * 4
    assert peak(3) == peak(12)
    assert one * 2 <= peak(3) <= one * 3


def test_peak_memory_counts_what_is_alive_together() -> None:
    graph = Graph("g")
    for index in range(4):
        graph.add_node(Scale(), f"s{index}")
        graph.expose_input(f"s{index}", "x", "x")
        graph.expose_output(f"s{index}", "y", f"y{index}")
    one = 64 * 64 * 4
    assert graph.run({"x": ones(64, 64)}, dry_run="fake").peak_bytes >= 5 * one


def test_a_fake_run_costs_no_memory() -> None:
    graph = chain(Relu(), Relu())
    with FakeTensorMode():
        terabyte = torch.empty(2**19, 2**19)
    report = graph.run({"x": terabyte}, dry_run="fake")
    assert report.shapes["n1.y"] == (2**19, 2**19)


def test_shapes_that_depend_on_data_are_a_finding() -> None:
    graph = chain(block_of(lambda x: x if bool((x > 0).all()) else -x, y="tensor"), Scale(), name="g")
    report = graph.run({"x": ones(2)}, dry_run="fake")
    assert "g/n0: shapes depend on data from here on" in str(report.findings[0])


def test_a_fake_run_calls_no_network() -> None:
    called: list[Any] = []

    class Ask(Block):
        outputs = {"text": "text"}
        is_async = True

        def forward(self, text: str) -> str:
            called.append(text)
            return text

        def dry(self, text: str) -> dict[str, str]:
            return {"text": "..."}

    graph = chain(Ask(), ports=("text", "text"))
    report = graph.run({"text": "hello"}, dry_run="fake")
    assert called == []
    assert report.api_calls == 1


def test_a_fake_run_keeps_modes_and_leaves_the_inputs() -> None:
    graph = chain(Affine())
    graph.train()
    x = ones(1, 4)
    graph.run({"x": x}, dry_run="fake")
    assert graph.training
    assert graph.nodes["n0"].training
    assert torch.equal(x, ones(1, 4))
    assert type(next(graph.parameters()).data) is Tensor


def test_a_loop_in_a_fake_run() -> None:
    report = counter(4).run({"x": ones(2, 3)}, dry_run="fake")
    assert report.shapes == {"double.y": (2, 3)}


def test_a_stage_in_a_dry_run() -> None:
    stage = as_stage(chain(Scale(), name="g"))
    report = stage.run(State(recipe=ones(2)), dry_run=True)
    assert report.order == ("work/only/n0",)
    assert report.is_valid
