"""Random draws keyed by (seed, path, loop step, sample).

A draw depends on what it is for, never on when or beside what it is made: the same sample gets the same numbers
whatever the order of work, the size of the batch, or where a run was resumed.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_GLOBAL_LOCK = threading.RLock()


def key_to_seed(*parts: object) -> int:
    """A 63-bit seed from any parts with a stable ``repr`` (numbers, strings, tuples of them)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)


class Rng:
    """Where a block draws its random numbers from. A ``forward`` that names a parameter ``rng`` is given one.

    With a key every sample of the batch has a generator of its own; without one (``Rng()``) draws come from
    PyTorch's global generator, so that ``torch.manual_seed`` rules, as in any module.

    Example:
        >>> rng = Rng(7, "paint/noise")
        >>> torch.equal(rng.normal((4, 3))[2], rng.normal((3, 3))[2])
        True
    """

    __slots__ = ("key", "sample")

    def __init__(self, *key: object, sample: tuple[int, ...] = ()) -> None:
        self.key = key
        self.sample = sample

    @property
    def keyed(self) -> bool:
        """True when draws follow a key and repeat."""
        return bool(self.key)

    def seed(self, index: int = 0) -> int:
        """The seed of one sample: an int in [0, 2**63), for APIs and generators of other libraries."""
        if not self.key:
            return int(torch.randint(2**62, ()).item())
        # One sample per mapped item and one row of a batch are the same sample, so they share a key.
        sample = (*self.sample, index) if index or not self.sample else self.sample
        return key_to_seed(*self.key, sample)

    def generator(self, index: int = 0) -> torch.Generator:
        """A CPU generator for one sample."""
        return torch.Generator().manual_seed(self.seed(index))

    def python(self, index: int = 0) -> random.Random:
        """A generator of Python's for one sample."""
        return random.Random(self.seed(index))

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """Standard normal numbers [B, ...]; each row is drawn from its own sample's generator."""
        return self._draw(torch.randn, shape, dtype, device)

    def uniform(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """Uniform numbers in [0, 1) [B, ...]."""
        return self._draw(torch.rand, shape, dtype, device)

    def _draw(self, draw: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype | None, device: Any) -> Tensor:
        if not self.key:
            return draw(tuple(shape), dtype=dtype, device=device)
        batch, *row = shape
        rows = [draw(tuple(row), generator=self.generator(index), dtype=dtype) for index in range(batch)]
        stacked = torch.stack(rows) if rows else torch.empty(tuple(shape), dtype=dtype)
        return stacked.to(device) if device is not None else stacked


GLOBAL_RNG = Rng()


@contextmanager
def seeded_global(rng: Rng) -> Iterator[None]:
    """Seeds PyTorch's global CPU generator for blocks that draw from it, and puts it back after.

    The global generator belongs to the process, so only one thread is inside at a time.
    """
    with _GLOBAL_LOCK:
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(rng.seed())
        try:
            yield
        finally:
            torch.default_generator.set_state(before)
