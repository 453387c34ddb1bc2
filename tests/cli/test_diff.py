"""``wgtorch diff`` of every level."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.blocks_for_tests import Scale, as_pipeline, as_stage, chain
from tests.world_blocks import tiny_world
from wgtorch.cli.diff import differences
from wgtorch.cli.main import main
from wgtorch.core.level import Level
from wgtorch.graph import Graph


def test_what_was_changed_is_told_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = chain(Scale(2.0), Scale(3.0), name="g"), chain(Scale(2.0), Scale(4.0), Scale(5.0), name="g")
    second.set_trainable("n0", False)
    first.save_config(tmp_path / "a.yaml")
    second.save_config(tmp_path / "b.yaml")
    assert main(["diff", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "~ nodes.n1.config.factor: 3.0 -> 4.0" in lines
    assert any(line.startswith("+ nodes.n2") for line in lines) and "+ edges.n1.y -> n2.x" in lines
    assert any(line.startswith(("+ nodes.n0.trainable", "~ nodes.n0.trainable")) for line in lines), lines
    assert "- exposed_outputs.y (n1.y)" in lines and "+ exposed_outputs.y (n2.y)" in lines


def test_order_is_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = chain(Scale(2.0), Scale(3.0), Scale(4.0), name="g").to_config()
    for part in ("nodes", "edges"):
        random.Random(3).shuffle(config[part])
    Graph.from_config(config).save_config(tmp_path / "b.yaml")
    chain(Scale(2.0), Scale(3.0), Scale(4.0), name="g").save(tmp_path / "a")
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b.yaml")]) == 0
    assert capsys.readouterr().out == "no difference\n"


@pytest.mark.parametrize("which", ["pipeline", "stage", "world"])
def test_every_level(which: str) -> None:
    def built() -> Level:
        graph = chain(Scale(2.0), name="inner")
        return {"pipeline": lambda: as_pipeline(graph), "stage": lambda: as_stage(graph), "world": tiny_world}[which]()

    one, other = built(), built()
    assert differences(one.to_config(), other.to_config()) == []
    if which == "world":
        other.set_initial_content({**other.own_config()["initial_content"], "story": "once"})
        assert [change.path for change in differences(one.to_config(), other.to_config())] == ["initial_content.story"]
    else:
        path = "work.only" if which == "stage" else "only"
        *rest, last = path.split(".")
        level = other.find("/".join(rest)) if rest else other
        level.find(last).replace_node("n0", Scale(7.0))
        (change,) = differences(one.to_config(), other.to_config())
        assert change.path.endswith("config.factor") and (change.before, change.after) == ("2.0", "7.0")
