"""The evaluation as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_evaluation_prints_a_table_and_keeps_pictures_and_numbers(tmp_path: Path) -> None:
    words = ["--prompts", "6", "--drawings", "20", "--judge-pictures", "64"]
    command = [sys.executable, str(ROOT / "scripts" / "evaluate_default.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 held-out prompts, 12 in free words, 20 held-out drawings" in done.stdout
    assert "MISSED" in done.stdout, "a judge that has learned nothing finds nothing right"
    folder = tmp_path / "outputs" / "evaluate_default"
    numbers = json.loads((folder / "numbers.json").read_text())
    assert min(numbers["shares"]["describer on drawn"].values()) > 0.95
    assert numbers["seconds_a_picture"] > 0 and 5 < numbers["megabytes"] <= 16
    assert (folder / "pictures.png").stat().st_size > 10_000
