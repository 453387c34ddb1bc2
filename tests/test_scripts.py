"""The shell scripts: what they install and in which order, when they do nothing, and what they say to an old Python.

A stand-in for Python writes down how it was called; the test at the end, off by default, does the real thing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "env", "cat", "cksum", "dirname", "rm", "mkdir", "mktemp", "tar", "cp", "sed", "grep", "awk", "sort", "tr", "tail")

STAND_IN = r"""#!/bin/bash
case "$*" in
    "-c "*) [[ -z ${OLD:-} ]]; exit ;;
    --version) echo "Python ${OLD:-3.11.9}"; exit ;;
    "-m pip --version") exit 0 ;;
    *" config list") echo "${CONFIG:-}"; exit ;;
    *" --dry-run "*) echo "${REPORT:-}"; exit ;;
    "-m venv --without-pip "*) folder=$4 ;;
    "-m venv "*) [[ -z ${NO_ENSUREPIP:-} ]] || exit 1; folder=$3 ;;
esac
echo "${0##*/}: $*${PYTHONDONTWRITEBYTECODE:+, compiling again and again}" >>"$LOG"
if [[ -n ${folder:-} ]]; then
    mkdir -p "$folder/bin"
    for name in python wgtorch ruff mypy; do cp "$0" "$folder/bin/$name"; done
fi
[[ -z ${FAILS:-} || "$*" != *"$FAILS" ]]
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "a clone"
    for name in ("scripts/setup_env.sh", "scripts/demo.sh", "scripts/test.sh", "scripts/test_all.sh", ".ci/run", "pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def call(clone: Path, tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]:
    """Calls a script of the clone, from another folder; gives what it said, and how Python was called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "python3").write_text(STAND_IN)
    (tools / "python3").chmod(0o755)

    def run(script: str, *words: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        log = tmp_path / "log"
        log.write_text("")
        given = {"PATH": str(tools), "LOG": str(log), "TMPDIR": str(tmp_path), **environment}
        done = subprocess.run([str(clone / script), *words], env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
        text = log.read_text().replace("-m pip --disable-pip-version-check install --quiet", "pip install")
        text = re.sub("-m uv pip install --quiet --python .*/bin/python --index-strategy unsafe-best-match", "uv install", text)
        calls = text.splitlines()
        return done, calls

    return run


def test_torch_is_installed_first_and_alone_and_then_the_package(call, clone: Path) -> None:
    done, calls = call("scripts/setup_env.sh")
    assert done.returncode == 0, done.stderr
    assert calls == [
        f"python3: -m venv {clone}/.venv",
        "python: pip install torch==2.13.0",
        "python: pip install uv",
        "python: uv install --editable .",
    ]


def test_the_second_start_installs_nothing_and_says_nothing(call) -> None:
    call("scripts/setup_env.sh")
    done, calls = call("scripts/setup_env.sh")
    assert (done.returncode, done.stdout, calls) == (0, "", [])


def test_extras_have_a_stamp_of_their_own(call) -> None:
    call("scripts/setup_env.sh")
    _, calls = call("scripts/setup_env.sh", "test")
    assert calls[-1] == "python: uv install --editable .[test]"
    assert call("scripts/setup_env.sh", "test")[1] == call("scripts/setup_env.sh")[1] == []


def test_a_change_of_the_project_file_brings_the_environment_up_to_date(call, clone: Path) -> None:
    call("scripts/setup_env.sh")
    with (clone / "pyproject.toml").open("a") as file:
        file.write("\n# another dependency\n")
    _, calls = call("scripts/setup_env.sh")
    assert calls == ["python: pip install torch==2.13.0", "python: pip install uv", "python: uv install --editable ."]


def test_another_torch_may_be_asked_for(call) -> None:
    _, calls = call("scripts/setup_env.sh", WGTORCH_TORCH="torch==2.7.1 --no-deps")
    assert calls[1] == "python: pip install torch==2.7.1 --no-deps"


CUDA_REPORT = '{"install": [{"metadata": {"requires_dist": ["filelock", "nvidia-cublas; platform_system == \\"Linux\\""]}}]}'


def test_without_a_gpu_the_build_for_cpus_is_taken_where_pip_has_only_that_with_cuda(call, clone: Path) -> None:
    done, calls = call("scripts/setup_env.sh", REPORT=CUDA_REPORT)
    assert calls[1:] == [
        "python: pip install uv",
        f"python: -m uv pip install --quiet --python {clone}/.venv/bin/python --torch-backend cpu torch==2.13.0",
        "python: pip install uv",
        "python: uv install --editable .",
    ]
    assert "the build for CPUs: 0.2 GB" in done.stdout


def test_where_that_cannot_be_fetched_what_pip_has_is_said_and_taken(call) -> None:
    done, calls = call("scripts/setup_env.sh", REPORT=CUDA_REPORT, FAILS="--torch-backend cpu torch==2.13.0")
    assert done.returncode == 0, done.stderr
    assert calls[-3:] == ["python: pip install torch==2.13.0", "python: pip install uv", "python: uv install --editable ."]
    assert "installing what pip finds (the build with CUDA: 3 GB to fetch, 6 GB on disk)" in done.stdout


def test_with_a_gpu_pip_chooses(call, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "bin/python3", tmp_path / "bin/nvidia-smi")
    done, calls = call("scripts/setup_env.sh", REPORT=CUDA_REPORT)
    assert calls[1:] == ["python: pip install torch==2.13.0", "python: pip install uv", "python: uv install --editable ."]
    assert "the build with CUDA" in done.stdout


def test_an_install_that_failed_is_tried_again(call) -> None:
    done, _ = call("scripts/setup_env.sh", FAILS="--editable .")
    assert done.returncode != 0
    done, calls = call("scripts/setup_env.sh")
    assert done.returncode == 0
    assert calls[-1] == "python: uv install --editable ."


def test_an_environment_that_does_not_work_is_made_anew(call, clone: Path) -> None:
    call("scripts/setup_env.sh")
    (clone / ".venv/bin/python").unlink()
    _, calls = call("scripts/setup_env.sh")
    assert calls[0] == f"python3: -m venv {clone}/.venv"


def test_packages_come_from_where_pip_is_told_to_find_them(call) -> None:
    told = """
:env:.cert='/etc/ca.pem'
:env:.constraint='/oldest.txt'
global.extra-index-url='https://a.example/simple file:///nowhere'
global.find-links='/nowhere https://b.example/wheels'
global.index-url='https://c.example/simple'
"""
    _, calls = call("scripts/setup_env.sh", CONFIG=told)
    assert calls[-1] == (
        "python: uv install --default-index https://c.example/simple --index https://a.example/simple "
        "--find-links https://b.example/wheels --constraint /oldest.txt --editable ."
    )


def test_where_uv_fails_pip_is_asked(call) -> None:
    done, calls = call("scripts/setup_env.sh", FAILS="unsafe-best-match --editable .")
    assert done.returncode == 0
    assert calls[-2:] == ["python: uv install --editable .", "python: pip install --editable ."]
    _, calls = call("scripts/setup_env.sh", "test", FAILS="--quiet uv")
    assert calls[-2:] == ["python: pip install uv", "python: pip install --editable .[test]"]


def test_a_python_without_ensurepip_lends_its_pip(call, clone: Path) -> None:
    done, calls = call("scripts/setup_env.sh", NO_ENSUREPIP="1")
    assert done.returncode == 0, done.stderr
    assert calls[:2] == [
        f"python3: -m venv --without-pip {clone}/.venv",
        f"python3: -m pip --python {clone}/.venv/bin/python install --quiet pip",
    ]


def test_an_old_python_is_told_so(call, clone: Path, tmp_path: Path) -> None:
    done, calls = call("scripts/demo.sh", OLD="3.9.2")
    assert done.returncode == 1
    assert done.stderr == "setup_env: needs Python 3.11 or newer; found Python 3.9.2. Install one, or name it in WGTORCH_PYTHON.\n"
    assert calls == []
    assert not (clone / ".venv").exists()
    (tmp_path / "bin/python3").rename(tmp_path / "bin/my_python")
    assert "found none" in call("scripts/demo.sh")[0].stderr
    assert (
        "WGTORCH_PYTHON=my_python is no Python 3.11 or newer" in call("scripts/demo.sh", OLD="3.9.2", WGTORCH_PYTHON="my_python")[0].stderr
    )
    assert call("scripts/setup_env.sh", WGTORCH_PYTHON="my_python")[0].returncode == 0


def test_the_demo_lives_five_passes_with_a_seed_that_may_be_given(call) -> None:
    assert call("scripts/demo.sh")[1][-1].startswith("wgtorch: run default --steps 5 --seed 3 --action ")
    done, calls = call("scripts/demo.sh", "--seed", "11", "--action", "go to the sea")
    assert done.returncode == 0
    assert calls == ["wgtorch: run default --steps 5 --seed 3 --seed 11 --action go to the sea"]


def test_the_tests_are_run_as_the_readme_says(call) -> None:
    assert call("scripts/test.sh")[1][-3:] == ["python: pip install uv", "python: uv install --editable .[test]", "python: -m pytest"]
    assert call("scripts/test.sh", "tests/core", "-x")[1] == ["python: -m pytest tests/core -x"]


@pytest.mark.parametrize(("fails", "code"), [("", 0), ("-m pytest", 1), ("check", 1)])
def test_ci_checks_all_in_a_fresh_environment_and_leaves_nothing(call, clone: Path, tmp_path: Path, fails: str, code: int) -> None:
    before = sorted(clone.rglob("*"))
    done, calls = call(".ci/run", FAILS=fails, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == code, done.stderr
    assert calls[1:5] == [
        "python: pip install torch==2.13.0",
        "python: pip install uv",
        "python: uv install --editable .[dev]",
        "ruff: check",
    ]
    assert sorted(calls[5:7]) == ["mypy: --cache-dir=/dev/null", "python: -m pytest -n 0 -m slow tests/test_docs.py"], "beside each other"
    assert calls[7:] == ["python: -m pytest"]
    assert sorted(clone.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a clone", "bin", "log"]


def test_each_heavy_lane_has_an_environment_of_its_own_and_a_line(call, clone: Path) -> None:
    done, calls = call("scripts/test_all.sh", "slow", "compile", "gpu", FAILS="not inductor")
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["slow", "FAILED"], ["compile", "passed"], ["gpu", "passed"]]
    assert [line for line in calls if "-m venv" in line] == [
        f"python3: -m venv {clone}/outputs/lanes/{name}" for name in ("slow", "compile", "gpu")
    ]
    assert [line for line in calls if "-m pytest" in line or "gpu_smoke" in line] == [
        "python: -m pytest -m slow and not network and not gpu -k not inductor",
        "python: -m pytest -n 0 -m slow and not network and not gpu -k inductor",
        "python: scripts/gpu_smoke.py",
        "python: -m pytest -n 0 -m gpu",
    ]
    again, calls = call("scripts/test_all.sh", "slow")
    assert again.returncode == 0 and [line for line in calls if "install" in line] == []


def test_the_lane_of_the_oldest_versions_holds_each_dependency_at_its_least(call, clone: Path) -> None:
    done, calls = call("scripts/test_all.sh", "minimum")
    assert done.returncode == 0, (clone / "outputs/lanes/minimum.log").read_text()
    project = tomllib.loads((clone / "pyproject.toml").read_text())["project"]
    declared = [word for words in (project["dependencies"], *project["optional-dependencies"].values()) for word in words]
    held = dict(line.split("==") for line in (clone / "outputs/lanes/oldest.txt").read_text().splitlines())
    assert {word.partition(">=")[0].partition("[")[0] for word in declared if ">=" in word} == set(held)
    assert held["torch"] == "2.6" and held["transformers"] == "4.56", "of two bounds, the higher one"
    assert calls[1:] == [
        "python: pip install torch==2.6",
        "python: pip install uv",
        "python: uv install --editable .[dev]",
        "python: -m pytest",
    ]


def test_a_lane_that_is_not_there_is_told(call) -> None:
    done, calls = call("scripts/test_all.sh", "slow", "brwser")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == "test_all: no lane 'brwser'; there are: suite slow compile minimum browser ray network gpu s3 bare servers\n"


@pytest.mark.slow
def test_gpu_smoke_prints_a_row_for_each_check() -> None:
    def rows(*words: str) -> tuple[list[str], int]:
        command = [sys.executable, str(ROOT / "scripts/gpu_smoke.py"), *words]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout.splitlines(), done.returncode

    found, code = rows()
    assert (code, found[0].split()) == (0, ["check", "result", "detail"])
    names = [line.split()[0] for line in found[1:]]
    assert set(names) >= {"draws", "generators", "autocast", "compile", "fsdp2", "offload"}
    assert all(line.split()[1:3] == ["no", "GPU"] for line in found[1:])
    found, code = rows("--device", "cpu", "--only", "draws", "offload", "fsdp2")
    assert code == 0 and [line.split()[:2] for line in found[1:-1]] == [["draws", "ok"], ["offload", "ok"], ["fsdp2", "ok"]]


@pytest.mark.slow
@pytest.mark.network
def test_the_demo_from_a_bare_clone(tmp_path: Path) -> None:
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for number in ("001", "002"):
        done = subprocess.run(
            ["scripts/demo.sh", "--steps", "1"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"Overview: outputs/default/{number}/overview.png" in done.stdout
        assert (tmp_path / "outputs/default" / number / "overview.png").is_file()
    assert "Installing" not in done.stdout, "the second start does not install again"
