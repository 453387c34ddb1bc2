"""What checkpoints are written to and read from.

A :class:`Sink` takes the files of a checkpoint and a :class:`Source` gives them, in a folder or in one zip. Names are checked, files
mapped, sizes known before anything is read.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from wgtorch.core.checkpoint.atomic import recovered
from wgtorch.core.errors import CheckpointError
from wgtorch.core.limits import check_limit
from wgtorch.core.system_files import is_of_system

MANIFEST = "manifest.json"
MAX_MANIFEST = 32 << 20
"""Bytes of a manifest that is read."""
MAX_MEMBERS = 50_000
"""Files in one checkpoint."""
HASHED = 16 << 20
"""Bytes that one load hashes in full; of larger files it compares size, header and a piece of every tensor."""
ALIGNMENT = 64


# --- writing ------------------------------------------------------------------------------------------------------------


_CHUNK = 8 << 20
_PADDING = 0x5747  # "GW": id of the extra field that fills up to the next aligned byte
_TIME = (1980, 1, 1, 0, 0, 0)  # the same tree gives the same archive


class Sink(Protocol):
    """Takes the files of a checkpoint."""

    def put(self, name: str, chunks: Iterable[Any], size: int) -> str:
        """Writes a file of ``size`` bytes; returns its sha256."""


class FolderSink:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, chunks: Iterable[Any], size: int) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as handle:
            return _write(handle, name, chunks, size)


class ArchiveSink:
    """Stored members of one zip, each beginning at a multiple of 64 bytes."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def put(self, name: str, chunks: Iterable[Any], size: int) -> str:
        info = zipfile.ZipInfo(name, _TIME)
        info.external_attr = 0o644 << 16
        info.file_size = size
        large = size * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile decides; it then puts 20 bytes in front of our field
        begin = self.archive.fp.tell() + 30 + len(name.encode()) + (20 if large else 0) + 4  # type: ignore[union-attr]
        gap = -begin % ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING, gap) + bytes(gap)
        with self.archive.open(info, "w", force_zip64=large) as handle:
            return _write(handle, name, chunks, size)


def _write(handle: Any, name: str, chunks: Iterable[Any], size: int) -> str:
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
    return hashed.hexdigest()


def _write_all(handle: Any, part: memoryview) -> None:
    while len(part):
        part = part[handle.write(part) :]


# --- reading ------------------------------------------------------------------------------------------------------------


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
                if is_of_system(name):
                    continue
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


is_mapped: ContextVar[bool] = ContextVar("wgtorch_mapped", default=True)
"""False where files are read into memory, so that what becomes of them later changes nothing."""


@contextmanager
def mapping(is_wanted: bool | None) -> Iterator[None]:
    """While it lasts, weights are mapped from their files, or read into memory; None leaves that to who is around.

    Raises:
        TypeError: it is neither.
    """
    if not (is_wanted is None or isinstance(is_wanted, bool)):
        raise TypeError(f"map is {is_wanted!r}; expected True (weights are the file's own pages), or False (a copy of them)")
    token = is_mapped.set(is_mapped.get() if is_wanted is None else is_wanted)
    try:
        yield
    finally:
        is_mapped.reset(token)


def map_file(handle: BinaryIO) -> mmap.mmap:
    """Maps a file so that writing to the mapping changes this process's copy alone; or gives a copy of it (``is_mapped``)."""
    if is_mapped.get():
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
    size = os.fstat(handle.fileno()).st_size
    copy, at = mmap.mmap(-1, size), 0
    with memoryview(copy) as view, open(handle.fileno(), "rb", buffering=0, closefd=False) as raw:
        raw.seek(0)
        while at < size and (read := raw.readinto(view[at:])):
            at += read
    if at < size:
        raise OSError(errno.EIO, f"ends after {at} of {size} bytes: it was cut short while it was read")
    return copy


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


def checked_name(name: object, where: str) -> str:
    """A name inside a checkpoint, once it is known that it stays inside.

    Raises:
        CheckpointError: it is absolute, climbs with ``..``, or is no plain relative path.
    """
    if not isinstance(name, str) or not name or len(name) > 1024:
        raise CheckpointError(f"{where}: {str(name)[:80]!r} is no file name")
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part) <= 255 for part in parts)
    if not plain or re.search(r"[\x00-\x1f\\:]", name) or PurePosixPath(name).is_absolute():
        raise CheckpointError(f"{where}: {name!r} leaves the checkpoint or is no plain path; expected one such as 'blocks/a.safetensors'")
    return name
