"""The program's frame: exit codes, messages, and what it costs to ask for help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.cli.main import main


def test_help_names_every_command_and_loads_no_drawing_or_printing_libraries() -> None:
    heavy = "{'torch', 'numpy', 'rich', 'PIL', 'hydra', 'omegaconf', 'yaml'}"
    code = f"import sys; from wgtorch.cli.main import main\ntry: main(['--help'])\nfinally: print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in ("run", "validate", "draw", "templates"))
    assert done.stdout.rstrip().endswith("set()")


def test_the_installed_program_answers_and_a_mistake_leaves_with_two_and_no_traceback() -> None:
    program = str(Path(sys.executable).parent / "wgtorch")
    done = subprocess.run([program, "run", "defualt"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "wgtorch run: there is no template and no file 'defualt'; did you mean 'default'? See: wgtorch templates\n"
    assert done.stdout == ""


@pytest.mark.parametrize("program", [["-m", "wgtorch"], ["-m", "wgtorch.cli.main"]])
def test_the_version_is_told_without_torch(program: list[str]) -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", *program, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"wgtorch [\w.]+ \(torch [\w.+]+, Python 3[\w.]+\)\n", done.stdout)
    loaded = {row.rsplit("|", 1)[-1].strip() for row in done.stderr.splitlines()}
    assert "wgtorch.cli.options" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_is_printed_for_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    assert "wgtorch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("wgtorch templ", {"templates"}),
        ("wgtorch run text_to_i", {"text_to_image", "text_to_image_refine"}),
        ("wgtorch blocks solver/dpmpp_2m", {"solver/dpmpp_2m", "solver/dpmpp_2m_sde"}),
        ("wgtorch schema pipe", {"pipeline"}),
    ],
)
def test_a_shell_is_offered_commands_templates_and_types(typed: str, offered: set[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9"}
    environment |= {"COMP_LINE": typed, "COMP_POINT": str(len(typed)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    code = "import sys; from wgtorch.cli.main import main; main(['x'])"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True, capture_output=True)
    assert set(answer.read_text().split()) == offered


def test_a_reader_who_has_seen_enough_is_no_mistake() -> None:
    listing = f"{sys.executable} -m wgtorch blocks 2>&1 >&3 | cat"
    done = subprocess.run(["bash", "-c", f"{{ {listing}; }} 3>&1 | head -n 1"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("adapter/")
    assert "Broken pipe" not in done.stdout + done.stderr


@pytest.mark.parametrize("argv", [[], ["fly"], ["run"], ["run", "default", "--set", "steps"], ["draw", "default", "--format", "png"]])
def test_a_wrong_command_line_shows_usage_and_leaves_with_two(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: wgtorch" in capsys.readouterr().err


def test_a_failure_inside_a_block_is_not_dressed_up_as_a_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PixelSceneDescriber, **inputs: object) -> dict[str, object]:
        raise RuntimeError("the lens is cracked")

    monkeypatch.setattr(PixelSceneDescriber, "forward", broken)
    with pytest.raises(RuntimeError, match="the lens is cracked") as raised:
        main(["run", "default", "--steps", "1", "--set", "steps=1", "--out", str(tmp_path / "out")])
    where, *_, to_go_on = raised.value.__notes__
    assert where == "raised in node philosopher/describe/describe/describer of default"
    assert to_go_on.startswith(f"To go on, add to the same command: --out {tmp_path / 'out'} --resume; --action TEXT for another action in")
    assert to_go_on.endswith(f". To change it on a page: wgtorch play default --set steps=1 --out {tmp_path / 'out'}")
    assert not any("world." in note for note in raised.value.__notes__)


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["run", "default", "--steps", "1", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "wgtorch run: " in (message := capsys.readouterr().err)
    assert str(tmp_path / "file") in message


def test_an_option_that_a_command_does_not_have_is_told_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "default", "--stepz", "3"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("wgtorch run: error: unrecognized arguments: --stepz 3; did you mean --steps?\n")
    with pytest.raises(SystemExit):
        main(["run", "default", "--bogus", "3"])  # only its dashes are like --out's
    assert capsys.readouterr().err.endswith("unrecognized arguments: --bogus 3\n")


def test_models_alone_lists_what_can_be_added(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 2
    assert "wgtorch models add NAME, with one of:" in (listed := capsys.readouterr().out)
    assert "smollm2" in listed
