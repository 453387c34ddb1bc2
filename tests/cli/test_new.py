"""``wgtorch new``: what it writes is valid, runs, and passes its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wgtorch.cli.main import main
from wgtorch.cli.new import write
from wgtorch.cli.target import CommandError

ROOT = Path(__file__).parents[2]


def run_tests(folder: Path, *paths: Path) -> str:
    """What pytest says of tests that were written, in a process of their own, with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *map(str, paths)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # the one of a plug-in holds a block too
def test_a_block_passes_its_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "block", "warm_light", "--out", str(tmp_path)]) == 0
    assert f"{tmp_path}/warm_light.py\n{tmp_path}/test_warm_light.py\nCheck it: python -m pytest" in capsys.readouterr().out
    assert "2 passed" in run_tests(tmp_path)


@pytest.mark.parametrize("kind", ["graph", "world"])
def test_a_config_is_valid(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(kind, "first_light", tmp_path)
    assert main(["validate", str(files[0])]) == 0
    assert "valid" in capsys.readouterr().out


def test_a_plugin_that_is_installed_brings_its_names_and_passes_its_tests(tmp_path: Path) -> None:
    write("plugin", "night-sky", tmp_path)
    project, site = tmp_path / "night-sky", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(project)], check=True, capture_output=True)
    assert "5 passed" in run_tests(project / "tests", site)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    with pytest.raises(CommandError, match="test_mine.py: is there already"):
        write("block", "mine", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test_mine.py"]


@pytest.mark.parametrize(
    ("name", "better"),
    [("", "my_block"), ("1st", "my_1st"), ("class", "my_class"), ("a b", "a_b"), ("../up", "up"), ("Big", "big")],
)
def test_a_name_that_python_does_not_take_is_refused_with_a_better_one(name: str, better: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=f"expected small letters, .* such as {better}$"):
        write("block", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("plugin", "torch"), ("plugin", "wgtorch"), ("block", "json")])
def test_a_name_that_would_hide_a_package_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=f"there is a package or module of that name already; take another one, such as my_{name}$"):
        write(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert write("graph", "json", tmp_path)
