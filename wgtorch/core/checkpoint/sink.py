"""Where a checkpoint is written to: a folder or an archive. Files are hashed while they are written."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from wgtorch.core.checkpoint.layout import ALIGNMENT

_CHUNK = 8 << 20
_PADDING = 0x5747  # "GW": id of the extra field that fills up to the next aligned byte
_TIME = (1980, 1, 1, 0, 0, 0)  # the same tree gives the same archive


class Sink(Protocol):
    """Takes the files of a checkpoint."""

    def put(self, name: str, chunks: Iterable[Any], size: int) -> dict[str, Any]:
        """Writes a file of ``size`` bytes; returns ``{"file", "bytes", "sha256"}``."""


class FolderSink:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, chunks: Iterable[Any], size: int) -> dict[str, Any]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as handle:
            return _write(handle, name, chunks, size)


class ArchiveSink:
    """Stored members of one zip, each beginning at a multiple of 64 bytes."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def put(self, name: str, chunks: Iterable[Any], size: int) -> dict[str, Any]:
        info = zipfile.ZipInfo(name, _TIME)
        info.external_attr = 0o644 << 16
        info.file_size = size
        large = size * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile decides; it then puts 20 bytes in front of our field
        begin = self.archive.fp.tell() + 30 + len(name.encode()) + (20 if large else 0) + 4  # type: ignore[union-attr]
        gap = -begin % ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING, gap) + bytes(gap)
        with self.archive.open(info, "w", force_zip64=large) as handle:
            return _write(handle, name, chunks, size)


def _write(handle: Any, name: str, chunks: Iterable[Any], size: int) -> dict[str, Any]:
    """Writes and hashes at the same time: both let other threads run."""
    hashed = hashlib.sha256()
    written = 0
    with ThreadPoolExecutor(1) as hashing:
        pending = None
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            for start in range(0, len(view), _CHUNK):
                part = view[start : start + _CHUNK]
                if pending is not None:
                    pending.result()
                pending = hashing.submit(hashed.update, part)
                _write_all(handle, part)
                written += len(part)
        if pending is not None:
            pending.result()
    assert written == size, f"{name}: wrote {written} bytes of {size}"
    return {"file": name, "bytes": size, "sha256": hashed.hexdigest()}


def _write_all(handle: Any, part: memoryview) -> None:
    while len(part):
        part = part[handle.write(part) :]
