"""Checkpoints of trainings: wgtorch checkpoints, with what Lightning needs to go on in a folder beside the weights.

::

    last/
      manifest.json, config.yaml, blocks/, ...    the model: Graph.load("last") reads it; averaged weights where there are such
      training/
        state.ckpt                                optimizer, schedules, loops, place in the data, generators, the objective

The model's weights lie there once. With averages, ``state.ckpt`` also holds the weights that train, since both are needed.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from wgtorch.core.checkpoint.atomic import recovered, write_folder
from wgtorch.core.checkpoint.save import save_checkpoint
from wgtorch.core.errors import CheckpointError, ConfigError, suggest
from wgtorch.core.kinds import describe
from wgtorch.train.interrupts import Interrupted
from wgtorch.train.trainable import Trainable

_log = logging.getLogger(__name__)
_TRAINING, _STATE = "training", "state.ckpt"
_HOLDS = {
    "pytorch-lightning_version": str, "global_step": int, "epoch": int, "state_dict": dict, "loops": dict, "callbacks": dict,
    "optimizer_states": list, "lr_schedulers": list,
}  # fmt: skip
"""What a training's state holds, and of which kind."""


class CheckpointFolders(CheckpointIO):
    """Lightning's checkpoints in this layout; give it to the Trainer among its ``plugins``.

    Each is written whole or not at all. What is read holds tensors and plain data only (``weights_only=True``).

    Args:
        trainable: what is trained.
    """

    def __init__(self, trainable: Trainable) -> None:
        self.trainable = trainable

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        trainable = self.trainable
        # Copies, since these are the very tensors that hold the averages while the model is written.
        remaining = {name: value.clone() for name, value in trainable.weights_beside(checkpoint["state_dict"]).items()}

        def write_state(folder: Path) -> None:
            (folder / _TRAINING).mkdir()
            save_state({**checkpoint, "state_dict": remaining}, folder / _TRAINING / _STATE, Path(path))

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with trainable.averaged():
            save_checkpoint(trainable.target, path, beside=write_state)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint = read_training(path, map_location)
        self.trainable.target.load_weights(recovered(Path(path)))
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def save_state(state: Mapping[str, Any], path: Path, checkpoint: Path) -> None:
    """Writes tensors and plain data.

    Args:
        state: what is written.
        path: the file, in a folder that is not in place yet.
        checkpoint: what the file becomes a part of, for errors.

    Raises:
        OSError: it cannot be written, as where the disk is full; PyTorch tells of a position in the file.
    """
    try:
        torch.save(state, path)
    except RuntimeError as error:
        if "inline_container" not in str(error) and "iostream" not in str(error):
            raise
        free = shutil.disk_usage(path.parent).free
        why = f"cannot be written ({free / 2**20:,.0f} MiB are free on its disk); the last whole checkpoint is as it was"
        raise OSError(errno.ENOSPC if free < 2**20 else errno.EIO, why, str(checkpoint / _TRAINING / path.name)) from error


def read_training(path: str | os.PathLike[str], map_location: Any = None) -> dict[str, Any]:
    """What a training needs to go on, beside the weights, from its checkpoint.

    Raises:
        CheckpointError: it is no training's, or holds something else than tensors and plain data.
    """
    folder = recovered(Path(path))
    state = folder / _TRAINING / _STATE
    if not state.is_file():
        found = "no such folder" if not folder.is_dir() else f"it holds {sorted(entry.name for entry in folder.iterdir())[:6]}"
        raise CheckpointError(f"{path}: no training to go on with ({found}); expected a folder such as <run>/checkpoints/last")
    try:
        found = torch.load(state, map_location=map_location or "cpu", weights_only=True)
    except Exception as error:  # PyTorch's own words end with advice to trust the file
        why = next((line for line in str(error).splitlines() if "nsupported" in line), str(error)).partition(". ")[0]
        raise CheckpointError(f"{state}: cannot be read as tensors and plain data: {why.strip()}") from error
    for key, kind in _HOLDS.items():
        value = found.get(key) if isinstance(found, dict) else found
        if not isinstance(value, kind) or (key == "loops" and "fit_loop" not in found["loops"]):
            raise CheckpointError(f"{state}: {key} is {describe(value)}; expected what a training wrote, with {', '.join(_HOLDS)}")
    return cast("dict[str, Any]", found)


class _Folder(ModelCheckpoint):
    """Checkpoints that are folders."""

    FILE_EXTENSION = ""

    def __init__(self, folder: Path, name: str, *, keep: int = 1, **options: Any) -> None:
        super().__init__(
            dirpath=folder, filename=name, save_top_k=keep, enable_version_counter=False, auto_insert_metric_name=False, **options
        )


class LastCheckpoint(_Folder):
    """``last``: written every ``every`` steps, after the last one, and when the training is interrupted.

    An interrupt (Ctrl-C, SIGTERM) lets the batch that runs come to its end first. One that is raised inside of a batch leaves what
    was there when that batch began.

    Args:
        folder: for the checkpoints of a run.
        every: steps.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(folder, "last", every_n_train_steps=every)
        self.folder = folder
        self._loops: dict[str, Any] | None = None
        self._is_interrupted = False

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        if trainer.global_step == trainer.max_steps:  # while the epoch is still open: more steps go on in the middle of it
            self._write(trainer)
        args[0].is_stepping = False
        self._loops = trainer.fit_loop.state_dict()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        if not isinstance(exception, (KeyboardInterrupt, Interrupted)):
            return  # a failure leaves the last good checkpoint
        if self._loops is None:
            _log.warning("interrupted before the first step: no checkpoint was written")
            return
        if trainer.world_size > 1 and not getattr(exception, "is_agreed", False):
            _log.warning("interrupted in one process, which cannot write what all of them hold: %s is as it was", self.folder)
            return
        if pl_module.is_stepping:
            _log.warning(
                "interrupted inside a step of the optimizer, half of which is no state to go on from: %s is as it was", self.folder
            )
            return
        self._is_interrupted = True
        try:
            trainer.save_checkpoint(self.folder / "last")
        finally:
            self._is_interrupted = False
        if trainer.is_global_zero:
            run = self.folder.parent
            to_go_on = f"wgtorch train {run} resume={run}" if (run / "config.yaml").is_file() else f"resume={self.folder / 'last'}"
            _log.warning("interrupted after %s steps; go on with: %s", trainer.global_step, to_go_on)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self._is_interrupted and self._loops is not None:  # of a batch that was begun nothing is left
            checkpoint["loops"]["fit_loop"] = self._loops

    def _write(self, trainer: Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._last_global_step_saved = trainer.global_step
            trainer.save_checkpoint(self.folder / "last")


class BestCheckpoint(_Folder):
    """``best``: the one with the best value of a metric, looked at after each validation, or every ``every`` steps.

    Where several are kept, each is named by its step (``best-000500``), and ``best`` leads to the best of them.

    Args:
        folder: for the checkpoints of a run.
        monitor: name of the metric (``val/loss``).
        mode: ``min`` or ``max``.
        every: steps between two looks, for a metric of training; None looks after each validation.
        keep: how many are kept.
    """

    def __init__(self, folder: Path, monitor: str, mode: str, every: int | None = None, keep: int = 1) -> None:
        timing: dict[str, Any] = {"save_on_train_epoch_end": False} if every is None else {"every_n_train_steps": every}
        super().__init__(folder, "best" if keep == 1 else "best-{step:06d}", keep=keep, monitor=monitor, mode=mode, **timing)
        self._told: dict[str, Any] | None = None

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._lead(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if str(self.monitor).startswith("train/"):
            self._check_monitor(trainer.callback_metrics)
        super().on_train_batch_end(trainer, *args)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._check_monitor(trainer.callback_metrics)
        super().on_validation_end(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Finds what was validated after the checkpoint to go on with was written, and at the same step: its best says so."""
        with suppress(CheckpointError):
            found = read_training(Path(str(trainer.ckpt_path)).parent / "best")
            if found["global_step"] <= checkpoint["global_step"]:
                self._told = found["callbacks"].get(self.state_key)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was best before the training was stopped counts, also where that run has another folder."""
        told, known = self._told, state_dict.get("best_model_score")
        if told is not None and (known is None or (told["best_model_score"] < known) == (self.mode == "min")):
            state_dict = told
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})

    def check_monitor_top_k(self, trainer: Trainer, current: Any = None) -> bool:
        """Whether a value is among the best; what is no number never is."""
        if not trainer.strategy.reduce_boolean_decision(current is None or bool(torch.as_tensor(current).isfinite())):
            _log.warning("%s is %s after %s steps, which is never the best", self.monitor, current, trainer.global_step)
            return False
        return super().check_monitor_top_k(trainer, current)

    def _check_monitor(self, logged: Mapping[str, Any]) -> None:
        if self.monitor not in logged:
            raise ConfigError(f"checkpoint.monitor: {self.monitor!r} is never logged; {suggest(str(self.monitor), sorted(logged))}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not self.best_model_path:
            _log.info("no best checkpoint: %s was not looked at before the training ended", self.monitor)
            return
        best, own = Path(self.best_model_path).absolute(), Path(str(self.dirpath)).absolute()
        if own not in best.parents and best.is_dir() and trainer.is_global_zero:  # of the run before this one
            write_folder(own / best.name, lambda folder: shutil.copytree(best, folder, dirs_exist_ok=True))
            self.best_model_path = str(own / best.name)
            self._lead(trainer)

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._remove_checkpoint(trainer, filepath)
        self._lead(trainer)

    def _lead(self, trainer: Trainer) -> None:
        """Has ``best`` lead to the best of several."""
        best = Path(self.best_model_path)
        if self.save_top_k == 1 or not trainer.is_global_zero or not best.is_dir():
            return
        fresh = best.parent / ".best"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(best.name)
        fresh.replace(best.parent / "best")


def checkpoint_in(path: str | os.PathLike[str]) -> Path:
    """The checkpoint to go on from: the folder itself, or ``checkpoints/last`` in a run's folder.

    Raises:
        CheckpointError: neither is there.
    """
    for folder in (Path(path), Path(path) / "checkpoints" / "last"):
        if (recovered(folder) / _TRAINING / _STATE).is_file():
            return folder
    raise CheckpointError(f"resume: {path} is neither a training's checkpoint nor the folder of a run with checkpoints/last")
