"""What mypy and pyright know of a user's file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "tests" / "data" / "users_file.py.txt").read_text(encoding="utf-8").splitlines()
EXPECTED = {number: line.rsplit("# ", 1)[1] for number, line in enumerate(LINES, 1) if line.startswith("reveal_type")}
WRONG = [number for number, line in enumerate(LINES, 1) if line.endswith("# error")]


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users_file.py"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def check(revealed: dict[int, str], errors: set[int]) -> None:
    said = {number: re.sub(r"[\w]+\.(?=[\w])", "", text) for number, text in revealed.items()}
    wrong = {LINES[number - 1]: said.get(number) for number, name in EXPECTED.items() if name not in said.get(number, "")}
    assert wrong == {}
    assert {LINES[number - 1] for number in errors} == {LINES[number - 1] for number in WRONG}


@pytest.mark.slow
def test_mypy_knows_what_a_run_gives_and_finds_what_is_misspelt(users_file: Path) -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", str(users_file)]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=users_file.parent, env=environment, check=False)
    rows = re.findall(r"users_file\.py:(\d+): (note|error): (.*)", done.stdout)
    revealed = {int(number): text for number, kind, text in rows if kind == "note" and "Revealed type" in text}
    check(revealed, {int(number) for number, kind, _ in rows if kind == "error"})


@pytest.mark.slow
def test_pyright_knows_what_a_run_gives_and_finds_what_is_misspelt(users_file: Path) -> None:
    pytest.importorskip("basedpyright")
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "standard", "pythonVersion": "3.11"}
    (users_file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(users_file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=users_file.parent, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    revealed = {entry["range"]["start"]["line"] + 1: entry["message"] for entry in found if entry["severity"] == "information"}
    errors = {entry["range"]["start"]["line"] + 1 for entry in found if entry["severity"] == "error"}
    check(revealed, errors)
