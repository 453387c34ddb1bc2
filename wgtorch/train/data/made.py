"""Data that is made when it is asked for, item by item from their numbers; and a folder that keeps what was made once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wgtorch.core.checkpoint.atomic import write_folder
from wgtorch.core.errors import ConfigError
from wgtorch.train.data.base import Data


class MadeItems(Dataset[Any]):
    """Items that are made by their number. There is one for every number, always the same; ``count`` only says how many are an epoch.

    A subclass answers :meth:`__getitem__`, with what :meth:`rng` draws.

    Args:
        count: how many there are.
        seed: names the collection; a held-out one has a seed of its own.
    """

    def __init__(self, count: int, *, seed: int | str = 0) -> None:
        if count < 1:
            raise ConfigError(f"{type(self).__name__}: found count {count}, expected at least 1")
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def rng(self, index: int) -> random.Random:
        """What an item is drawn from."""
        return random.Random(f"{self.seed}/{index}")


class MadeData(Data):
    """Data of which no item comes twice: ``items`` for training, and ``held_out`` ones of another seed.

    Args:
        items: of training.
        held_out: of validation.
        batch_size: of each process.
        workers: processes that make items beside the training one; 0 makes them in it.
    """

    fresh = True

    def __init__(self, items: Dataset[Any], held_out: Dataset[Any], *, batch_size: int, workers: int) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.items, self.held_out = items, held_out

    def train(self) -> Dataset[Any] | Sequence[Any]:
        return self.items

    def validation(self) -> Dataset[Any] | Sequence[Any]:
        return self.held_out


class StoredItems(Dataset[dict[str, Tensor]]):
    """Items of tensors, read from the memory-mapped files of a folder that :func:`store` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.columns = {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: torch.tensor(column[index]) for name, column in self.columns.items()}


def store(items: MadeItems, folder: Path, *, workers: int = 0) -> StoredItems:
    """Makes all items, each a mapping to tensors, into a folder, or finds them there.

    The folder is to be named after what decides the items; it has its name only when it is complete.
    """
    from rich.progress import track

    def fill(fresh: Path) -> None:
        like = {name: value.numpy() for name, value in items[0].items()}
        columns = {
            name: np.lib.format.open_memmap(fresh / f"{name}.npy", "w+", value.dtype, (len(items), *value.shape))
            for name, value in like.items()
        }
        start = 0
        for batch in track(DataLoader(items, batch_size=250, num_workers=workers), f"making {len(items)} {type(items).__name__}"):
            stop = start + len(next(iter(batch.values())))
            for name, column in columns.items():
                column[start:stop] = batch[name].numpy()
            start = stop
        for column in columns.values():
            column.flush()

    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, fill)
    return StoredItems(folder)
