"""Files of a log on a disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wgtorch.core.errors import StorageError


class LocalSegment:
    """A file of the log, kept open: it stays readable when it is replaced or deleted."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.name, self.number = path, path.name, number
        self._turn = threading.Lock()
        try:
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
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
