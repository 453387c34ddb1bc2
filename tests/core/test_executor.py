"""Running: values, loops, maps, seeds, events, limits, waiting nodes, threads, memory."""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.blocks_for_tests import (
    Add,
    Affine,
    Countdown,
    Dropout,
    Gather,
    GlobalNoise,
    KeyedNoise,
    Maybe,
    Multistep,
    Pause,
    Scale,
    Split,
    as_pipeline,
    block_of,
    chain,
    counter,
    probe,
)
from tests.core.random_structures import Sketch, dags, loops, reference
from tests.waiting import clock_of_runs
from wgtorch.core.block import Block
from wgtorch.core.errors import MissingInputError, PortError, PortTypeError, RunCancelled, RunTimeoutError, UnknownNameError
from wgtorch.core.port import Port
from wgtorch.core.run.events import Event
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline


def ones(*shape: int) -> Tensor:
    return torch.ones(*(shape or (2,)))


# --- against the naive reference --------------------------------------------------------------------------------------


def check_against_reference(sketch: Sketch, run: Callable[[Graph], Mapping[str, Tensor]]) -> None:
    expected = reference(sketch)
    found = run(sketch.graph())
    assert {name: int(value) for name, value in found.items()} == {
        f"n{node}-o{output}": expected(node, output) for node, output in sketch.outputs
    }


@given(dags())
def test_random_dags_give_what_the_reference_gives(sketch: Sketch) -> None:
    check_against_reference(sketch, lambda graph: graph.run(sketch.tensors()))


@given(loops())
def test_random_loops_give_what_the_reference_gives(sketch: Sketch) -> None:
    check_against_reference(sketch, lambda graph: graph.run(sketch.tensors()))


@given(loops())
def test_a_plain_call_is_the_same_computation(sketch: Sketch) -> None:
    check_against_reference(sketch, lambda graph: graph(**sketch.tensors()))


@given(loops())
def test_a_run_that_is_watched_and_seeded_is_the_same_computation(sketch: Sketch) -> None:
    check_against_reference(sketch, lambda graph: graph.run(sketch.tensors(), seed=1, callbacks=[lambda event: None], timeout=60))


@given(loops(max_nodes=5, is_async=True))
def test_waiting_nodes_change_no_value(sketch: Sketch) -> None:
    check_against_reference(sketch, lambda graph: graph.run(sketch.tensors()))


@given(loops(), st.data())
def test_partial_runs_of_random_graphs(sketch: Sketch, data: st.DataObject) -> None:
    ports = [(node, output) for node in sketch.order for output in range(sketch.counts[node])]
    wanted = data.draw(st.lists(st.sampled_from(ports), min_size=1, max_size=3, unique=True))
    expected = reference(sketch)
    found = sketch.graph().run(sketch.tensors(), outputs=[f"n{node}.o{output}" for node, output in wanted])
    assert {name: int(value) for name, value in found.items()} == {f"n{node}.o{output}": expected(node, output) for node, output in wanted}


@given(dags(), st.data())
def test_values_fed_into_random_graphs(sketch: Sketch, data: st.DataObject) -> None:
    ports = [(node, output) for node in sketch.order for output in range(sketch.counts[node])]
    fed = {port: 7000 + index for index, port in enumerate(data.draw(st.lists(st.sampled_from(ports), max_size=3, unique=True)))}
    expected = reference(sketch, fed)
    feeds = {f"n{node}.o{output}": torch.tensor(value) for (node, output), value in fed.items()}
    found = sketch.graph().run({**sketch.tensors(), **feeds})
    assert {name: int(value) for name, value in found.items()} == {
        f"n{node}-o{output}": expected(node, output) for node, output in sketch.outputs
    }


# --- calling ----------------------------------------------------------------------------------------------------------


def test_run_and_call_give_the_same() -> None:
    graph = chain(Scale(2.0), Scale(5.0))
    assert torch.equal(graph.run({"x": ones()})["y"], graph(x=ones())["y"])
    assert torch.equal(graph(ones())["y"], graph(x=ones())["y"])


def test_unnamed_inputs_are_checked() -> None:
    graph = chain(Scale())
    with pytest.raises(PortError, match=r"chain: 2 unnamed inputs; it has \['x'\]"):
        graph(ones(), ones())
    with pytest.raises(PortError, match="input 'x' is given twice"):
        graph(ones(), x=ones())


@pytest.mark.parametrize("call", [lambda graph, values: graph.run(values), lambda graph, values: graph(**values)])
def test_a_misspelt_input_names_the_nearest(call: Callable[[Graph, dict], Any]) -> None:
    graph = Graph("g")
    graph.add_node(Scale(), "a")
    graph.expose_input("a", "x", "prompt")
    graph.expose_output("a", "y")
    with pytest.raises(PortError, match=r"g: unknown input 'promt'; did you mean 'prompt'\?"):
        call(graph, {"prompt": ones(), "promt": ones()})


@pytest.mark.parametrize("call", [lambda graph: graph.run({}), lambda graph: graph(), lambda graph: graph.run({}, seed=1)])
def test_a_missing_input_is_named(call: Callable[[Graph], Any]) -> None:
    with pytest.raises(MissingInputError, match=r"chain: missing input 'x'"):
        call(chain(Scale()))


def test_a_wrong_kind_names_the_port() -> None:
    with pytest.raises(PortTypeError, match=r"chain.x: got str 'one'; expected a torch.Tensor"):
        chain(Scale()).run({"x": "one"})


def test_inputs_are_normalised_once_at_the_border() -> None:
    seen: list[Any] = []
    graph = Graph("g")
    graph.add_node(Block.wrap(lambda picture: seen.append(picture) or picture, inputs={"picture": "image"}, outputs={"y": "any"}), "a")
    graph.infer_exposed_ports()
    graph.run({"picture": torch.full((3, 2, 2), 255, dtype=torch.uint8)})
    torch.testing.assert_close(seen[0], ones(3, 2, 2))


def test_a_name_given_to_several_ports_feeds_them_all() -> None:
    graph = Graph("g")
    graph.add_node(Add(), "add")
    graph.expose_input("add", "a", "x")
    graph.expose_input("add", "b", "x")
    graph.expose_output("add", "y")
    assert torch.equal(graph.run({"x": ones()})["y"], 2 * ones())


def test_values_a_node_holds_fill_ports_that_nothing_feeds() -> None:
    graph = Graph("g")
    graph.add_node(Add(), "add", inputs={"b": 10 * ones()})
    graph.infer_exposed_ports()
    assert torch.equal(graph.run({"a": ones()})["y"], 11 * ones())


def test_an_exposed_input_comes_before_the_value_a_node_holds() -> None:
    graph = Graph("g")
    graph.add_node(Add(), "add", inputs={"b": 10 * ones()})
    graph.expose_input("add", "a")
    graph.expose_input("add", "b")
    graph.expose_output("add", "y")
    assert torch.equal(graph.run({"a": ones()})["y"], 11 * ones())
    assert torch.equal(graph.run({"a": ones(), "b": ones()})["y"], 2 * ones())


def test_device_moves_the_inputs() -> None:
    graph = chain(block_of(lambda x: x.device.type, y="text"))
    assert graph.run({"x": ones()}, device="meta") == {"y": "meta"}


def test_run_hands_out_tensors_that_later_autograd_work_takes() -> None:
    weight = torch.ones(2, requires_grad=True)
    out = chain(Scale()).run({"x": ones()})["y"]
    assert not out.requires_grad
    assert not out.is_inference()
    (out * weight).sum().backward()
    assert torch.equal(weight.grad, 2 * ones())  # type: ignore[arg-type]


def test_training_keeps_the_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    chain(Scale(2.0), Scale(5.0)).run({"x": x}, training=True)["y"].sum().backward()
    assert torch.equal(x.grad, 10 * ones())  # type: ignore[arg-type]


# --- joins ------------------------------------------------------------------------------------------------------------


def join_of(how: str, *values: Any) -> Graph:
    graph = Graph("g")
    graph.add_node(Gather(how), "join")
    for index, value in enumerate(values):
        graph.add_node(block_of(lambda value=value: {"y": value}), f"s{index}")
        graph.configure_node(f"s{index}", inputs={"value": value})
        graph.add_edge(f"s{index}.y", "join.x")
    graph.expose_output("join", "y")
    return graph


@pytest.mark.parametrize(
    ("how", "values", "expected"),
    [
        ("list", ["a", "b", "c"], ["a", "b", "c"]),
        ("first", ["a", "b"], "a"),
        ("dict", ["a", "b"], {"s0": "a", "s1": "b"}),
        ("sum", [1, 2, 3], 6),
        ("concat", ["a", "b"], "a\nb"),
        ("concat", [[1], [2, 3]], [1, 2, 3]),
        ("list", ["a"], ["a"]),
        ("dict", ["a"], {"s0": "a"}),
    ],
)
def test_aggregations(how: str, values: list[Any], expected: Any) -> None:
    assert join_of(how, *values).run()["y"] == expected


def test_tensors_are_concatenated_along_features() -> None:
    found = join_of("concat", ones(2, 3), 2 * ones(2, 1)).run()["y"]
    assert torch.equal(found, torch.cat([ones(2, 3), 2 * ones(2, 1)], dim=1))
    assert torch.equal(join_of("concat", ones(2), ones(3)).run()["y"], ones(5))


def test_what_cannot_be_combined_says_what_came_from_where() -> None:
    with pytest.raises(PortError, match=r"join.x: cannot sum s0: str 'a', s1: int 3") as caught:
        join_of("sum", "a", 3).run()
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_output_that_stayed_away_is_left_out_of_a_join() -> None:
    graph = Graph("g")
    graph.add_node(Maybe(), "maybe")
    graph.add_node(Scale(3.0), "sure")
    graph.add_node(Gather("list"), "join")
    graph.add_edge("maybe.y", "join.x")
    graph.add_edge("sure.y", "join.x")
    graph.expose_input("maybe", "x", "x")
    graph.expose_input("sure", "x", "x")
    graph.expose_output("join", "y")
    assert len(graph.run({"x": ones()})["y"]) == 2
    assert len(graph.run({"x": -ones()})["y"]) == 1


def test_a_required_input_whose_source_stayed_away_is_an_error_with_the_path() -> None:
    graph = chain(Maybe(), Scale(), Scale())
    with pytest.raises(
        MissingInputError, match=r"n1.x: required, but no value arrived from n0.y \(skipped, or gave no such output\)"
    ) as caught:
        graph.run({"x": -ones()})
    assert caught.value.__notes__ == ["raised in node n1 of chain"]
    assert torch.equal(graph.run({"x": ones()})["y"], 4 * ones())


def test_an_optional_output_that_stayed_away_is_not_in_the_result() -> None:
    graph = chain(Maybe())
    assert graph.run({"x": -ones()}) == {}
    assert list(graph.run({"x": ones()})) == ["y"]


# --- loops ------------------------------------------------------------------------------------------------------------


def test_the_number_of_turns_call_before_metadata_before_node() -> None:
    graph = chain(Multistep(), ports=("x", "next"))
    graph.add_edge("n0.next", "n0.x")
    graph.expose_input("n0", "pred")
    events: list[Event] = []

    def turns(**options: Any) -> int:
        events.clear()
        graph.run({"x": ones(), "pred": ones()}, outputs=["next"], callbacks=[events.append], **options)
        return sum(event.kind == "loop" for event in events)

    assert turns() == 3
    graph.metadata["num_loop_steps"] = 5
    assert turns() == 5
    assert turns(num_loop_steps=2) == 2


def test_a_loop_without_a_number_of_turns_says_where_to_write_one() -> None:
    with pytest.raises(
        PortError,
        match=r"the loop through double has no number of iterations: neither .* Pass num_loop_steps=, or set metadata\['num_loop_steps'\]",
    ):
        counter().run({"x": ones()})


def test_nodes_that_disagree_about_the_turns() -> None:
    graph = counter()
    graph.nodes["double"].num_loop_steps = 3
    graph.add_node(Scale(1.0), "other")
    graph.nodes["other"].num_loop_steps = 4
    graph.remove_edge("double.y", "double.x")
    graph.add_edge("double.y", "other.x")
    graph.add_edge("other.y", "double.x")
    with pytest.raises(PortError, match=r"its nodes disagree: \{'double': 3, 'other': 4\}"):
        graph.run({"x": ones()})


def test_done_ends_a_loop_early() -> None:
    graph = chain(Countdown())
    graph.add_edge("n0.y", "n0.x")
    assert torch.equal(graph.run({"x": torch.tensor([5.0])})["y"], torch.zeros(1))
    assert torch.equal(graph.run({"x": torch.tensor([5.0])}, num_loop_steps=2)["y"], torch.tensor([3.0]))
    assert torch.equal(graph.run({"x": torch.tensor([2.0])}, num_loop_steps=50)["y"], torch.zeros(1))


def test_done_may_be_a_tensor_and_must_hold_for_all_of_it() -> None:
    class Per(Block):
        outputs = {"y": "tensor", "done": "tensor"}

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"y": x - 1, "done": x - 1 <= 0}

    graph = chain(Per())
    graph.add_edge("n0.y", "n0.x")
    assert torch.equal(graph.run({"x": torch.tensor([1.0, 3.0])})["y"], torch.tensor([-2.0, 0.0]))


def test_a_multistep_solver_remembers_through_a_port_fed_by_itself() -> None:
    graph = Graph("solve", metadata={"num_loop_steps": 4})
    graph.add_node(Scale(-1.0), "slope")
    graph.add_node(Multistep(), "solver")
    graph.add_edge("slope.y", "solver.pred")
    graph.add_edge("solver.next", "slope.x")
    graph.add_edge("solver.next", "solver.x")
    graph.add_edge("solver.slope", "solver.last")
    graph.expose_input("slope", "x", "x")
    graph.expose_input("solver", "x", "x")
    graph.expose_output("solver", "next")
    x, last = torch.tensor([1.0, 2.0]), None
    for _ in range(4):
        pred = -x
        x, last = x + 0.1 * (pred if last is None else 1.5 * pred - 0.5 * last), pred
    assert torch.equal(graph.run({"x": torch.tensor([1.0, 2.0])})["next"], x)


def test_feedback_through_two_nodes_takes_the_start_first() -> None:
    seen: list[Any] = []
    graph = Graph("g", metadata={"num_loop_steps": 3})
    graph.add_node(probe(seen), "look")
    graph.add_node(Scale(2.0), "double")
    graph.add_edge("look.y", "double.x")
    graph.add_edge("double.y", "look.x")
    graph.expose_input("look", "x")
    graph.expose_output("double", "y")
    assert graph.run({"x": torch.tensor(1.0)})["y"] == 8
    assert [int(value) for value in seen] == [1, 2, 4]


def test_a_start_from_the_value_a_node_holds() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 3})
    graph.add_node(Scale(2.0), "double", inputs={"x": torch.tensor(1.0)})
    graph.add_edge("double.y", "double.x")
    graph.expose_output("double", "y")
    assert graph.run()["y"] == 8


def test_writer_and_critic_talk_in_turns() -> None:
    """What an optional port brings within a turn is of this turn; only the critique is of the last."""
    heard: list[tuple[Any, Any]] = []

    class Writer(Block):
        outputs = {"text": "any", "notes": "any"}

        def forward(self, prompt: Any, feedback: Any = None) -> dict[str, Any]:
            turn = 0 if feedback is None else feedback + 1
            return {"text": f"text {turn}", "notes": f"notes {turn}"}

    class Critic(Block):
        outputs = {"critique": "any"}

        def forward(self, text: Any, notes: Any = None) -> dict[str, Any]:
            heard.append((text, notes))
            return {"critique": len(heard) - 1}

    graph = Graph("g", metadata={"num_loop_steps": 3})
    graph.add_node(Writer(), "writer")
    graph.add_node(Critic(), "critic")
    for ends in ("writer.text critic.text", "writer.notes critic.notes", "critic.critique writer.feedback"):
        graph.add_edge(*ends.split())
    graph.expose_input("writer", "prompt")
    graph.expose_output("critic", "critique")
    graph.run({"prompt": "go"})
    assert heard == [(f"text {turn}", f"notes {turn}") for turn in range(3)]


def test_what_does_not_change_inside_a_loop_runs_once() -> None:
    outside: list[Any] = []
    after: list[Any] = []
    graph = counter(5)
    graph.add_node(probe(outside), "condition")
    graph.add_edge("condition.y", "double.bias")
    graph.expose_input("condition", "x", "c")
    graph.add_node(probe(after), "decode")
    graph.add_edge("double.y", "decode.x")
    graph.expose_output("decode", "y", "image")
    graph.run({"x": ones(), "c": ones()})
    assert len(outside) == 1
    assert len(after) == 1


def test_zero_turns_give_an_error_not_a_missing_key() -> None:
    with pytest.raises(ValueError, match="num_loop_steps"):
        counter().run({"x": ones()}, num_loop_steps=0)


# --- maps -------------------------------------------------------------------------------------------------------------


def mapped(block: Block, *ports: str, **place: Any) -> Graph:
    graph = Graph("g")
    graph.add_node(block, "a", map=ports or ("x",), **place)
    graph.infer_exposed_ports()
    return graph


def test_a_map_runs_over_a_list_in_order() -> None:
    graph = mapped(Scale(2.0))
    found = graph.run({"x": [ones() * index for index in range(5)]})["y"]
    assert isinstance(found, list)
    assert [int(value[0]) for value in found] == [0, 2, 4, 6, 8]
    assert graph.run({"x": []})["y"] == []


def test_a_map_keeps_the_order_when_calls_wait() -> None:
    async def slow_first(x: int) -> int:
        await asyncio.sleep(0.05 if x == 0 else 0)
        return x

    assert mapped(Block.wrap(slow_first, outputs={"y": "any"})).run({"x": [0, 1, 2]})["y"] == [0, 1, 2]


def test_mapped_calls_that_wait_do_so_together() -> None:
    meet = threading.Barrier(3, timeout=60)
    graph = mapped(block_of(lambda x: (meet.wait(), x)[1], is_async=True))
    assert graph.run({"x": [1, 2, 3]})["y"] == [1, 2, 3]


def test_several_mapped_ports_go_side_by_side_and_the_rest_stay() -> None:
    graph = mapped(block_of(lambda x, z, k: (x, z, k)), "x", "z")
    assert graph.run({"x": [1, 2], "z": ["a", "b"], "k": "same"})["y"] == [(1, "a", "same"), (2, "b", "same")]


def test_mapped_lists_must_be_lists_of_one_length() -> None:
    graph = mapped(block_of(lambda x, z: (x, z)), "x", "z")
    with pytest.raises(PortError, match=r"a: the mapped inputs differ in length: \{'x': 1, 'z': 2\}"):
        graph.run({"x": [1], "z": [1, 2]})
    with pytest.raises(PortTypeError, match=r"g.x: got int 3; expected a list"):
        graph.run({"x": 3, "z": [1]})


def test_a_batched_block_is_given_the_whole_list_once() -> None:
    calls: list[Any] = []

    class Batched(Block):
        outputs = {"y": "any"}
        batched = True

        def forward(self, x: Any) -> dict[str, Any]:
            calls.append(x)
            return {"y": list((torch.stack(list(x)) * 2).unbind())}

    found = mapped(Batched()).run({"x": [ones(), ones()]})["y"]
    assert len(calls) == 1
    assert [int(value[0]) for value in found] == [2, 2]


def test_a_map_between_nodes_hands_a_list_on() -> None:
    graph = Graph("g")
    graph.add_node(block_of(lambda count: [float(index) * ones() for index in range(count)], pictures="list"), "recipe")
    graph.add_node(Scale(3.0), "paint", map="x")
    graph.add_node(block_of(lambda x: sum(int(value[0]) for value in x)), "count")
    graph.add_edge("recipe.pictures", "paint.x")
    graph.add_edge("paint.y", "count.x")
    graph.infer_exposed_ports()
    assert graph.run({"count": 4})["y"] == 18


def test_a_graph_can_be_mapped() -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(counter(3), "loop", map="x")
    pipeline.infer_exposed_ports()
    assert [int(value) for value in pipeline.run({"x": [torch.tensor(1.0), torch.tensor(2.0)]})["y"]] == [8, 16]


# --- partial runs -----------------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_runs() -> None:
    seen: list[Any] = []
    graph = chain(Scale(2.0), Scale(5.0), probe(seen))
    assert list(graph.run({"x": ones()}, outputs=["n0.y"])) == ["n0.y"]
    assert seen == []
    both = graph.run({"x": ones()}, outputs=["y", "n0.y"])
    assert [int(value[0]) for value in both.values()] == [10, 2]
    assert list(both) == ["y", "n0.y"]


def test_an_input_that_a_partial_run_has_no_use_for_is_no_error() -> None:
    graph = Graph("g")
    graph.add_node(Scale(2.0), "a")
    graph.add_node(Scale(3.0), "b")
    graph.expose_input("a", "x", "p")
    graph.expose_input("b", "x", "q")
    graph.expose_output("a", "y", "r")
    graph.expose_output("b", "y", "s")
    assert list(graph.run({"p": ones(), "q": ones()}, outputs=["r"])) == ["r"]
    assert list(graph.run({"p": ones()}, outputs=["r"])) == ["r"]
    with pytest.raises(MissingInputError, match="missing input 'q'"):
        graph.run({"p": ones()})


def test_a_value_may_be_given_in_place_of_its_node() -> None:
    seen: list[Any] = []
    graph = chain(probe(seen), Scale(5.0))
    assert torch.equal(graph.run({"n0.y": 3 * ones()})["y"], 15 * ones())
    assert seen == []


def test_a_given_value_is_checked_and_its_port_must_exist() -> None:
    graph = chain(Scale(), Scale())
    with pytest.raises(PortTypeError, match=r"chain/n0.y: got str 'a'"):
        graph.run({"n0.y": "a"})
    with pytest.raises(UnknownNameError, match=r"'n0.z' names no output; n0 has \['y'\]"):
        graph.run({"n0.z": ones()})
    with pytest.raises(UnknownNameError, match=r"there is no node 'm0'"):
        graph.run({"m0.y": ones()})


def test_an_output_that_does_not_exist_names_the_nearest() -> None:
    graph = chain(Scale())
    with pytest.raises(UnknownNameError, match=r"chain: unknown output 'z'; known: 'y'.*'node.port'"):
        graph.run({"x": ones()}, outputs=["z"])
    with pytest.raises(UnknownNameError, match=r"there is no node 'nn0'; did you mean 'n0'\?"):
        graph.run({"x": ones()}, outputs=["nn0.y"])


def test_values_inside_a_loop_are_those_of_the_last_turn() -> None:
    graph = counter(3)
    assert graph.run({"x": torch.tensor(1.0)}, outputs=["double.y"])["double.y"] == 8


def test_a_value_given_inside_a_loop_is_the_same_in_every_turn() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 3})
    graph.add_node(Scale(100.0), "model")
    graph.add_node(Add(), "step")
    graph.add_edge("model.y", "step.a")
    graph.add_edge("step.y", "step.b")
    graph.add_edge("step.y", "model.x")
    graph.expose_input("model", "x", "x")
    graph.expose_input("step", "b", "x")
    graph.expose_output("step", "y")
    assert graph.run({"x": torch.tensor(0.0), "model.y": torch.tensor(2.0)})["y"] == 6


def test_paths_reach_into_levels_below() -> None:
    inner = chain(Scale(2.0), Scale(5.0), name="inner")
    pipeline = Pipeline("p")
    pipeline.add_graph(inner, "first")
    pipeline.add_graph(inner, "again")
    pipeline.add_edge("first.y", "again.x")
    pipeline.infer_exposed_ports()
    x = torch.tensor(1.0)
    assert pipeline.run({"x": x}, outputs=["again/n0.y"]) == {"again/n0.y": torch.tensor(20.0)}
    both = pipeline.run({"x": x}, outputs=["first/n0.y", "y", "first.y"])
    assert {name: int(value) for name, value in both.items()} == {"first/n0.y": 2, "y": 100, "first.y": 10}
    fed = pipeline.run({"x": x, "first/n0.y": torch.tensor(3.0)})
    assert int(fed["y"]) == 150


def test_a_value_given_deep_inside_spares_what_it_replaces() -> None:
    """All that the given value makes needless stays away, in the level above as well."""
    seen: list[Any] = []
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(probe(seen), name="before"), "before")
    pipeline.add_graph(chain(Scale(2.0), Scale(5.0), name="after"), "after")
    pipeline.add_edge("before.y", "after.x")
    pipeline.infer_exposed_ports()
    assert int(pipeline.run({"x": ones(1), "after/n0.y": 3 * ones(1)})["y"]) == 15
    assert pipeline.run({"after/n0.y": 3 * ones(1)}, outputs=["y"])["y"] == 15
    assert seen == [], "nothing reads what `before` makes"


def test_select_cuts_a_part_that_shares_the_modules() -> None:
    graph = chain(Affine(seed=1), Affine(seed=2), Affine(seed=3))
    part = graph.select(inputs=["n1.x"], outputs=["n1.y"])
    assert list(part.nodes) == ["n1"]
    assert part.nodes["n1"] is graph.nodes["n1"]
    x = torch.randn(2, 4)
    assert torch.equal(part.run({"x": x})["y"], graph.nodes["n1"](x))
    assert list(graph.nodes) == ["n0", "n1", "n2"]
    assert list(graph.select(outputs=["n1.y"]).nodes) == ["n0", "n1"]
    assert list(graph.select(inputs=["n2.x"]).nodes) == ["n2"]
    with pytest.raises(UnknownNameError, match="unknown output 'z'"):
        graph.select(outputs=["z"])


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [KeyedNoise, GlobalNoise])
def test_the_same_seed_gives_the_same_values(noise: type[Block]) -> None:
    graph = chain(noise(), noise())
    first, second, other = (graph.run({"x": ones(3, 2)}, seed=seed)["y"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("noise", [KeyedNoise, GlobalNoise])
def test_seeds_do_not_depend_on_the_order_of_work(noise: type[Block]) -> None:
    def build(order: list[str]) -> Graph:
        graph = Graph("g")
        for node_id in order:
            graph.add_node(noise(), node_id)
        for node_id in ("a", "b", "c"):
            graph.expose_input(node_id, "x", "x")
            graph.expose_output(node_id, "y", node_id)
        return graph

    forward, backward = build(["a", "b", "c"]).run({"x": ones(2)}, seed=3), build(["c", "b", "a"]).run({"x": ones(2)}, seed=3)
    for node_id in ("a", "b", "c"):
        assert torch.equal(forward[node_id], backward[node_id])
    assert not torch.equal(forward["a"], forward["b"])
    alone = build(["a", "b", "c"]).run({"x": ones(2)}, seed=3, outputs=["b"])
    assert torch.equal(alone["b"], forward["b"])


def test_every_turn_of_a_loop_draws_anew() -> None:
    for noise in (KeyedNoise(), GlobalNoise()):
        graph = chain(noise, name="g")
        graph.add_edge("n0.y", "n0.x")
        one, two, three = (graph.run({"x": torch.zeros(1, 3)}, seed=5, num_loop_steps=count)["y"] for count in (1, 2, 3))
        assert not torch.equal(two - one, one)
        assert not torch.equal(three - two, two - one)


def test_a_batch_and_a_map_draw_the_same() -> None:
    batch = chain(KeyedNoise(), name="g").run({"x": torch.zeros(4, 3)}, seed=9)["y"]
    graph = Graph("g")
    graph.add_node(KeyedNoise(), "n0", map="x")
    graph.infer_exposed_ports()
    items = graph.run({"x": list(torch.zeros(4, 1, 3))}, seed=9)["y"]
    assert torch.equal(torch.cat(items), batch)


@pytest.mark.parametrize("noise", [KeyedNoise, GlobalNoise])
def test_every_item_of_a_map_draws_by_its_place_in_the_list(noise: type[Block]) -> None:
    graph = mapped(noise())
    three, two = (graph.run({"x": list(torch.zeros(count, 1, 4))}, seed=9)["y"] for count in (3, 2))
    assert torch.equal(torch.cat(three[:2]), torch.cat(two))
    assert not torch.equal(three[0], three[1])


def test_the_size_of_the_batch_does_not_matter() -> None:
    graph = chain(KeyedNoise())
    large, small = (graph.run({"x": torch.zeros(size, 3)}, seed=9)["y"] for size in (5, 2))
    assert torch.equal(large[:2], small)


def test_a_run_resumed_from_its_intermediate_values_is_the_same() -> None:
    for noise in (KeyedNoise, GlobalNoise):
        graph = chain(noise(), noise(), noise())
        x = torch.zeros(2, 3)
        whole = graph.run({"x": x}, seed=4, outputs=["n1.y", "y"])
        resumed = graph.run({"n1.y": whole["n1.y"]}, seed=4)
        assert torch.equal(resumed["y"], whole["y"])


def test_one_module_at_two_places_draws_apart() -> None:
    noise = KeyedNoise()
    graph = chain(noise, noise)
    out = graph.run({"x": torch.zeros(1, 3)}, seed=1, outputs=["n0.y", "y"])
    assert not torch.equal(out["y"] - out["n0.y"], out["n0.y"])


def test_the_path_through_levels_is_part_of_the_key() -> None:
    inner = chain(KeyedNoise(), name="inner")
    pipeline = Pipeline("p")
    for node_id in ("a", "b"):
        pipeline.add_graph(inner, node_id)
        pipeline.expose_input(node_id, "x", "x")
        pipeline.expose_output(node_id, "y", node_id)
    out = pipeline.run({"x": torch.zeros(1, 3)}, seed=1)
    assert not torch.equal(out["a"], out["b"])


def test_seeded_runs_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    chain(GlobalNoise(), Dropout()).run({"x": ones(4)}, seed=1, training=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_the_global_generator_rules() -> None:
    for noise in (KeyedNoise(), GlobalNoise()):
        torch.manual_seed(11)
        first = chain(noise).run({"x": torch.zeros(2, 3)})["y"]
        torch.manual_seed(11)
        assert torch.equal(torch.randn(2, 3), first)


def test_dropout_in_training_follows_the_seed() -> None:
    graph = chain(Dropout())
    runs = [graph.run({"x": ones(64)}, training=True, seed=seed)["y"] for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_threads_with_seeds_do_not_mix_their_draws() -> None:
    graph = chain(GlobalNoise(), KeyedNoise(), GlobalNoise())
    expected = {seed: graph.run({"x": torch.zeros(3)}, seed=seed)["y"] for seed in range(6)}
    with ThreadPoolExecutor(6) as pool:
        found = dict(zip(range(6), pool.map(lambda seed: graph.run({"x": torch.zeros(3)}, seed=seed)["y"], range(6)), strict=True))
    for seed in range(6):
        assert torch.equal(found[seed], expected[seed])


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_carry_paths_levels_values_and_times() -> None:
    events: list[Event] = []
    pipeline = as_pipeline(chain(Scale(2.0), Scale(5.0)), "first", "p")
    pipeline.run({"x": ones()}, callbacks=[events.append])
    assert [(event.kind, event.path, event.level) for event in events] == [
        ("start", "first", "graph"),
        ("start", "first/n0", "block"),
        ("end", "first/n0", "block"),
        ("start", "first/n1", "block"),
        ("end", "first/n1", "block"),
        ("end", "first", "graph"),
    ]
    assert torch.equal(events[2].inputs["x"], ones())  # type: ignore[index]
    assert torch.equal(events[2].outputs["y"], 2 * ones())  # type: ignore[index]
    assert all(event.elapsed is not None and event.elapsed >= 0 for event in events if event.kind == "end")
    assert events[0].outputs is None


def test_loop_events_carry_step_and_total() -> None:
    events: list[Event] = []
    counter(3).run({"x": ones()}, callbacks=[events.append])
    turns = [event for event in events if event.kind == "loop"]
    assert [(event.step, event.total, event.path, event.level) for event in turns] == [(step, 3, "", "graph") for step in range(3)]


def test_every_callback_is_told_and_objects_may_be_callbacks() -> None:
    class Count:
        def __init__(self) -> None:
            self.ends = 0

        def __call__(self, event: Event) -> None:
            self.ends += event.kind == "end"

    first, second = Count(), Count()
    chain(Scale(), Scale()).run({"x": ones()}, callbacks=(first, second))
    assert first.ends == second.ends == 2


@pytest.mark.parametrize("kind", ["start", "end", "loop"])
def test_what_a_callback_raises_ends_the_run(kind: str) -> None:
    def callback(event: Event) -> None:
        if event.kind == kind:
            raise LookupError(f"from the callback at {kind}")

    with pytest.raises(LookupError, match=f"from the callback at {kind}"):
        counter(2).run({"x": ones()}, callbacks=[callback])


def test_an_error_event_carries_the_exception() -> None:
    events: list[Event] = []
    error = OSError("disk")

    def fail(x: Any) -> Any:
        raise error

    with pytest.raises(OSError, match="disk"):
        chain(Scale(), block_of(fail)).run({"x": ones()}, callbacks=[events.append])
    assert [(event.kind, event.path) for event in events][-1] == ("error", "n1")
    assert events[-1].error is error


def test_values_do_not_depend_on_who_watches() -> None:
    graph = chain(Affine(), Affine(seed=2))
    x = torch.randn(2, 4)
    assert torch.equal(graph.run({"x": x})["y"], graph.run({"x": x}, callbacks=[lambda event: None])["y"])


# --- failures ---------------------------------------------------------------------------------------------------------


class Odd(Exception):
    """An exception of a block's own."""


def failing(x: Any) -> Any:
    raise Odd("inside the block")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_a_failure_keeps_its_type_and_carries_the_path(is_async: bool, watched: bool) -> None:
    inner = chain(Scale(), block_of(failing, is_async=is_async), name="t2i")
    pipeline = as_pipeline(inner, "first", "p")
    with pytest.raises(Odd, match="inside the block") as caught:
        pipeline.run({"x": ones()}, callbacks=[lambda event: None] if watched else ())
    assert caught.value.__notes__ == ["raised in node first/n1 of p"]


def test_a_failure_in_a_loop_carries_the_path() -> None:
    graph = counter(3)
    graph.add_node(block_of(failing), "bad")
    graph.remove_edge("double.y", "double.x")
    graph.add_edge("double.y", "bad.x")
    graph.add_edge("bad.y", "double.x")
    with pytest.raises(Odd) as caught:
        graph.run({"x": ones()})
    assert caught.value.__notes__ == ["raised in node bad of counter"]


def test_a_failure_in_a_plain_call_carries_the_path() -> None:
    with pytest.raises(Odd) as caught:
        chain(Scale(), block_of(failing))(x=ones())
    assert caught.value.__notes__ == ["raised in node n1"]


def test_a_failure_in_a_mapped_call_keeps_its_type() -> None:
    for is_async in (False, True):
        with pytest.raises(Odd) as caught:
            mapped(block_of(failing, is_async=is_async)).run({"x": [1, 2]})
        assert caught.value.__notes__ == ["raised in node a of g"]


def test_a_failure_among_waiting_nodes_names_the_one_that_failed() -> None:
    """Another node was looked at last: the note must not name that one."""
    gate = threading.Event()
    graph = Graph("g")

    def fails_late(x: Any) -> Any:
        assert gate.wait(60)
        raise Odd("late")

    graph.add_node(block_of(fails_late, is_async=True), "bad")
    graph.add_node(block_of(lambda x: (gate.set(), x)[1], is_async=True), "good")
    graph.add_node(Gather("list"), "join")
    for node_id in ("bad", "good"):
        graph.expose_input(node_id, "x", "x")
        graph.add_edge(f"{node_id}.y", "join.x")
    graph.expose_output("join", "y")
    with pytest.raises(Odd) as caught:
        graph.run({"x": 1})
    assert caught.value.__notes__[-1] == "raised in node bad of g"


def test_an_exception_that_is_raised_again_by_another_run_carries_the_new_path() -> None:
    error = Odd("kept by the block")

    def fail(x: Any) -> Any:
        raise error

    first, second = chain(block_of(fail)), chain(Scale(), block_of(fail))
    for graph, node_id in ((first, "n0"), (second, "n1")):
        with pytest.raises(Odd):
            graph.run({"x": ones()})
        assert error.__notes__[-1] == f"raised in node {node_id} of chain"


@pytest.mark.parametrize("returned", [None, {"z": 1}, {"double": 1}])
def test_an_output_of_the_wrong_shape_names_node_and_ports(returned: Any) -> None:
    class Wrong(Split):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            return returned

    graph = Graph("g")
    graph.add_node(Wrong(), "wrong")
    graph.infer_exposed_ports()
    with pytest.raises(PortError, match=r"wrong: forward returned .*double.*square"):
        graph.run({"x": ones()})


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_run_is_cancelled_between_nodes() -> None:
    seen: list[Any] = []
    graph = chain(probe(seen), probe(seen), probe(seen))
    with pytest.raises(RunCancelled, match="the run was cancelled before n2 of chain"):
        graph.run({"x": 1}, cancelled=lambda: len(seen) == 2)
    assert len(seen) == 2


def test_a_run_is_cancelled_between_loop_steps() -> None:
    events: list[Event] = []
    with pytest.raises(RunCancelled):
        counter(100).run({"x": ones()}, callbacks=[events.append], cancelled=lambda: sum(event.kind == "loop" for event in events) >= 3)
    assert sum(event.kind == "loop" for event in events) == 3


def test_a_run_is_cancelled_below() -> None:
    seen: list[Any] = []
    pipeline = as_pipeline(chain(probe(seen), probe(seen)), "first", "p")
    with pytest.raises(RunCancelled, match="before first/n1 of p"):
        pipeline.run({"x": 1}, cancelled=lambda: len(seen) == 1)


def test_a_run_is_cancelled_while_a_node_waits() -> None:
    entered, left = threading.Event(), threading.Event()

    async def wait_long(x: Any) -> Any:
        entered.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            left.set()
            raise

    with pytest.raises(RunCancelled):
        chain(Block.wrap(wait_long, outputs={"y": "any"})).run({"x": 1}, cancelled=entered.is_set)
    assert left.wait(60), "the node was waited for"


def test_a_run_takes_no_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_time = clock_of_runs(monkeypatch)
    graph = chain(*[block_of(lambda x: (pass_time(400.0), x)[1]) for _ in range(3)])
    with pytest.raises(RunTimeoutError, match=r"the run's time limit passed before n2 of chain") as caught:
        graph.run({"x": 1}, timeout=600)
    assert isinstance(caught.value, TimeoutError)
    assert graph.run({"x": 1}, timeout=6000) == {"y": 1}


def test_one_block_that_takes_longer_than_the_run_may_is_too_late() -> None:
    calls: list[int] = []

    def slow(x: Any) -> Any:
        calls.append(1)
        threading.Event().wait(0.06)
        return x

    with pytest.raises(RunTimeoutError, match=r"the run's time limit passed [\d.]+ s before the end of chain"):
        chain(block_of(slow)).run({"x": 1}, timeout=0.05)
    assert calls == [1]


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan, True, "5"])
def test_a_limit_of_time_that_is_none_is_refused_before_anything_runs(timeout: Any) -> None:
    with pytest.raises(TypeError, match=r"chain: timeout is .*; expected seconds from 0, or None for no limit"):
        chain(block_of(lambda x: pytest.fail("it ran"))).run({"x": 1}, timeout=timeout)


def test_a_run_takes_no_longer_than_its_limit_while_a_node_waits() -> None:
    with pytest.raises(RunTimeoutError, match="the run's time limit"):
        chain(Pause(30)).run({"x": 1}, timeout=0.05)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_node_takes_no_longer_than_its_own_limit(is_async: bool) -> None:
    release = threading.Event()
    graph = Graph("g")
    graph.add_node(block_of(lambda x: (release.wait(60), x)[1], is_async=is_async), "slow", timeout=0.05)
    graph.infer_exposed_ports()
    try:
        with pytest.raises(RunTimeoutError, match=r"slow took longer than its limit of 0.05 s") as caught:
            graph.run({"x": 1})
        assert caught.value.__notes__ == ["raised in node slow of g"]
    finally:
        release.set()


def test_a_node_within_its_limit_is_left_alone() -> None:
    graph = Graph("g")
    graph.add_node(Scale(2.0), "a", timeout=30)
    graph.infer_exposed_ports()
    assert torch.equal(graph.run({"x": ones()})["y"], 2 * ones())
    x = torch.ones(2, requires_grad=True)
    graph(x=x)["y"].sum().backward()
    assert torch.equal(x.grad, 2 * ones())  # type: ignore[arg-type]


def test_a_graph_inside_is_held_to_the_limit_of_its_node() -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Pause(30)), "slow", timeout=0.05)
    pipeline.infer_exposed_ports()
    with pytest.raises(RunTimeoutError, match="slow took longer than its limit"):
        pipeline.run({"x": 1})


# --- waiting nodes ----------------------------------------------------------------------------------------------------


def side_by_side(make: Callable[[], Block], count: int) -> Graph:
    graph = Graph("g")
    graph.add_node(Gather("list"), "join")
    for index in range(count):
        graph.add_node(make(), f"w{index}")
        graph.expose_input(f"w{index}", "x", "x")
        graph.add_edge(f"w{index}.y", "join.x")
    graph.expose_output("join", "y")
    return graph


def test_waiting_nodes_wait_together_in_threads() -> None:
    meet = threading.Barrier(8, timeout=60)
    graph = side_by_side(lambda: block_of(lambda x: (meet.wait(), x)[1], is_async=True), 8)
    assert graph.run({"x": 3})["y"] == [3] * 8


def test_a_waiting_node_with_nothing_beside_it_is_called_where_the_run_is() -> None:
    def here(x: Any) -> list[int]:
        return [*x, threading.get_ident()]

    asks = lambda: block_of(here, is_async=True)  # noqa: E731
    own = threading.get_ident()
    assert chain(asks(), block_of(here), asks()).run({"x": []})["y"] == [own] * 3
    limited = chain(asks(), asks())
    for options in ({"timeout": 60}, {"cancelled": lambda: False}):  # it is left when its time is over, so it cannot be here
        assert own not in limited.run({"x": []}, **options)["y"]
    limited.configure_node("n1", timeout=60)
    first, second = limited.run({"x": []})["y"]
    assert first == own != second
    together = side_by_side(asks, 2).run({"x": []})["y"]
    assert own not in [ident for idents in together for ident in idents]


def test_waiting_nodes_wait_together_in_coroutines() -> None:
    inside, most = 0, 0

    async def call(x: Any) -> dict[str, Any]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(6000):
            if most == 8:
                break
            await asyncio.sleep(0.01)
        inside -= 1
        return {"y": x}

    side_by_side(lambda: block_of(call), 8).run({"x": 3})
    assert most == 8


def test_arun_overlaps_its_nodes_and_leaves_the_event_loop_free() -> None:
    meet = threading.Barrier(4, timeout=60)
    graph = side_by_side(lambda: block_of(lambda x: (meet.wait(), x)[1], is_async=True), 4)
    ticked = threading.Event()
    other = chain(block_of(lambda x: {"y": (x, ticked.wait(60))}, is_async=True))

    async def main() -> list[Any]:
        async def tick() -> None:
            for _ in range(3):
                await asyncio.sleep(0.005)
            ticked.set()

        ticking = asyncio.create_task(tick())
        found = await asyncio.gather(graph.arun({"x": 1}), other.arun({"x": 2}), other.arun({"x": 3}))
        await ticking
        return found

    assert asyncio.run(main()) == [{"y": [1, 1, 1, 1]}, {"y": (2, True)}, {"y": (3, True)}]


def test_cancelling_arun_stops_the_run() -> None:
    entered, leave, seen = threading.Event(), threading.Event(), []

    def slow(x: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return x

    graph = chain(block_of(slow), probe(seen))

    async def main() -> None:
        task = asyncio.create_task(graph.arun({"x": 1}))
        while not entered.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leave.set()
        await asyncio.sleep(0.1)  # in which a run that was not stopped would go on

    asyncio.run(main())
    assert seen == []


def test_arun_raises_what_the_run_raises() -> None:
    with pytest.raises(Odd):
        asyncio.run(chain(block_of(failing)).arun({"x": 1}))


def test_other_nodes_compute_while_one_waits() -> None:
    computed = threading.Event()
    graph = Graph("g")
    graph.add_node(block_of(lambda x: {"y": computed.wait(60)}, is_async=True), "wait")
    graph.add_node(block_of(lambda x: {"y": computed.set()}), "compute")
    graph.add_node(Gather("list"), "join")
    for node_id in ("wait", "compute"):
        graph.expose_input(node_id, "x", "x")
        graph.add_edge(f"{node_id}.y", "join.x")
    graph.expose_output("join", "y")
    assert graph.run({"x": 1})["y"] == [None, True]


def test_what_does_not_need_the_waiting_node_goes_on_two_steps() -> None:
    """A chain beside a waiting node is not held back at its second link."""
    done = threading.Event()
    graph = Graph("g")
    graph.add_node(block_of(lambda x: {"y": done.wait(60)}, is_async=True), "wait")
    graph.add_node(block_of(lambda x: x, is_async=True), "first")
    graph.add_node(block_of(lambda x: {"y": done.set()}), "second")
    graph.add_edge("first.y", "second.x")
    graph.add_node(Gather("list"), "join")
    for node_id in ("wait", "first"):
        graph.expose_input(node_id, "x", "x")
    for node_id in ("wait", "second"):
        graph.add_edge(f"{node_id}.y", "join.x")
    graph.expose_output("join", "y")
    assert graph.run({"x": 1})["y"] == [None, True]


def test_graphs_that_wait_overlap_in_a_pipeline() -> None:
    meet = threading.Barrier(3, timeout=60)
    pipeline = Pipeline("p")
    for index in range(3):
        pipeline.add_graph(chain(block_of(lambda x: (meet.wait(), x)[1], is_async=True), Scale()), f"g{index}")
        pipeline.expose_input(f"g{index}", "x", "x")
        pipeline.expose_output(f"g{index}", "y", f"y{index}")
    assert len(pipeline.run({"x": ones()})) == 3


def test_a_waiting_node_keeps_grad_mode_and_gradient() -> None:
    graph = chain(Block.wrap(lambda x: x * 3, outputs={"y": "tensor"}, is_async=True), Scale(2.0))
    x = torch.ones(2, requires_grad=True)
    graph.run({"x": x}, training=True)["y"].sum().backward()
    assert torch.equal(x.grad, 6 * ones())  # type: ignore[arg-type]
    assert not graph.run({"x": x})["y"].requires_grad


def test_an_async_block_in_a_loop() -> None:
    graph = chain(Pause(0.001), Scale(2.0))
    graph.add_edge("n1.y", "n0.x")
    assert graph.run({"x": torch.tensor(1.0)}, num_loop_steps=4)["y"] == 16


def test_run_inside_a_running_event_loop() -> None:
    async def main() -> Any:
        return chain(Pause(0.001)).run({"x": 5})

    assert asyncio.run(main()) == {"y": 5}


# --- many runs at once ------------------------------------------------------------------------------------------------


def test_two_threads_run_one_graph_at_once_and_keep_their_values_apart() -> None:
    meet = threading.Barrier(2, timeout=60)

    def both(x: Any) -> Any:
        meet.wait()
        return x

    graph = chain(Scale(2.0), block_of(both), Scale(5.0), block_of(both))
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(graph.run, {"x": value * ones()}) for value in (1, 7))
        assert torch.equal(first.result(60)["y"], 10 * ones())
        assert torch.equal(second.result(60)["y"], 70 * ones())


def test_many_threads_run_a_loop_at_once() -> None:
    graph = counter(6)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda value: float(graph.run({"x": torch.tensor(float(value))})["y"]), range(40)))
    assert found == [64.0 * value for value in range(40)]


def test_a_frozen_use_in_one_thread_cuts_no_gradient_in_another() -> None:
    """While a frozen place computes, a trained place of the same block trains."""
    inside, go = threading.Event(), threading.Event()

    class Held(Affine):
        hold = False

        def forward(self, x: Tensor) -> Tensor:
            if self.hold:
                inside.set()
                assert go.wait(60)
            return super().forward(x)

    block = Held()
    graph = Graph("g")
    for node_id in ("frozen", "trained"):
        graph.add_node(block, node_id, trainable=node_id == "trained")
        graph.expose_input(node_id, "x", "x")
        graph.expose_output(node_id, "y", node_id)
    with ThreadPoolExecutor(1) as pool:
        block.hold = True
        waiting = pool.submit(graph.run, {"x": ones(1, 4)}, training=True, outputs=["frozen"])
        assert inside.wait(60)
        block.hold = False
        try:
            out = graph.run({"x": ones(1, 4)}, training=True, outputs=["trained"])["trained"]
        finally:
            go.set()
        waiting.result(60)
    assert out.requires_grad, "the other thread's frozen use cut the gradient"
    out.sum().backward()
    assert block.linear.weight.grad is not None


def test_nothing_about_a_run_stays_on_the_modules() -> None:
    graph = chain(Scale(), Affine(), name="g")
    graph.run({"x": ones(1, 4)})
    before = {name: dict(module.__dict__) for name, module in graph.named_modules()}
    value = ones(1, 4)
    seen = weakref.ref(value)
    graph.run({"x": value}, seed=1, callbacks=[lambda event: None], outputs=["n0.y"])
    graph.run({"x": value})
    after = {name: dict(module.__dict__) for name, module in graph.named_modules()}
    for name in before:
        changed = {key for key in after[name] if before[name].get(key) is not after[name][key]}
        assert changed <= {"_plans"}, (name, changed)
    del value
    assert seen() is None


# --- memory -----------------------------------------------------------------------------------------------------------


def test_no_value_is_copied() -> None:
    seen: list[Any] = []
    graph = Graph("g")
    for index in range(5):
        graph.add_node(probe(seen), f"n{index}", timeout=30 if index == 3 else None)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    graph.infer_exposed_ports()
    x = torch.zeros(1024)
    for options in ({}, {"seed": 1}, {"callbacks": [lambda event: None]}, {"training": True}):
        seen.clear()
        out = graph.run({"x": x}, **options)["y"]
        assert all(value is x for value in (*seen, out))
    nested = as_pipeline(graph)
    assert nested.run({"x": x})["y"].data_ptr() == x.data_ptr()


class Watch:
    """Blocks that note which of the values made so far are still alive when they are called."""

    def __init__(self) -> None:
        self.made: list[tuple[str, weakref.ref]] = []
        self.alive: dict[str, list[str]] = {}

    def block(self, name: str, is_async: bool = False) -> Block:
        def work(x: Tensor) -> dict[str, Tensor]:
            self.alive[name] = [other for other, ref in self.made if ref() is not None]
            y = x + 1
            self.made.append((name, weakref.ref(y)))
            return {"y": y}

        return block_of(work, y="tensor", is_async=is_async)


@pytest.mark.parametrize("options", [{}, {"seed": 1}, {"timeout": 60}], ids=str)
def test_values_are_freed_after_their_last_reader(options: dict[str, Any]) -> None:
    watch = Watch()
    chain(*(watch.block(f"n{index}") for index in range(5))).run({"x": ones()}, **options)
    assert watch.alive == {"n0": [], "n1": ["n0"], "n2": ["n1"], "n3": ["n2"], "n4": ["n3"]}


def test_values_are_freed_after_their_last_reader_in_a_plain_call() -> None:
    watch = Watch()
    chain(*(watch.block(f"n{index}") for index in range(4)))(x=ones())
    assert watch.alive == {"n0": [], "n1": ["n0"], "n2": ["n1"], "n3": ["n2"]}


@pytest.mark.parametrize("special", [{"n1"}, {"n2"}, {"n1", "n2", "n3"}])
def test_values_are_freed_when_some_places_are_special(special: set[str]) -> None:
    """A plain node's value is not kept while two special ones run after it."""
    watch = Watch()
    graph = Graph("g")
    for index in range(5):
        node_id = f"n{index}"
        graph.add_node(watch.block(node_id), node_id, trainable=node_id not in special)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"{node_id}.x")
    graph.infer_exposed_ports()
    graph.run({"x": ones()})
    assert watch.alive == {"n0": [], "n1": ["n0"], "n2": ["n1"], "n3": ["n2"], "n4": ["n3"]}


def test_an_output_that_nobody_reads_is_freed_at_once() -> None:
    made: list[weakref.ref] = []
    alive: list[int] = []

    def two(x: Tensor) -> dict[str, Tensor]:
        y, unread = x + 1, x + 2
        made.append(weakref.ref(unread))
        return {"y": y, "unread": unread}

    def look(x: Tensor) -> Tensor:
        alive.append(sum(ref() is not None for ref in made))
        return x + 1

    chain(block_of(two, y="tensor", unread="tensor"), block_of(look, y="tensor"), block_of(look, y="tensor")).run({"x": ones()})
    assert alive == [0, 0]


def test_values_of_waiting_nodes_are_freed_after_their_last_reader() -> None:
    watch = Watch()
    blocks = [watch.block("n0", is_async=True), watch.block("n1"), watch.block("n2"), watch.block("n3", is_async=True), watch.block("n4")]
    chain(*blocks).run({"x": ones()})
    assert watch.alive == {"n0": [], "n1": ["n0"], "n2": ["n1"], "n3": ["n2"], "n4": ["n3"]}


def test_values_in_a_loop_do_not_pile_up() -> None:
    watch = Watch()
    graph = chain(watch.block("a"), watch.block("b"))
    graph.add_edge("n1.y", "n0.x")
    counts: list[int] = []

    def count(event: Event) -> None:
        if event.kind == "loop":
            counts.append(sum(ref() is not None for _, ref in watch.made))

    graph.run({"x": ones()}, num_loop_steps=6, callbacks=[count])
    assert counts == [0, 1, 1, 1, 1, 1]


def test_after_a_run_only_its_outputs_are_alive() -> None:
    watch = Watch()
    graph = chain(*(watch.block(f"n{index}") for index in range(3)))
    out = graph.run({"x": ones()})
    assert [name for name, ref in watch.made if ref() is not None] == ["n2"]
    del out
    assert [name for name, ref in watch.made if ref() is not None] == []


# --- frozen places ----------------------------------------------------------------------------------------------------


def test_a_frozen_place_passes_gradients_and_adds_none_to_the_weights() -> None:
    shared = Affine()
    graph = chain(shared, shared)
    graph.set_trainable("n1", False)
    x = torch.randn(2, 4, requires_grad=True)
    graph(x=x)["y"].sum().backward()
    weight = shared.linear.weight.detach()
    ahead = torch.ones(2, 4) @ weight  # what reaches the first use's output
    torch.testing.assert_close(shared.linear.weight.grad, ahead.T @ x.detach())
    torch.testing.assert_close(x.grad, ahead @ weight)
    assert shared.linear.weight.requires_grad


def test_a_node_is_not_called_with_what_it_must_not_change() -> None:
    """The values that a node holds are the same in every run."""
    graph = Graph("g")
    graph.add_node(Add(), "add", inputs={"b": ones()})
    graph.infer_exposed_ports()
    runs = [graph.run({"a": ones()})["y"] for _ in range(2)]
    assert torch.equal(runs[0], runs[1])


def test_ports_by_default() -> None:
    class Steps(Block):
        inputs = {"count": Port(dtype="number", default=4)}
        outputs = {"y": "number"}

        def forward(self, count: int = 4) -> int:
            return count

    graph = Graph("g")
    graph.add_node(Steps(), "a")
    graph.expose_input("a", "count")
    graph.expose_output("a", "y")
    assert graph.run() == {"y": 4}
    assert graph.run({"count": 2}) == {"y": 2}
