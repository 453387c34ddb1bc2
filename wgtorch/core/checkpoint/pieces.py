"""A hash of a little of a large file, where reading all of it would take longer than loading it.

Weights are mapped: loading 500 MB takes milliseconds, hashing them a third of a second. Of a safetensors file the header
and some bytes from the middle of every tensor are hashed instead. That tells one training's weights from another's and a
copied file from a half copied one; a flipped bit elsewhere is found by the hash of the whole file alone.
"""

from __future__ import annotations

import hashlib
import mmap
from typing import Any

from wgtorch.core.checkpoint.tensors import Header

PIECE = 256
"""Bytes from the middle of each tensor."""


class Pieces:
    """Takes a header and then the bytes of one tensor after the other, in the order of the file; empty ones are left out."""

    def __init__(self, header: bytes) -> None:
        self._hash = hashlib.sha256(header)

    def add(self, tensor: Any) -> None:
        """Takes the middle of a tensor's bytes (a memoryview of bytes)."""
        start = max(0, (len(tensor) - PIECE) // 2)
        self._hash.update(tensor[start : start + PIECE])

    def hexdigest(self) -> str:
        """The sha256 of all that was taken."""
        return self._hash.hexdigest()


def pieces_of(buffer: mmap.mmap, start: int, header: Header) -> str:
    """The hash of the pieces of a file that lies in ``buffer`` from ``start`` on and whose header was read."""
    pieces = Pieces(buffer[start : start + header.size])
    with memoryview(buffer) as view:
        for entry in sorted(header.entries.values(), key=lambda entry: entry.start):
            if entry.end > entry.start:
                begin = start + header.size
                with view[begin + entry.start : begin + entry.end] as tensor:
                    pieces.add(tensor)
    return pieces.hexdigest()
