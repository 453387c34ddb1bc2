"""Pipeline: graphs of graphs; a DAG, with the engine's ways through the levels."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.blocks_for_tests import Affine, Gather, GlobalNoise, Maybe, Scale, Split, as_pipeline, block_of, chain, counter, probe
from wgtorch.core.config.template import register_template
from wgtorch.core.errors import ConfigError, MissingInputError, RunCancelled, UnknownNameError, ValidationError
from wgtorch.core.run.events import Event
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline


def ones() -> Tensor:
    return torch.ones(2)


def twice(graph: Graph) -> Pipeline:
    """One graph at two places, one behind the other."""
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "first")
    pipeline.add_graph(graph, "again")
    pipeline.add_edge("first.y", "again.x")
    pipeline.infer_exposed_ports()
    return pipeline


def test_one_instance_in_two_places() -> None:
    graph = chain(Affine())
    pipeline = twice(graph)
    assert pipeline.nodes["first"] is pipeline.nodes["again"] is graph
    x = torch.randn(2, 4)
    block = graph.nodes["n0"]
    assert torch.equal(pipeline.run({"x": x})["y"], block(block(x)))
    assert len(list(pipeline.parameters())) == 2


def test_a_pipeline_of_one_graph_has_that_graphs_interface() -> None:
    graph = chain(Split(), ports=("x", "square"))
    graph.expose_input("n0", "x")
    pipeline = as_pipeline(graph)
    assert pipeline.get_input_spec() == graph.get_input_spec()
    assert pipeline.get_output_spec() == graph.get_output_spec()


def test_ids_are_made_from_the_graphs_own() -> None:
    pipeline = Pipeline("p")
    assert pipeline.add_graph(chain(Scale(), name="upscale")) == "upscale"
    assert pipeline.add_graph(chain(Scale(), name="upscale")) == "upscale_2"


def test_graphs_from_configs_files_and_templates(tmp_path: Path) -> None:
    @register_template("test_chain", level="graph")
    def test_chain(*, factor: float = 2.0) -> Graph:
        """A chain for tests."""
        return chain(Scale(factor), name="from_template")

    graph = chain(Scale(3.0), name="g")
    path = graph.save_config(tmp_path / "g.yaml")
    pipeline = Pipeline("p")
    assert pipeline.add_graph(graph.to_config(), "config") == "config"
    pipeline.add_graph(path, "path")
    pipeline.add_graph(str(path), "text")
    pipeline.add_graph("test_chain", "template")
    assert [pipeline.find(f"{name}/n0").factor for name in pipeline.nodes] == [3.0, 3.0, 3.0, 2.0]  # type: ignore[attr-defined]
    config = {"kind": "pipeline", "pipeline_id": "p", "nodes": [{"node_id": "a", "template": "test_chain", "params": {"factor": 7.0}}]}
    assert Pipeline.from_config(config).find("a/n0").factor == 7.0  # type: ignore[attr-defined]
    config["nodes"][0]["params"] = {"fcator": 7.0}  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"template 'test_chain': unknown parameter 'fcator'; did you mean 'factor'.*Known: \['factor'\]"):
        Pipeline.from_config(config)
    with pytest.raises(UnknownNameError, match=r"unknown graph template 'test_chian'; did you mean 'test_chain'"):
        Graph.from_template("test_chian")


def test_a_config_with_refs_builds_the_whole(tmp_path: Path) -> None:
    chain(Scale(3.0), name="g").save_config(tmp_path / "graphs" / "g.yaml")
    node = {"node_id": "one", "config": {"ref": "graphs/g.yaml"}}
    exposed = [{"node_id": "one", "port_name": "x"}], [{"node_id": "one", "port_name": "y"}]
    config = {"kind": "pipeline", "pipeline_id": "p", "nodes": [node], "exposed_inputs": exposed[0], "exposed_outputs": exposed[1]}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(config))
    assert torch.equal(Pipeline.from_yaml(tmp_path / "p.yaml").run({"x": ones()})["y"], 3 * ones())


# --- a DAG ------------------------------------------------------------------------------------------------------------


def cycle() -> Pipeline:
    pipeline = Pipeline("p")
    for name in ("a", "b", "c"):
        pipeline.add_graph(chain(Scale(), name=name), name)
    for ends in (("a.y", "b.x"), ("b.y", "c.x"), ("c.y", "a.x")):
        pipeline.add_edge(*ends)
    pipeline.expose_output("c", "y")
    return pipeline


def test_a_cycle_is_an_error_that_lists_its_nodes() -> None:
    with pytest.raises(ValidationError) as caught:
        cycle().validate()
    assert "p: a cycle through a -> b -> c -> a; expected no cycle: this level is a DAG. Remove one of its edges." in str(caught.value)
    with pytest.raises(ValidationError, match="a cycle through a -> b -> c -> a"):
        cycle().run({})


def test_a_graph_that_feeds_itself_is_a_cycle() -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Scale()), "a")
    pipeline.add_edge("a.y", "a.x")
    pipeline.expose_output("a", "y")
    with pytest.raises(ValidationError, match="a cycle through a -> a"):
        pipeline.validate()


def test_a_loop_inside_a_graph_is_none_of_the_pipelines_business() -> None:
    pipeline = twice(counter(3))
    assert pipeline.validate(deep=True).is_valid
    assert torch.equal(pipeline.run({"x": ones()})["y"], 64 * ones())


def test_branches_and_joins() -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Scale(2.0), name="root"), "root")
    join = Graph("join")
    join.add_node(Gather("dict"), "n0")
    join.infer_exposed_ports()
    for name, factor in (("left", 3.0), ("right", 5.0)):
        pipeline.add_graph(chain(Scale(factor), name=name), name)
        pipeline.add_edge("root.y", f"{name}.x")
    pipeline.infer_exposed_ports()
    found = pipeline.run({"x": ones()})
    assert torch.equal(found["left_y"], 6 * ones())
    assert torch.equal(found["right_y"], 10 * ones())


def test_an_exposed_port_keeps_its_aggregation() -> None:
    """Several graphs feed one, by the aggregation of the port inside."""
    join = Graph("join")
    join.add_node(Gather("list"), "n0")
    join.expose_input("n0", "x")
    join.expose_output("n0", "y")
    pipeline = Pipeline("p")
    pipeline.add_graph(join, "join")
    for name in ("a", "b"):
        pipeline.add_graph(chain(Scale(), name=name), name)
        pipeline.expose_input(name, "x", "x")
        pipeline.add_edge(f"{name}.y", "join.x")
    pipeline.expose_output("join", "y")
    assert len(pipeline.run({"x": ones()})["y"]) == 2


# --- the engine's ways ------------------------------------------------------------------------------------------------


def test_run_and_call_and_gradients() -> None:
    pipeline = twice(chain(Affine()))
    x = torch.randn(2, 4, requires_grad=True)
    called, trained = pipeline(x=x)["y"], pipeline.run({"x": x}, training=True)["y"]
    assert torch.equal(called, trained)
    assert torch.equal(called, pipeline.run({"x": x})["y"])
    trained.sum().backward()
    assert x.grad is not None
    assert not pipeline.run({"x": x})["y"].requires_grad


def test_events_carry_the_path_through_levels() -> None:
    events: list[Event] = []
    twice(counter(1)).run({"x": ones()}, callbacks=[events.append])
    assert [(event.kind, event.path) for event in events if event.kind != "end"] == [
        ("start", "first"),
        ("loop", "first"),
        ("start", "first/double"),
        ("start", "again"),
        ("loop", "again"),
        ("start", "again/double"),
    ]


def test_num_loop_steps_reach_the_graphs() -> None:
    assert torch.equal(twice(counter(1)).run({"x": ones()}, num_loop_steps=3)["y"], 64 * ones())


def test_seeds_tell_places_apart_and_repeat() -> None:
    pipeline = twice(chain(GlobalNoise()))
    first, second = (pipeline.run({"x": torch.zeros(3)}, seed=1, outputs=["first.y", "y"]) for _ in range(2))
    assert torch.equal(first["y"], second["y"])
    assert not torch.equal(first["y"] - first["first.y"], first["first.y"])


def test_a_run_resumed_between_graphs_is_the_same() -> None:
    pipeline = twice(chain(GlobalNoise(), GlobalNoise()))
    whole = pipeline.run({"x": torch.zeros(3)}, seed=2, outputs=["first.y", "y"])
    assert torch.equal(pipeline.run({"first.y": whole["first.y"]}, seed=2)["y"], whole["y"])


def test_only_what_is_asked_for_runs() -> None:
    seen: list[Any] = []
    pipeline = twice(chain(probe(seen)))
    pipeline.run({"x": 1}, outputs=["first.y"])
    assert len(seen) == 1
    pipeline.run({"x": 1}, outputs=["first/n0.y"])
    assert len(seen) == 2


def test_select() -> None:
    pipeline = twice(counter(2))
    part = pipeline.select(inputs=["again.x"], outputs=["again.y"])
    assert isinstance(part, Pipeline)
    assert list(part.nodes) == ["again"]
    assert part.nodes["again"] is pipeline.nodes["again"]
    assert torch.equal(part.run({"x": ones()})["y"], 4 * ones())


def test_independent_branches_that_wait_run_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=60)
    pipeline = Pipeline("p")
    for name in ("a", "b"):
        pipeline.add_graph(chain(block_of(lambda x: (meet.wait(), x)[1], is_async=True), name=name), name)
        pipeline.expose_input(name, "x", "x")
        pipeline.expose_output(name, "y", name)
    assert pipeline.run({"x": 1}) == {"a": 1, "b": 1}


def test_an_error_carries_the_path_through_levels() -> None:
    def fail(x: Any) -> Any:
        raise ZeroDivisionError("in the block")

    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Scale(), chain(block_of(fail), name="inner"), name="outer"), "first")
    pipeline.infer_exposed_ports()
    with pytest.raises(ZeroDivisionError) as caught:
        pipeline.run({"x": ones()})
    assert caught.value.__notes__ == ["raised in node first/n1/n0 of p"]


def test_a_graph_whose_output_stayed_away_is_missed_downstream() -> None:
    pipeline = twice(chain(Maybe()))
    assert torch.equal(pipeline.run({"x": ones()})["y"], ones())
    with pytest.raises(
        MissingInputError, match=r"again.x: required, but no value arrived from first.y \(skipped, or gave no such output\)"
    ):
        pipeline.run({"x": -ones()})


def test_a_frozen_place_of_a_whole_graph() -> None:
    graph = chain(Affine())
    pipeline = twice(graph)
    pipeline.set_trainable("again", False)
    x = torch.randn(2, 4)
    pipeline(x=x)["y"].sum().backward()
    weight = graph.nodes["n0"].linear.weight
    expected = (torch.ones(2, 4) @ weight.detach()).T @ x
    torch.testing.assert_close(weight.grad, expected)


def test_replacing_a_graph_keeps_its_edges() -> None:
    pipeline = twice(counter(1))
    assert pipeline.replace_node("again", chain(Scale(10.0))) == []
    assert torch.equal(pipeline.run({"x": ones()})["y"], 20 * ones())
    assert pipeline.replace_node("again", chain(Scale(), ports=("x", "y")).to_config()) == []


def test_a_timeout_and_a_cancellation_reach_below() -> None:
    pipeline = twice(counter(1000))
    turns = 0

    def count(event: Event) -> None:
        nonlocal turns
        turns += event.kind == "loop"

    with pytest.raises(RunCancelled):
        pipeline.run({"x": ones()}, callbacks=[count], cancelled=lambda: turns >= 5)
    assert turns == 5
