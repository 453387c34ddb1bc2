"""What a person looks at while it trains: pictures and texts, in the run's folder and in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError
from wgtorch.lora.switching import trained_adapters_active
from wgtorch.storage.encoding import write_png
from wgtorch.train.data.pictures import grid
from wgtorch.train.interrupts import Interrupts
from wgtorch.train.loggers import log_pictures, log_texts
from wgtorch.train.randomness import kept_generators
from wgtorch.train.trainable import Trainable


class Samples(pl.Callback):
    """Has the objective make samples of one fixed batch before the first step, every so often, and at the end.

    Args:
        folder: where pictures (``000500_pictures.png``) and texts (``000500_texts.txt``) go.
        every: steps.
        count: rows of the batch that are used at most.
        interrupts: hears the signals at which the samples of the moment are left out.
    """

    def __init__(self, folder: Path, *, every: int = 500, count: int = 16, interrupts: Interrupts | None = None) -> None:
        if every < 1 or count < 1:
            raise ConfigError(f"samples: found every {every} and count {count}; expected at least 1 each, or samples=null for none")
        self.folder, self.every, self.count = folder, every, count
        self._interrupts = interrupts
        self._batch: Any = None
        self._last = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loaders: Any = trainer.val_dataloaders
        if loaders is not None and trainer.is_global_zero:
            self._batch = next(iter(loaders), None)  # a fit without validation has a loader of nothing
        self._last = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self._batch is None and trainer.is_global_zero:
            self._batch = batch
        if batch_idx == 0 and trainer.global_step == 0:
            self._show(trainer, pl_module)  # what there was before; what cannot be shown is better known now

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if trainer.global_step % self.every == 0 and trainer.global_step != self._last:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._last:
            self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, trainable: Any) -> None:
        self._last = trainer.global_step
        assert isinstance(trainable, Trainable)
        batch = None if self._batch is None else _first(self._batch, self.count)
        if trainable.is_sharded:  # a call of a sharded model is one of all processes
            batch = trainer.strategy.broadcast(batch)
        elif not trainer.is_global_zero:
            return
        if batch is None:
            return
        batch = trainable.transfer_batch_to_device(batch, trainable.device, 0)
        modes = {module: module.training for module in trainable.modules()}
        found: Mapping[str, Any] = {}
        interrupts = None if trainable.is_sharded else self._interrupts
        with kept_generators(trainable.seed), torch.no_grad(), trainable.averaged():
            trainable.eval()
            try:
                with trained_adapters_active(trainable.target), nullcontext() if interrupts is None else interrupts.may_be_left():
                    found = trainable.objective.samples(trainable.target, batch, trainable.step_of(0, training=False))
            finally:
                for module, mode in modes.items():
                    module.training = mode
        for name, value in found.items() if trainer.is_global_zero else ():
            self._keep(trainer, name, value)

    def _keep(self, trainer: pl.Trainer, name: str, value: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{trainer.global_step:06d}_{name}"
        if isinstance(value, Tensor):
            picture = grid(value.detach().float().cpu())
            write_png(picture, path.with_suffix(".png"))
            for logger in trainer.loggers:
                log_pictures(logger, f"samples/{name}", picture, path.with_suffix(".png"), trainer.global_step)
        else:
            lines = [str(text) for text in value]
            path.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            for logger in trainer.loggers:
                log_texts(logger, f"samples/{name}", lines, path.with_suffix(".txt"), trainer.global_step)


def _first(batch: Any, count: int) -> Any:
    if isinstance(batch, Mapping):
        return {key: _first(value, count) for key, value in batch.items()}
    return batch[:count] if isinstance(batch, (Tensor, list, tuple)) else batch
