"""``wgtorch train``: trains what the configs in ``conf/`` describe; also the Hydra program of ``scripts/train.py``.

wgtorch train default_painter trainer.max_steps=100
wgtorch train graph=diffusers graph.folder=my_model data=image_folder data.folder=my_pictures lora=rank8
wgtorch train conf/experiment/default_painter.yaml -m optimizer.lr=1e-3,1e-4
wgtorch train outputs/default_painter/2026-01-01_12-00-00 seed=1          a run again, from the config it has kept
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from wgtorch.cli.optuna_sweeper import register
from wgtorch.cli.own_code import import_modules, with_own_code
from wgtorch.cli.sweep import RESULT, Sweep
from wgtorch.cli.target import CommandError, level_from
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.config.resolve import resolve_refs
from wgtorch.core.errors import ConfigError, UnknownNameError, WgtorchError, require, suggest

TARGETS = ("world", "stage", "pipeline", "graph", "block")
"""Groups of configs one of which is what is trained."""
_BESIDE = ("name", "weights", "resume", "imports", "optimized_metric")
_FOLDERS = (
    "hydra.run.dir=outputs/${name}/${now:%Y-%m-%d_%H-%M-%S}",
    "hydra.sweep.dir=outputs/${name}/${now:%Y-%m-%d_%H-%M-%S}_sweep",
    "hydra.sweep.subdir=${hydra.job.num}",
    "hydra.job.chdir=false",
)


_TOO_EARLY = "train: interrupted before the training began"
START = (
    sys.executable,
    "-c",
    "import runpy, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "runpy.run_module('wgtorch.cli.train', run_name='__main__', alter_sys=True)",
)
"""Runs this file as ``python -m`` does, but that Ctrl-C while it is imported ends it without a traceback."""
_GIVEN = {
    "graph.folder": "the folder of a model, as diffusers' save_pretrained wrote it, as graph.folder=my_model",
    "data.folder": "the folder with what is learned from, as data.folder=my_pictures",
    "data.prior.folder": "a folder with pictures of the class, beside one's own, as data.prior.folder=my_class",
    "data.controls": "a folder with what the ControlNet is shown of each picture, under its name, as data.controls=my_edges",
    "data.rejected": "a folder with a picture that is liked less, under the name of each, as data.rejected=my_others",
}
"""What configs leave to be given."""


def command(args: argparse.Namespace) -> int:
    """Starts the program in a process of its own, from which Lightning may start more; it is that which a signal stops, after its batch."""
    process = subprocess.Popen([*START, *arguments_of(args.target, [*(["-m"] if args.multirun else []), *args.overrides])])
    before = signal.signal(signal.SIGTERM, lambda *ignored: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                if code == -signal.SIGINT:
                    print(_TOO_EARLY, file=sys.stderr)
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:  # a terminal's Ctrl-C comes to both
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def arguments_of(target: str | None, overrides: Sequence[str]) -> list[str]:
    """What the Hydra program is called with for an experiment's name, a config's file, a run's folder, or overrides alone.

    Raises:
        UnknownNameError: there is nothing of that name.
        CommandError: nothing is named.
    """
    if target is None:
        raise CommandError(f"say what to train: an experiment ({', '.join(experiments())}), a YAML config, or the folder of a run")
    path = Path(target)
    if target.startswith("resume=") and (run_folder := run_of(target.removeprefix("resume="))):
        return [f"rerun={run_folder}", target, *overrides]
    if path.is_dir():
        return [f"rerun={target}", *overrides]
    if path.suffix in (".yaml", ".yml") and path.is_file():
        if path.parent.name == "experiment" and (path.parents[1] / "train.yaml").is_file():
            return ["--config-path", str(path.parents[1].resolve()), f"experiment={path.stem}", *overrides]
        return ["--config-path", str(path.parent.resolve()), "--config-name", path.stem, *_FOLDERS, *overrides]
    first = ["--config-path", str(conf_folder()), *own_configs()]
    if "=" in target or target.startswith(("-", "+", "~")):
        return [*first, target, *overrides]
    known = experiments()
    if target not in known:
        raise UnknownNameError(f"there is no experiment, no config file and no run {target!r}; {suggest(target, known)}")
    return [*first, f"experiment={target}", *overrides]


def run_of(path: str) -> Path | None:
    """The folder of the run, with its config, that a path to resume from is or lies in."""
    places = (Path(path), *Path(path).absolute().parents[1:2])
    return next((each for each in places if (each / "config.yaml").is_file() and (each / "checkpoints").is_dir()), None)


def experiments() -> list[str]:
    """Names of the experiments that train; those of ``scripts/run_world.py`` have settings of a run."""
    folders = [conf_folder(), *([Path.cwd() / "conf"] if own_configs() else [])]
    files = [path for folder in folders for path in (folder / "experiment").glob("*.yaml")]
    return sorted({path.stem for path in files if not re.search(r"^run:", path.read_text(encoding="utf-8"), re.MULTILINE)})


def conf_folder() -> Path:
    """The configs: ``conf`` in the working folder, else those of the checkout or of the wheel that this package is from.

    Raises:
        CommandError: they are nowhere.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (Path.cwd() / "conf", package.parent / "conf", package / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise CommandError("the configs that wgtorch ships are not there; install it again, or give a config file of your own")


def own_configs() -> list[str]:
    """Hydra's option for ``conf`` in the working folder, whose groups then stand beside those that ship."""
    own = Path.cwd() / "conf"
    return ["--config-dir", str(own)] if own.is_dir() and not (own / "train.yaml").is_file() else []


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
        for key in described:
            if key not in ("block_type", "config"):
                raise ConfigError(f"block: unknown {key!r}; {suggest(str(key), ('block_type', 'config'))}")
        if not isinstance(described.get("config") or {}, Mapping):
            raise ConfigError(f"block.config: found {described['config']!r}; expected settings by name")
        return BlockRegistry.build(described)
    if "template" in described:
        described.setdefault("level", group)
    if group == "graph" and "folder" in described:
        return _of_diffusers(described)
    target = level_from(described, base=None if base is None else base / group, where=group)
    if target.level != group:
        raise ConfigError(f"{group}: describes a {target.level}; write it under {target.level}")
    return target


def _of_diffusers(described: Mapping[str, Any]) -> Block:
    """The graph of a folder that diffusers wrote: ``{"folder": ..., "task": ...}`` and further arguments of ``from_diffusers``.

    ``controlnet`` adds one: ``new``, with the weights of the UNet, or a folder.
    """
    import inspect

    from wgtorch.graph import GraphReaders

    options = {key: value for key, value in described.items() if value is not None}
    folder, controlnet = options.pop("folder", None), options.pop("controlnet", None)
    if folder is None:
        raise ConfigError("graph.folder: is not given; expected a folder that diffusers' save_pretrained wrote")
    known = [name for name in inspect.signature(GraphReaders.get("diffusers")).parameters if name not in ("source", "pool")]
    for key in options:
        if key not in known:
            raise ConfigError(f"graph: unknown {key!r}; {suggest(key, ['folder', 'controlnet', *known])}")
    graph = GraphReaders.get("diffusers")(str(folder), **options)
    if controlnet is not None:
        from wgtorch.integrations.diffusers.blocks.controlnet import ControlNet

        models: dict[str, Any] = {node: getattr(block, "model", None) for node, block in graph.nodes.items()}
        sides = [2 ** (len(model.config.block_out_channels) - 1) for model in models.values() if "Autoencoder" in type(model).__name__]
        is_new = controlnet == "new"
        added = ControlNet.of(models["backbone"], side=sides[0]) if is_new else ControlNet(checkpoint_ref=str(controlnet))
        graph.add_node(added, "controlnet")
    return graph


def run(config: Mapping[str, Any], folder: Path, base: Path | None = None) -> float | None:
    """One training from plain data, in its folder.

    Args:
        config: a target, settings of :func:`wgtorch.train.fitting.fit`, ``name``, ``weights`` (a checkpoint to begin with),
            ``resume`` (a checkpoint or run to go on with), ``imports`` (modules to import first) and ``optimized_metric``.
        folder: of the run.
        base: the folder of configs, for a level's relative refs, and where modules may lie.

    Returns:
        The last value of ``optimized_metric``; None where none is named.

    Raises:
        ConfigError: a setting that nobody reads, or that does not fit.
    """
    require("lightning", "train")
    from wgtorch.train.fitting import SETTINGS, check_settings, fit, last_metrics

    settings = {key: value for key, value in config.items() if key not in (*TARGETS, *_BESIDE)}
    unknown = [key for key in settings if key not in SETTINGS]
    if unknown:
        raise ConfigError(f"training: unknown setting {unknown[0]!r}; {suggest(unknown[0], [*SETTINGS, *TARGETS, *_BESIDE])}")
    for key in ("weights", "resume", "optimized_metric"):
        if not isinstance(config.get(key), str | Path | None):
            raise ConfigError(f"{key}: found {config[key]!r}; expected a text")
    import_modules(config.get("imports"), [Path.cwd(), *([base] if base is not None else [])])
    check_settings(settings)
    torch.manual_seed(config.get("seed") or 0)  # new weights are drawn while the target is built
    settings = with_own_code(settings, folder)
    target = target_from(config, base)
    if config.get("weights"):
        target.load_weights(config["weights"])
    trained = fit(target, settings, folder, resume=config.get("resume"))
    wanted = config.get("optimized_metric")
    return None if wanted is None else metric_of(last_metrics(trained, wanted), wanted)


def metric_of(metrics: Mapping[str, Any], name: str) -> float:
    """The last value of a metric.

    Raises:
        UnknownNameError: it was never logged; names those that were.
    """
    if name not in metrics:
        raise UnknownNameError(f"optimized_metric: {name!r} was never logged; {suggest(str(name), list(metrics))}")
    return float(metrics[name])


def task(config: Any, sweep: Sweep | None = None) -> float | None:
    """What Hydra calls for each job; a user's mistake ends the program with a message instead of a traceback.

    Args:
        config: composed by Hydra.
        sweep: notes what became of the jobs of a sweep.

    Returns:
        The value of ``optimized_metric``.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf, read_write
    from omegaconf.errors import OmegaConfBaseException

    from wgtorch.train.processes import is_follower, one_training

    hydra: Any = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    for chatty in ("httpx", "httpx2"):  # Hydra shows what is logged, and these tell of every call of an API
        logging.getLogger(chatty).setLevel(logging.WARNING)

    def train(resume: Path | None = None) -> float | None:
        try:
            if missing := sorted(OmegaConf.missing_keys(config), reverse=True):
                told = "; ".join(f"{key}: is not given; expected {_GIVEN.get(key, 'a value')}" for key in missing)
                run_folder = run_of(str(config.resume)) if config.get("resume") else None
                again = f". To go on with a run: wgtorch train {run_folder} resume={config.resume}" if run_folder else ""
                raise ConfigError(told + again)
            plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            raise ConfigError(f"{getattr(error, 'full_key', '') or 'config'}: {str(error).splitlines()[0]}") from error
        if is_follower():
            return run(plain, folder, conf_of(hydra))
        plain = whole(plain, conf_of(hydra))
        if resume is not None:
            plain["resume"] = str(resume)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain)), encoding="utf-8")
        with one_training(["--config-path", str(folder), "--config-name", "config"]):
            return run(plain, folder, conf_of(hydra))

    if hydra.mode == RunMode.MULTIRUN:  # processes that are started for a job of a sweep work in the job's folder
        with read_write(hydra):
            hydra.run.dir = str(folder)
        sweep = sweep or Sweep()
        sweep.folder = Path(hydra.sweep.dir).resolve()
        return sweep.job(folder, list(hydra.overrides.task), train)
    try:
        value = train()
    except (WgtorchError, OSError) as error:
        notes = [f"\n{note}" for note in getattr(error, "__notes__", [])]
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            notes.append(f"\n{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free on the disk of {folder}")
        sys.exit(f"train: {error}{''.join(notes)}")
    if not is_follower():
        print(f"Run: {folder}")
    return value


def whole(config: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """A training's config with the files that its target refers to in place of the refs: it can be read from any folder.

    Raises:
        ConfigError: a ref leads nowhere.
    """
    described = {group: config[group] for group in TARGETS if config.get(group)}
    return {**config, **{group: resolve_refs(value, None if base is None else base / group) for group, value in described.items()}}


def quoted(argument: str, *, is_sweep: bool = False) -> str:
    """An override whose value is a text that Hydra's grammar would not take as it is (several words, <dog>), with the quotes it wants.

    ``data.prompt=a dog's house, at dusk`` is what a shell leaves of a quoted prompt; to Hydra its comma means a sweep.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, found, value = argument.partition("=")
    if argument.startswith("-") or not found or not value.strip() or value.lstrip()[:1] in ("'", '"', "[", "{"):
        return argument
    try:
        (read,) = OverridesParser.create().parse_overrides([argument])
        if is_sweep or not read.is_sweep_override() or " " not in value.strip():
            return argument
    except HydraException:
        pass
    if "(" in value.split(" ")[0]:  # choice(a, b), interval(0, 1)
        return argument
    text = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (found[2] and "\\'"), value)  # Hydra reads backslashes before quotes alone
    return f"{key}='{text}'"


def refusal(error: Exception) -> str:
    """What Hydra refused, in words that say what to write.

    Args:
        error: a HydraException.
    """
    cause, text = error.__cause__, str(error)
    key = str(getattr(cause, "full_key", None) or "")
    if "Could not override" in text and key:
        parent, _, name = key.rpartition(".")
        node: Any = getattr(cause, "parent_node", None)
        group = conf_folder() / name
        if not parent and group.is_dir():
            return f"{name}: nothing of it is chosen; choose one first, as {name}={min(path.stem for path in group.glob('*.yaml'))}"
        typed = text.rpartition("use ")[2]
        known = suggest(name, list(node) if node else [])
        return f"unknown {name!r} in {parent or 'the config'}; {known} (an option that the config leaves out wants a plus: {typed})"
    if override := getattr(error, "override", None):
        key, _, value = str(override).partition("=")
        why = text.splitlines()[0]
        return f"{override}: cannot be read ({why}); write a text with signs in quotes within quotes, as {key}='\"{value}\"'"
    return text.partition("Config search path")[0].strip()


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
    several = [argument for argument in given if argument in ("-m", "--multirun")]  # argparse wants options before all overrides
    given = [*several, *(quoted(argument, is_sweep=bool(several)) for argument in given if argument not in several)]
    sys.argv = [sys.argv[0], *given]
    path = None
    if not any(argument in ("--config-path", "-cp") for argument in given):
        path, sys.argv = str(conf_folder()), [sys.argv[0], *own_configs(), *given]
    if "hydra/sweeper=optuna" in given and find_spec("hydra_plugins") is None:
        register()
    sweep = Sweep()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as START left it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def job(config: Any) -> float | None:
        return task(config, sweep)

    is_asked = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what Hydra refuses comes here, instead of to the terminal
    try:
        hydra.main(version_base=None, config_path=path, config_name="train")(job)()
    except hydra.errors.HydraException as error:
        if is_asked:
            raise
        sys.exit(f"train: {refusal(error)}")
    except KeyboardInterrupt:  # while models and data are made ready
        print(_TOO_EARLY, file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if sweep.folder is not None:
        print(f"Runs: {sweep.folder}, each in a folder with its config.yaml, {RESULT} once it is done, and what it made")
    if sweep.failed:
        sys.exit(sweep.report())


if __name__ == "__main__":
    program()
