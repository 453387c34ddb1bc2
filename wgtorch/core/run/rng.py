"""Random draws keyed by (seed, path, loop iteration, sample).

A draw depends on what it is for, never on when or beside what it is made: the same sample gets the same numbers
whatever the order of work, the size of the batch, or where a run was resumed. A key is a 64-bit number into which the parts
of the place are mixed one after the other; the seed of a generator is that, finalized as in splitmix64 (Steele et al. 2014,
https://doi.org/10.1145/2660193.2660195).
"""

from __future__ import annotations

import functools
import hashlib
import operator
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortError, PortTypeError
from wgtorch.core.kinds import describe

_MASK = 2**64 - 1
_ITERATION, _SAMPLE, _DRAW = 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F

Key = int | tuple[int, ...]
"""What draws are keyed by: one number for all samples, or one for each."""


def key_to_seed(*parts: object) -> int:
    """A 63-bit seed from any parts with a stable ``repr`` (numbers, strings, tuples of them)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)


name_key = functools.lru_cache(maxsize=65536)(key_to_seed)
"""The number that a node's id is mixed into a key by."""


@functools.lru_cache(maxsize=65536)
def path_keys(path: str) -> tuple[int, ...]:
    """The numbers that the ids of a path are mixed into a key by, one after the other."""
    return tuple([name_key(part) for part in path.split("/")])


def _mix(key: int, *values: int) -> int:
    for value in values:
        key = ((key ^ (key >> 31)) * 0x9E3779B97F4A7C15 + value) & _MASK
    return key


def _finalized(key: int) -> int:
    """A 63-bit number all of whose bits depend on all of the key's."""
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & _MASK
    return (key ^ (key >> 31)) & (2**63 - 1)


def mix(key: Key, *values: int) -> Key:
    """A key with more parts."""
    return _mix(key, *values) if type(key) is int else tuple([_mix(part, *values) for part in key])  # type: ignore[union-attr]


def key_of_iteration(key: Key, index: int) -> Key:
    """The key inside one iteration of a loop, or one pass of a world."""
    return mix(key, _ITERATION ^ index)


def key_of_sample(key: int, index: int) -> int:
    """The key of one sample: a row of a batch, or an item of a mapped list."""
    return _mix(key, _SAMPLE ^ index)


def key_of_draw(key: Key, count: int) -> Key:
    """The key of one of several draws that one call makes."""
    return mix(key, _DRAW ^ count)


def check_seed(seed: Any, where: str) -> Key | None:
    """A seed as the root of keys: an int, or a list with one for each sample; None draws from PyTorch's global generator.

    Raises:
        PortTypeError: it is something else.
        PortError: an empty list, or an int outside of what ``torch.manual_seed`` takes, -2**63 to 2**64 - 1.
    """
    if seed is None:
        return None
    if isinstance(seed, (list, tuple)):
        if not seed:
            raise PortError(f"{where}: seed is an empty list; expected an int, or a list with one int for each sample of the batch")
        return tuple([_root(one, where) for one in seed])
    return _root(seed, where)


def _root(seed: Any, where: str) -> int:
    if not isinstance(seed, (bool, Tensor)):
        try:
            number = operator.index(seed)
        except TypeError:
            pass
        else:
            if not -(2**63) <= number <= _MASK:
                raise PortError(f"{where}: seed is {number}; expected an int from -2**63 to 2**64 - 1, as torch.manual_seed takes")
            return _finalized(_mix(1, number & _MASK))
    raise PortTypeError(
        f"{where}: seed is {describe(seed)} ({seed!r}); expected an int, or a list with one int for each sample of the batch"
    )


serve: Callable[[bool], bool] = bool
"""Has draws of this thread served from here on, or not, and says whether they were: those that name their generator need no looking at.
``foreign_draws`` sets it when draws are first served; until then it only says no."""


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

    key: Key | None
    sample: tuple[int, ...]

    def __init__(self, *key: object, sample: tuple[int, ...] = ()) -> None:
        self.key = key_to_seed(*key) if key else None
        self.sample = sample

    @classmethod
    def of(cls, key: Key | None, sample: tuple[int, ...] = ()) -> Rng:
        """Draws by a key that is there already."""
        rng = cls.__new__(cls)
        rng.key, rng.sample = key, sample
        return rng

    @property
    def keyed(self) -> bool:
        """True when draws follow a key and repeat."""
        return self.key is not None

    def seed(self, index: int = 0, rows: int | None = None) -> int:
        """The seed of one sample: an int in [0, 2**63), for APIs and generators of other libraries.

        Args:
            index: the row of the batch.
            rows: how many rows there are; needed where a run has a seed for each sample and the model sees several rows of one.

        Raises:
            PortError: the run has a seed for each sample, and not for this many.
        """
        key = self.key
        if type(key) is int and not index and not self.sample:
            return _finalized(_mix(key, _SAMPLE))
        if key is None:
            return int(torch.randint(2**62, ()).item())
        if type(key) is tuple:
            per, rest = divmod(len(key) if rows is None else rows, len(key))
            if rest or index >= len(key) * per:
                raise PortError(f"draws for {rows or index + 1} samples, and the run has seeds for {len(key)}; give one seed for each")
            key, index = key[index // per], index % per
        # One sample per mapped item and one row of a batch are the same sample, so they share a key.
        for part in (*self.sample, index) if index or not self.sample else self.sample:
            key = key_of_sample(key, part)  # type: ignore[arg-type]
        return _finalized(key)  # type: ignore[arg-type]

    def generator(self, index: int = 0, rows: int | None = None, device: Any = None) -> torch.Generator:
        """A generator for one sample, on the CPU unless told otherwise."""
        made = torch.Generator() if device is None else torch.Generator(device)  # reading "cpu" takes longer than making one
        return made.manual_seed(self.seed(index, rows))

    def python(self, index: int = 0) -> random.Random:
        """A generator of Python's for one sample."""
        return random.Random(self.seed(index))

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """Standard normal numbers [B, ...]; each row is drawn from its own sample's generator, the same on every device."""
        return self._draw(torch.randn, shape, dtype, device)

    def uniform(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """Uniform numbers in [0, 1) [B, ...]."""
        return self._draw(torch.rand, shape, dtype, device)

    def _draw(self, draw: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype | None, device: Any) -> Tensor:
        shape = tuple(shape)
        if self.key is None:
            return draw(shape, dtype=dtype, device=device)
        rows = shape[0]
        try:
            generator = _here.generator
        except AttributeError:
            generator = _here.generator = torch.Generator()
        was_served = serve(False)
        try:
            if rows == 1:
                drawn = draw(shape, generator=generator.manual_seed(self.seed(0, 1)), dtype=dtype)
            elif not rows:
                drawn = torch.empty(shape, dtype=dtype)
            else:
                seeds = [self.seed(index, rows) for index in range(rows)]
                drawn = torch.stack([draw(shape[1:], generator=generator.manual_seed(seed), dtype=dtype) for seed in seeds])
        finally:
            if was_served:
                serve(True)
        return drawn.to(device) if device is not None else drawn


GLOBAL_RNG = Rng()
_here = threading.local()
"""A generator for each thread, seeded anew for each draw: making one takes longer than a small draw."""


class GeneratorRng(Rng):
    """Draws one after the other from generators that a caller owns, as pipelines of other libraries do; they move on with each draw.

    Args:
        generators: one for the whole batch, or one for each sample.

    Raises:
        PortTypeError: it is something else.
    """

    __slots__ = ("generators",)

    def __init__(self, generators: torch.Generator | Sequence[torch.Generator]) -> None:
        super().__init__()
        several = generators if isinstance(generators, (list, tuple)) else [generators]
        self.generators: list[torch.Generator] = list(several)  # type: ignore[arg-type]
        if not self.generators or not all(isinstance(one, torch.Generator) for one in self.generators):
            raise PortTypeError(f"generator is {describe(generators)}; expected a torch.Generator, or a list with one for each sample")

    def first(self, rows: int) -> GeneratorRng:
        """Draws for the first samples alone."""
        return GeneratorRng(self.generators[:rows])

    def _draw(self, draw: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype | None, device: Any) -> Tensor:
        shape, owned = tuple(shape), self.generators
        if len(owned) == 1:
            drawn = draw(shape, generator=owned[0], dtype=dtype, device=owned[0].device)
        elif len(owned) != shape[0]:
            raise PortError(f"draws for {shape[0]} samples, and the run has generators for {len(owned)}; give one, or one for each")
        else:
            drawn = torch.stack([draw(shape[1:], generator=one, dtype=dtype, device=one.device) for one in owned])
        return drawn if device is None else drawn.to(device)
