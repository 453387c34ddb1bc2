"""``wgtorch inspect`` and ``wgtorch models``."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.blocks_for_tests import Affine
from tests.checkpoints.blocks import rich_graph, small_world
from wgtorch.cli.main import main
from wgtorch.core.checkpoint.verify import inspect_checkpoint
from wgtorch.graph import Graph


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_what_a_checkpoint_holds(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_world().save_checkpoint(tmp_path / "w", format)
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for words in (
        "world, format 1.2", "written by wgtorch", "torch 2.", "one\n  work\n    only\n      n0  test/rich", "n1  test/affine  2 tensors",
        "one/work/only/n1  at 4 places: one/work/only/n1, one/work/only/n3, two/work/only/n1", "beside: life/life.json",
        "hashes: every file is what was saved",
    ):  # fmt: skip
        assert words in text, words


def test_damage_is_told_and_is_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rich_graph().save(tmp_path / "g")
    raw = bytearray((path / "blocks/n1.safetensors").read_bytes())
    raw[-1] ^= 1
    (path / "blocks/n1.safetensors").write_bytes(raw)
    (path / "blocks/n2.safetensors").unlink()
    (path / "notes").write_text("x")
    assert main(["inspect", str(path)]) == 1
    text = capsys.readouterr().out
    assert "DAMAGED:" in text and "n1.safetensors: is not the file that was saved" in text
    assert "n2.safetensors: missing" in text and "notes: is not in the manifest" in text
    assert len(inspect_checkpoint(path).damage) == 3
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert "there is no such checkpoint" in capsys.readouterr().err


def test_what_lies_outside_is_checked_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base.safetensors"
    save_file(Affine(seed=1).state_dict(), base)
    graph = Graph("g")
    graph.add_node("test/affine", "a", config={"checkpoint_ref": str(base)})
    path = graph.save(tmp_path / "g")
    assert main(["inspect", str(path)]) == 0
    assert f"from {base}" in capsys.readouterr().out
    save_file(Affine(seed=2).state_dict(), base)
    assert main(["inspect", str(path)]) == 1
    assert f"a: {base} changed since the checkpoint was saved" in capsys.readouterr().out
    base.unlink()
    assert main(["inspect", str(path)]) == 1
    assert "base.safetensors is not there" in capsys.readouterr().out


def test_models_of_two_levels_are_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "default", "graph/text_to_image"]) == 0
    text = capsys.readouterr().out
    heads = [line for line in text.splitlines()[:-1] if not line.startswith(" ")]
    assert text.count("wgtorch:scene_painter") == 1 and f"{len(heads)} models, " in text
    assert "text_to_image/backbone" in text
    assert "default/creator/paint/t2i/backbone" in text
