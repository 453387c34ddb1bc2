"""What a command's first argument may name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wgtorch.cli.target import CommandError, level_from, open_level, values
from wgtorch.core.errors import CheckpointError, ConfigError, UnknownNameError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.world import World


def noise(size: int = 4) -> Graph:
    graph = Graph("speckle")
    graph.add_node("noise/gaussian", "noise", config={"shape": [3, size, size]})
    graph.infer_exposed_ports()
    return graph


def test_a_template_by_bare_name_and_by_level() -> None:
    assert isinstance(open_level("default", {"steps": 1}), World)
    assert isinstance(open_level("text_to_image"), Graph)
    assert isinstance(open_level("pipeline/text_to_image"), Pipeline)


def test_parameters_reach_the_template() -> None:
    assert open_level("default", {"traveller": "Anna"}).content["traveller"] == "Anna"
    with pytest.raises(ConfigError, match=r"unknown parameter 'travler'; did you mean 'traveller'"):
        open_level("default", {"travler": "Anna"})


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_config_file_of_any_level(tmp_path: Path, ending: str) -> None:
    path = noise(6).save_config(tmp_path / f"speckle.{ending}")
    level = open_level(str(path))
    assert isinstance(level, Graph)
    assert level.to_config() == noise(6).to_config()


def test_a_saved_folder_with_its_weights(tmp_path: Path) -> None:
    graph = open_level("caption")
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.add_(1.0)
    graph.save(tmp_path / "saved")
    loaded = open_level(str(tmp_path / "saved"))
    assert isinstance(loaded, Graph)
    for name, value in graph.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_refs_are_relative_to_the_file(tmp_path: Path) -> None:
    noise().save_config(tmp_path / "graphs" / "speckle.yaml")
    path = tmp_path / "twice.yaml"
    path.write_text("{kind: pipeline, pipeline_id: p, nodes: [{node_id: a, config: {ref: graphs/speckle.yaml}}]}")
    assert list(open_level(str(path)).nodes["a"].nodes) == ["noise"]


def test_a_file_may_name_a_template_of_any_level(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{template: default, params: {traveller: Anna}}")
    assert open_level(str(path)).content["traveller"] == "Anna"
    assert isinstance(level_from({"level": "graph", "template": "caption"}), Graph)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"template": "default", "param": {}}, r"unknown key 'param' beside 'template'; did you mean 'params'"),
        ({"kind": "planet"}, r"kind is 'planet'; expected one of \['graph', 'pipeline', 'stage', 'world'\], or a 'template'"),
        ({"nodes": []}, r"kind is None"),
        ({"template": "defualt"}, r"unknown world template 'defualt'; did you mean 'default'"),
        ({"template": "text_to_image", "level": "planet"}, r"unknown planet template"),
    ],
)
def test_a_config_that_describes_no_level(config: dict, words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        level_from(config)


def test_nothing_of_that_name_suggests_templates() -> None:
    with pytest.raises(UnknownNameError, match=r"no template and no file 'graph/caption_'; did you mean 'graph/caption'"):
        open_level("graph/caption_")


def test_parameters_are_refused_where_there_is_no_template(tmp_path: Path) -> None:
    path = noise().save_config(tmp_path / "speckle.yaml")
    with pytest.raises(CommandError, match=r"is no template, so it has no parameter 'size'; change the config itself"):
        open_level(str(path), {"size": 3})


def test_a_value_that_a_block_refuses_is_a_mistake_in_the_config() -> None:
    with pytest.raises(ConfigError, match=r"simulation/architect: .*pictures: found 0, expected a whole number of at least 1"):
        open_level("default", {"pictures": 0})


@pytest.mark.parametrize(("manifest", "words"), [(None, "no manifest.json"), ({"kind": "planet"}, "no manifest of a wgtorch checkpoint")])
def test_a_folder_that_save_did_not_write(tmp_path: Path, manifest: dict | None, words: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=words):
        open_level(str(tmp_path))


def test_values_are_json_where_they_can_be_and_text_otherwise() -> None:
    pairs = [("a", "8"), ("b", "0.5"), ("c", "true"), ("d", "[1, 2]"), ("e", "Anna"), ("f", '"8"'), ("g", "x=y"), ("h", "")]
    assert values(pairs) == {"a": 8, "b": 0.5, "c": True, "d": [1, 2], "e": "Anna", "f": "8", "g": "x=y", "h": ""}


def test_a_saved_archive_opens_as_a_folder_does(tmp_path: Path) -> None:
    graph = open_level("graph/caption")
    graph.save_checkpoint(tmp_path / "caption.wgt", "archive")
    assert open_level(str(tmp_path / "caption.wgt")).to_config()["nodes"] == graph.to_config()["nodes"]
