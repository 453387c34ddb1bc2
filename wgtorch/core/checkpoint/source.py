"""Where a checkpoint is read from: a folder or an archive. Names are checked, files mapped, sizes known before reading."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Protocol

from wgtorch.core.checkpoint.layout import HASHED, MANIFEST, MAX_MANIFEST, MAX_MEMBERS, checked_name
from wgtorch.core.errors import CheckpointError
from wgtorch.core.limits import check_limit
from wgtorch.core.saving import recovered

_EOCD = struct.Struct("<4s4H2LH")
_EOCD64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")


class Source(Protocol):
    """Files of a checkpoint by name."""

    path: Path
    unspent: int
    """Bytes that may still be hashed in full while this is open, unless all are asked for."""

    def names(self) -> frozenset[str]:
        """All files."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def map(self, name: str) -> tuple[mmap.mmap, int, int]:
        """A mapping, and where in it the file begins and how long it is."""

    def place(self, name: str) -> tuple[Path, int]:
        """The file on disk that holds it, and at which byte it begins there."""

    def where(self, name: str) -> str:
        """The file's full name, for messages."""


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Opens a checkpoint.

    Raises:
        CheckpointError: there is none, or it is neither a folder with a manifest nor an archive of ours.
    """
    found = recovered(Path(path))
    if found.is_dir():
        yield FolderSource(found)
    elif not found.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint; expected a folder or archive written by save_checkpoint")
    elif not found.is_file():
        raise CheckpointError(f"{path}: is neither a folder nor a file")
    else:
        with found.open("rb") as handle:
            yield ArchiveSource(found, handle)


def read(source: Source, name: str, limit: int) -> bytes:
    """A small file's bytes.

    Raises:
        CheckpointError: it is larger than ``limit``.
    """
    check_limit(source.size(name), limit, "{} bytes", source.where(name), CheckpointError)
    if not source.size(name):
        return b""
    buffer, start, length = source.map(name)
    return bytes(buffer[start : start + length])


def digest(source: Source, name: str) -> str:
    """The sha256 of a file."""
    if not source.size(name):
        return hashlib.sha256(b"").hexdigest()
    buffer, start, length = source.map(name)
    with memoryview(buffer) as view, view[start : start + length] as part:
        return hashlib.sha256(part).hexdigest()


class FolderSource:
    """A checkpoint in a folder; links out of it are not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unspent = HASHED
        self._root = path.resolve()
        self._files: dict[str, tuple[Path, int]] = {}
        self._plain_folders = {str(self._root)}
        if not (path / MANIFEST).is_file():
            raise CheckpointError(f"{path}: no {MANIFEST}, so this is no checkpoint; expected a folder written by save()")

    def names(self) -> frozenset[str]:
        found = set()
        for folder, _, files in os.walk(self._root):
            inside = folder[len(str(self._root)) + 1 :].replace(os.sep, "/")
            for name in files:
                found.add(f"{inside}/{name}" if inside else name)
                if len(found) > MAX_MEMBERS:
                    check_limit(len(found), MAX_MEMBERS, "holds {} files", str(self.path), CheckpointError)
        return frozenset(found)

    def size(self, name: str) -> int:
        return self._file(name)[1]

    def map(self, name: str) -> tuple[mmap.mmap, int, int]:
        file, size = self._file(name)
        try:
            with file.open("rb") as handle:
                return map_file(handle), 0, size
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: cannot be read: {error}") from error

    def place(self, name: str) -> tuple[Path, int]:
        return self._file(name)[0], 0

    def where(self, name: str) -> str:
        return str(self.path / name)

    def _file(self, name: str) -> tuple[Path, int]:
        if name in self._files:
            return self._files[name]
        file = self._root / checked_name(name, str(self.path))
        try:
            found = os.lstat(file)
            if stat.S_ISLNK(found.st_mode) or not self._is_plain_folder(str(file.parent)):
                if not Path(os.path.realpath(file)).is_relative_to(self._root):
                    raise CheckpointError(f"{self.path / name}: is a link that leaves the checkpoint's folder")
                found = os.stat(file)
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointError(f"{self.path / name}: is no plain file")
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{self.path / name}: missing or not readable: {error}") from error
        self._files[name] = file, found.st_size
        return self._files[name]

    def _is_plain_folder(self, folder: str) -> bool:
        """True when no link leads to a folder from the root; looked up once for all files in it."""
        if folder not in self._plain_folders and os.path.realpath(folder) == folder:
            self._plain_folders.add(folder)
        return folder in self._plain_folders


class ArchiveSource:
    """A checkpoint in one zip of stored members, mapped once."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self.path = path
        self.unspent = HASHED
        length = os.fstat(handle.fileno()).st_size
        if length < _EOCD.size:
            raise CheckpointError(f"{path}: {length} bytes; truncated, or no archive")
        self._buffer = map_file(handle)
        self._members = _members(path, self._buffer, handle, length)
        if MANIFEST not in self._members:
            raise CheckpointError(f"{path}: a zip without {MANIFEST}, so no checkpoint; it holds {sorted(self._members)[:5]}")

    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    def size(self, name: str) -> int:
        return self._member(name)[1]

    def map(self, name: str) -> tuple[mmap.mmap, int, int]:
        return self._buffer, *self._member(name)

    def place(self, name: str) -> tuple[Path, int]:
        return self.path, self._member(name)[0]

    def where(self, name: str) -> str:
        return f"{self.path}:{name}"

    def _member(self, name: str) -> tuple[int, int]:
        checked_name(name, str(self.path))
        if name not in self._members:
            raise CheckpointError(f"{self.path}:{name}: missing from the archive")
        return self._members[name]


def map_file(handle: BinaryIO) -> mmap.mmap:
    """Maps a file so that writing to the mapping changes this process's copy alone."""
    return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)


def _members(path: Path, buffer: mmap.mmap, handle: BinaryIO, length: int) -> dict[str, tuple[int, int]]:
    """(begin, length) of every member, by name."""
    _check_directory(path, buffer, length)
    try:
        with zipfile.ZipFile(handle) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a readable zip: {error}") from error
    found: dict[str, tuple[int, int]] = {}
    spans = []
    for info in infos:
        name = checked_name(info.filename, str(path))
        if name in found:
            raise CheckpointError(f"{path}:{name}: is there twice")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 0x1:
            raise CheckpointError(
                f"{path}:{name}: is compressed or encrypted ({info.compress_size} bytes for {info.file_size}); members of a checkpoint "
                "are stored as they are. Unpack it and load the folder, if you trust it"
            )
        at = info.header_offset
        if at + _LOCAL.size > length or buffer[at : at + 4] != b"PK\x03\x04":
            raise CheckpointError(f"{path}:{name}: its header is not where the directory says; damaged")
        *_, name_length, extra_length = _LOCAL.unpack_from(buffer, at)
        begin = at + _LOCAL.size + name_length + extra_length
        if begin + info.file_size > length or buffer[at + _LOCAL.size : at + _LOCAL.size + name_length] != name.encode():
            raise CheckpointError(f"{path}:{name}: reaches over the end of the file or has another name there; truncated or damaged")
        found[name] = (begin, info.file_size)
        spans.append((at, begin + info.file_size, name))
    spans.sort()
    for (_, end, name), (start, _, other) in pairwise(spans):
        if start < end:
            raise CheckpointError(f"{path}: {name} and {other} overlap")
    return found


def _check_directory(path: Path, buffer: mmap.mmap, length: int) -> None:
    """Refuses a zip whose directory is not at the end or announces more than is read, before anything is made of it."""
    if buffer[:2] != b"PK":
        raise CheckpointError(f"{path}: begins with {bytes(buffer[:8])!r}; no archive of a checkpoint (a zip begins with b'PK')")
    at = length - _EOCD.size
    magic, *_, count, size, _, comment = _EOCD.unpack_from(buffer, at)
    if magic != b"PK\x05\x06" or comment:
        raise CheckpointError(f"{path}: does not end as a zip does; truncated, or no archive of a checkpoint")
    if count == 0xFFFF or size == 0xFFFFFFFF:
        if at < _LOCATOR.size:
            raise CheckpointError(f"{path}: its zip directory is damaged")
        magic, _, where, _ = _LOCATOR.unpack_from(buffer, at - _LOCATOR.size)
        if magic != b"PK\x06\x07" or where + _EOCD64.size > length:
            raise CheckpointError(f"{path}: its zip directory is damaged")
        magic, *_, count, size, _ = _EOCD64.unpack_from(buffer, where)
        if magic != b"PK\x06\x06":
            raise CheckpointError(f"{path}: its zip directory is damaged")
    check_limit(count, MAX_MEMBERS, "announces {} members", str(path), CheckpointError)
    check_limit(size, MAX_MANIFEST, "announces a directory of {} bytes", str(path), CheckpointError)
