"""``wgtorch report``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world_blocks import tiny_world
from wgtorch.cli.main import main


def test_the_page_of_a_run_goes_into_its_folder_or_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = tiny_world()
    world.set_storage({"state_dir": str(tmp_path / "states")})
    world.run(num_steps=2, seed=1)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Report of 2 episodes: {tmp_path / 'report.html'}\n"
    assert main(["report", str(tmp_path / "states"), "-o", str(tmp_path / "else.html")]) == 0
    assert (tmp_path / "else.html").read_text().startswith("<!DOCTYPE html>")


def test_the_page_of_a_saved_world_goes_beside_it_so_that_it_can_be_saved_again(tmp_path: Path) -> None:
    world = tiny_world()
    world.run(seed=1)
    world.save(tmp_path / "saved")
    assert main(["report", str(tmp_path / "saved")]) == 0
    assert (tmp_path / "saved.html").is_file()
    world.save(tmp_path / "saved")


def test_a_folder_without_a_world_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "wgtorch report: " in (message := capsys.readouterr().err) and "holds no world's history" in message
