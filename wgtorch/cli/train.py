"""``wgtorch train``: trains what the configs in ``conf/`` describe; also the Hydra program of ``scripts/train.py``.

wgtorch train default_painter trainer.max_steps=100
wgtorch train conf/experiment/default_painter.yaml -m optimizer.lr=1e-3,1e-4
wgtorch train outputs/default_painter/2026-01-01_12-00-00 seed=1          a run again, from the config it has kept
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wgtorch.cli.target import CommandError, level_from
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.config.resolve import resolve_refs
from wgtorch.core.errors import ConfigError, UnknownNameError, WgtorchError, require, suggest

TARGETS = ("world", "stage", "pipeline", "graph", "block")
"""Groups of configs one of which is what is trained."""
_BESIDE = ("name", "weights", "resume")
_FOLDERS = (
    "hydra.run.dir=outputs/${name}/${now:%Y-%m-%d_%H-%M-%S}",
    "hydra.sweep.dir=outputs/${name}/${now:%Y-%m-%d_%H-%M-%S}_sweep",
    "hydra.sweep.subdir=${hydra.job.num}",
    "hydra.job.chdir=false",
)


def command(args: argparse.Namespace) -> int:
    """Starts the program in a process of its own, from which Lightning may start more."""
    return subprocess.call([sys.executable, "-m", "wgtorch.cli.train", *arguments_of(args.target, args.overrides)])


def arguments_of(target: str, overrides: Sequence[str]) -> list[str]:
    """What the Hydra program is called with for an experiment's name, a config's file, or a run's folder.

    Raises:
        UnknownNameError: there is nothing of that name.
    """
    path = Path(target)
    if path.is_dir():
        return [f"rerun={target}", *overrides]
    if path.suffix in (".yaml", ".yml") and path.is_file():
        if path.parent.name == "experiment" and (path.parents[1] / "train.yaml").is_file():
            return ["--config-path", str(path.parents[1].resolve()), f"experiment={path.stem}", *overrides]
        return ["--config-path", str(path.parent.resolve()), "--config-name", path.stem, *_FOLDERS, *overrides]
    folder = conf_folder()
    known = sorted(entry.stem for entry in (folder / "experiment").glob("*.yaml"))
    if target not in known:
        raise UnknownNameError(f"there is no experiment, no config file and no run {target!r}; {suggest(target, known)}")
    return ["--config-path", str(folder), f"experiment={target}", *overrides]


def conf_folder() -> Path:
    """The configs: ``conf`` in the working folder, else that of the checkout this package stands in.

    Raises:
        CommandError: neither is there.
    """
    for folder in (Path.cwd() / "conf", Path(__file__).resolve().parents[2] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise CommandError("no conf/train.yaml here; run it in a checkout of wgtorch, or give a config file of your own")


def target_from(config: Mapping[str, Any], base: Path | None = None) -> Block:
    """The block or level that a training's config describes under ``world``, ``stage``, ``pipeline``, ``graph`` or ``block``.

    Raises:
        ConfigError: it describes none, or several.
    """
    chosen = [group for group in TARGETS if config.get(group)]
    if len(chosen) != 1:
        found = f"{' and '.join(chosen)} are chosen" if chosen else "nothing is chosen"
        raise ConfigError(f"what to train: {found}; choose one of {', '.join(TARGETS)}, as graph=text_to_image")
    group = chosen[0]
    described = dict(config[group])
    if group == "block":
        if "block_type" not in described:
            raise ConfigError(f"block: has {sorted(described)}; expected {{'block_type': name, 'config': {{...}}}}")
        return BlockRegistry.build(described)
    if "template" in described:
        described.setdefault("level", group)
    target = level_from(described, base=None if base is None else base / group, where=group)
    if target.level != group:
        raise ConfigError(f"{group}: describes a {target.level}; write it under {target.level}")
    return target


def run(config: Mapping[str, Any], folder: Path, base: Path | None = None) -> None:
    """One training from plain data, in its folder.

    Args:
        config: a target, settings of :func:`wgtorch.train.fitting.fit`, ``name``, ``weights`` (a checkpoint to begin with) and
            ``resume`` (a checkpoint or run to go on with).
        folder: of the run.
        base: the folder of configs, for a level's relative refs.
    """
    require("lightning", "train")
    from wgtorch.train.fitting import fit

    torch.manual_seed(int(config.get("seed") or 0))  # new weights are drawn while the target is built
    settings = {key: value for key, value in config.items() if key not in (*TARGETS, *_BESIDE)}
    target = target_from(config, base)
    if config.get("weights"):
        target.load_weights(config["weights"])
    fit(target, settings, folder, resume=config.get("resume"))


def task(config: Any) -> None:
    """What Hydra calls for each job; a user's mistake ends the program with a message instead of a traceback."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf, read_write

    from wgtorch.train.processes import is_follower, one_training

    hydra: Any = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    if is_follower():
        run(plain, folder, conf_of(hydra))
        return
    if hydra.mode == RunMode.MULTIRUN:  # processes that are started for a job of a sweep work in the job's folder
        with read_write(hydra):
            hydra.run.dir = str(folder)
    try:
        plain = whole(plain, conf_of(hydra))
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain)), encoding="utf-8")
        with one_training(["--config-path", str(folder), "--config-name", "config"]):
            run(plain, folder, conf_of(hydra))
    except WgtorchError as error:
        notes = [f"\n{note}" for note in getattr(error, "__notes__", [])]
        sys.exit(f"train: {error}{''.join(notes)}")
    print(f"Run: {folder}")


def whole(config: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """A training's config with the files that its target refers to in place of the refs: it can be read from any folder.

    Raises:
        ConfigError: a ref leads nowhere.
    """
    described = {group: config[group] for group in TARGETS if config.get(group)}
    return {**config, **{group: resolve_refs(value, None if base is None else base / group) for group, value in described.items()}}


def conf_of(hydra: Any) -> Path | None:
    """The folder that the primary config came from."""
    places = [Path(source.path) for source in hydra.runtime.config_sources if source.provider == "main"]
    return places[0] if places else None


def program(arguments: Sequence[str] | None = None) -> None:
    """The Hydra program; ``rerun=<folder of a run>`` takes the config that the run has kept."""
    hydra: Any = require("hydra", "train")
    given = list(sys.argv[1:] if arguments is None else arguments)
    again = [argument.removeprefix("rerun=") for argument in given if argument.startswith("rerun=")]
    if again:
        run_folder = Path(again[-1])
        if not (run_folder / "config.yaml").is_file():
            sys.exit(f"train: rerun={run_folder}: holds no config.yaml; expected the folder of a run")
        rest = [argument for argument in given if not argument.startswith("rerun=")]
        given = ["--config-path", str(run_folder.resolve()), "--config-name", "config", *_FOLDERS, *rest]
    sweep = [argument for argument in given if argument in ("-m", "--multirun")]  # argparse wants options before all overrides
    given = [*sweep, *(argument for argument in given if argument not in sweep)]
    sys.argv = [sys.argv[0], *given]
    path = None if any(argument in ("--config-path", "-cp") for argument in given) else str(conf_folder())
    hydra.main(version_base=None, config_path=path, config_name="train")(task)()


if __name__ == "__main__":
    program()
