"""A training from its settings: Trainer, loggers, callbacks, data - put together here and run by Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import LearningRateMonitor, RichModelSummary, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.types import TRAIN_DATALOADERS

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, TrainingError, require, suggest
from wgtorch.lora.add_remove import add as add_lora
from wgtorch.train.data.base import Data
from wgtorch.train.folders import BestCheckpoint, CheckpointFolders, LastCheckpoint, checkpoint_in
from wgtorch.train.registries import DataRegistry, build
from wgtorch.train.sampling import Samples
from wgtorch.train.trainable import Trainable

SETTINGS = (
    "data", "objective", "optimizer", "trainer", "logger", "lora", "ema", "freeze", "train_only", "gradient_checkpointing",
    "samples", "checkpoint", "seed",
)  # fmt: skip
"""Keys of a training's settings beside its target."""
_LOGGERS = ("csv", "tensorboard")
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
    unknown = [key for key in settings if key not in SETTINGS]
    if unknown:
        raise ConfigError(f"training: unknown setting {unknown[0]!r}; {suggest(unknown[0], SETTINGS)}")
    for key in ("data", "objective"):
        if not settings.get(key):
            raise ConfigError(f"training: no {key!r}; expected {{'type': name, ...}}")
    target.saved_config()  # what cannot be saved is better refused before training than after
    seed = int(settings.get("seed") or 0)
    data = build(DataRegistry, settings["data"], "data")
    pl.seed_everything(seed, workers=True, verbose=False)
    if settings.get("lora"):
        _add_adapters(target, settings["lora"])
    trainable = Trainable(
        target,
        objective=settings["objective"],
        optimizer=settings.get("optimizer") or "adamw",
        freeze=settings.get("freeze") or (),
        train_only=settings.get("train_only") or (),
        ema=settings.get("ema"),
        gradient_checkpointing=bool(settings.get("gradient_checkpointing")),
        seed=seed,
    )
    start = None if resume is None else checkpoint_in(resume)
    folder.mkdir(parents=True, exist_ok=True)
    held_out = data.validation() is not None
    with _quiet():
        trainer = make_trainer(trainable, settings, folder, held_out=held_out)
        trainer.fit(trainable, datamodule=_Loaders(data, seed, held_out), ckpt_path=start)
    return trainable


def make_trainer(trainable: Trainable, settings: Mapping[str, Any], folder: Path, *, held_out: bool) -> pl.Trainer:
    """Lightning's Trainer for a run; ``trainer`` of the settings are its arguments.

    Raises:
        ConfigError: it has no such argument.
    """
    own: dict[str, Any] = {"log_every_n_steps": 10, **(settings.get("trainer") or {})}
    if "max_steps" not in own and "max_epochs" not in own and "max_time" not in own:
        raise ConfigError("trainer: nothing says when to stop; give max_steps, max_epochs or max_time")
    own.setdefault("max_epochs", -1)
    if own.get("max_steps", -1) > 0:
        own["log_every_n_steps"] = min(own["log_every_n_steps"], own["max_steps"])
    if isinstance(own.get("val_check_interval"), int):
        own.setdefault("check_val_every_n_epoch", None)  # every so many steps, whatever the length of an epoch
    progress = own.pop("enable_progress_bar", True)
    callbacks: list[pl.Callback] = [LearningRateMonitor("step"), *checkpoints_of(settings.get("checkpoint") or {}, folder, held_out)]
    if settings.get("samples"):
        callbacks.append(Samples(folder / "samples", **settings["samples"]))
    if progress:
        require("rich", "train")
        callbacks += [_Progress(leave=True), RichModelSummary(max_depth=1)]
    try:
        return pl.Trainer(
            default_root_dir=folder,
            logger=loggers_of(settings.get("logger") or {}, folder),
            callbacks=callbacks,
            plugins=[CheckpointFolders(trainable)],
            use_distributed_sampler=False,  # the data gives each process its share
            enable_model_summary=progress,
            enable_progress_bar=progress,
            **own,
        )
    except TypeError as error:
        import inspect

        unknown = [name for name in own if name not in inspect.signature(pl.Trainer).parameters]
        if unknown:
            raise ConfigError(
                f"trainer: unknown {unknown[0]!r}; {suggest(unknown[0], inspect.signature(pl.Trainer).parameters)}"
            ) from error
        raise ConfigError(f"trainer: {error}") from error


def checkpoints_of(settings: Mapping[str, Any], folder: Path, held_out: bool) -> list[pl.Callback]:
    """``last``, and ``best`` where something says what is best: ``val/loss`` where there is validation, else ``monitor``."""
    known = {"every": 500, "monitor": None, "mode": "min", **settings}
    if len(known) > 3:
        raise ConfigError(f"checkpoint: unknown {list(known)[3]!r}; {suggest(list(known)[3], ('every', 'monitor', 'mode'))}")
    monitor = known["monitor"] or ("val/loss" if held_out else None)
    found: list[pl.Callback] = [LastCheckpoint(folder / "checkpoints", int(known["every"]))]
    if monitor is not None:
        every = None if held_out and not str(monitor).startswith("train/") else int(known["every"])
        found.insert(0, BestCheckpoint(folder / "checkpoints", monitor, known["mode"], every))
    return found


def loggers_of(settings: Mapping[str, Any], folder: Path) -> list[Logger]:
    """CSV always; TensorBoard beside it for ``{"type": "tensorboard"}``."""
    kind = settings.get("type", "csv")
    if kind not in _LOGGERS:
        raise ConfigError(f"logger: unknown {kind!r}; {suggest(kind, _LOGGERS)}")
    found: list[Logger] = [CSVLogger(folder, name="", version="")]
    if kind == "tensorboard":
        require("tensorboard", "train")
        found.append(TensorBoardLogger(folder, name="", version=""))
    return found


def _add_adapters(target: Block, settings: Mapping[str, Any]) -> None:
    import inspect

    require("peft", "train")
    known = [name for name in inspect.signature(add_lora).parameters if name not in ("target", "options")]
    try:
        report = add_lora(target, **settings)
    except TypeError as error:
        raise ConfigError(f"lora: {error}; known: {known}") from error
    if not report.adapted:
        raise TrainingError(f"lora: no block of {target.block_id} takes an adapter:\n{report}")


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
        return self.data.loaders(seed=self.seed, rank=self.trainer.global_rank, world_size=self.trainer.world_size)

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
