"""Graph: building, names, edges, exposing, validation, replacing - and what each mistake says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from tests.blocks_for_tests import Add, Affine, Gather, Maybe, Scale, Shout, Split, as_pipeline, block_of, chain, counter
from tests.core.random_structures import Sketch, loops, reference
from wgtorch.core.block import Block
from wgtorch.core.errors import MissingInputError, PortError, PortTypeError, StructureError, UnknownNameError, ValidationError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline


def ones() -> Tensor:
    return torch.ones(2)


# --- building ---------------------------------------------------------------------------------------------------------


def test_a_graph_of_two_steps() -> None:
    graph = Graph("two_steps")
    assert graph.add_node(Scale(2.0), "a") == "a"
    assert graph.add_node("test/scale", "b", config={"factor": 5.0}) == "b"
    graph.add_edge("a", "y", "b", "x")
    graph.expose_input("a", "x", name="x")
    graph.expose_output("b", "y", name="y")
    assert graph.validate().is_valid
    assert torch.equal(graph.run({"x": ones()})["y"], 10 * ones())
    assert graph.nodes["b"].factor == 5.0
    assert isinstance(graph, nn.Module)
    assert graph.nodes["a"] in list(graph.modules())


def test_anything_callable_can_be_a_node() -> None:
    def halve(x: Tensor) -> Tensor:
        return x / 2

    graph = Graph("g")
    graph.add_node(halve, "half")
    graph.add_node({"block_type": "test/scale", "config": {"factor": 3.0}}, "triple")
    graph.add_node(Block.wrap(nn.Identity(), inputs={"x": "tensor"}, outputs={"y": "tensor"}), "same")
    graph.add_edge("half.output", "triple.x")
    graph.add_edge("triple.y", "same.x")
    graph.infer_exposed_ports()
    assert torch.equal(graph.run({"x": 2 * ones()})["y"], 3 * ones())


def test_a_graph_may_stand_in_a_graph() -> None:
    outer = chain(Scale(3.0), counter(2), name="outer")
    assert torch.equal(outer.run({"x": ones()})["y"], 12 * ones())


def test_ids_are_made_from_the_type_and_never_clash() -> None:
    graph = Graph("g")
    assert [graph.add_node(Scale()) for _ in range(3)] == ["scale", "scale_2", "scale_3"]
    assert graph.add_node(block_of(lambda x: x)) == "_lambda_"
    with pytest.raises(StructureError, match=r"g: node id 'scale' is taken by Scale 'test/scale'; choose another, or use replace_node"):
        graph.add_node(Scale(), "scale")


@pytest.mark.parametrize(
    "node_id", ["type", "keys", "forward", "0", "items", "training", "_modules", "keys_", "a-b", "values", "T", "class", "self"]
)
def test_any_word_is_a_node_id(node_id: str) -> None:
    graph = Graph("g")
    assert graph.add_node(Affine(), node_id) == node_id
    graph.infer_exposed_ports()
    assert list(graph.nodes) == [node_id]
    assert graph.run({"x": torch.ones(1, 4)}, outputs=[f"{node_id}.y"])
    assert Graph.from_config(graph.to_config()).to_config() == graph.to_config()
    assert copy.deepcopy(graph).nodes[node_id].linear.weight.shape == (4, 4)
    assert graph.remove_node(node_id) is not None
    assert list(graph.nodes) == []


def test_ids_that_look_alike_are_two_nodes() -> None:
    graph = Graph("g")
    for node_id in ("keys", "keys_", "keys__"):
        graph.add_node(Affine(), node_id)
    assert list(graph.nodes) == ["keys", "keys_", "keys__"]
    assert len({id(child) for child in graph.nodes.values()}) == 3
    assert len(graph.state_dict()) == 6


@pytest.mark.parametrize("node_id", ["a.b", "a/b", "", "a b", "ä"])
def test_what_is_no_node_id(node_id: str) -> None:
    with pytest.raises(StructureError, match=r"expected letters, digits, '_' and '-' \('.' and '/' separate ports and paths\)"):
        Graph("g").add_node(Scale(), node_id)


def test_an_unknown_block_type_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown block type 'test/scael'; did you mean .*'test/scale'"):
        Graph("g").add_node("test/scael")


def test_a_child_of_another_level_is_refused() -> None:
    with pytest.raises(
        StructureError, match=r"pipeline: got Scale 'test/scale'; expected a Graph, its config, a path to one, or a template's name"
    ):
        Pipeline("pipeline").add_graph(Scale())  # type: ignore[arg-type]


def test_an_unknown_word_about_a_place_names_the_nearest() -> None:
    with pytest.raises(StructureError, match=r"g/a: unknown 'trainabel'; did you mean 'trainable'"):
        Graph("g").add_node(Scale(), "a", trainabel=False)
    with pytest.raises(UnknownNameError, match=r"g/a: no input 'xx'; "):
        Graph("g").add_node(Scale(), "a", map="xx")
    with pytest.raises(UnknownNameError, match=r"g/a: no input 'bais'; did you mean 'bias'"):
        Graph("g").add_node(Scale(), "a", inputs={"bais": 1})


def test_a_node_that_is_not_there_names_the_nearest() -> None:
    graph = chain(Scale(), Scale(), name="g")
    with pytest.raises(UnknownNameError, match=r"there is no node 'n3'; known: 'n0', 'n1'"):
        graph.nodes["n3"]
    for act in (graph.remove_node, lambda node_id: graph.set_trainable(node_id, False), graph.clone_node):
        with pytest.raises(UnknownNameError, match=r"g: there is no node 'x1'"):
            act("x1")


def test_find_walks_paths() -> None:
    pipeline = as_pipeline(chain(Scale(), Scale()), "first", "p")
    assert pipeline.find("first/n1") is pipeline.nodes["first"].nodes["n1"]
    with pytest.raises(UnknownNameError, match="there is no node 'n7'"):
        pipeline.find("first/n7")
    with pytest.raises(UnknownNameError, match=r"'first/n1/x': test/scale is a block and has no nodes, so no 'x'"):
        pipeline.find("first/n1/x")


# --- edges ------------------------------------------------------------------------------------------------------------


def test_two_ways_to_write_an_edge() -> None:
    first, second = Graph("g"), Graph("g")
    for graph in (first, second):
        graph.add_node(Scale(), "a")
        graph.add_node(Scale(), "b")
    first.add_edge("a", "y", "b", "x")
    second.add_edge("a.y", "b.x")
    assert first.edges == second.edges
    first.add_edge("a.y", "b.x")
    assert len(first.edges) == 1
    with pytest.raises(StructureError, match=r"expected \('a', 'y', 'b', 'x'\) or \('a.y', 'b.x'\)"):
        first.add_edge("a", "b")


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("aa.y", "b.x"), r"g: there is no node 'aa'; did you mean 'a'"),
        (("a.z", "b.x"), r"g/a: no output 'z'; known: 'y'"),
        (("a.y", "b.bais"), r"g/b: no input 'bais'; did you mean 'bias'"),
    ],
)
def test_a_misspelt_end_names_the_nearest(ends: tuple[str, str], words: str) -> None:
    graph = Graph("g")
    graph.add_node(Scale(), "a")
    graph.add_node(Scale(), "b")
    with pytest.raises(UnknownNameError, match=words):
        graph.add_edge(*ends)
    assert graph.edges == ()


def test_a_wrong_kind_is_refused_with_both_ends_what_would_fit_and_who_converts() -> None:
    graph = Graph("g")
    graph.add_node(Shout(), "say")
    graph.add_node(Scale(), "scale")
    with pytest.raises(PortTypeError) as caught:
        graph.add_edge("say.text", "scale.x")
    text = str(caught.value)
    assert "g: cannot join say.text -> scale.x: 'text' does not feed 'tensor'" in text
    assert "No port of either node would fit." in text
    assert "test/length" in text.split("Blocks that convert:")[1]
    assert isinstance(caught.value, TypeError)
    assert graph.edges == ()


def test_a_wrong_kind_lists_ports_that_would_fit() -> None:
    graph = Graph("g")
    graph.add_node(block_of(lambda x: x, words="text", number="tensor"), "a")
    graph.add_node(Block.wrap(lambda p, q: p, inputs={"p": "tensor", "q": "text"}, outputs={"y": "any"}), "b")
    with pytest.raises(PortTypeError, match=r"Ports that would fit: b.q, a.number"):
        graph.add_edge("a.words", "b.p")


def test_a_second_edge_into_a_single_port_is_refused_where_loops_cannot_be() -> None:
    pipeline = Pipeline("p")
    for name in ("a", "b", "c"):
        pipeline.add_graph(chain(Scale(), name=name), name)
    pipeline.add_edge("a.y", "c.x")
    with pytest.raises(
        PortError, match=r"p: c.x takes one source and already has a.y -> c.x; remove that edge, or give the port an aggregation"
    ):
        pipeline.add_edge("b.y", "c.x")


def test_two_edges_into_a_single_port_of_a_graph() -> None:
    """Which of two edges is a loop's feedback shows only when all edges are there, so validation says it at the latest."""
    graph = Graph("g")
    for name in ("a", "b", "c"):
        graph.add_node(Scale(), name)
    graph.add_edge("a.y", "c.x")
    graph.expose_output("c", "y")
    with pytest.raises((PortError, ValidationError), match=r"c.x.*(already has|2 sources feed it)") as caught:
        graph.add_edge("b.y", "c.x")
        graph.validate()
    assert "aggregation" in str(caught.value)


def test_a_port_that_combines_takes_many_edges() -> None:
    graph = Graph("g")
    graph.add_node(Gather("sum"), "join")
    for name in ("a", "b", "c"):
        graph.add_node(Scale(), name)
        graph.add_edge(f"{name}.y", "join.x")
        graph.expose_input(name, "x", "x")
    graph.expose_output("join", "y")
    assert torch.equal(graph.run({"x": ones()})["y"], 6 * ones())


def test_remove_edge() -> None:
    graph = chain(Scale(), Scale(), name="g")
    graph.remove_edge("n0.y", "n1.x")
    assert graph.edges == ()
    with pytest.raises(UnknownNameError, match=r"g: there is no edge n0.y -> n1.x"):
        graph.remove_edge("n0.y", "n1.x")
    with pytest.raises(ValidationError, match="n1.x: required, but nothing feeds it"):
        graph.run({"x": ones()})


# --- exposing ---------------------------------------------------------------------------------------------------------


def test_the_ports_of_a_graph_are_its_childrens() -> None:
    graph = Graph("g")
    graph.add_node(Shout(), "say")
    graph.add_node(Split(), "split")
    graph.expose_input("say", "text", "prompt")
    graph.expose_input("split", "x")
    graph.expose_output("split", "square")
    assert {name: (port.name, port.dtype, port.direction) for name, port in graph.get_input_spec().items()} == {
        "prompt": ("prompt", "text", "in"),
        "x": ("x", "tensor", "in"),
    }
    assert {name: port.direction for name, port in graph.get_output_spec().items()} == {"square": "out"}


def test_an_input_is_optional_where_its_port_is_or_the_node_holds_a_value() -> None:
    graph = Graph("g")
    graph.add_node(Scale(), "a")
    graph.add_node(Add(), "b", inputs={"b": ones()})
    for node_id, port in (("a", "x"), ("a", "bias"), ("b", "a"), ("b", "b")):
        graph.expose_input(node_id, port)
    assert {name: port.optional for name, port in graph.get_input_spec().items()} == {"x": False, "bias": True, "a": False, "b": True}
    graph.expose_input("b", "a", "bias")
    assert not graph.get_input_spec()["bias"].optional


def test_ports_that_cannot_share_a_name() -> None:
    graph = Graph("g")
    graph.add_node(Shout(), "say")
    graph.add_node(Scale(), "scale")
    graph.expose_input("say", "text", "x")
    with pytest.raises(PortTypeError, match=r"g: input 'x' cannot feed scale.x as well: 'text' does not feed 'tensor'"):
        graph.expose_input("scale", "x", "x")


def test_two_outputs_cannot_share_a_name() -> None:
    graph = chain(Scale(), Scale(), name="g")
    with pytest.raises(StructureError, match=r"g: output 'y' already shows n1.y as 'y'; give this one another name"):
        graph.expose_output("n0", "y")


def test_misspelt_ports_cannot_be_exposed() -> None:
    graph = chain(Scale(), name="g")
    with pytest.raises(UnknownNameError, match=r"g/n0: no input 'bais'; did you mean 'bias'"):
        graph.expose_input("n0", "bais")
    with pytest.raises(UnknownNameError, match=r"g: there is no node 'm0'; known: 'n0'"):
        graph.expose_output("m0", "y")


def test_inferred_ports_are_the_open_inputs_and_the_dangling_outputs() -> None:
    graph = Graph("g")
    graph.add_node(Split(), "split")
    graph.add_node(Scale(), "a")
    graph.add_node(Scale(), "b")
    graph.add_edge("split.double", "a.x")
    graph.infer_exposed_ports()
    assert list(graph.get_input_spec()) == ["split_x", "b_x"]
    assert list(graph.get_output_spec()) == ["square", "a_y", "b_y"]
    before = graph.to_config()
    graph.infer_exposed_ports()
    assert graph.to_config() == before


def test_changing_the_children_changes_the_ports_above() -> None:
    inner = chain(Scale(), name="inner")
    pipeline = as_pipeline(inner, "first", "p")
    inner.expose_input("n0", "bias")
    pipeline.expose_input("first", "bias")
    assert list(pipeline.get_input_spec()) == ["x", "bias"]
    assert torch.equal(pipeline.run({"x": ones(), "bias": ones()})["y"], 3 * ones())


# --- validation -------------------------------------------------------------------------------------------------------


def broken() -> Graph:
    """Four mistakes at once."""
    graph = Graph("g")
    graph.add_node(Add(), "add")
    for name in ("p", "q", "r", "s"):
        graph.add_node(Scale(), name)
    graph.add_edge("p.y", "q.x")
    graph.add_edge("q.y", "p.x")
    graph.add_edge("p.y", "add.a")
    graph.expose_input("r", "x", "x")
    graph.expose_input("s", "x", "x")
    for source in ("r.y", "s.y"):  # behind the check of a second source
        graph._edges.add(graph._edge((source, "add.b")))
    graph.add_node(Scale(), "lost")
    graph.expose_output("add", "y")
    return graph


def test_all_findings_at_once_each_with_place_and_mend() -> None:
    with pytest.raises(ValidationError) as caught:
        broken().validate()
    text = str(caught.value)
    assert text.startswith("g is not valid (3 findings):")
    for words in (
        "g/lost.x: required, but nothing feeds it. Add an edge into it, expose_input('lost', 'x'), or give it a value.",
        "g/add.b: 2 sources feed it (r.y -> add.b, s.y -> add.b); expected one. Remove one",
        "g/p: the loop through p, q has no starting value; expected a start for one of q.x, p.x. Expose that input",
    ):
        assert words in text
    assert isinstance(caught.value, ValueError)
    assert {finding.where for finding in caught.value.findings} == {"g/lost.x", "g/add.b", "g/p"}


def test_without_strict_the_findings_are_handed_back() -> None:
    result = broken().validate(strict=False)
    assert not result.is_valid
    assert len(result.errors) == 3
    assert [str(found) for found in result.warnings if found.where == "g/lost"] == [
        "g/lost: no input reaches it. Add an edge into it, or expose one of its inputs.",
        "g/lost: it leads to no output. Expose one of its outputs, or remove the node.",
    ]
    assert str(result).count("error: ") == 3


@pytest.mark.parametrize("call", [lambda graph: graph.run({}), lambda graph: graph(x=ones())])
def test_what_is_not_valid_does_not_run(call: Any) -> None:
    with pytest.raises(ValidationError, match="g is not valid .2 findings.") as caught:
        call(broken())
    assert {finding.where for finding in caught.value.findings} == {"g/add.b", "g/p"}, "what leads to no output is in nobody's way"


def test_a_mistake_beside_what_is_wanted_does_not_stop_a_partial_run() -> None:
    graph = broken()
    assert torch.equal(graph.run({"x": ones()}, outputs=["r.y"])["r.y"], 2 * ones())


def test_validation_looks_below_when_asked() -> None:
    inner = chain(Scale(), name="inner")
    inner.add_node(Add(), "open")
    pipeline = as_pipeline(inner, "first", "p")
    assert pipeline.validate(strict=False).is_valid
    result = pipeline.validate(strict=False, deep=True)
    assert [found.where for found in result.errors] == ["p/first > inner/open.a", "p/first > inner/open.b"]


def test_ports_that_are_gone_below_are_findings() -> None:
    inner = chain(Scale(), name="inner")
    pipeline = Pipeline("p")
    pipeline.add_graph(inner, "a")
    pipeline.add_graph(chain(Scale(), name="other"), "b")
    pipeline.add_edge("a.y", "b.x")
    pipeline.infer_exposed_ports()
    inner.remove_node("n0")
    with pytest.raises(ValidationError) as caught:
        pipeline.validate()
    assert "p: edge a.y -> b.x: 'a' has no output 'y'" in str(caught.value)
    assert "p: exposed input a.x as 'x': 'a' has no input 'x'" in str(caught.value)


def test_kinds_that_changed_after_the_edge_was_made_are_found() -> None:
    def changing(kind: str) -> Graph:
        graph = Graph("inner")
        graph.add_node(Block.wrap(lambda x: x, inputs={"x": kind}, outputs={"y": kind}), "only")
        graph.infer_exposed_ports()
        return graph

    inner = changing("tensor")
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Scale(), name="first"), "first")
    pipeline.add_graph(inner, "second")
    pipeline.add_edge("first.y", "second.x")
    pipeline.infer_exposed_ports()
    inner.nodes.put("only", changing("text").nodes["only"])
    inner._changed()
    with pytest.raises(ValidationError, match=r"p: edge first.y -> second.x: 'tensor' does not feed 'text'"):
        pipeline.validate()


def test_validation_changes_nothing() -> None:
    graph = chain(Scale(), Scale())
    before = graph.to_config()
    graph.validate()
    assert graph.to_config() == before


@given(loops())
def test_random_graphs_validate(sketch: Sketch) -> None:
    assert sketch.graph(plain=True).validate(strict=False).is_valid


# --- changing a built graph -------------------------------------------------------------------------------------------


@given(loops(max_nodes=5))
def test_replacing_a_node_by_its_equal_changes_nothing(sketch: Sketch) -> None:
    graph = sketch.graph(plain=True)
    before = graph.to_config()
    for node_id in list(graph.nodes):
        child = graph.nodes[node_id]
        assert graph.replace_node(node_id, type(child).from_config(child.config)) == []
        assert graph.nodes[node_id] is not child
    assert graph.to_config() == before
    expected = reference(sketch)
    found = graph.run(sketch.tensors())
    assert all(int(found[f"n{node}-o{output}"]) == expected(node, output) for node, output in sketch.outputs)


def test_replacing_a_node_says_what_did_not_fit() -> None:
    graph = Graph("g")
    graph.add_node(Scale(), "a")
    graph.add_node(Split(), "b")
    graph.add_edge("a.y", "b.x")
    graph.expose_input("a", "x")
    graph.expose_output("b", "double")
    graph.expose_output("b", "square")
    assert graph.replace_node("b", Scale(3.0)) == ["b.double as 'double'", "b.square as 'square'"]
    assert [str(edge) for edge in graph.edges] == ["a.y -> b.x"]
    graph.expose_output("b", "y")
    assert torch.equal(graph.run({"x": ones()})["y"], 6 * ones())


def test_replacing_a_node_by_one_of_other_kinds_takes_the_edge_away() -> None:
    graph = chain(Scale(), Scale(), name="g")
    lost = graph.replace_node("n1", Block.wrap(lambda x: x, inputs={"x": "text"}, outputs={"y": "text"}))
    assert "n0.y -> n1.x" in lost
    assert graph.edges == ()


def test_replacing_takes_a_registered_type_as_add_node_does() -> None:
    graph = chain(Scale(), name="g")
    graph.replace_node("n0", "test/relu")
    assert torch.equal(graph.run({"x": -ones()})["y"], 0 * ones())


def test_replacing_keeps_what_is_true_of_the_place() -> None:
    graph = Graph("g")
    graph.add_node(Scale(), "a", trainable=False, timeout=5.0, inputs={"bias": ones()})
    graph.infer_exposed_ports()
    graph.replace_node("a", Scale(3.0))
    assert graph.node_specs["a"].trainable is False
    assert graph.node_specs["a"].timeout == 5.0
    assert torch.equal(graph.run({"x": ones()})["y"], 4 * ones())


def test_removing_a_node_takes_its_edges_and_exposed_ports() -> None:
    graph = chain(Scale(), Scale(), Scale(), name="g")
    child = graph.nodes["n1"]
    assert graph.remove_node("n1") is child
    assert list(graph.nodes) == ["n0", "n2"]
    assert graph.edges == ()
    graph.remove_node("n0")
    assert graph.get_input_spec() == {}


def test_a_clone_trains_apart() -> None:
    shared = Affine()
    graph = chain(shared, shared)
    clone = graph.clone_node("n1")
    assert clone is graph.nodes["n1"] is not shared
    assert torch.equal(clone.linear.weight, shared.linear.weight)
    assert len(list(graph.parameters())) == 4


def test_the_plan_follows_every_change() -> None:
    graph = chain(Scale(2.0), Scale(5.0), name="g")
    assert torch.equal(graph.run({"x": ones()})["y"], 10 * ones())
    graph.add_node(Scale(10.0), "n2")
    graph.add_edge("n1.y", "n2.x")
    graph.expose_output("n2", "y", "z")
    assert torch.equal(graph.run({"x": ones()})["z"], 100 * ones())
    graph.replace_node("n0", Scale(3.0))
    assert torch.equal(graph.run({"x": ones()})["z"], 150 * ones())
    graph.remove_node("n2")
    assert list(graph.run({"x": ones()})) == ["y"]
    graph.configure_node("n1", inputs={"bias": ones()})
    assert torch.equal(graph.run({"x": ones()})["y"], 16 * ones())


def test_the_plan_above_follows_a_change_below() -> None:
    inner = chain(Scale(2.0), name="inner")
    pipeline = as_pipeline(inner, "first", "p")
    pipeline.run({"x": ones()})
    inner.add_node(Scale(5.0), "more")
    inner.add_edge("n0.y", "more.x")
    inner.expose_output("more", "y", "z")
    pipeline.expose_output("first", "z")
    assert torch.equal(pipeline.run({"x": ones()})["z"], 10 * ones())


def test_the_plan_above_follows_a_change_below_that_it_was_not_told_of() -> None:
    """The output of the first graph becomes one that may stay away."""
    first = chain(Scale(), name="first")
    pipeline = Pipeline("p")
    pipeline.add_graph(first, "first")
    pipeline.add_graph(chain(Scale(), name="second"), "second")
    pipeline.add_edge("first.y", "second.x")
    pipeline.infer_exposed_ports()
    assert torch.equal(pipeline(x=-ones())["y"], -4 * ones())
    first.replace_node("n0", Maybe())
    with pytest.raises(MissingInputError, match=r"second.x: required, but no value arrived from first.y"):
        pipeline(x=-ones())


def test_a_required_parent_that_gave_nothing_is_an_error_with_the_path() -> None:
    pipeline = as_pipeline(chain(Maybe(), Scale(), name="g"), "first", "p")
    with pytest.raises(MissingInputError, match=r"n1.x: required, but no value arrived from n0.y") as caught:
        pipeline.run({"x": -ones()})
    assert caught.value.__notes__ == ["raised in node first/n1 of p"]


# --- training ---------------------------------------------------------------------------------------------------------


def test_trainable_parameters_are_those_of_places_that_train_each_once() -> None:
    shared, other = Affine(seed=1), Affine(seed=2)
    graph = chain(shared, other, shared)
    graph.set_trainable("n1", False)
    assert [id(parameter) for parameter in graph.trainable_parameters()] == [id(parameter) for parameter in shared.parameters()]
    graph.set_trainable("n0", False)
    assert len(list(graph.trainable_parameters())) == 2
    graph.set_trainable("n2", False)
    assert list(graph.trainable_parameters()) == []
    graph.set_trainable("n1")
    assert len(list(graph.trainable_parameters())) == 2
    other.freeze()
    assert list(graph.trainable_parameters()) == []


def test_trainable_parameters_through_levels() -> None:
    shared = Affine()
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(shared, Affine(seed=3), name="one"), "one")
    pipeline.add_graph(chain(shared, name="two"), "two")
    assert len(list(pipeline.trainable_parameters())) == 4
    pipeline.set_trainable("one", False)
    assert len(list(pipeline.trainable_parameters())) == 2


def test_a_child_that_trains_nowhere_stays_in_eval() -> None:
    shared, alone = Affine(seed=1), Affine(seed=2)
    graph = chain(shared, alone, shared)
    graph.set_trainable("n0", False)
    graph.set_trainable("n1", False)
    graph.train()
    assert shared.training
    assert not alone.training


def test_a_deep_nest_of_shared_levels_is_looked_at_once() -> None:
    """One child twice at each of 40 levels: 2**40 paths, 41 modules. Done path by path, this would never end."""
    graph = chain(Scale(), name="g0")
    for depth in range(40):
        outer = Graph(f"g{depth + 1}")
        outer.add_child(graph, "left")
        outer.add_child(graph, "right")
        outer.add_edge("left.y", "right.x")
        outer.infer_exposed_ports()
        graph = outer
    assert graph.validate(deep=False).is_valid
    assert not graph.is_async
    assert list(graph.trainable_parameters()) == list(graph.find("/".join(["left"] * 40)).trainable_parameters())
    assert not graph.eval().find("/".join(["right"] * 40)).training


def test_an_adapter_that_nothing_can_wear_is_refused_and_nothing_is_added() -> None:
    graph = chain(Scale(), name="g")
    with pytest.raises(StructureError, match=r"g/styled: no adapter 'ink': Scale .* has no adapters; leave adapter out"):
        graph.add_node(Scale(), "styled", adapter="ink")
    with pytest.raises(StructureError, match=r"g/n0: no adapter 'ink'"):
        graph.configure_node("n0", adapter="ink")
    assert list(graph.nodes) == ["n0"]
    assert graph.node_specs["n0"].adapter is None
