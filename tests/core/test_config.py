"""Configs: round trips, refs, the environment, schemas, and errors that give the path."""

from __future__ import annotations

import copy
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.blocks_for_tests import Affine, Scale, Secret, Shout, as_pipeline, as_stage, block_of, chain, counter
from tests.core.random_structures import Sketch, dags, loops
from wgtorch.core.block import Block, register_block
from wgtorch.core.config.resolve import dump_config, parse_config
from wgtorch.core.config.schema import level_schema
from wgtorch.core.errors import ConfigError, StructureError, UnknownNameError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world_runtime.state import State


def small() -> dict[str, Any]:
    """A graph's config, as a user writes it."""
    return {
        "schema_version": "1.0",
        "kind": "graph",
        "graph_id": "g",
        "nodes": [
            {"node_id": "a", "block_type": "test/scale", "config": {"factor": 3.0}},
            {"node_id": "b", "block_type": "test/scale", "config": {"factor": 5.0}, "trainable": False},
        ],
        "edges": [{"source_node": "a", "source_port": "y", "target_node": "b", "target_port": "x"}],
        "exposed_inputs": [{"node_id": "a", "port_name": "x", "name": "x"}],
        "exposed_outputs": [{"node_id": "b", "port_name": "y", "name": "y"}],
        "metadata": {"num_loop_steps": 20},
    }


def deep() -> dict[str, Any]:
    """A stage's config: three levels above a block."""
    return as_stage(chain(Scale(3.0), Scale(5.0), name="g")).to_config()


def error_of(level: type, config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        level.from_config(config)  # type: ignore[attr-defined]
    return str(caught.value)


# --- round trips ------------------------------------------------------------------------------------------------------


def test_the_canonical_form() -> None:
    graph = Graph.from_config(small())
    written = graph.to_config()
    expected = small()
    expected["nodes"][0]["trainable"] = True
    assert written == expected
    assert list(written) == ["schema_version", "kind", "graph_id", "nodes", "edges", "exposed_inputs", "exposed_outputs", "metadata"]
    assert torch.equal(graph.run({"x": torch.ones(1)})["y"], torch.tensor([15.0]))


def test_every_level_comes_back_the_same() -> None:
    pipeline = as_pipeline(counter(3))
    stage = as_stage(chain(Scale(3.0)))
    stage.set_execution_condition(["recipe", "!artifacts"])
    for level in (counter(3), pipeline, stage):
        twin = type(level).from_config(level.to_config())
        assert twin.to_config() == level.to_config()
    x = torch.tensor(1.0)
    assert Pipeline.from_config(pipeline.to_config()).run({"x": x}) == pipeline.run({"x": x})
    found = Stage.from_config(stage.to_config()).run(State(recipe=x))
    assert found.artifacts == 3


@given(loops())
def test_random_graphs_come_back_the_same(sketch: Sketch) -> None:
    graph = sketch.graph(plain=True)
    config = graph.to_config()
    for text in (dump_config(config), dump_config(config, json_form=True)):
        twin = Graph.from_config(yaml.safe_load(text))
        assert twin.to_config() == config
    found, expected = twin.run(sketch.tensors()), graph.run(sketch.tensors())
    assert list(found) == list(expected)
    assert {name: int(value) for name, value in found.items()} == {name: int(value) for name, value in expected.items()}


@given(st.lists(dags(max_nodes=3), min_size=1, max_size=3), st.data())
def test_random_pipelines_with_shared_graphs_come_back_the_same(sketches: list[Sketch], data: st.DataObject) -> None:
    graphs = [sketch.graph(f"g{index}", plain=True) for index, sketch in enumerate(sketches)]
    pipeline = Pipeline("p", metadata={"note": "random"})
    places = data.draw(st.lists(st.sampled_from(range(len(graphs))), min_size=1, max_size=4))
    for index, number in enumerate(places):
        pipeline.add_graph(graphs[number], f"at{index}", trainable=data.draw(st.booleans()))
    pipeline.infer_exposed_ports()
    twin = Pipeline.from_config(json.loads(json.dumps(pipeline.to_config())))
    assert twin.to_config() == pipeline.to_config()
    for first in range(len(places)):
        for second in range(len(places)):
            assert (twin.nodes[f"at{first}"] is twin.nodes[f"at{second}"]) is (places[first] == places[second])


def test_to_config_is_a_copy() -> None:
    graph = Graph.from_config(small())
    graph.to_config()["metadata"]["num_loop_steps"] = 7
    graph.to_config()["nodes"][0]["config"]["factor"] = 0.0
    assert graph.to_config()["metadata"] == {"num_loop_steps": 20}
    assert graph.to_config()["nodes"][0]["config"] == {"factor": 3.0}


def test_from_config_does_not_change_what_it_is_given() -> None:
    config = deep()
    before = copy.deepcopy(config)
    Stage.from_config(config)
    assert config == before


def test_places_come_back() -> None:
    graph = Graph("g")
    graph.add_node(Scale(), "a", map="x", timeout=2.5, inputs={"bias": None}, trainable=False)
    graph.add_node(Shout(), "b", inputs={"text": "hello"})
    graph.infer_exposed_ports()
    twin = Graph.from_config(graph.to_config())
    for node_id in ("a", "b"):
        assert twin.node_specs[node_id] == graph.node_specs[node_id]
    assert twin.run({"x": []})["text"] == "HELLO!"


def test_what_stands_at_several_places_is_written_once_and_built_once() -> None:
    shared = Affine()
    graph = chain(shared, Affine(seed=2), shared)
    config = graph.to_config()
    assert [("block_type" in node, node.get("share")) for node in config["nodes"]] == [
        (True, "shared-1"),
        (True, None),
        (False, "shared-1"),
    ]
    twin = Graph.from_config(config)
    assert twin.nodes["n0"] is twin.nodes["n2"]
    assert twin.nodes["n0"] is not twin.nodes["n1"]


def test_a_block_shared_between_graphs_stays_shared() -> None:
    shared = Affine()
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(shared, name="one"), "one")
    pipeline.add_graph(chain(Scale(), shared, name="two"), "two")
    pipeline.add_edge("one.y", "two.x")
    pipeline.infer_exposed_ports()
    twin = Pipeline.from_config(pipeline.to_config())
    assert twin.find("one/n0") is twin.find("two/n1")
    assert len(list(twin.parameters())) == 2


def test_files_of_both_sorts(tmp_path: Path) -> None:
    graph = counter(3)
    for name in ("g.yaml", "g.json"):
        graph.save_config(tmp_path / "deep" / name)
        assert Graph.from_yaml(tmp_path / "deep" / name).to_config() == graph.to_config()
    assert json.loads((tmp_path / "deep" / "g.json").read_text()) == graph.to_config()


def test_a_graph_inside_a_graph_comes_back() -> None:
    outer = chain(Scale(), counter(2), name="outer")
    twin = Graph.from_config(outer.to_config())
    assert torch.equal(twin.run({"x": torch.ones(1)})["y"], torch.tensor([8.0]))
    assert twin.to_config() == outer.to_config()


def test_what_a_config_cannot_hold_is_named_by_its_path() -> None:
    with pytest.raises(StructureError, match=r"g/n0: the wrapped <lambda> cannot be written to a config"):
        chain(block_of(lambda x: x), name="g").to_config()
    graph = Graph("g")
    graph.add_node(Scale(), "a", inputs={"bias": torch.ones(1)})
    with pytest.raises(ConfigError, match=r"g/a.inputs.bias: Tensor\[1\] float32 is not plain data"):
        graph.to_config()
    with pytest.raises(ConfigError, match=r"g.metadata.at: .* is not plain data"):
        Graph("g", metadata={"at": Path("x")}).to_config()


# --- refs -------------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return path


def pipeline_of(*entries: Any) -> dict[str, Any]:
    return {"kind": "pipeline", "pipeline_id": "p", "nodes": list(entries)}


def test_refs_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path, "graphs/parts/factor.yaml", {"factor": 7.0})
    graph = small()
    graph["nodes"][0]["config"] = {"ref": "parts/factor.yaml"}
    write(tmp_path, "graphs/g.yaml", graph)
    path = write(tmp_path, "p.yaml", pipeline_of({"node_id": "one", "config": {"ref": "graphs/g.yaml"}}))
    pipeline = Pipeline.from_yaml(path)
    assert pipeline.find("one/a").factor == 7.0  # type: ignore[attr-defined]
    assert "ref" not in json.dumps(pipeline.to_config())


def test_any_sub_config_may_be_a_ref(tmp_path: Path) -> None:
    graph = small()
    write(tmp_path, "node.yaml", graph["nodes"][0])
    write(tmp_path, "meta.json", {"num_loop_steps": 4})
    graph["nodes"][0] = {"ref": "node.yaml"}
    graph["metadata"] = {"ref": "meta.json"}
    built = Graph.from_yaml(write(tmp_path, "g.yaml", graph))
    assert built.metadata == {"num_loop_steps": 4}
    assert built.nodes["a"].factor == 3.0
    assert Graph.from_config(graph, base=tmp_path).to_config() == built.to_config()


def test_a_ref_may_climb_within_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "shared.yaml", {"factor": 9.0})
    graph = small()
    graph["nodes"][0]["config"] = {"ref": "../shared.yaml"}
    write(tmp_path, "graphs/g.yaml", graph)
    path = write(tmp_path, "p.yaml", pipeline_of({"node_id": "one", "config": {"ref": "graphs/g.yaml"}}))
    assert Pipeline.from_yaml(path).find("one/a").factor == 9.0  # type: ignore[attr-defined]


def test_the_same_file_may_be_named_twice(tmp_path: Path) -> None:
    write(tmp_path, "g.yaml", small())
    entries = [{"node_id": name, "config": {"ref": "g.yaml"}} for name in ("one", "two")]
    pipeline = Pipeline.from_yaml(write(tmp_path, "p.yaml", pipeline_of(*entries)))
    assert pipeline.nodes["one"] is not pipeline.nodes["two"]


def test_a_circle_of_refs_names_its_files(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", {"more": {"ref": "b.yaml"}})
    write(tmp_path, "b.yaml", {"more": {"ref": "a.yaml"}})
    with pytest.raises(ConfigError, match=r"config.metadata.more.more: refs go in a circle: a.yaml -> b.yaml -> a.yaml"):
        Graph.from_config(small() | {"metadata": {"ref": "a.yaml"}}, base=tmp_path)


def test_a_file_that_names_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "g.yaml", small() | {"metadata": {"ref": "g.yaml"}})
    with pytest.raises(ConfigError, match=r"refs go in a circle: g.yaml -> g.yaml"):
        Graph.from_yaml(path)


@pytest.mark.parametrize("ref", ["../outside.yaml", "sub/../../outside.yaml", "{absolute}", "link.yaml"])
def test_a_ref_that_leaves_its_folder_is_refused(tmp_path: Path, ref: str) -> None:
    outside = write(tmp_path, "outside.yaml", {"factor": 1.0})
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(outside)
    graph = small()
    graph["nodes"][0]["config"] = {"ref": ref.format(absolute=outside)}
    path = write(inside, "g.yaml", graph)
    with pytest.raises(ConfigError, match=r"config.nodes\[0\].config: ref .* leaves the folder of the config; put the file inside it"):
        Graph.from_yaml(path)


def test_a_ref_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.yaml: cannot be read as a config"):
        Graph.from_config(small() | {"metadata": {"ref": "missing.yaml"}}, base=tmp_path)


def test_a_ref_to_something_else_than_a_mapping(tmp_path: Path) -> None:
    write(tmp_path, "list.yaml", [1, 2])
    with pytest.raises(ConfigError, match=r"list.yaml: holds list of 2 .* expected a mapping"):
        Graph.from_config(small() | {"metadata": {"ref": "list.yaml"}}, base=tmp_path)


def test_nothing_in_a_file_can_name_code(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("kind: graph\ngraph_id: !!python/object/apply:os.getcwd []\nnodes: []\n")
    with pytest.raises(ConfigError, match="not a valid config file"):
        Graph.from_yaml(path)


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("nodes: [")
    with pytest.raises(ConfigError, match=r"g.yaml: not a valid config file"):
        Graph.from_yaml(path)


def test_a_config_nested_without_end_is_refused(tmp_path: Path) -> None:
    data: Any = 1
    for _ in range(5_000):
        data = {"more": data}
    with pytest.raises(ConfigError, match=r"config.metadata.more.*nested 501 deep; expected at most 500. Set WGTORCH_FILE_LIMITS=10 to"):
        Graph.from_config(small() | {"metadata": data})


def test_limits_of_files_are_lifted_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small() | {"metadata": {"numbers": list(range(600_000))}}
    path = tmp_path / "g.json"
    path.write_text(json.dumps(graph))
    with pytest.raises(ConfigError, match=r"g.json: holds 600\d+ values; expected at most 500000. Set WGTORCH_FILE_LIMITS=10 to read ten"):
        Graph.from_yaml(path)
    monkeypatch.setenv("WGTORCH_FILE_LIMITS", "2")
    assert len(Graph.from_yaml(path).metadata["numbers"]) == 600_000
    monkeypatch.setenv("WGTORCH_FILE_LIMITS", "0.5")
    with pytest.raises(ConfigError, match="expected at most 250000"):
        Graph.from_yaml(path)
    monkeypatch.setenv("WGTORCH_FILE_LIMITS", "much")
    with pytest.raises(ConfigError, match="WGTORCH_FILE_LIMITS='much': expected a number such as 10"):
        Graph.from_yaml(path)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_hundred_levels_in_each_other_are_written_and_read(suffix: str, tmp_path: Path) -> None:
    graph = nested(100)
    path = graph.save_config(tmp_path / f"g{suffix}")
    again = Graph.from_yaml(path)
    assert again.to_config() == graph.to_config()
    assert float(again.run({"x": torch.ones(())})["y"]) == 2.0


def test_text_of_yaml_is_written_as_deep_as_it_is_read_with_few_frames() -> None:
    config: Any = {
        "text": ["1", "null", "a: b", "", "héé", "multi\nline", " x ", "#no", "- a", "yes"],
        "empty": [{}, [], None],
        3: True,
    }
    config = {**config, "numbers": [1, -2.5, 1e-6, 1e300, float("inf"), 10**20]}
    for _ in range(240):
        config = {"level": [config]}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)  # as little as other versions of Python may leave
    try:
        text = dump_config(config)
        again = parse_config(text, "text")
    finally:
        sys.setrecursionlimit(limit)
    assert again == config
    flat = {"a": ["1", 2, None, {"b": [], "c": {}}], "long": "word " * 60, "text": "a\nb\n"}
    assert dump_config(flat) == yaml.dump(flat, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120)


def test_only_a_node_says_that_its_child_is_at_an_endpoint() -> None:
    config = as_pipeline(chain(Scale(2.0))).to_config()
    config["nodes"][0]["config"]["endpoint_url"] = "http://127.0.0.1:1"
    assert "nodes[0].config.endpoint_url: unknown key" in error_of(Pipeline, config)


def test_what_nests_deeper_than_is_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested 501 deep; expected at most 500"):
        nested(180).save_config(tmp_path / "g.json")
    assert not (tmp_path / "g.json").exists()


def test_what_is_wrong_a_hundred_levels_below_is_found_with_its_path() -> None:
    config = inner = nested(100).to_config()
    for _ in range(99):
        inner = inner["nodes"][0]["config"]
    inner["nodes"][0]["config"] = {"factr": 2.0}
    inner["nods"] = []
    message = error_of(Graph, config)
    assert message.count("nodes[0].config") >= 2 * 99
    assert "config.nods: unknown key. Did you mean 'nodes'" in message
    assert "config.factr: unknown key. Did you mean 'factor'" in message


@pytest.mark.parametrize("wrong", [{"nodes": 3}, {"edges": [{}]}, {"metadata": 1}, {"exposed_inputs": [{"node_id": "s"}]}])
def test_a_graph_in_a_graph_is_checked_as_one_alone(wrong: dict[str, Any]) -> None:
    config = nested(2).to_config()
    config["nodes"][0]["config"] |= wrong
    assert "nodes[0].config." in error_of(Graph, config)


def nested(depth: int) -> Graph:
    """A graph in a graph in a graph."""
    graph = chain(Scale(2.0))
    for _ in range(depth - 1):
        outer = Graph()
        outer.add_node(graph, "inner")
        outer.infer_exposed_ports()
        graph = outer
    return graph


# --- the environment --------------------------------------------------------------------------------------------------


def secret_graph(key: Any = "${oc.env:WGTORCH_TEST_KEY}") -> dict[str, Any]:
    node = {"node_id": "a", "block_type": "test/secret", "config": {"key": key, "depth": {"inner": "x-${oc.env:WGTORCH_TEST_KEY}"}}}
    return {"kind": "graph", "graph_id": "g", "nodes": [node]}


def test_the_environment_is_read_and_never_written_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WGTORCH_TEST_KEY", "hush-hush")
    graph = Graph.from_config(secret_graph())
    graph.infer_exposed_ports()
    block = graph.nodes["a"]
    assert block.key == "hush-hush"
    assert block.depth == {"inner": "x-hush-hush"}
    assert graph.run({"text": "say "})["text"] == "say hush-hush"
    for config in (graph.to_config(), block.config, as_pipeline(graph).to_config(), copy.deepcopy(graph).to_config()):
        assert "hush" not in json.dumps(config)
        assert "${oc.env:WGTORCH_TEST_KEY}" in json.dumps(config)
    graph.save(tmp_path / "saved")
    for path in (tmp_path / "saved").rglob("*"):
        assert path.is_dir() or b"hush" not in path.read_bytes()
    monkeypatch.setenv("WGTORCH_TEST_KEY", "other")
    assert Graph.load(tmp_path / "saved").nodes["a"].key == "other"


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"test/secret: .*WGTORCH_TEST_KEY.*NAME must be set"):
        Graph.from_config(secret_graph())


def test_other_interpolations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_TEST_KEY", "k")
    with pytest.raises(ConfigError, match="only .*oc.env:NAME"):
        Graph.from_config(secret_graph("${no_such_resolver:1}"))


def test_a_value_that_only_looks_like_one_is_left_alone() -> None:
    config = secret_graph("costs $5 {or more}")
    del config["nodes"][0]["config"]["depth"]
    assert Graph.from_config(config).nodes["a"].key == "costs $5 {or more}"


def test_a_secret_set_in_code_is_written_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_TEST_KEY", "hush")
    graph = Graph("g")
    graph.add_node("test/secret", "a", config={"key": "${oc.env:WGTORCH_TEST_KEY}"})
    assert graph.nodes["a"].key == "hush"
    assert graph.to_config()["nodes"][0]["config"]["key"] == "${oc.env:WGTORCH_TEST_KEY}"
    assert Secret("plain").to_config()["config"]["key"] == "plain"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_wrong_type_three_levels_deep_has_its_path() -> None:
    config = deep()
    config["nodes"][0]["config"]["nodes"][0]["config"]["nodes"][1]["config"]["factor"] = "three"
    found = error_of(Stage, config)
    assert "nodes[0].config.nodes[0].config.nodes[1].config.factor: got str 'three'; expected number" in found
    assert found.startswith("stage config is not valid (1 finding)")


def test_wrong_types_in_places_three_levels_deep() -> None:
    config = deep()
    config["nodes"][0]["config"]["nodes"][0]["config"]["nodes"][1]["trainable"] = "yes"
    assert "nodes[0].config.nodes[0].config.nodes[1].trainable: got str 'yes'; expected boolean" in error_of(Stage, config)


def test_an_unknown_block_type_has_its_path_and_the_nearest_names() -> None:
    config = deep()
    config["nodes"][0]["config"]["nodes"][0]["config"]["nodes"][1]["block_type"] = "test/scael"
    found = error_of(Stage, config)
    assert "nodes[0].config.nodes[0].config.nodes[1].block_type: unknown block type 'test/scael'; did you mean 'test/scale'" in found


def test_an_unknown_key_has_its_path_and_the_nearest_name() -> None:
    config = small()
    config["nodes"][1]["trainabel"] = True
    assert "nodes[1].trainabel: unknown key. Did you mean 'trainable'?" in error_of(Graph, config)


def test_an_unknown_argument_of_a_block_has_its_path() -> None:
    config = small()
    config["nodes"][0]["config"]["factro"] = 1
    assert "nodes[0].config.factro: unknown key. Did you mean 'factor'?" in error_of(Graph, config)


def test_all_findings_at_once() -> None:
    config = small()
    config["nodes"][0]["config"]["factor"] = "x"
    config["nodes"][1]["block_type"] = "nowhere"
    config["edges"][0]["source_prot"] = "y"
    del config["exposed_inputs"][0]["port_name"]
    config["metadata"] = 3
    found = error_of(Graph, config)
    for words in (
        "nodes[0].config.factor: got str 'x'; expected number",
        "nodes[1].block_type: unknown block type 'nowhere'",
        "edges[0].source_prot: unknown key. Did you mean 'source_port'",
        "exposed_inputs[0]: 'port_name' is missing",
        "metadata: got int 3; expected object",
    ):
        assert words in found
    assert "(5 findings)" in found


def test_findings_come_as_data() -> None:
    config = small()
    config["metadata"] = 3
    with pytest.raises(ConfigError) as caught:
        Graph.from_config(config)
    (finding,) = caught.value.findings  # type: ignore[attr-defined]
    assert (finding.where, finding.found, finding.expected) == ("metadata", "got int 3", "object")


def test_nothing_is_built_when_anything_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setattr(Scale, "__init__", lambda self, factor=2.0: built.append(factor))
    config = small()
    config["metadata"] = 3
    error_of(Graph, config)
    assert built == []


@pytest.mark.parametrize("node_id", ["a.b", "a/b", "", "a b", 3])
def test_node_ids_in_configs(node_id: Any) -> None:
    config = small()
    config["nodes"][0]["node_id"] = node_id
    assert "nodes[0].node_id" in error_of(Graph, config)


def test_an_edge_to_a_node_that_is_not_there() -> None:
    config = small()
    config["edges"][0]["source_node"] = "aa"
    with pytest.raises(UnknownNameError, match="there is no node 'aa'"):
        Graph.from_config(config)


def test_a_node_that_says_nothing_of_what_stands_there() -> None:
    config = pipeline_of({"node_id": "one"})
    with pytest.raises(ConfigError, match="node 'one': has neither block_type, template, share, endpoint_url nor the config of a level"):
        Pipeline.from_config(config)


def test_a_version_that_is_not_known_is_refused_by_name() -> None:
    assert "schema_version '0.3' is not known here; this version reads '1.0'" in error_of(Graph, small() | {"schema_version": "0.3"})


def test_the_version_is_always_written() -> None:
    assert counter(3).to_config()["schema_version"] == "1.0"
    assert as_stage(chain(Scale())).to_config()["schema_version"] == "1.0"


def test_a_version_below_is_checked_as_well() -> None:
    config = deep()
    config["nodes"][0]["config"]["nodes"][0]["config"]["schema_version"] = "0.3"
    assert "'0.3'" in error_of(Stage, config)


def test_a_config_of_another_level_says_which_class_reads_it() -> None:
    assert "config of kind 'graph' given to Pipeline.from_config; use Graph.from_config" in error_of(Pipeline, small())


@pytest.mark.parametrize("config", [None, 3, "g.yaml", []])
def test_something_else_than_a_mapping(config: Any) -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        Graph.from_config(config)


# --- schemas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["graph", "pipeline", "stage", "world"])
def test_schemas_are_schemas_and_stand_alone(level: str) -> None:
    schema = level_schema(level)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    json.dumps(schema)


def test_what_is_written_fits_the_published_schema() -> None:
    stage = as_stage(chain(Scale(), Scale()))
    stage.set_execution_condition(["recipe"])
    for level in (counter(3), as_pipeline(counter(3)), stage):
        jsonschema.validate(level.to_config(), level.json_schema())


@given(loops())
def test_random_graphs_fit_the_published_schema(sketch: Sketch) -> None:
    jsonschema.Draft202012Validator(level_schema("graph")).validate(sketch.graph(plain=True).to_config())


# --- texts that look like interpolations ------------------------------------------------------------------------------


@register_block("test/template_text")
class TemplateText(Block):
    """Holds texts."""

    outputs = {"y": "any"}

    def __init__(self, text: str = "", more: Any = None) -> None:
        super().__init__()
        self.text, self.more = text, more

    def forward(self) -> Any:
        return self.text


@given(st.lists(st.sampled_from(["\\", "$", "{", "}", "${", "name", ":", ",", "'", '"', " ", "\n"]), max_size=10).map("".join))
def test_a_text_that_a_constructor_was_given_comes_back_as_it_is(text: str) -> None:
    graph = Graph("g")
    graph.add_node(TemplateText(text, {"deep": [text]}), "a")
    for _ in range(2):
        graph = Graph.from_config(parse_config(dump_config(graph.to_config()), "it"))
    assert (graph.nodes["a"].text, graph.nodes["a"].more) == (text, {"deep": [text]})


def test_a_template_in_a_prompt_is_saved_and_loaded(tmp_path: Path) -> None:
    graph = Graph("g")
    graph.add_node(TemplateText("Dear ${name}, C:\\${x}"), "a")
    graph.save(tmp_path / "it")
    assert Graph.load(tmp_path / "it").run({}) == graph.run({})
    TemplateText("Dear ${name}").save(tmp_path / "block")
    assert TemplateText.load(tmp_path / "block").text == "Dear ${name}"
    with pytest.raises(ConfigError, match=r"a text that holds \$\{ itself has"):
        Graph("g").add_node("test/template_text", "a", config={"text": "Dear ${name}"})


def test_half_of_a_character_is_refused_with_its_place() -> None:
    graph = Graph("g")
    graph.add_node(TemplateText("", ["fine", "cut \ud83d"]), "a")
    with pytest.raises(ConfigError, match=r"g/a: test/template_text\.more\[1\]: text with half of a character"):
        graph.to_config()


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (lambda: Scale(True), r"nodes\[0\]\.config\.factor: got bool True; expected number"),
        (lambda: TemplateText("", {"ref": "other.yaml"}), r"config\.more: names another file, 'other\.yaml'"),
        (lambda: TemplateText(3), r"nodes\[0\]\.config\.text: got int 3; expected string"),  # type: ignore[arg-type]
    ],
)
def test_what_could_not_be_loaded_is_not_saved(block: Any, words: str, tmp_path: Path) -> None:
    graph = Graph("g")
    graph.add_node(block(), "a")
    for save in (lambda: graph.save(tmp_path / "it"), lambda: graph.save_config(tmp_path / "it.yaml")):
        with pytest.raises(ConfigError, match=words):
            save()
    with pytest.raises(ConfigError, match=words.replace(r"nodes\[0\]\.config", r".*")):
        block().save(tmp_path / "it")
    assert list(tmp_path.iterdir()) == []
