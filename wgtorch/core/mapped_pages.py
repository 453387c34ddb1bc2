"""Pages of mapped weights, given back to the system while nobody uses them.

Weights are mapped from their files (see :mod:`wgtorch.core.checkpoint.tensors`). The system reads a page when it is first touched; a page
that is written to becomes the process's own. It tells of each page which it is (``/proc/self/pagemap``, Linux). Those that are still
the file's lose nothing when they are given back: the same bytes come from the file, or from the system's cache of it, when they are
touched again. What was changed, converted or never saved is written to a temporary file without a name first, and mapped from there.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PAGEMAP = Path("/proc/self/pagemap")
_ENTRY = 8  # bytes that the system tells of a page
_PRESENT, _SWAPPED, _OF_A_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))
_WILLNEED, _DONTNEED = 3, 4
_WRITTEN = 2**16
"""Bytes from which a tensor without a file is written to one; smaller ones share pages with others."""


class MappedStore:
    """Models compute on the CPU; weights wait in the files that they are mapped from, or in temporary ones.

    Raises:
        ValueError: the system does not tell which pages are a file's.
    """

    device = torch.device("cpu")
    keeps_addresses = brings_ahead = True

    def __init__(self) -> None:
        if not _PAGEMAP.exists():
            raise ValueError("Pool: offload='disk' needs Linux, whose /proc/self/pagemap tells which weights are as in their files")
        self._page = mmap.PAGESIZE
        self._advise = ctypes.CDLL(None, use_errno=True).madvise
        self._advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def size_in(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of tensors whose pages are in memory now, as the system tells it."""
        total = 0
        for first, count, size in self._spans(tensors):
            total += size * int(np.count_nonzero(self._entries(first, count) & _PRESENT)) // count
        return total

    def bring(self, tensors: Sequence[Tensor], *, ahead: bool = False) -> Any:
        """Pages come when they are touched; ``ahead`` asks the system to read them from their files meanwhile."""
        if ahead:
            for first, count, _ in self._spans(tensors):
                self._advise(first * self._page, count * self._page, _WILLNEED)

    def wait(self, token: Any, tensors: Sequence[Tensor]) -> None:
        """Nothing: the system waits for pages by itself."""

    def drop(self, tensors: Sequence[Tensor]) -> None:
        """Gives back pages that are as in their file, after a temporary file was written for those that are not.

        Raises:
            OSError: that file cannot be written; nothing was moved then.
        """
        own = [tensor for tensor in tensors if tensor.nbytes >= _WRITTEN and tensor.device.type == "cpu" and self._has_own_pages(tensor)]
        if own:
            mapped = _in_a_file(own)
            for tensor, data in zip(own, mapped, strict=True):
                tensor.data = data
            del mapped
            if self._trim is not None:  # glibc keeps what was freed
                self._trim(0)
        for first, count, _ in self._spans(tensors):
            entries = self._entries(first, count)
            stays = _is_own(entries)
            borders = np.flatnonzero(np.diff(np.concatenate(([True], stays, [True])).astype(np.int8)))
            for begin, end in zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True):
                self._advise((first + begin) * self._page, (end - begin) * self._page, _DONTNEED)

    def _has_own_pages(self, tensor: Tensor) -> bool:
        return any(bool(np.any(_is_own(self._entries(first, count)))) for first, count, _ in self._spans((tensor,)))

    def _spans(self, tensors: Iterable[Tensor]) -> list[tuple[int, int, int]]:
        """(first page, number of pages, bytes of tensors there) of the memory under tensors, ascending, none twice."""
        found: list[tuple[int, int, int]] = []
        for begin, size in sorted((tensor.data_ptr(), _extent(tensor)) for tensor in tensors if tensor.device.type == "cpu"):
            first, last = begin // self._page, -(-(begin + size) // self._page)
            if found and first <= found[-1][0] + found[-1][1]:
                first, known, before = found.pop()
                last, size = max(last, first + known), size + before
            if last > first:
                found.append((first, last - first, size))
        return found

    def _entries(self, first: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        with _PAGEMAP.open("rb", buffering=0) as pages:
            pages.seek(first * _ENTRY)
            return np.frombuffer(pages.read(count * _ENTRY), dtype=np.uint64)


def _is_own(entries: Any) -> Any:
    """Which pages hold what no file does."""
    return ((entries & _PRESENT != 0) & (entries & _OF_A_FILE == 0)) | (entries & _SWAPPED != 0)


def _in_a_file(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Equal tensors, mapped from a temporary file; views of one memory stay views of one."""
    places: dict[tuple[int, int], int] = {}
    with tempfile.TemporaryFile() as file:
        for tensor in tensors:
            if (key := (tensor.data_ptr(), _extent(tensor))) not in places:
                places[key] = file.seek(-(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE)
                file.write((ctypes.c_char * key[1]).from_address(key[0]))
        file.flush()
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    mapped: dict[tuple[int, int], Tensor] = {}
    found = []
    for tensor in tensors:
        key = (tensor.data_ptr(), _extent(tensor))
        if key not in mapped:
            count = key[1] // tensor.element_size()
            mapped[key] = torch.frombuffer(buffer, dtype=tensor.dtype, count=count, offset=places[key])
        found.append(mapped[key].view(tensor.dtype).as_strided(tensor.shape, tensor.stride()))
    return found


def _extent(tensor: Tensor) -> int:
    """Bytes from the first item of a tensor to the end of the last."""
    if not tensor.numel():
        return 0
    return (1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))) * tensor.element_size()
