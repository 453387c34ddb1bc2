"""``num_loop_steps``: for every loop, or for each by a node of it; what no loop would take is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.core.test_runs import Add, one, ring
from wgtorch import Graph, NodeCache, Paused, Pipeline, Stage, State
from wgtorch.core.errors import PortError, PortTypeError

ZERO = {"x": torch.zeros(1)}


def refined() -> Pipeline:
    """A loop of a and b, then one of c and d in another graph."""
    pipeline = Pipeline("p")
    for name, (first, second) in {"base": (1, 0), "refine": (100, 0)}.items():
        pipeline.add_graph(ring(Add(first), Add(second), metadata={"num_loop_steps": 2}), name)
    pipeline.add_edge("base.y", "refine.x")
    pipeline.infer_exposed_ports()
    return pipeline


def result(level: Any, steps: Any, **options: Any) -> int:
    return int(level.run(ZERO, num_loop_steps=steps, **options)["y"].item())


def test_each_loop_takes_its_own_number() -> None:
    pipeline = refined()
    assert result(pipeline, None) == 202
    assert result(pipeline, 3) == 303
    assert result(pipeline, {"base/a": 5}) == 205, "the other keeps what its metadata says"
    assert result(pipeline, {"base/b": 1, "refine/a": 4}) == 401
    assert result(ring(Add(1), Add(1)), {"b": 3}) == 6


def test_two_loops_of_one_graph() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 2})
    for name, k in {"a": 1.0, "b": 100.0}.items():
        graph.add_node(Add(k), name, auto_connect=False)
        graph.add_edge(f"{name}.y", f"{name}.x")
    graph.add_edge("a.y", "b.x")
    graph.expose_input("a", "x")
    graph.expose_output("b", "y")
    assert result(graph, {"a": 3}) == 203
    assert result(graph, {"a": 3, "b": 4}) == 403


def test_it_holds_in_stages_batches_caches_and_runs_that_stop() -> None:
    pipeline = refined()
    stage = Stage("s", role="s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract(["intent"], ["recipe"], {"p.x": "intent"}, {"recipe": "p.y"})
    assert stage.run(State(intent=torch.zeros(1)), num_loop_steps={"p/base/a": 3}).recipe.item() == 203
    assert [int(found["y"]) for found in pipeline.batch([ZERO, ZERO], num_loop_steps={"refine/b": 1})] == [102, 102]
    cache = NodeCache()
    assert [result(pipeline, {"base/a": steps}, cache=cache) for steps in (1, 2, 1)] == [201, 202, 201]


def test_a_run_that_stops_keeps_its_numbers(tmp_path: Any) -> None:
    pipeline = refined()
    paused = pipeline.run_until(ZERO, before="base/b", iteration=1, num_loop_steps={"base/a": 3, "refine/a": 1})
    assert int(pipeline.resume(Paused.load(paused.save(tmp_path / "paused")))["y"]) == 103


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (0, "num_loop_steps is int 0; expected a whole number from 1"),
        (True, "num_loop_steps is bool True"),
        (2.0, "num_loop_steps is float 2.0"),
        ({"base/a": 0}, r"holds 'base/a': 0; expected a whole number from 1 by the path"),
        ({3: 1}, "holds 3: 1"),
        ({"base": 2}, "for 'base', which is in no loop; loops go through base/a, base/b, refine/a, refine/b"),
        ({"base/c": 2}, "for 'base/c', which is in no loop"),
        ({"base/a": 2, "base/b": 3}, "two numbers for the loop through a, b"),
    ],
    ids=["zero", "bool", "float", "zero_of_one", "number_as_path", "a_level", "no_node", "two"],
)
def test_what_no_loop_takes_is_refused(steps: Any, message: str) -> None:
    with pytest.raises((PortError, PortTypeError), match=message):
        refined().run(ZERO, num_loop_steps=steps)


def test_without_a_loop_nothing_reads_it() -> None:
    with pytest.raises(PortError, match="num_loop_steps is 3, and there is no loop in it; leave it out"):
        one(Add()).run(ZERO, num_loop_steps=3)
