"""``wgtorch draw``."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from wgtorch.cli.main import main
from wgtorch.graph import Graph


@pytest.mark.parametrize(("options", "format"), [([], "mermaid"), (["--format", "dot"], "dot"), (["--format", "svg"], "svg")])
def test_the_drawing_is_printed(options: list[str], format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "caption", *options]) == 0
    assert capsys.readouterr().out == Graph.from_template("caption").draw(format) + "\n"


@pytest.mark.parametrize(("name", "head"), [("a.svg", "<svg"), ("a.dot", "digraph"), ("a.mmd", "flowchart"), ("deep/a.txt", "flowchart")])
def test_the_files_ending_chooses_the_format(tmp_path: Path, name: str, head: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "default", "--out", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / name}\n"
    assert (tmp_path / name).read_text().startswith(head)


def test_an_svg_is_well_formed_and_holds_every_stage(tmp_path: Path) -> None:
    assert main(["draw", "default", "--out", str(tmp_path / "a.svg")]) == 0
    words = set(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    assert {"philosopher", "author", "environment", "architect", "creator"} <= words
