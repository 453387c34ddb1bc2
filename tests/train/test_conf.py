"""conf/ for training: every file composes, builds and trains one step by the command in its head; and the Hydra program runs."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("peft")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from tests.train.toys import losses
from wgtorch import Block, lora
from wgtorch.cli.options import make_parser
from wgtorch.cli.target import CommandError
from wgtorch.cli.train import START, arguments_of, run, target_from, whole
from wgtorch.core.errors import ConfigError, UnknownNameError

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
GROUPS = ("world", "stage", "pipeline", "graph", "block", "data", "objective", "optimizer", "trainer", "lora", "logger", "experiment")
COMMANDS = [
    (path.relative_to(CONF).as_posix(), match.group(1))
    for path in sorted(CONF.rglob("*.yaml"))
    if "local" not in path.parts
    for match in re.finditer(r"^#   ((?:python scripts/train.py|wgtorch train) .*)$", path.read_text(), re.MULTILINE)
]
FIRST = list({name: (name, command) for name, command in reversed(COMMANDS)}.values())[::-1]
UNTRAINED = [
    "experiment/around_api.yaml",  # needs a server: tests/train/test_around_api.py
    "experiment/sea_voyage.yaml",  # for scripts/run_world.py
    "experiment/snowstorm.yaml",
    "graph/caption.yaml",  # the describer trains by itself: block=describer
    "world/storytelling_anthropic.yaml",  # keys and models come from the environment
    "world/storytelling_local.yaml",
    "world/storytelling_local_server.yaml",
    "world/storytelling_openai.yaml",
]
OUTSIDE = ("rerun=", "resume=")
QUICK = ("trainer.max_steps=1", "+trainer.enable_progress_bar=false", "++trainer.num_sanity_val_steps=0", "trainer.accelerator=cpu")


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


def composed(command: str) -> dict[str, Any]:
    """The config that a command asks for, cut down to one small step."""
    words = shlex.split(command)
    words = words[2:] if words[0] == "python" else [word for word in arguments_of(words[2], words[3:]) if not word.startswith(("--", "/"))]
    asked = [re.sub(r"=([^\[{]*?),.*", r"=\1", word) for word in words if word != "-m" and not word.startswith(OUTSIDE)]
    with initialize_config_dir(str(CONF), version_base=None):
        config: Any = OmegaConf.to_container(compose("train", [*asked, *QUICK]), resolve=True)
    config["data"].update({"batch_size": 2, "workers": 0})
    if config["data"]["type"] == "image_folder" and "my_model" in command:
        config["data"].update({"size": 16, "step": 2})
    if config["logger"]["type"] == "wandb":
        config["logger"]["offline"] = True
    if config.get("graph") and "folder" in config["graph"]:
        config["samples"] = None
        if "format" not in inspect.signature(lora.save).parameters:
            config["export"] = None
    if (config.get("lora") or {}).get("colours"):
        config["lora"]["colours"] = 2
    for name, value in {"count": 4, "validation": 2, "held_out": 2}.items():
        if name in config["data"]:
            config["data"][name] = value
    if config.get("block") and config["block"].get("config", {}).get("checkpoint_ref") == "smollm2":  # too large for one step here
        pytest.importorskip("transformers")
        config["block"]["config"]["checkpoint_ref"] = os.environ["WGTORCH_LLM"]
    if config["objective"]["type"] == "action_reading":  # its words have the vectors of a language model that need not be here
        pytest.importorskip("transformers")
        config["objective"]["vectors"], config["block"]["config"]["raw"] = os.environ["WGTORCH_LLM"], 32
    if config["trainer"].get("strategy") in ("ddp", "fsdp2"):  # two processes are for the test of processes
        config["trainer"].update({"strategy": "auto", "devices": 1})
    return config


def test_every_file_for_training_is_seen_here() -> None:
    files = [path.relative_to(CONF).as_posix() for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
    untrained = sorted(set(files) - {name for name, _ in COMMANDS})
    assert untrained == UNTRAINED, "each file's head says a command that trains with it"
    assert Counter(name.split("/")[0] for name in files if name not in untrained) == {
        "world": 4, "stage": 1, "pipeline": 2, "graph": 2, "block": 11, "data": 15, "objective": 22, "optimizer": 5, "trainer": 4,
        "lora": 6, "logger": 4, "experiment": 25,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "command"),
    [pytest.param(*each, id=each[0], marks=() if each[0].startswith("experiment/") else pytest.mark.slow) for each in FIRST],
)
def test_every_file_trains_one_step_by_the_command_in_its_head(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "block=autoencoder" in command:
        pytest.importorskip("diffusers")
    if "block=local_" in command:
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    for folder in ("my_pictures", "my_latents", "my_class", "my_edges", "my_others"):
        (tmp_path / folder).mkdir()
    if "my_model" in command:
        pytest.importorskip("diffusers")
        from tests.integrations.diffusers import tiny

        tiny.stable_diffusion_xl(tmp_path / "words").save_pretrained(tmp_path / "my_model")
    for kind in ("wandb", "mlflow"):
        if f"logger={kind}" in command:
            pytest.importorskip(kind)
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 0, 0)).save(tmp_path / f"my_pictures/{index}.png")
        (tmp_path / f"my_pictures/{index}.txt").write_text("a <mine> castle" if "textual_inversion" in name else "a castle")
        for beside in ("my_class", "my_edges", "my_others"):
            Image.new("RGB", (64, 64), (0, 60 * index, 0)).save(tmp_path / f"{beside}/{index}.png")
    import torch

    save_file({"image": torch.rand(4, 3, 16, 16), "condition": torch.rand(4, 7, 8)}, tmp_path / "my_latents/all.safetensors")
    config = composed(command)
    run(config, tmp_path / "run", CONF)
    assert list(losses(tmp_path / "run")) == [0]
    assert (tmp_path / "run/checkpoints/last/manifest.json").is_file()


@pytest.mark.parametrize(("name", "command"), [entry for entry in COMMANDS if entry not in FIRST])
def test_the_other_commands_compose(name: str, command: str) -> None:
    config = composed(command)
    assert config["data"]
    assert config["objective"]["type"]


def test_a_config_names_one_thing_to_train() -> None:
    with pytest.raises(ConfigError, match="what to train: nothing is chosen; choose one of world, stage, pipeline, graph, block"):
        target_from({"graph": None})
    with pytest.raises(ConfigError, match="what to train: graph and block are chosen"):
        target_from({"graph": {"template": "caption"}, "block": {"block_type": "vlm/scene"}})
    with pytest.raises(ConfigError, match="block: has"):
        target_from({"block": {"type": "vlm/scene"}})
    with pytest.raises(ConfigError, match="graph: describes a pipeline; write it under pipeline"):
        target_from({"graph": {"template": "text_to_image", "level": "pipeline"}})


def test_the_command_line_takes_experiments_files_and_runs(tmp_path: Path) -> None:
    args = make_parser().parse_args(["train", "tiny_denoising", "-m", "optimizer.lr=1,2"])
    assert (args.target, args.overrides) == ("tiny_denoising", ["-m", "optimizer.lr=1,2"])
    assert arguments_of("tiny_denoising", ["seed=1"])[-2:] == ["experiment=tiny_denoising", "seed=1"]
    with pytest.raises(CommandError, match="say what to train: an experiment .*, lora, .* a YAML config, or the folder of a run"):
        arguments_of(None, [])
    assert arguments_of(str(CONF / "experiment/tiny_denoising.yaml"), [])[-1] == "experiment=tiny_denoising"
    (tmp_path / "own.yaml").write_text("name: own\n")
    assert arguments_of(str(tmp_path / "own.yaml"), [])[:4] == ["--config-path", str(tmp_path), "--config-name", "own"]
    assert arguments_of(str(tmp_path), []) == [f"rerun={tmp_path}"]
    first = make_parser().parse_args(["train", "-m", "lora", "optimizer.lr=1,2"])
    assert (first.multirun, first.target, first.overrides) == (True, "lora", ["optimizer.lr=1,2"])
    (tmp_path / "run/checkpoints/last").mkdir(parents=True)
    (tmp_path / "run/config.yaml").touch()
    (tmp_path / "run/checkpoints/last/config.yaml").touch()  # of the model
    for start in (tmp_path / "run", tmp_path / "run/checkpoints/last"):
        assert arguments_of(f"resume={start}", ["seed=1"]) == [f"rerun={tmp_path / 'run'}", f"resume={start}", "seed=1"]
    with pytest.raises(UnknownNameError, match="no experiment, no config file and no run 'tiny_denoisin'; did you mean 'tiny_denoising'"):
        arguments_of("tiny_denoisin", [])


def program(folder: Path, *words: str, module: str | None = None) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, str(ROOT / "scripts/train.py")] if module is None else [sys.executable, "-m", module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_program_trains_keeps_its_config_and_runs_again_from_there(tmp_path: Path) -> None:
    quick = ["trainer.max_steps=3", "+trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]
    done = program(tmp_path, "experiment=tiny_denoising", "seed=3", *quick)
    assert done.returncode == 0, done.stderr
    (first,) = tmp_path.glob("outputs/tiny_denoising/*")
    assert f"Run: {first}" in done.stdout
    assert {"config.yaml", "metrics.csv", "checkpoints", ".hydra"} <= {path.name for path in first.iterdir()}
    assert any(path.name.startswith("events.out") for path in first.iterdir())
    assert isinstance(Block.load(first / "checkpoints/last"), Block)

    done = program(tmp_path, "train", str(first), "name=again", module="wgtorch.cli.main")
    assert done.returncode == 0, done.stderr
    (second,) = tmp_path.glob("outputs/again/*")
    assert losses(second) == losses(first)
    assert len(losses(first)) == 3


def test_what_a_target_refers_to_is_part_of_the_config_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph/narrow.yaml").write_text("width: 8\n")
    graph = {
        "kind": "graph",
        "graph_id": "mine",
        "nodes": [{"node_id": "describer", "block_type": "vlm/scene", "config": {"ref": "narrow.yaml"}}],
    }
    kept = whole({"graph": graph, "seed": 3, "block": None}, tmp_path)
    assert kept["graph"]["nodes"][0]["config"] == {"width": 8}
    assert (kept["seed"], kept["block"]) == (3, None)
    assert target_from(kept).nodes["describer"].config["width"] == 8, "it needs no folder to be read from"
    with pytest.raises(ConfigError, match=r"gone.yaml"):
        whole({"graph": {"nodes": {"ref": "gone.yaml"}}}, tmp_path)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("data.prompt=a photo, of a dog", "a photo, of a dog"),
        ("data.prompt=a dog's house: red", "a dog's house: red"),
        ("data.prompt=a\\b c' d", "a\\b c' d"),
        ("data.prompt=it ends, with \\", "it ends, with \\"),
        ("data.prompt='a, b c'", "a, b c"),
        ("data.prompt=a photo of sks dog", "a photo of sks dog"),
        ("textual_inversion.token=<dog>", "<dog>"),
        ("optimizer.nodes={a: {lr: 1}}", {"a": {"lr": 1}}),
    ],
)
def test_a_text_of_several_words_needs_no_second_quotes(typed: str, value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from wgtorch.cli.train import quoted

    (read,) = OverridesParser.create().parse_overrides([quoted(typed)])
    assert read.value() == value
    assert quoted("a=x y,z", is_sweep=True) == "a=x y,z"
    assert quoted("a=choice(x, y)") == "a=choice(x, y)"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "trainer"),
    [(signal.SIGTERM, "cpu")]
    + [
        pytest.param(*each, marks=pytest.mark.slow)
        for each in ((signal.SIGINT, "cpu"), (signal.SIGTERM, "ddp_cpu"), (signal.SIGINT, "ddp_cpu"))
    ],
)
def test_a_signal_to_the_command_ends_its_training_with_a_checkpoint(number: int, trainer: str, tmp_path: Path) -> None:
    words = [
        "tiny_denoising",
        f"trainer={trainer}",
        "trainer.max_steps=1000000",
        "trainer.val_check_interval=null",
        "checkpoint.every=1000000",
        "trainer.log_every_n_steps=1",
    ]
    start = [sys.executable, "-m", "wgtorch.cli.main", "train", *words, f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        start, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    log = tmp_path / "run/metrics.csv"
    while not log.is_file() or len(log.read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.2)
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)  # a terminal's Ctrl-C comes to all
    try:
        assert process.wait(timeout=300) == 128 + number
    finally:  # nothing of it is left, also where it failed
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (tmp_path / "run/checkpoints/last/manifest.json").is_file()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("start", [[*START], [sys.executable, "-m", "wgtorch.cli.main", "train"]], ids=["the training", "the command"])
def test_an_interrupt_while_packages_are_imported_is_no_traceback(start: list[str], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(300)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.Popen([*start, "tiny_denoising"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in told


def test_a_mistake_is_a_message(tmp_path: Path) -> None:
    done = program(tmp_path, "experiment=tiny_denoising", "objective.type=denoisin")
    assert done.returncode == 1
    assert "train: unknown objective 'denoisin'; did you mean 'denoising'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["experiment=lora"],
            "graph.folder: is not given; expected the folder of a model.*, as graph.folder=my_model; data.folder: is",
        ),
        (["experiment=lora", "lora.rnk=4"], "train: unknown 'rnk' in lora; did you mean 'rank'?"),
        (["experiment=tiny_denoising", "lora.rank=4"], "train: lora: nothing of it is chosen; choose one first, as lora=backbone"),
        (["experiment=lora", "lora=choice(1"], "train: lora=choice.*cannot be read"),
        (["experiment=lora", "resume=out"], "To go on with a run: wgtorch train out resume=out"),
    ],
)
def test_what_hydra_refuses_is_said_in_words_of_ours(words: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    (tmp_path / "out/config.yaml").touch()
    done = program(tmp_path, *words)
    assert done.returncode == 1
    assert re.search(told, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr


@pytest.mark.slow
def test_a_sweep_with_two_processes_in_each_training(tmp_path: Path) -> None:
    quick = ["trainer.max_steps=3", "+trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]
    done = program(tmp_path, "experiment=tiny_denoising", "trainer=ddp_cpu", *quick, "-m", "seed=0,1")
    assert done.returncode == 0, done.stderr
    folders = sorted(path.parent for path in tmp_path.glob("outputs/tiny_denoising/*_sweep/*/metrics.csv"))
    assert [folder.name for folder in folders] == ["0", "1"]
    assert all(len(losses(folder)) == 3 for folder in folders)
    assert losses(folders[0]) != losses(folders[1])
    assert [path.name for path in tmp_path.glob("outputs/tiny_denoising/*")] == [folders[0].parent.name], "no stray folders"
