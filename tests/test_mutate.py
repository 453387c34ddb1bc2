"""scripts/mutate.py: which faults it draws, which tests it tries them on, and what it says of them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/mutate.py"


def script(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("mutate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutate", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", root)
    return module


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("y = a < b", ["y = (a <= b)", "y = (a > b)"]),
        ("y = a == b", ["y = (a != b)"]),
        ("y = a is b", ["y = (a is not b)"]),
        ("y = a and b", ["y = (a or b)", "y = (b)", "y = (a)"]),
        ("y = not a", ["y = (a)"]),
        ("y = a + b", ["y = (a - b)"]),
        ("y = 3", ["y = 4", "y = 2"]),
        ("y = 0", ["y = 1", "y = (-1)"]),
        ("y = True", ["y = False"]),
        ("y = 'kind'", ["y = 'kind_other'"]),
        ("y = f(a, b)", ["y = f(b, a)"]),
        ("f(a)", ["pass"]),
        ("a.b = c", ["pass"]),
        ("a += b", ["pass"]),
        ("raise ValueError('what was wrong', 3)", ["pass"]),
        ("if a:\n    b()", ["if (not a):\n    b()", "if a:\n    pass"]),
        ("while a:\n    break", ["while (not a):\n    break", "while a:\n    continue"]),
        ("def f(a=1):\n    return a", ["def f(a=2):\n    return a", "def f(a=0):\n    return a", "def f(a=1):\n    return None"]),
        ("y = (\n    'ä' < a\n)", ["y = (\n    ('ä' <= a)\n)", "y = (\n    ('ä' > a)\n)", "y = (\n    'ä_other' < a\n)"]),
    ],
)
def test_the_mutants_of_a_line(line: str, mutants: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "it.py").write_text(line, encoding="utf-8")
    found = script(tmp_path, monkeypatch).Sites("it.py").found
    assert sorted(mutant.mutated.decode() for mutant in found) == sorted(mutants)
    for mutant in found:
        compile(mutant.mutated if "return" in line or "break" not in line else b"while 0:\n break", "it.py", "exec")


@pytest.mark.parametrize(
    "line",
    [
        '"""A docstring."""',
        "a: Literal['x', 3]",
        "def f(a: Literal[3]) -> 'Name': ...",
        "@decorated(frozen=True)\nclass C: ...",
        "assert a < b, 'never'",
        "y = f'{a + 1} words'",
        "y = 'words for people'",
        "T = TypeVar('T')",
        "__all__ = ['x']",
        "if TYPE_CHECKING:\n    a = 1",
        "import a",
    ],
)
def test_what_no_run_feels_is_left_alone(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "it.py").write_text(line)
    assert script(tmp_path, monkeypatch).Sites("it.py").found == []


def test_a_seed_draws_the_same_mutants_and_each_is_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    mutate = script(ROOT, monkeypatch)
    files = [file for scope in mutate.SCOPES for file in mutate.files_under(scope)]
    assert len(files) > 60
    drawn = mutate.draw(files, 3, 200)
    assert drawn == mutate.draw(files, 3, 200) != mutate.draw(files, 4, 200)
    assert len({mutant.key for mutant in drawn}) == 200
    assert {mutant.file.split("/")[1] for mutant in drawn} == {"core", "lora", "blocks"}
    assert len({mutant.kind for mutant in drawn}) >= 8
    assert all(mutant.mutated != mutant.source and mutant.diff() for mutant in drawn)


SMALL = """
def tested(a):
    return a < 3


def untested(a):
    return a - 1
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A package of one file with two functions, one of which is tested."""
    pytest.importorskip("coverage")
    room = tmp_path / "repository"
    for name, text in {
        "wgtorch/__init__.py": "",
        "wgtorch/core/__init__.py": "",
        "wgtorch/core/small.py": SMALL,
        "tests/test_small.py": "from wgtorch.core.small import tested\n\n\ndef test_it():\n    assert tested(2) and not tested(3)\n",
        "tests/test_other.py": "def test_nothing():\n    raise AssertionError('it touches none of it, and is not run')\n",
        ".gitignore": "outputs/\n",
        "scripts/mutants_equivalent.txt": "# none\n",
    }.items():
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_text(text)
    shutil.copy(SCRIPT, room / "scripts/mutate.py")
    subprocess.run(["git", "init", "-q"], cwd=room, check=True)
    return room


def tried(room: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/mutate.py", "--seed", "1", "--only", "wgtorch/core/small.py", *words]
    return subprocess.run(command, cwd=room, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_faults_are_killed_survive_or_are_proved_the_same(repository: Path) -> None:
    before = (repository / "wgtorch/core/small.py").read_bytes()
    done = tried(repository)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("killed") and "small.py:3: comparison (tests/test_small.py::test_it)" in line]
    assert "test_other" not in "".join(line for line in lines if line.startswith("killed"))
    assert "wgtorch/core/small.py:7: arithmetic (1 tests)\n-    return a - 1\n+    return (a + 1)" in done.stdout
    assert lines[-2] == "3 of 6 killed (0 hung), 0 proved equivalent, 3 survived"
    assert (repository / "wgtorch/core/small.py").read_bytes() == before, "the tree itself is left alone"

    kept = (repository / "outputs/mutants/results.jsonl").read_text()
    assert len(kept.splitlines()) == 6
    again = tried(repository)
    assert again.stdout.splitlines()[-2] == lines[-2]
    assert (repository / "outputs/mutants/results.jsonl").read_text() == kept, "what is done is not done again"

    with (repository / "scripts/mutants_equivalent.txt").open("a") as file:
        file.write("\nwgtorch/core/small.py\n-    return a - 1\n+    return (a + 1)\nFor the sake of the example,\nit does not matter.\n")
    assert tried(repository).stdout.splitlines()[-2:] == [
        "3 of 6 killed (0 hung), 1 proved equivalent, 2 survived",
        "60.0% of those that are not the same program",
    ]
    (repository / "scripts/mutants_equivalent.txt").write_text("wgtorch/core/small.py\n-    return a - 1\n+    return (a + 1)\n")
    assert "needs its diff (lines with - and +) and the proof in words" in tried(repository).stderr
