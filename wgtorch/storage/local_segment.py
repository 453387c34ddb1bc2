"""Files of a log on a disk."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wgtorch.core.checkpoint.atomic import sync
from wgtorch.core.errors import StorageError
from wgtorch.storage.segment import pack, read_blob, scan


class LocalSegment:
    """A file of the log, kept open: it stays readable when it is replaced or deleted."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.name, self.number = path, path.name, number
        self._turn = threading.Lock()
        self._handle = self._opened()
        self.token = os.fstat(self._handle).st_ino

    def read(self, start: int, length: int) -> bytes:
        try:
            found = self._read_some(start, length)
            while 0 < len(found) < length and (more := self._read_some(start + len(found), length - len(found))):
                found += more  # the system reads two gigabytes at once
            return found
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read at byte {start}: {error}") from error

    def _read_some(self, start: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._handle, length, start)
        with self._turn:  # Windows has one position for all
            os.lseek(self._handle, start, os.SEEK_SET)
            return os.read(self._handle, length)

    def replace_by(self, fresh: Path) -> bool:
        """Has a new file take this one's place; False where Windows refuses it, since somebody else has this one open."""
        if hasattr(os, "pread"):
            os.replace(fresh, self.path)
            return True
        with self._turn:
            os.close(self._handle)
            self._handle = -1
            try:
                os.replace(fresh, self.path)
            except PermissionError:
                self._handle = self._opened()
                fresh.unlink()
                return False
            return True

    def _opened(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read: {error}") from error

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._handle)

    def __str__(self) -> str:
        return str(self.path)


def link(file: LocalSegment, target: Path) -> None:
    """Has a file of the log in another folder as well: the same bytes on disk where that can be, else a copy."""
    try:
        os.link(file.path, target)
        if os.stat(target).st_ino == file.token:
            return
        target.unlink()  # it was written anew meanwhile, without what a fork may need
    except OSError:
        target.unlink(missing_ok=True)
    with target.open("wb") as copy:
        start = 0
        while part := file.read(start, 8 << 20):
            copy.write(part)
            start += len(part)


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Has what the system refuses be an error of the storage."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error


def rewrite(file: LocalSegment, end: int, live: Collection[str], digests: Collection[str], owner: str) -> None:
    """Writes a file anew without what nothing refers to, where that is much of it.

    Args:
        file: of the log.
        end: where its last whole record ends.
        live: ids of records that are kept.
        digests: of the blobs in it that kept ones refer to.
        owner: id of the storage.
    """
    records = list(scan(file.read, end, 0, str(file)))
    keep = [
        [blob.start >= 0 and (record.id in live if index == 0 else blob.digest in digests) for index, blob in enumerate(record.blobs)]
        for record in records
    ]
    pairs = [(blob, is_kept) for record, row in zip(records, keep, strict=True) for blob, is_kept in zip(record.blobs, row, strict=True)]
    dead = sum(blob.length for blob, is_kept in pairs if blob.start >= 0 and not is_kept)
    if dead * 4 <= end and (not dead or any(record.id in live for record in records)):
        return
    fresh = file.path.with_name(f".{file.name}.{owner}.{secrets.token_hex(6)}.new")
    with fresh.open("wb") as handle:
        for record, row in zip(records, keep, strict=True):
            blobs = [[read_blob(file.read, blob, str(file))] if there else None for blob, there in zip(record.blobs, row, strict=True)]
            handle.writelines(pack(record.raw, blobs)[1])
    sync(fresh)
    if file.replace_by(fresh):
        sync(file.path.parent)
