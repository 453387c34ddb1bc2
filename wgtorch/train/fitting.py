"""A training from its settings: Trainer, loggers, callbacks, data - put together here and run by Lightning."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import LearningRateMonitor, RichModelSummary, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS
from pydantic import Field

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, TrainingError, require, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.tree import is_level
from wgtorch.lora.add_remove import add as add_lora
from wgtorch.train.colours import begin_with_colours
from wgtorch.train.data.base import Data
from wgtorch.train.export import Export
from wgtorch.train.folders import BestCheckpoint, CheckpointFolders, LastCheckpoint, checkpoint_in, read_training
from wgtorch.train.interrupts import Interrupts, begin_worker
from wgtorch.train.loggers import keep_metrics, log_settings, loggers_of, metrics_in
from wgtorch.train.objective import Objective
from wgtorch.train.patterns import blocks_at, check_patterns, matches, patterns_of
from wgtorch.train.registries import DataRegistry, ObjectiveRegistry, build, built_from, check_arguments, check_numbers
from wgtorch.train.registries import check_settings as check_settings_of
from wgtorch.train.sampling import Samples
from wgtorch.train.sharding import whole, with_folders
from wgtorch.train.textual_inversion import TextualInversion
from wgtorch.train.trainable import Trainable

_log = logging.getLogger(__name__)

SETTINGS = (
    "data", "objective", "optimizer", "trainer", "logger", "callbacks", "lora", "ema", "freeze", "train_only", "gradient_checkpointing",
    "cache", "samples", "checkpoint", "export", "textual_inversion", "seed",
)  # fmt: skip
"""Keys of a training's settings beside its target."""
_EXPECTED = (
    ".*does not have many workers.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*Checkpoint directory .* exists.*",
    ".*Experiment logs directory.*",
    ".*module.s. in eval mode at the start of training.*",  # frozen ones
    ".*The dirpath has changed from.*",  # a resumed run has a folder of its own
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*LearningRateMonitor. callback with models that have no learning rate schedulers.*",
    ".*GPU available but not used.*",
    ".*You defined a `validation_step` but have no `val_dataloader`.*",
    ".*Total length of `list` across ranks is zero.*",  # data that holds nothing out
    ".*find_unused_parameters=True was specified.*",  # what a batch may leave out it does not always leave out
)
"""Warnings of Lightning's about what is meant to be so."""


def fit(target: Block, settings: Mapping[str, Any], folder: Path, *, resume: str | Path | None = None) -> Trainable:
    """Trains a target and keeps everything of the run in one folder.

    ::

        folder/
          checkpoints/last, checkpoints/best    see wgtorch.train.folders
          metrics.csv                           every logged number
          samples/                              pictures and texts
          events.out.tfevents...                for TensorBoard, with pictures

    Args:
        target: a block or level; changed in place.
        settings: plain data, with the keys :data:`SETTINGS`; ``data`` and ``objective`` are needed.
        folder: of the run.
        resume: a checkpoint of another run with the same settings, or that run's folder.

    Returns:
        What was trained; its ``target`` has the weights that train, its ``averaging`` the averages.

    Raises:
        ConfigError, UnknownNameError, TrainingError: a setting does not fit; nothing was trained then.
    """
    check_settings(settings)
    target.saved_config()  # what cannot be saved is better refused before training than after
    seed = int(settings.get("seed") or 0)
    data = build(DataRegistry, settings["data"], "data")
    if not isinstance(data, Data):
        raise ConfigError(f"data: found {describe(data)}; expected Data, a name or {{'type': name, ...}}")
    pl.seed_everything(seed, workers=True, verbose=False)
    objective = build(ObjectiveRegistry, settings["objective"], "objective")
    if not isinstance(objective, Objective):
        raise ConfigError(f"objective: found {describe(objective)}; expected an Objective, a name or {{'type': name, ...}}")
    word = _word_of(settings)
    if word is not None:
        word.add(target, folder / "tokenizers")
        word.check(data, getattr(objective, "inputs", None) or {})
        settings = {**settings, "callbacks": [*(settings.get("callbacks") or ()), word]}
    if settings.get("lora"):
        _add_adapters(target, settings["lora"], objective, data, seed)
    trainable = Trainable(
        target,
        objective=objective,
        optimizer=settings.get("optimizer") or "adamw",
        freeze=settings.get("freeze") or (),
        train_only=settings.get("train_only") or (),
        ema=settings.get("ema"),
        gradient_checkpointing=bool(settings.get("gradient_checkpointing")),
        cache=_cache_of(settings.get("cache"), data),
        seed=seed,
    )
    export = Export.of(settings.get("export"), target, settings)
    start = None if resume is None else checkpoint_in(resume)
    folder.mkdir(parents=True, exist_ok=True)
    held_out = data.validation() is not None
    metrics = metrics_in(folder)
    with _quiet():
        interrupts = Interrupts()
        trainer = make_trainer(trainable, settings, folder, held_out=held_out, interrupts=interrupts)
        if export is not None and trainer.is_global_zero:
            export.check(target, folder)
        _end_by_steps(trainer, data, seed, start)
        if start is not None:
            keep_metrics(trainer.loggers[0], metrics, read_training(start)["global_step"])
        log_settings(trainer.loggers, {key: value for key, value in settings.items() if key != "callbacks"})
        with interrupts.heard(trainer):
            trainer.fit(trainable, datamodule=_Loaders(data, seed, held_out), ckpt_path=start)
    with trainable.averaged(), whole(trainable):
        if export is not None and trainer.is_global_zero:
            export.write(trainable, folder)
        if word is not None and trainer.is_global_zero:
            word.write(folder / "textual_inversion")
    return trainable


def last_metrics(trainable: Trainable, wanted: str) -> dict[str, Any]:
    """The last value of each metric; of validation, once more where the training ended before there was one."""
    trainer = trainable.trainer
    if wanted not in trainer.callback_metrics and wanted.startswith("val/"):
        with _quiet():
            trainer.validate(trainable, datamodule=getattr(trainer, "datamodule", None), verbose=False)
    return dict(trainer.callback_metrics)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses settings that nobody reads, and those that lack what is needed.

    Raises:
        ConfigError: names the first.
    """
    unknown = [key for key in settings if key not in SETTINGS]
    if unknown:
        raise ConfigError(f"training: unknown setting {unknown[0]!r}; {suggest(unknown[0], SETTINGS)}")
    for key in ("data", "objective"):
        if not settings.get(key):
            raise ConfigError(f"training: no {key!r}; expected {{'type': name, ...}}")
    check_arguments(_plain_settings, settings, "training")
    check_numbers(settings, "")
    if not 0 <= (settings.get("seed") or 0) < 2**32:
        raise ConfigError(f"seed: found {settings['seed']}; expected a whole number from 0 to 2^32 - 1")
    for key in ("trainer", "lora"):
        if not isinstance(settings.get(key) or {}, Mapping):
            raise ConfigError(f"{key}: found {settings[key]!r}; expected settings by name")


def _plain_settings(
    *,
    seed: int | None = 0,
    freeze: list[str] | str | None = None,
    train_only: list[str] | str | None = None,
    gradient_checkpointing: bool | None = False,
) -> None:
    """The types of the settings that are no mappings."""


_LEAST = {"max_steps": -1, "max_epochs": -1, "num_sanity_val_steps": -1, "log_every_n_steps": 0, "gradient_clip_val": 0}


def make_trainer(trainable: Trainable, settings: Mapping[str, Any], folder: Path, *, held_out: bool, interrupts: Interrupts) -> pl.Trainer:
    """Lightning's Trainer for a run; ``trainer`` of the settings are its arguments.

    Raises:
        ConfigError: it has no such argument, or it cannot be what it is.
    """
    own: dict[str, Any] = {"log_every_n_steps": 10, **(settings.get("trainer") or {})}
    for name in ("callbacks", "logger"):
        if name in own:
            raise ConfigError(f"trainer.{name}: {name} of a training stand beside trainer; write {name}=...")
    for name in ("max_steps", "max_epochs", "accumulate_grad_batches", "log_every_n_steps"):
        if not isinstance(own.get(name), int | None) or isinstance(own.get(name), bool):
            raise ConfigError(f"trainer.{name}: found {own[name]!r}; expected a whole number")
    if own.get("accumulate_grad_batches") is not None and own["accumulate_grad_batches"] < 1:
        raise ConfigError(f"trainer.accumulate_grad_batches: found {own['accumulate_grad_batches']}; expected at least 1")
    for name, least in _LEAST.items():
        if isinstance(own.get(name), (int, float)) and own[name] < least:
            raise ConfigError(f"trainer.{name}: found {own[name]}; expected at least {least}")
    if all(own.get(name) is None for name in ("max_steps", "max_epochs", "max_time")):
        raise ConfigError("trainer: nothing says when to stop; give max_steps, max_epochs or max_time")
    own.setdefault("max_epochs", -1)
    if (own.get("max_steps") or -1) > 0:
        own["log_every_n_steps"] = min(own["log_every_n_steps"], own["max_steps"])
    if isinstance(own.get("val_check_interval"), int):
        own.setdefault("check_val_every_n_epoch", None)  # every so many steps, whatever the length of an epoch
    own["strategy"] = with_folders(own.get("strategy", "auto"))
    progress = own.pop("enable_progress_bar", True)
    if not isinstance(progress, bool):
        raise ConfigError(f"trainer.enable_progress_bar: found {progress!r}; expected true or false")
    checkpoints = checkpoints_of(settings.get("checkpoint") or {}, folder, held_out)
    callbacks: list[pl.Callback] = [interrupts, LearningRateMonitor("step"), *checkpoints]
    if settings.get("samples"):
        callbacks.append(built_from(Samples, settings["samples"], "samples", folder=folder / "samples", interrupts=interrupts))
    for callback in settings.get("callbacks") or ():
        if not isinstance(callback, pl.Callback):
            raise ConfigError(
                f"callbacks: found {describe(callback)}; expected Lightning's Callbacks, in a config {{'_target_': path, ...}}"
            )
        callbacks.append(callback)
    if progress:
        require("rich", "train")
        callbacks += [_Progress(leave=True), RichModelSummary(max_depth=1)]
    if not isinstance(own.get("accelerator", ""), (str, Accelerator)):
        raise ConfigError(f"trainer.accelerator: found {own['accelerator']!r}; expected a name, as cpu")
    if not isinstance(interval := own.get("val_check_interval"), (int, float, str, timedelta, type(None))):
        raise ConfigError(f"trainer.val_check_interval: found {interval!r}; expected a number of steps, or a share of an epoch")
    check_settings_of(pl.Trainer, own, "trainer")
    try:
        return pl.Trainer(
            default_root_dir=folder,
            logger=loggers_of(settings.get("logger"), folder),
            callbacks=callbacks,
            plugins=[CheckpointFolders(trainable)],
            use_distributed_sampler=False,  # the data gives each process its share
            enable_model_summary=progress,
            enable_progress_bar=progress,
            **own,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from error


def _end_by_steps(trainer: pl.Trainer, data: Data, seed: int, start: Path | None) -> None:
    """Counts the steps of ``max_epochs``, so that a resumed run ends where one that was never stopped does.

    Epochs that were of other batches, before a checkpoint between two epochs, count with the steps that they took.
    """
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs is None or epochs < 0:
        return
    loader = data.loaders(seed=seed, rank=0, world_size=trainer.world_size)[0]
    limit = trainer.limit_train_batches
    batches = min(len(loader), limit) if isinstance(limit, int) else int(len(loader) * limit)
    each = -(-batches // trainer.accumulate_grad_batches)
    wanted = epochs * each
    then = {} if start is None else read_training(start)
    place = then.get("loops", {}).get("fit_loop", {}).get("state_dict", {}).get("combined_loader")
    if place and place[0].get("batching", {}).get("batches", len(loader)) != len(loader):
        loader.load_state_dict(place[0])
        wanted = then["global_step"] + (epochs - loader.epoch) * each
    trainer.fit_loop.epoch_loop.max_steps = wanted if steps < 0 else min(wanted, steps)
    trainer.fit_loop.max_epochs = -1


def _cache_of(settings: Mapping[str, Any] | str | None, data: Data) -> dict[str, Any] | None:
    """Settings of what is kept of frozen models: ``memory``, or those of :class:`FrozenOutputs`; None for nothing."""
    if settings is None or settings is False:
        return None
    found: dict[str, Any] = {} if settings == "memory" else dict(settings) if isinstance(settings, Mapping) else {"folder": settings}
    if data.is_endless and found.get("latents", True) is True:  # what is no flag is refused where it is read
        _log.info("latents of pictures are not kept: the data never gives the same picture twice")
        found["latents"] = False
    return found


def checkpoints_of(settings: Mapping[str, Any], folder: Path, held_out: bool) -> list[pl.Callback]:
    """``last``, and ``best`` where something says what is best: ``val/loss`` where there is validation, else ``monitor``."""
    return built_from(_checkpoints, settings, "checkpoint", folder=folder / "checkpoints", held_out=held_out)


def _checkpoints(
    *,
    folder: Path,
    held_out: bool,
    every: Annotated[int, Field(ge=1)] = 500,
    monitor: str | None = None,
    mode: Literal["min", "max"] = "min",
    keep: Annotated[int, Field(ge=1)] = 1,
) -> list[pl.Callback]:
    found: list[pl.Callback] = [LastCheckpoint(folder, every)]
    if wanted := monitor or ("val/loss" if held_out else None):
        between = None if held_out and not wanted.startswith("train/") else every
        found.insert(0, BestCheckpoint(folder, wanted, mode, between, keep))
    return found


def _add_adapters(target: Block, settings: Mapping[str, Any], objective: Any, data: Data, seed: int) -> None:
    """Adapters on what the settings choose of what the objective needs: others would learn nothing.

    ``nodes`` may be patterns (``*backbone``). A block that is needed at one place is adapted at all of its places. ``colours`` says of how
    many samples a painter's adapter begins with the colours.
    """
    require("peft", "train")
    known = ["colours", *(name for name in inspect.signature(add_lora).parameters if name not in ("target", "options"))]
    chosen = dict(settings)
    colours = chosen.pop("colours", None) or 0
    if isinstance(colours, bool) or not isinstance(colours, int) or colours < 0:
        raise ConfigError(f"lora.colours: found {colours!r}; expected of how many samples, as 100, or null")
    if is_level(target):
        objective.check(target)
        chosen["nodes"] = _nodes_for(target, chosen.get("nodes"), objective.reached(target))
    try:
        report = add_lora(target, **chosen)
    except TypeError as error:
        raise ConfigError(f"lora: {error}; known: {known}") from error
    if not report.adapted:
        raise TrainingError(f"lora: no block of {target.block_id} takes an adapter:\n{report}")
    if colours:
        begin_with_colours(target, report.name, objective, data, colours, seed)


def _nodes_for(target: Block, patterns: Any, reached: Collection[str] | None) -> list[str]:
    wanted = patterns_of(patterns, "lora.nodes")
    check_patterns(target, wanted, "lora.nodes")
    places = [(path, block) for path, block in blocks_at(target) if not wanted or any(matches(pattern, path) for pattern in wanted)]
    needed = {id(block) for path, block in places if reached is None or any(matches(each, path) for each in reached)}
    if not needed:
        raise TrainingError(
            f"lora: nothing of {', '.join(wanted) or target.block_id} gets a gradient from the objective, which needs "
            f"{', '.join(sorted(reached or ())[:6])}"
        )
    return [path for path, block in places if id(block) in needed]


def _word_of(settings: Mapping[str, Any]) -> TextualInversion | None:
    """The word that is learned, where there is one: it alone trains then."""
    given = settings.get("textual_inversion")
    if not given:
        return None
    if beside := [key for key in ("lora", "freeze", "train_only") if settings.get(key)]:
        raise ConfigError(
            f"textual_inversion: {beside[0]} says what trains too; expected one of them, since all else than the word is frozen"
        )
    return built_from(TextualInversion, given, "textual_inversion")


class _Progress(RichProgressBar):
    """Lightning's bar, which counts epochs to -2 where steps end a training."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}, up to step {self.trainer.max_steps}" if self.trainer.max_steps > 0 else f"Epoch {current_epoch}"


class _Loaders(pl.LightningDataModule):
    """The data's batches for the process that asks."""

    def __init__(self, data: Data, seed: int, held_out: bool) -> None:
        super().__init__()
        self.data, self.seed = data, seed
        if not held_out:
            self.val_dataloader = lambda: []  # type: ignore[method-assign]

    def _loaders(self) -> tuple[Any, Any]:
        assert self.trainer is not None
        rank = self.trainer.global_rank
        found = self.data.loaders(seed=self.seed, rank=rank, world_size=self.trainer.world_size)
        for loader in found:
            if loader is not None and loader.worker_init_fn is None:
                loader.worker_init_fn = partial(begin_worker, rank=rank)
        return found

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        return self._loaders()[0]

    def val_dataloader(self) -> Any:
        return self._loaders()[1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on things that are as they are meant to be."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for words in _EXPECTED:
            warnings.filterwarnings("ignore", words)
        try:
            yield
        finally:
            logger.setLevel(level)
