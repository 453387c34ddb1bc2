"""What an installation holds, and where it runs: type checkers see it, systems that are not POSIX take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, so that nothing is left in the tree."""
    pytest.importorskip("setuptools")
    copy = tmp_path_factory.mktemp("project") / "wgtorch"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy / name)
    for folder in ("wgtorch", "conf"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def built(project: Path, kind: str, into: Path) -> zipfile.ZipFile:
    """The wheel that pip would build, without pip."""
    code = f"from setuptools.build_meta import build_{kind} as build; print('WHEEL', build({str(into)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    name = next(row.split()[-1] for row in done.stdout.splitlines() if row.startswith("WHEEL"))
    return zipfile.ZipFile(into / name)


def test_an_editable_installation_is_a_path_and_no_import_hook(project: Path, tmp_path: Path) -> None:
    with built(project, "editable", tmp_path) as wheel:
        names = wheel.namelist()
        paths = [wheel.read(name).decode().split() for name in names if name.endswith(".pth")]
    assert paths == [[str(project)]]
    assert not [name for name in names if "finder" in name]
    # From the folder above, where the clone's own folder has the package's name.
    code = "import wgtorch; print(wgtorch.Graph.level)"
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, "-c", code], cwd=project.parent, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "graph\n"


def test_a_wheel_holds_weights_types_and_scaffolds(project: Path, tmp_path: Path) -> None:
    with built(project, "wheel", tmp_path) as wheel:
        names = set(wheel.namelist())
    assert {
        "wgtorch/py.typed",
        "wgtorch/__main__.py",
        "wgtorch/cli/scaffold/block.py.j2",
        "wgtorch/cli/scaffold/plugin/README.md.j2",
    } <= names
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "wgtorch").rglob("*") if path.suffix in (".py", ".safetensors", ".j2")}
    assert shipped <= names
    assert not [name for name in names if name.startswith("tests")]


LIKE_WINDOWS = """
import os, sys, traceback
fork = os.fork
import tests.like_windows, wgtorch
wgtorch.Graph, wgtorch.World  # imported once, and here
for line in sys.stdin:
    program, folder = eval(line)
    child = fork()
    if not child:
        os.chdir(folder)
        os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        status = 1
        try:
            exec(program, {"__name__": "__main__", "sys": sys})
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def like_windows() -> Iterator[Callable[[str, Path], str]]:
    """What code prints in a process whose files and modules are like those of Windows, as far as that can be had here."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LIKE_WINDOWS]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None and answers is not None

        def said(code: str, folder: Path) -> str:
            print((code, str(folder)), file=asked, flush=True)
            status, text = answers.readline(), (folder / "said").read_text()
            assert status == "0\n", text
            return text

        yield said
        asked.close()


def test_a_level_is_served_as_on_windows(like_windows: Callable[[str, Path], str], tmp_path: Path) -> None:
    code = """
import torch
from wgtorch import Graph
from wgtorch.serving.endpoint import Endpoint
from wgtorch.serving.server import serving
graph = Graph.from_template("text_to_image", steps=1)
with serving(graph) as url:
    print(Endpoint(url).call({"inputs": {"prompt": "a castle"}, "seed": 1}, "here")["outputs"]["image"].shape)
"""
    assert "[1, 3, 64, 64]" in like_windows(code, tmp_path)


def test_a_world_is_stored_saved_and_resumed_as_on_windows(like_windows: Callable[[str, Path], str], tmp_path: Path) -> None:
    code = """
from wgtorch import World
from wgtorch.storage import directory
directory.SMALL_SEGMENT = 100_000  # so that old files of the log are written anew
world = World.from_template("default", steps=2, larger=False)
world.set_storage({"state_dir": "runs/a", "max_snapshots": 2})
world.run(num_steps=6, seed=1)
fork = world.fork(state_dir="runs/b")
fork.run(num_steps=4)
for target in ("saved.wgt", "saved"):
    for _ in range(2):  # the second time over what is there
        world.save_checkpoint(target)
    again = World.load_from_checkpoint(target)
    again.set_storage({"state_dir": "runs/b"})
    print(again.resume().state.filled, again.life.passes, len(fork.history))
"""
    assert "intent" in like_windows(code, tmp_path)
    assert (tmp_path / "runs" / "a" / "00005" / "state.json").is_file()


@pytest.mark.parametrize("form", ["archive", pytest.param("dir", marks=pytest.mark.slow)])
def test_what_windows_does_not_replace_is_named_and_stays(like_windows: Callable[[str, Path], str], form: str, tmp_path: Path) -> None:
    code = f"""
import os
from wgtorch import Graph
graph = Graph.from_template("text_to_image", steps=1)
graph.save_checkpoint("saved", {form!r}, self_contained=True)
again = Graph.load_from_checkpoint("saved")
try:
    again.save_checkpoint("saved", {form!r}, self_contained=True)
except PermissionError as error:
    print(error, sorted(os.listdir(".")))
Graph.load_from_checkpoint("saved")
Graph.load_from_checkpoint("saved", map=False).save_checkpoint("elsewhere", {form!r}, self_contained=True)
"""
    said = like_windows(code, tmp_path)
    assert "save to another place, or load with map=False" in said and "['said', 'saved']" in said


def test_the_command_line_works_as_on_windows(like_windows: Callable[[str, Path], str], tmp_path: Path) -> None:
    code = "from wgtorch.cli.main import main; sys.exit(main(['run', 'default', '--steps', '1', '--set', 'steps=2', '--out', 'out']))"
    assert "Overview" in like_windows(code, tmp_path)
