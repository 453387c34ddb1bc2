"""``wgtorch validate``: findings and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgtorch.cli.main import main
from wgtorch.graph import Graph


def test_a_valid_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "default"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "world default: valid"
    assert main(["validate", "graph/caption"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["inputs: image*  (* has to be given)", "outputs: text, attributes, confidence"]


def test_findings_are_listed_and_leave_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = Graph("half")
    graph.add_node("guidance/cfg", "guidance")
    path = graph.save_config(tmp_path / "half.yaml")
    assert main(["validate", str(path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "graph half: not valid"
    assert any(row.startswith("  error: ") and "guidance" in row for row in said[1:])


def test_what_is_wrong_deep_inside_is_found_from_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = Graph("half")
    graph.add_node("guidance/cfg", "guidance")
    graph.save_config(tmp_path / "half.yaml")
    (tmp_path / "whole.yaml").write_text("{kind: pipeline, pipeline_id: whole, nodes: [{node_id: one, config: {ref: half.yaml}}]}")
    assert main(["validate", str(tmp_path / "whole.yaml")]) == 1
    assert "error: whole/one > " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not a valid config file"),
        ("- a", "holds list of 1 (str 'a', ...); expected a mapping"),
        ("{kind: graph, graph_id: g, nodes: [{node_id: a, block_type: solver/flow_eulr}]}", "did you mean 'solver/flow_euler'"),
        (
            "{kind: graph, graph_id: g, nodes: [{node_id: a, block_type: guidance/cfg, config: {scale: loud}}]}",
            "nodes[0].config.scale: got str 'loud'",
        ),
        ("{kind: pipeline, pipeline_id: p, nodes: [{node_id: a, config: {ref: ../secret.yaml}}]}", "leaves the folder of the config"),
    ],
)
def test_a_config_that_cannot_be_built_leaves_with_two(tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert main(["validate", str(tmp_path / "bad.yaml")]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
