"""Random generators of a training: kept in its checkpoints, and left alone by validation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor


def generators() -> dict[str, Any]:
    """States of the process's generators, as tensors and numbers: Python's, NumPy's and PyTorch's."""
    import numpy as np

    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    states: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype("int64")), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: dict[str, Any]) -> None:
    """Puts the process's generators where :func:`generators` found them."""
    import numpy as np

    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(_on_cpu(states["torch"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(_on_cpu(states["cuda"]))


def _on_cpu(state: Tensor) -> Tensor:
    return state.cpu().to(torch.uint8)


@contextmanager
def kept_generators(seed: int) -> Iterator[None]:
    """Work that draws from its own seed, after which the process's generators are where they were."""
    before = generators()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_generators(before)


class Generators(pl.Callback):
    """Keeps the generators of every process in the checkpoint, so that dropout goes on as if never stopped.

    They are put back just before the first batch, when all that a start draws is drawn.
    """

    def __init__(self) -> None:
        self._saved: list[dict[str, Any]] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._before_batch: dict[str, Any] | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self._saved is not None:
            if trainer.global_rank < len(self._saved):
                set_generators(self._saved[trainer.global_rank])
            self._saved = None
        self._before_batch = generators()

    def on_train_batch_end(self, *args: Any) -> None:
        self._before_batch = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before_validation = generators()
        torch.manual_seed(0)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._before_validation is not None:
            set_generators(self._before_validation)
            self._before_validation = None

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint written at the end of a validation, or when a batch is interrupted, has to hold what training goes on with.
        own = self._before_validation or self._before_batch or generators()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {"processes": [own]}
        every: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, own)
        return {"processes": every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = list(state_dict["processes"])
