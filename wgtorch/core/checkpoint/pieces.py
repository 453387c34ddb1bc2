"""A hash of a little of a large file, where reading all of it would take longer than loading it.

Weights are mapped: loading 500 MB takes milliseconds, hashing them a third of a second. Of a safetensors file the header
and some bytes from the middle of every tensor are hashed instead. That tells one training's weights from another's and a
copied file from a half copied one; a flipped bit elsewhere is found by the hash of the whole file alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
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
        first, last = _middle(len(tensor))
        self.take(tensor[first:last])

    def take(self, piece: Any) -> None:
        """Takes the bytes of a piece."""
        self._hash.update(piece)

    def hexdigest(self) -> str:
        """The sha256 of all that was taken."""
        return self._hash.hexdigest()


def pieces_of(path: Path, start: int, header: Header) -> str:
    """The hash of the pieces of a safetensors file whose header was read and which begins at byte ``start`` of ``path``.

    They are read, not looked at in the mapping: that a page is mapped takes several times as long.
    """
    with path.open("rb", buffering=0) as handle:

        def read(at: int, length: int) -> bytes:
            handle.seek(start + at)
            return handle.read(length)

        pieces = Pieces(read(0, header.size))
        for entry in sorted(header.entries.values(), key=lambda entry: entry.start):
            first, last = _middle(entry.end - entry.start)
            pieces.take(read(header.size + entry.start + first, last - first))
    return pieces.hexdigest()


def _middle(length: int) -> tuple[int, int]:
    start = max(0, (length - PIECE) // 2)
    return start, min(start + PIECE, length)
