"""Nodes at other endpoints give what the child would give here, at every level; and errors that say where."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("urllib3")

from tests.serving.blocks import Counts, Fails, Scale, graph_of
from tests.world_blocks import FULL, Recorder, around, assert_same, record_of, stage_of, tiny_world
from wgtorch.core.block import Block
from wgtorch.core.errors import EndpointError, MissingInputError, PortTypeError, StateError, StructureError, UnknownNameError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.serving.endpoint import Endpoint
from wgtorch.serving.remote import RemoteBlock, RemoteGraph, RemotePipeline, RemoteStage
from wgtorch.serving.server import serving
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.state import State

X = torch.arange(6.0).view(3, 2)


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serves levels until the test ends; gives the config of a node that calls one."""
    with ExitStack() as stack:
        yield lambda level, **options: {"endpoint_url": stack.enter_context(serving(level, **options))}


# --- equal to the local run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scale", "noise", "global_noise"])
def test_a_block_elsewhere_draws_what_it_would_draw_here(serve: Any, name: str) -> None:
    here = graph_of(f"serving_test/{name}")
    far = Graph("g")
    far.add_node(serve(here.nodes["node"]), "node")
    far.infer_exposed_ports()
    assert isinstance(far.nodes["node"], RemoteBlock)
    assert_same(far.run({"x": X}, seed=3), here.run({"x": X}, seed=3))
    assert (here.run({"x": X}, seed=3)["y"] == here.run({"x": X}, seed=4)["y"]).all() == (name == "scale"), "the seed matters"
    assert far(x=X)["y"].shape == X.shape


def test_draws_in_loops_and_in_mapped_lists_are_those_of_the_local_run(serve: Any) -> None:
    loop = graph_of("serving_test/noise")
    far = Graph("g")
    far.add_node(serve(loop.nodes["node"]), "node")
    for graph in (loop, far):
        graph.add_edge("node.y", "node.x")
    far.expose_input("node", "x")
    far.expose_output("node", "y")
    assert_same(far.run({"x": X}, seed=3, num_loop_steps=4), loop.run({"x": X}, seed=3, num_loop_steps=4))

    here, there = Pipeline("p"), Pipeline("p")
    here.add_graph(graph_of("serving_test/noise"), "n", map="x")
    there.add_graph(serve(graph_of("serving_test/noise")), "n", map="x")
    for pipeline in (here, there):
        pipeline.infer_exposed_ports()
    assert_same(there.run({"x": [X, X, X]}, seed=3), here.run({"x": [X, X, X]}, seed=3))


def test_a_world_whose_stages_are_all_elsewhere_is_the_same_world(serve: Any) -> None:
    here, far, heard_here, heard_far = tiny_world(), World("tiny"), Recorder(), Recorder()
    for name, stage in tiny_world().nodes.items():
        far.add_stage(serve(stage), name)
        assert isinstance(far.nodes[name], RemoteStage)
    far.set_canonical_cycle()
    far.set_initial_content({"story": "It began.", "episodes": 0})
    assert far.validate(deep=True).is_valid
    for world, heard in ((here, heard_here), (far, heard_far)):
        world.run(num_steps=3, seed=5, action=["go", None, "stay"], callbacks=[heard])
        world.run(State(**{**FULL, "outcome": None, "description": None}), callbacks=[heard])
    assert_same(record_of(far), record_of(here))
    told = [[(event.kind, event.path, event.level, event.reason) for event in heard.events] for heard in (heard_far, heard_here)]
    assert told[0] == told[1], "callbacks are told of what happens over there as of what happens here"
    assert len(told[0]) > 50


def test_conditions_are_looked_at_here_and_a_skipped_stage_costs_no_call(serve: Any) -> None:
    block = Counts()
    stage = stage_of("s", block, [], [], ["intent", "!outcome"])
    stage.set_state_contract([], ["outcome"], {"work.x": "recipe.x"}, {"outcome": "work.y"})
    world = World("w")
    world.add_stage(serve(stage), "s")
    world.set_cycle(["s"])
    assert world.nodes["s"].why_skipped(State(intent="a", outcome="b")) == "outcome is filled"
    world.run(State(intent="a", outcome="b"))
    assert block.rows == []
    assert_same(world.run(State(intent="a", recipe={"x": X})).outcome, X + 1)
    assert block.rows == [3]


def test_two_levels_of_endpoints(serve: Any) -> None:
    recipe = {"recipe": {"count": 3, "level": 0.1}}
    graph = Graph("make")
    graph.add_node(serve(around("world_test/make", "make").nodes["make"].nodes["make"]), "make")
    graph.infer_exposed_ports()
    pipeline = Pipeline("make")
    pipeline.add_graph(serve(graph), "make")
    pipeline.infer_exposed_ports()
    stage, here = Stage("creator"), Stage("creator")
    stage.add_pipeline(serve(pipeline), "work")
    here.add_pipeline(around("world_test/make", "make"), "work")
    for one in (stage, here):
        one.set_state_contract(["recipe"], ["artifacts"])
    assert isinstance(pipeline.nodes["make"], RemoteGraph)
    assert isinstance(stage.nodes["work"], RemotePipeline)
    assert_same(pipeline.run(recipe, seed=2), around("world_test/make", "make").run(recipe, seed=2))
    assert_same(stage.run(State(**recipe), seed=2), here.run(State(**recipe), seed=2))


def test_a_level_that_calls_an_endpoint_is_served_itself_and_tells_which_one_failed(serve: Any) -> None:
    inner = Graph("inner")
    inner.add_node(serve(graph_of(Fails()).nodes["node"]), "far")
    inner.infer_exposed_ports()
    outer = Pipeline("outer")
    outer.add_graph(serve(inner), "inner")
    outer.infer_exposed_ports()
    with pytest.raises(EndpointError, match="the lens is cracked") as raised:
        outer.run({"x": X})
    assert raised.value.__notes__ == ["raised in node inner of outer"]
    assert inner.nodes["far"].endpoint.url in str(raised.value) and outer.nodes["inner"].endpoint.url in str(raised.value)


def test_calls_that_wait_overlap(serve: Any) -> None:
    blocks = [Counts(), Counts()]
    meeting = threading.Barrier(2)
    pipeline = Pipeline("p")
    for index, block in enumerate(blocks):
        block.meeting = meeting  # neither goes on before the other is there
        pipeline.add_graph(serve(graph_of(block, f"g{index}")), f"g{index}")
    pipeline.infer_exposed_ports()
    assert pipeline.is_async
    answers = pipeline.run(dict.fromkeys(pipeline.get_input_spec(), X))
    assert len(answers) == 2 and all(torch.equal(value, X + 1) for value in answers.values())


def test_it_goes_through_configs_checkpoints_and_copies(serve: Any, tmp_path: Path) -> None:
    world = tiny_world()
    far = World.from_config({**world.to_config(), "stages": {**world.to_config()["stages"], "author": serve(world.nodes["author"])}})
    far.set_storage(None)
    again = World.from_config(far.to_config())
    assert again.to_config() == far.to_config()
    assert World.json_schema()
    far.run(num_steps=2, seed=5)
    far.save(tmp_path / "far")
    loaded = World.load(tmp_path / "far")
    assert isinstance(loaded.nodes["author"], RemoteStage)
    for one in (loaded, copy.deepcopy(far)):
        one.run(seed=5)
    far.run(seed=5)
    assert_same(loaded.state, far.state)
    pipeline = Pipeline("p")
    pipeline.add_graph(serve(graph_of("serving_test/scale")), "g")
    pipeline.infer_exposed_ports()
    node = pickle.loads(pickle.dumps(pipeline.nodes["g"].endpoint))
    assert (node.url, node.retries) == (pipeline.nodes["g"].endpoint.url, 3)
    pipeline.save(tmp_path / "p")
    assert_same(Pipeline.load(tmp_path / "p").run({"x": X}), {"y": X * 2})
    assert list(pipeline.parameters()) == [] and pipeline.state_dict() == {}


def test_a_model_served_twice_in_one_graph_is_one_child(serve: Any) -> None:
    far = RemoteGraph(*parts_of(serve(graph_of("serving_test/scale", factor=3.0))))
    pipeline = Pipeline("p")
    pipeline.add_graph(far, "first")
    pipeline.add_graph(far, "again")
    pipeline.add_edge("first.y", "again.x")
    pipeline.infer_exposed_ports()
    assert_same(pipeline.run({"x": X}), {"y": X * 9})
    built = Pipeline.from_config(pipeline.to_config())
    assert built.nodes["first"] is built.nodes["again"]


def parts_of(config: dict[str, Any]) -> tuple[Endpoint, dict[str, Any]]:
    endpoint = Endpoint(config["endpoint_url"])
    return endpoint, endpoint.contract()


def test_dry_runs_and_partial_runs_say_what_they_can(serve: Any) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(serve(graph_of("serving_test/scale")), "a")
    pipeline.add_graph(graph_of("serving_test/scale"), "b")
    pipeline.add_edge("a.y", "b.x")
    pipeline.infer_exposed_ports()
    dry = pipeline.run({"x": X}, dry_run=True)
    assert (dry.order, dry.api_calls) == (("a", "b/node"), 1)
    assert "does not say of what shape" in str(pipeline.run({"x": X}, dry_run="fake").findings)
    assert_same(pipeline.run({"x": X}, outputs=["a.y"]), {"a.y": X * 2})
    with pytest.raises(UnknownNameError, match=r"no node 'node' here: its level runs at http"):
        pipeline.run({"x": X}, outputs=["a/node.y"])


# --- edges are checked against the contract -----------------------------------------------------------------------------


def test_edges_are_checked_against_the_contract(serve: Any) -> None:
    graph = Graph("g")
    graph.add_node("world_test/plan", "plan")
    graph.add_node(serve(Scale()), "scale")
    with pytest.raises(PortTypeError, match=r"plan.recipe -> scale.x: 'dict' does not feed 'tensor'"):
        graph.add_edge("plan.recipe", "scale.x")
    with pytest.raises(UnknownNameError, match="no input 'z'"):
        graph.add_edge("plan.recipe", "scale.z")
    with pytest.raises(StructureError, match=r"nodes are added there"):
        RemoteGraph(*parts_of(serve(graph_of("serving_test/scale")))).add_node(Scale(), "x")


def test_what_a_call_lacks_is_told_before_anything_is_sent(serve: Any) -> None:
    far = RemoteGraph(*parts_of(serve(graph_of("serving_test/scale", "far"))))
    with pytest.raises(MissingInputError, match=r"far: missing input 'x' \(tensor\)"):
        far()
    stage = stage_of("author", "world_test/tell", ["intent", "description"], ["outcome"])
    with pytest.raises(StateError, match=r"needs \['description'\] filled"):
        RemoteStage(*parts_of(serve(stage))).run(State(intent="x"))


# --- gradients ----------------------------------------------------------------------------------------------------------


def test_a_gradient_that_would_have_to_cross_is_an_error_and_nothing_else_is(serve: Any) -> None:
    before, after = Scale(factor=1.5), Scale(factor=0.5)
    pipeline = Pipeline("p")
    pipeline.add_graph(graph_of(before), "before")
    pipeline.add_graph(serve(graph_of("serving_test/scale")), "far")
    pipeline.add_graph(graph_of(after), "after")
    pipeline.add_edge("before.y", "far.x")
    pipeline.add_edge("far.y", "after.x")
    pipeline.infer_exposed_ports()
    url = pipeline.nodes["far"].endpoint.url
    answer = pipeline.run({"x": X}, training=True)["y"]
    with pytest.raises(EndpointError, match=f"far at {url}: a gradient would have to cross"):
        answer.sum().backward()
    assert before.weight.grad is None

    after.weight.grad = None
    before.requires_grad_(False)
    pipeline.run({"x": X}, training=True)["y"].sum().backward()
    torch.testing.assert_close(after.weight.grad, (X * 3).sum())
    assert not pipeline.run({"x": X})["y"].requires_grad
    assert {id(weight) for weight in pipeline.trainable_parameters()} == {id(after.weight)}


def test_what_a_model_over_there_used_is_told_here(serve: Any) -> None:
    block = Block.wrap(lambda x: {"y": x, "usage": {"prompt_tokens": 3}}, inputs={"x": "tensor"}, outputs={"y": "tensor", "usage": "dict"})
    pipeline = Pipeline("p")
    pipeline.add_graph(serve(graph_of(block)), "far")
    pipeline.infer_exposed_ports()
    heard = Recorder()
    pipeline.run({"x": X}, callbacks=[heard])
    ended = {event.path: event.outputs for event in heard.events if event.kind == "end"}
    assert ended["far/node"] == {"usage": {"prompt_tokens": 3}}, "and nothing that is large"
    assert set(ended["far"] or ()) == {"y", "usage"}
