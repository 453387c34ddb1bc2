"""conf/: every file builds, every command in a file's head works, and the Hydra program runs."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from wgtorch.cli.options import make_parser
from wgtorch.cli.run import actions_of
from wgtorch.cli.target import level_from, open_level
from wgtorch.core.config.resolve import dump_config, read_config
from wgtorch.core.config.template import build_template
from wgtorch.storage.base import make_storage
from wgtorch.world import World

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml") if "local" not in path.parts)
TRAINING_GROUPS = ("block", "data", "logger", "lora", "objective", "optimizer", "trainer")
TRAINING = [  # what scripts/train.py alone reads; tests/train/test_conf.py looks at it
    name
    for name in FILES
    if name in ("train.yaml", "graph/diffusers.yaml")  # the second needs a model of somebody's own; tests/train gives it one
    or name.split("/")[0] in TRAINING_GROUPS
    or (name.startswith("experiment/") and "scripts/train.py" in (CONF / name).read_text())
]
LIVING = [name for name in FILES if name not in TRAINING]
LEVELS = [name for name in FILES if name.split("/")[0] in ("graph", "pipeline", "stage", "world") and name not in TRAINING]
COMMANDS = [
    (name, match.group(1).split("    ")[0].strip())
    for name in FILES
    for match in re.finditer(r"^#   ((?:python scripts|wgtorch) .*|python scripts.*|wgtorch.*)$", (CONF / name).read_text(), re.MULTILINE)
]
WRITTEN_OUT = ["graph/caption.yaml", "graph/text_to_image.yaml"]
QUICK = ["run=short", "world.params.steps=1", "hydra.job.name=quick"]


@pytest.fixture(scope="module", autouse=True)
def _local_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Folders for what configs take from the environment: tiny models, where transformers is there to make them."""
    with pytest.MonkeyPatch.context() as environment:
        if find_spec("transformers") is not None:
            from tests.integrations.transformers.tiny import language_model, vision_model

            folder = tmp_path_factory.mktemp("models")
            environment.setenv("WGTORCH_LLM", str(language_model(folder / "llm")))
            environment.setenv("WGTORCH_VLM", str(vision_model(folder / "vlm")))
        yield


def skip_without_models(name: str) -> None:
    """Skips a file whose extras are not installed, or whose models are not there: they are made with transformers."""
    text = (CONF / name).read_text()
    extras = [extra for found in re.findall(r"# Needs: pip install 'wgtorch\[(.*)\]'", text) for extra in found.split(",")]
    absent = [extra for extra in extras if find_spec({"train": "lightning", "api": "openai", "smollm": "gguf"}.get(extra, extra)) is None]
    if absent:
        pytest.skip(f"{name} needs the extras {absent}")
    missing = [each for each in re.findall(r"oc\.env:(\w+)", text) if each not in os.environ]
    if missing:
        pytest.skip(f"{name} reads {missing}, and transformers is not here to make models")


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base=None):
        config = OmegaConf.to_container(compose("run_world", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return config


def written_out(name: str) -> str:
    """A template's canonical config below the head that the file has now."""
    level, template = name.removesuffix(".yaml").split("/")
    head = "".join(row for row in (CONF / name).read_text().splitlines(keepends=True) if row.startswith("#"))
    return head + dump_config(build_template(level, template, {}).to_config())


def test_every_file_under_conf_is_seen_here() -> None:
    assert LIVING == [
        "experiment/sea_voyage.yaml",
        "experiment/snowstorm.yaml",
        "graph/caption.yaml",
        "graph/text_to_image.yaml",
        "pipeline/paint_and_describe.yaml",
        "pipeline/phrased_painting.yaml",
        "run/default.yaml",
        "run/long.yaml",
        "run/short.yaml",
        "run_world.yaml",
        "stage/creator.yaml",
        "storage/directory.yaml",
        "storage/memory.yaml",
        "world/default.yaml",
        "world/gallery.yaml",
        "world/moving_picture.yaml",
        "world/picture_telephone.yaml",
        "world/storytelling_anthropic.yaml",
        "world/storytelling_local.yaml",
        "world/storytelling_local_server.yaml",
        "world/storytelling_openai.yaml",
    ]
    assert {name for name, _ in COMMANDS} == set(FILES), "each file's head says the command that runs it"


@pytest.mark.parametrize("name", LEVELS)
def test_every_level_builds_is_valid_and_comes_back_the_same(name: str, tmp_path: Path) -> None:
    skip_without_models(name)
    level = open_level(str(CONF / name))
    assert level.level == name.split("/")[0]
    assert level.validate(strict=False, deep=True).errors == ()
    assert open_level(str(level.save_config(tmp_path / "again.yaml"))).to_config() == level.to_config()


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_template_written_out_is_that_template(name: str) -> None:
    assert (CONF / name).read_text() == written_out(name), "the template has changed; write it out anew: python -m tests.test_conf"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("storage/")])
def test_every_storage_is_of_a_registered_kind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_storage(read_config(CONF / name)).steps() == []


@pytest.mark.parametrize("name", [name for name in LIVING if name.split("/")[0] in ("experiment", "run", "storage", "world")])
def test_every_choice_composes_to_a_world_and_a_run(name: str) -> None:
    skip_without_models(name)
    group, choice = name.removesuffix(".yaml").split("/")
    config = composed(f"{group}={choice}")
    assert set(config) == {"world", "storage", "run"}
    assert isinstance(level_from(config["world"], base=CONF / "world"), World)
    assert set(config["run"]) == {"steps", "seed", "action"}
    assert len(actions_of(config["run"]["action"], config["run"]["steps"])) == config["run"]["steps"]


def test_the_default_worlds_parameters_are_the_templates_own() -> None:
    assert level_from(composed()["world"]).to_config() == World.from_template("default").to_config()


def test_an_experiment_lies_over_the_groups_it_names() -> None:
    config = composed("experiment=snowstorm")
    assert config["world"]["params"]["traveller"] == "the courier"
    assert config["world"]["params"]["memory"] == 6
    assert config["run"]["steps"] == 4


@pytest.mark.parametrize(("name", "command"), [entry for entry in COMMANDS if not re.search(r"(scripts/|wgtorch )train", entry[1])])
def test_the_commands_in_the_heads_are_right(name: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_models(name)
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)
    if program == "wgtorch":
        args = make_parser().parse_args(words)
        assert args.target == f"conf/{name}"
        level = open_level(args.target)
        assert {port for port, _ in getattr(args, "input", [])} <= set(level.get_input_spec())
    elif words[0] == "scripts/run_world.py":
        composed(*(word for word in words[1:] if word != "-m" and "=1,2,3" not in word))
    else:  # what is done with the weights of an experiment
        runpy.run_path(words[0])["arguments"]().parse_args(words[1:])
        experiment = read_config(CONF / name)["name"]
        assert f"outputs/{experiment}/<time>" in command, "the run of another experiment"


@pytest.mark.parametrize("path", [CONF / name for name in FILES])
def test_no_config_names_code(path: Path) -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return {str(key) for key in value} | {found for item in value.values() for found in keys(item)}
        return {found for item in value for found in keys(item)} if isinstance(value, list) else set()

    assert not [key for key in keys(yaml.safe_load(path.read_text())) if key.startswith("_target_")]


def run_world(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "run_world.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_hydra_program_lives_paints_and_keeps_its_config(tmp_path: Path) -> None:
    done = run_world(tmp_path, *QUICK, "world.params.traveller=Anna", "run.action=go to the sea")
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("outputs/run_world/*/*")
    assert f"Overview: {folder / 'overview.png'}" in done.stdout
    assert {"episode_001.png", "overview.png", "story.md", "episodes.json", "states", "config.yaml"} <= {
        path.name for path in folder.iterdir()
    }
    config = read_config(folder / "config.yaml")
    assert config["world"]["params"]["traveller"] == "Anna"
    assert config["run"] == {"steps": 1, "seed": 7, "action": "go to the sea"}
    assert (folder / "states" / "wgtorch-storage.json").is_file()


def test_a_sweep_has_a_folder_for_each_seed(tmp_path: Path) -> None:
    done = run_world(tmp_path, "-m", "run.seed=1,2", "storage=memory", *QUICK)
    assert done.returncode == 0, done.stderr
    folders = sorted(tmp_path.glob("outputs/run_world/*/*_sweep/*/episodes.json"))
    assert [path.parent.name for path in folders] == ["0", "1"]
    assert [yaml.safe_load((path.parent / "config.yaml").read_text())["run"]["seed"] for path in folders] == [1, 2]
    pictures = [path.with_name("episode_001.png").read_bytes() for path in folders]
    assert pictures[0] != pictures[1]


def test_a_mistake_in_the_config_is_a_message(tmp_path: Path) -> None:
    done = run_world(tmp_path, "+world.params.travler=Anna")
    assert done.returncode == 1
    assert "run_world: template 'default': unknown parameter 'travler'; did you mean 'traveller'" in done.stderr
    assert "Traceback" not in done.stderr


if __name__ == "__main__":
    for written in WRITTEN_OUT:
        (CONF / written).write_text(written_out(written))
