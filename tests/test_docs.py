"""The README's snippets and the notebooks, run as they are written."""

from __future__ import annotations

import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from wgtorch.cli.options import make_parser

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINING = ("03_lora_worlds",)  # takes most of a minute


def snippets() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.S)


def test_the_snippets_of_the_readme_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = snippets()
    assert len(found) == 7
    scope: dict[str, Any] = {"__name__": "readme"}
    for code in found:
        exec(compile(code, "README.md", "exec"), scope)
    assert tuple(scope["image"].shape) == (1, 3, 64, 64)
    assert set(scope["both"]) == {"image", "bright"}
    assert scope["again"].content == scope["world"].content
    assert (tmp_path / "outputs" / "anna" / "00001" / "artifacts_0.png").is_file()
    assert "valid" in capsys.readouterr().out


def test_the_cell_that_lives_a_world_may_be_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cell = next(code for code in snippets() if "outputs/anna" in code)
    first = cell.replace("num_steps=4", "num_steps=1").replace(
        'action=["go to the sea", None, None, "wait for snow"]', 'action="go to the sea"'
    )
    for code, passes in ((first, 1), (cell, 5)):
        scope: dict[str, Any] = {"__name__": "readme"}
        exec(compile(code, "README.md", "exec"), scope)
        assert scope["world"].life.passes == passes


PAGES = sorted(path for path in (ROOT / "docs").glob("*/*.md") if "```python\n" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_snippets_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("diffusers", "openai"):
        if f"import {name}" in page.read_text(encoding="utf-8") or f"from {name}" in page.read_text(encoding="utf-8"):
            pytest.importorskip(name)
    scope: dict[str, Any] = {"__name__": page.stem}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
        exec(compile(code, page.name, "exec"), scope)


def test_there_are_pages() -> None:
    how_to, tutorials = (
        ["blocks", "coming-from", "haggling", "levels", "memory", "own-parts", "ray", "runs"],
        ["picture", "plugin", "serve", "train", "world"],
    )
    assert [path.stem for path in PAGES] == [*how_to, *tutorials]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = (tmp_path / "site" / "catalogue" / "blocks" / "index.html").read_text(encoding="utf-8")
    assert shown.count("<h2") >= 100
    assert (tmp_path / "site" / "schemas" / "graph.schema.json").is_file()
    assert (tmp_path / "site" / "measured" / "index.html").is_file()
    catalogue = (tmp_path / "site" / "catalogue" / "templates" / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img[^>]*src="\.\./(\w+\.png)"', catalogue)
    assert len(pictures) == 5 and all((tmp_path / "site" / "catalogue" / name).is_file() for name in pictures)


def test_links_lead_to_files() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "wgtorch").glob("**/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))]
    assert len(links) >= 6
    assert [(str(page), link) for page, link in links if not (page.parent / link).exists()] == []


def test_names_in_messages_docstrings_and_pages_are_there() -> None:
    """Names of three parts and more: of two there are groups of entry points, too. The changelog tells of names that are gone."""
    for package in ("diffusers", "lightning", "peft", "transformers"):  # of which modules are named
        pytest.importorskip(package)
    files = [*(ROOT / "wgtorch").rglob("*.py"), *(ROOT / "wgtorch").rglob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if path.name != "changelog.md")
    missing = []
    for name in sorted(set(re.findall(r"\bwgtorch(?:\.[A-Za-z_]\w*){2,}", text))):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing


def test_what_was_measured_is_what_its_data_say() -> None:
    measured = runpy.run_path(str(ROOT / "scripts" / "measured.py"))
    data = yaml.safe_load(measured["DATA"].read_text(encoding="utf-8"))
    assert list(measured["faults"](data)) == []
    assert measured["PAGE"].read_text(encoding="utf-8") == measured["page"](data)
    row = {"area": "a", "what": "w", "script": "scripts/none.py", "found": 2, "at_most": 1, "unit": "x", "date": "d", "state": "idle"}
    assert [fault.partition(": ")[2] for fault in measured["faults"]({"rows": [row]})] == [
        "is missed; why?", "there is no scripts/none.py", "state 'idle'; expected calm or shared",
    ]  # fmt: skip
    assert [*measured["faults"]({"rows": [{**data["rows"][0], "at_least": 1}]})] == [
        f"{data['rows'][0]['what']}: expected at_most or at_least"
    ]


def commands() -> list[tuple[str, str]]:
    """Every command of a page, in its blocks and in its lines."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")), *NOTEBOOKS):
        text = page.read_text(encoding="utf-8") if page.suffix == ".md" else "\n".join(c.source for c in nbformat.read(page, 4).cells)
        fenced = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.S)).replace("\\\n", " ").splitlines()
        inline = re.findall(r"`((?:wgtorch \w+|python scripts/train.py) [^`\n]+)`", text)
        is_call = re.compile(r"([A-Z_]+=\S+ )?(wgtorch|python scripts/train.py) ")
        found += [(page.name, line) for line in (*fenced, *inline) if is_call.match(line)]
    return found


def test_the_program_takes_the_commands_of_the_pages() -> None:
    pytest.importorskip("hydra")
    from hydra import compose, initialize_config_dir

    from wgtorch.cli.train import quoted

    found = commands()
    assert len(found) >= 55
    for page, command in found:
        words = shlex.split(command, comments=True)
        words = words[[word in ("wgtorch", "python") for word in words].index(True) + 1 :]
        if "|" in command or (words[0] in ("import", "new") and len(words) < 3):
            continue  # the name of a command, not a call
        if words[0] == "scripts/train.py":
            overrides = words[1:]
        else:
            args = make_parser().parse_args(words)
            if args.command != "train" or "/" in args.target:
                continue
            overrides = [args.target if "=" in args.target else f"experiment={args.target}", *args.overrides]
        if "-m" not in overrides and not any(word.startswith("experiment=<") for word in overrides):
            with initialize_config_dir(str(ROOT / "conf"), version_base=None):
                assert compose("train", [quoted(word) for word in overrides]), (page, command)


def test_the_files_that_the_readme_names_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:notebooks|scripts|conf)/[\w./-]*\w", text))
    assert len(named) >= 6
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.xdist_group("notebooks")  # groups are handed out first, and these take longest
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in TRAINING else ()) for path in NOTEBOOKS]
)
@pytest.mark.filterwarnings("ignore")  # of the kernel's own messaging
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for needed in re.findall(r"^(?:import|from) (lightning|peft|diffusers|transformers)\b", code, flags=re.M):
        pytest.importorskip(needed)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    assert "Traceback" not in printed


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_five_levels", "02_diffusion", "03_lora_worlds", "04_runs"]
