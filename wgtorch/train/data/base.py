"""Data: where batches come from, in an order that a resumed run takes up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate

from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import key_to_seed

AtLeastOne = Annotated[int, Field(ge=1)]
"""How many there are of what cannot be none."""
NoneOrMore = Annotated[int, Field(ge=0)]


class Data:
    """Where batches come from. A subclass answers :meth:`train` and, if it can, :meth:`validation`.

    Datasets are map-style, and an item is a pure function of its index: what is drawn is drawn from a generator keyed by the
    index. Then the order of training is one number, and a resumed run goes on with the very batch it would have had.

    Example:
        >>> @register_data("ones")
        ... class Ones(Data):
        ...     def __init__(self, *, count: int = 8, batch_size: int = 4, workers: int = 0):
        ...         super().__init__(batch_size=batch_size, workers=workers)
        ...         self.count = count
        ...     def train(self):
        ...         return [{"x": torch.ones(2)} for _ in range(self.count)]

    Args:
        batch_size: of each process.
        workers: processes that make items beside the training one; 0 makes them in it.
    """

    fresh: bool = False
    """True when items never end: epoch e asks for the indices [e N, (e + 1) N) instead of shuffling [0, N)."""

    def __init__(self, *, batch_size: int = 8, workers: int = 0) -> None:
        if batch_size < 1 or workers < 0:
            raise ConfigError(f"data: batch_size {batch_size} and workers {workers}; expected at least 1 and at least 0")
        self.batch_size = batch_size
        self.workers = workers

    @property
    def is_endless(self) -> bool:
        """True when no item ever comes again, so that nothing of it is worth keeping."""
        return self.fresh

    def order(self, seed: int) -> Order:
        """Which items the batches of an epoch hold."""
        return Order(seed, fresh=self.fresh)

    def train(self) -> Dataset[Any] | Sequence[Any]:
        """Items by index, each a mapping from keys to a tensor [...], a text or a number."""
        raise NotImplementedError

    def validation(self) -> Dataset[Any] | Sequence[Any] | None:
        """Items that training never sees; None where there are none."""
        return None

    def texts(self) -> Sequence[str] | None:
        """The text of each item of training, where that is known without making items; None where only items tell."""
        return None

    @staticmethod
    def collate(items: list[Any]) -> Any:
        """A batch of items: tensors stacked [B, ...], texts as a list of B."""
        return default_collate(items)

    def loaders(self, *, seed: int, rank: int = 0, world_size: int = 1) -> tuple[Batches, DataLoader[Any] | None]:
        """(training, validation) batches for one process of a training; each takes every ``world_size``-th item."""
        order = self.order(seed)
        train = Batches(self.train(), order, self.batch_size, workers=self.workers, collate=self.collate, rank=rank, world_size=world_size)
        held_out: Any = self.validation()
        if held_out is None:
            return train, None
        share = len(held_out) // world_size  # as many for each, since processes wait for one another
        if not share:
            raise ConfigError(f"data: {len(held_out)} validation items for {world_size} processes; expected at least one for each")
        mine = Subset(held_out, range(rank, share * world_size, world_size))
        return train, DataLoader(
            mine, batch_size=self.batch_size, num_workers=self.workers, collate_fn=self.collate, generator=torch.Generator()
        )


class Order:
    """Which items an epoch has, in which order: a function of the seed and the epoch.

    Args:
        seed: of the training.
        fresh: see :class:`Data`.
    """

    def __init__(self, seed: int, *, fresh: bool = False) -> None:
        self.seed, self.fresh = seed, fresh

    def indices(self, epoch: int, count: int) -> list[int]:
        """Indices of all items of an epoch."""
        if self.fresh:
            return list(range(epoch * count, (epoch + 1) * count))
        generator = torch.Generator().manual_seed(key_to_seed(self.seed, "order", epoch))
        return torch.randperm(count, generator=generator).tolist()

    def batches(self, count: int, size: int, world_size: int) -> int:
        """How many batches of ``size`` an epoch of ``count`` items has, for each of ``world_size`` processes."""
        return count // world_size // size

    def rows(self, epoch: int, count: int, size: int, rank: int, world_size: int) -> list[Any]:
        """The batches of an epoch for one process, each a list of what the dataset is asked for."""
        mine = self.indices(epoch, count)[rank::world_size]
        return [mine[start * size : (start + 1) * size] for start in range(self.batches(count, size, world_size))]


class Batches(DataLoader[Any]):
    """A ``DataLoader`` whose place in the data is part of a checkpoint: Lightning keeps its ``state_dict``.

    Args:
        items: map-style.
        order: of the items.
        batch_size: of one process; what does not fill a batch is left for another epoch.
        workers: processes that make items.
        collate: makes a batch of items.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        items: Any,
        order: Order,
        batch_size: int,
        *,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.order, self.rows_in_batch, self.rank, self.world_size = order, batch_size, rank, world_size
        self.epoch, self.position = 0, 0
        self.count = len(items)
        if len(self) < 1:
            raise ConfigError(
                f"data: {self.count} items make no batch of {batch_size} in each of {world_size} processes; lower data.batch_size"
            )
        super().__init__(
            items,
            batch_sampler=_Rows(self),
            num_workers=workers,
            collate_fn=collate,
            # Without a generator of its own a DataLoader draws from the global one whenever it starts, which a resumed run
            # does once more often than one that was never stopped.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.order.batches(self.count, self.rows_in_batch, self.world_size)

    def rows(self) -> list[Any]:
        """What is left of this epoch: what the dataset is asked for, by batch."""
        return self.order.rows(self.epoch, self.count, self.rows_in_batch, self.rank, self.world_size)[self.position :]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        # Of the seed and the place, for items that draw for themselves in workers: the same ones would come for every seed, and again.
        self.generator.manual_seed(key_to_seed(self.order.seed, "workers", self.epoch, self.position))
        for batch in super().__iter__():
            self.position += 1
            yield batch

    def _batching(self) -> dict[str, int]:
        """What a place in an epoch is a place of."""
        return {
            "items": self.count,
            "items in a batch of all processes": self.rows_in_batch * self.world_size,
            "batches": len(self),
            "seed": self.order.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, and in what."""
        return {"epoch": self.epoch, "position": self.position, "batching": self._batching()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was asked.

        Raises:
            ConfigError: that was in the midst of an epoch of other batches, where a place means other items.
        """
        own = self._batching()
        then = {**own, **state.get("batching", {})}
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        if self.position >= then["batches"]:
            self.epoch, self.position = self.epoch + 1, 0
        if changed := [name for name in own if own[name] != then[name]] if self.position else []:
            told = "; ".join(f"{name}: {then[name]}, now {own[name]}" for name in changed)
            raise ConfigError(
                f"data: the training to go on with stands after {self.position} batches of an epoch, where the same place would be other "
                f"items ({told}). Go on with the same data, batch_size and seed, from a checkpoint between two epochs, or begin a new "
                "training with the weights in the checkpoint"
            )


class _Rows(Sampler[Any]):
    """Rows of the items' indices, from where the loader stands."""

    def __init__(self, loader: Batches) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader.rows()

    def __len__(self) -> int:
        return len(self.loader)
