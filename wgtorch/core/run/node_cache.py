"""NodeCache: results of nodes, kept over runs and over restarts."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.run.content_digest import PLAIN, ContentDigests, NoDigest, is_whole, state_of
from wgtorch.core.run.fingerprint import Fingerprints
from wgtorch.core.run.fork_safe_lock import fork_safe_lock
from wgtorch.core.run.node_cache_folder import CacheFolder


@dataclass(slots=True)
class CacheStats:
    """What a cache has done so far.

    Args:
        hits: calls of nodes, loops and levels whose result was there.
        misses: calls that were made, and whose result was kept where it could be.
        disk_hits: those hits that came from the folder.
        evictions: results that had to go from memory for others.
        entries, bytes: results in memory, and the memory they hold.
        hashed_bytes: bytes of tensors that were read to tell them apart.
        uncached: why results of a node were not kept, by its path.
    """

    hits: int = 0
    misses: int = 0
    disk_hits: int = 0
    evictions: int = 0
    entries: int = 0
    bytes: int = 0
    hashed_bytes: int = 0
    uncached: dict[str, str] = field(default_factory=dict)


class Entry:
    """A kept result.

    Args:
        value: outputs by name; None where the key alone does not say, since the result depends on draws.
        draws: the result depends on draws.
    """

    __slots__ = ("draws", "objects", "states", "storages", "value")

    def __init__(self, value: Any, draws: bool, digests: ContentDigests) -> None:
        self.value, self.draws = value, draws
        leaves = tree_leaves(value)
        if (unreadable := next((leaf for leaf in leaves if isinstance(leaf, Tensor) and not _is_readable(leaf)), None)) is not None:
            raise NoDigest(f"a tensor of class {type(unreadable).__name__} and layout {unreadable.layout}")
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.layout is torch.strided and not leaf.is_meta]
        self.states = [(tensor, _state(tensor, digests)) for tensor in tensors]
        wholes = tree_leaves(value, is_leaf=is_whole)
        self.objects = [(whole, digests.of(whole)) for whole in wholes if not isinstance(whole, Tensor) and type(whole) not in _FIXED]
        self.storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}

    def is_intact(self, digests: ContentDigests) -> bool:
        """False once somebody has changed one of its tensors, or of its other objects, in place."""
        return all(_state(tensor, digests) == state for tensor, state in self.states) and all(
            digests.of(found) == digest for found, digest in self.objects
        )


class NodeCache:
    """Keeps what nodes gave, so that a run only computes what has changed since: ``run(..., cache=cache)``.

    A result is given again where all that it depends on is the same: the block's code, config, attributes, hooks and weights (as they are
    now, after steps of training, loading or merging), its adapters, its inputs by content, dtype, device and autocast, and - where the
    call drew random numbers - the key of its draws. So another seed runs no encoder, and a changed prompt runs what lies downstream of it.
    Results are kept of whole levels, of loops as a whole, and of single nodes outside of loops; inside loops, of calls over a network. Runs
    with gradients neither use nor fill it.

    Weights are told by the version that PyTorch counts and a few of their bytes. A write past that count (``weight.data[3] = 0``, an array
    that shares the memory) is seen where it changes much, or the tensor is small (4 KB); after others call :meth:`clear`. Objects of more
    than 64 KB that blocks hold, such as tokenizers, are told by being the same one.

    What depends on a clock or on files says so with ``cacheable = False`` on the block; variables of the environment are seen where code of
    the user's own reads them. Draws without a seed, from
    NumPy's and Python's global generators, or from a generator of the block's own are noticed, and so is a call that changes what the block
    computes with (a memory; a count of calls that nothing reads is none): their results are not kept, and ``stats.uncached`` says why.
    Hooks of all modules, modes around operators and transforms of ``torch.func`` turn the cache off while they last. What is replaced in
    installed packages (``torch.tanh = mine``) is seen; what is changed inside of their functions (``__code__``, defaults), kernels
    registered through ``torch.library``, settings of other libraries, what ``functools.lru_cache`` remembers and ``.grad`` are not.

    One cache may serve many graphs, threads and, with a directory, processes.

    Example:
        >>> cache = NodeCache(max_bytes=2**30)
        >>> graph.run({"prompt": "the sea"}, seed=7, cache=cache)
        >>> graph.run({"prompt": "the sea"}, seed=8, cache=cache)      # the encoder is not called
        >>> cache.stats.hits

    Args:
        max_bytes: of values in memory, and of files in the folder; the least recently used go first.
        directory: a folder of its own, which keeps results over restarts and may be used by several processes. Values in it are tensors,
            text, numbers, lists, mappings, and what ``register_stored_type`` was told of; others are kept in memory alone.

    Raises:
        PortTypeError: ``max_bytes`` is no number of bytes.
        StorageError: the folder holds something else.
    """

    def __init__(self, max_bytes: int = 2**30, directory: str | os.PathLike[str] | None = None) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise PortTypeError(f"NodeCache: max_bytes is {describe(max_bytes)}; expected a number of bytes, such as 2**30")
        self.max_bytes = max_bytes
        self._folder = None if directory is None else CacheFolder(directory, max_bytes)
        self._lock = fork_safe_lock()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._storages: dict[int, list[int]] = {}  # by address: how many entries hold it, and its bytes
        self._bytes = 0
        self._stats = CacheStats()
        self.digests = ContentDigests()
        self.fingerprints = Fingerprints(self.digests, persistent=directory is not None)

    @property
    def directory(self) -> Path | None:
        """The folder; None where results are kept in memory alone."""
        return None if self._folder is None else self._folder.path

    @property
    def stats(self) -> CacheStats:
        """What it has done so far, as it is now."""
        with self._lock:
            stats = self._stats
            now = {"entries": len(self._entries), "bytes": self._bytes, "hashed_bytes": self.digests.hashed_bytes}
            return CacheStats(stats.hits, stats.misses, stats.disk_hits, stats.evictions, **now, uncached=dict(stats.uncached))

    def clear(self) -> None:
        """Forgets all results, in memory and in the folder."""
        with self._lock:
            self._entries.clear()
            self._storages.clear()
            self._bytes = 0
            if self._folder is not None:
                self._folder.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        where = "memory" if self._folder is None else str(self._folder.path)
        return f"NodeCache of {len(self)} results, {self._bytes / 1e6:.1f} of {self.max_bytes / 1e6:.1f} MB, in {where}"

    # --- what the engine asks ------------------------------------------------------------------------------------------

    def find(self, key: bytes) -> Entry | None:
        """The result of a key, from memory or the folder."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                if entry.is_intact(self.digests):
                    self._entries.move_to_end(key)
                    return entry
                self._drop(key)
        if self._folder is None or (found := self._folder.read(key.hex())) is None:
            return None
        entry = Entry(*found, self.digests)
        with self._lock:
            self._stats.disk_hits += entry.value is not None
            self._hold(key, entry)
        return entry

    def keep(self, key: bytes, value: Any, draws: bool) -> None:
        """Takes a result.

        Raises:
            NoDigest: it holds something of which nobody could tell whether it was changed.
        """
        entry = Entry(value, draws, self.digests)
        with self._lock:
            self._hold(key, entry)
        if self._folder is not None:
            self._folder.write(key.hex(), value, draws)

    def count(self, *, hit: bool) -> None:
        """Counts a call."""
        with self._lock:
            self._stats.hits += hit
            self._stats.misses += not hit

    def refuse(self, where: str, reason: str) -> None:
        """Notes why a node's results are not kept."""
        with self._lock:
            self._stats.uncached[where] = reason

    # --- private steps ------------------------------------------------------------------------------------------------

    def _hold(self, key: bytes, entry: Entry) -> None:
        if key in self._entries:
            self._drop(key)
        if sum(entry.storages.values()) > self.max_bytes:
            return
        self._entries[key] = entry
        for address, size in entry.storages.items():
            held = self._storages.setdefault(address, [0, size])
            self._bytes += 0 if held[0] else size
            held[0] += 1
        while self._bytes > self.max_bytes and len(self._entries) > 1:
            self._drop(next(iter(self._entries)))
            self._stats.evictions += 1

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        for address in entry.storages:
            held = self._storages[address]
            held[0] -= 1
            if not held[0]:
                self._bytes -= held[1]
                del self._storages[address]


def apart(value: Any) -> Any:
    """A value whose lists and mappings are new; tensors and other objects are the same."""
    return tree_map(lambda leaf: leaf, value, is_leaf=is_whole)


def copied(value: Any) -> Any:
    """A value that shares no memory with the one that is kept: what leaves a run may be changed by whoever gets it."""
    try:
        return tree_map(_copied, value, is_leaf=is_whole)
    except RecursionError:  # it lies inside of itself
        return copy.deepcopy(value)


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.clone()
    try:
        return leaf if type(leaf) in _FIXED else copy.deepcopy(leaf)
    except Exception:  # whatever a foreign class raises; what is kept is looked at before it is given again
        return leaf


_FIXED = PLAIN | {torch.dtype, torch.device, torch.Size}


def _is_readable(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, torch.nn.Parameter) and (
        tensor.is_meta or tensor.layout is not torch.strided or not tensor.is_quantized
    )


def _state(tensor: Tensor, digests: ContentDigests) -> Any:
    return state_of(tensor) or digests.of_tensor(tensor)
