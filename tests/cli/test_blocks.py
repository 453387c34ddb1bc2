"""``wgtorch blocks``, ``wgtorch schema`` and ``wgtorch templates NAME``."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from wgtorch.cli.main import main
from wgtorch.cli.pages import block_page, template_page
from wgtorch.cli.schema import schema_of
from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import TemplateRegistry
from wgtorch.graph import Graph
from wgtorch.world import World


def test_every_type_is_listed_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blocks"]) == 0
    rows = dict(row.split(": ", 1) for row in capsys.readouterr().out.splitlines())
    assert set(rows) >= {"solver/euler", "backbone/scene", "llm", "memory"}
    assert all(rows.values())


def test_types_that_begin_with_a_name_are_listed_and_one_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blocks", "solver/dpmpp"]) == 0
    assert [row.split(":")[0] for row in capsys.readouterr().out.splitlines()] == [
        "solver/dpmpp_2m",
        "solver/dpmpp_2m_sde",
        "solver/dpmpp_3m_sde",
    ]
    assert main(["blocks", "noise/gaussian"]) == 0
    page = capsys.readouterr().out
    for words in ("# noise/gaussian", "## Inputs", "## Outputs", "| `shape` | list of integer | needed |", "block_type: noise/gaussian"):
        assert words in page


def test_an_unknown_type_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blocks", "solver/eulr"]) == 2
    assert "there is no block type 'solver/eulr'; did you mean 'solver/euler'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in BlockRegistry.names() if BlockRegistry.origin(name) == "wgtorch"])
def test_every_type_has_a_page_with_a_config_that_its_schema_takes(name: str) -> None:
    page = block_page(name)
    entry = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    assert entry["block_type"] == name
    assert "no summary" not in page and len(page.splitlines()[2]) > 10
    assert set(BlockRegistry.get(name).class_ports()[1]) <= {row.split("`")[1] for row in page.splitlines() if row.startswith("| `")}


@pytest.mark.parametrize("name", [name for name in TemplateRegistry.names() if TemplateRegistry.origin(name) == "wgtorch"])
def test_every_template_has_a_page(name: str) -> None:
    page = template_page(TemplateRegistry.get(name))
    assert page.startswith(f"# {name}\n\n")
    assert "## Parameters" in page
    assert "wgtorch run" in page or "Its ports show once" in page or name.startswith("stage/")


def test_a_template_is_told_by_its_bare_name_and_an_unknown_one_by_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["templates", "text_to_image"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("# graph/text_to_image\n") and "| `steps` | `int` | `12` |" in page and "| `prompt` | text |" in page
    assert main(["templates", "text_to_image", "--level", "pipeline"]) == 0
    assert capsys.readouterr().out.startswith("# pipeline/text_to_image\n")
    assert main(["templates", "text_to_imag"]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["graph", "pipeline", "stage", "world"])
def test_a_levels_schema_takes_what_the_level_writes(level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", level, "--out", str(tmp_path / "it.json")]) == 0
    schema = json.loads((tmp_path / "it.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    world = World.from_template("default")
    creator = world.nodes["creator"]
    pipeline = next(iter(creator.nodes.values()))
    written = {"world": world, "stage": creator, "pipeline": pipeline, "graph": Graph.from_template("text_to_image")}[level].to_config()
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(json.loads(json.dumps(written)))] == []


def test_a_graphs_schema_knows_every_types_config_and_variables_of_the_environment() -> None:
    schema = schema_of("graph")
    config = Graph.from_template("text_to_image").to_config()
    noise = next(node for node in config["nodes"] if node["node_id"] == "noise")
    check = jsonschema.Draft202012Validator(schema)
    noise["config"] = {"shape": "64"}
    assert any("shape" in str(list(error.absolute_path)) for error in check.iter_errors(config))
    noise["config"] = {"shape": "${oc.env:WGTORCH_SHAPE}"}
    assert list(check.iter_errors(config)) == []
    noise["block_type"], noise["config"] = "mine/noise", {"whatever": 1}
    assert list(check.iter_errors(config)) == []


def test_a_types_schema_is_that_of_its_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "noise/gaussian"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["shape"]
    assert main(["schema", "grph"]) == 2
    assert "did you mean 'graph'" in capsys.readouterr().err
