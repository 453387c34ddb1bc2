"""A storage at an address that fsspec knows: ``memory://valley``, ``s3://bucket/valley``; a zip is read.

The layout is that of a folder (:mod:`wgtorch.storage.directory`), with two differences: every commit is a file of its own, created only
where there is none of its number yet, so that of two writers the second is refused; and the log alone is kept, without the step folders
for people to look at.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wgtorch.core.errors import StorageError, require, suggest
from wgtorch.storage.marker import LOG, MARKER, new_marker, parse_marker
from wgtorch.storage.segment import pack, read_blob, scan
from wgtorch.storage.segment_log import SegmentLog, segment_name, segment_number

_WHOLE_EVERY = 64  # commits, where old steps are dropped
_DROP_EVERY = 16
_held: set[str] = set()
_turn = threading.Lock()


class RemoteSegment:
    """A file of one commit at an address."""

    def __init__(self, files: Any, path: str, number: int, size: int) -> None:
        self.files, self.path, self.number = files, path, number
        self.name = path.rsplit("/", 1)[-1]
        self.token = size

    def read(self, start: int, length: int) -> bytes:
        try:
            end = min(start + length, self.token)
            return bytes(self.files.cat_file(self.path, start=start, end=end)) if end > start else b""
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.path}: cannot be read: {error}") from error

    def __str__(self) -> str:
        return str(self.files.unstrip_protocol(self.path))


class RemoteStorage(SegmentLog):
    """Keeps a world's log at an address.

    A write is a request, so stages are written before their pass ends only where they took seconds.

    Args:
        address: ``memory://``, ``s3://`` and what else fsspec can create files at; ``zip://`` is read only. Keys are the file system's
            own business, as its own environment says; they do not stand in addresses.
        max_snapshots: how many steps are kept; the oldest are dropped. None keeps all.

    Raises:
        StorageError: fsspec knows no such scheme, or its package is missing.
    """

    worth = 2.0

    def __init__(self, address: str, *, max_snapshots: int | None = None) -> None:
        super().__init__(max_snapshots)
        self.address = address.rstrip("/")
        self.files, self.root = _opened(address)
        self._marker: dict[str, Any] | None = None
        self._dropped = 0

    def __str__(self) -> str:
        return self.address

    # --- who may write ------------------------------------------------------------------------------------------------

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if "zip" in ([self.files.protocol] if isinstance(self.files.protocol, str) else self.files.protocol):
            raise StorageError(f"{self}: a zip is read only; choose a folder or another address as state_dir")
        with _turn:
            if self.address in _held:
                raise StorageError(f"{self}: another run writes to this storage; wait for it, or choose another state_dir")
            _held.add(self.address)
        try:
            self._claim()
            yield
        finally:
            with _turn:
                _held.discard(self.address)

    def _claim(self) -> None:
        if self._read_marker() is not None:
            return
        if self._marker is not None:
            raise StorageError(f"{self}: held this world's past, and is gone. Put it back, or choose another state_dir")
        held = self._names("")
        if held:
            raise StorageError(f"{self}: holds {held[:5]}, which no world wrote, and no {MARKER}; choose an address of its own")
        self._create(self._at(MARKER), json.dumps(new_marker()).encode())
        self._read_marker()

    def _read_marker(self) -> dict[str, Any] | None:
        path = self._at(MARKER)
        try:
            self.files.invalidate_cache()
            raw = bytes(self.files.cat_file(path, start=0, end=1 << 20)) if self.files.exists(path) else None
        except (OSError, ValueError) as error:
            raise StorageError(f"{self}/{MARKER}: cannot be read: {error}") from error
        if raw is None:
            return None
        marker = parse_marker(raw, f"{self}/{MARKER}")
        if self._marker is not None and self._marker["id"] != marker["id"]:
            raise StorageError(f"{self}: is another storage now than it was; choose another state_dir, or make the world anew")
        self._marker = marker
        return marker

    # --- files --------------------------------------------------------------------------------------------------------

    def _at(self, *names: str) -> str:
        return "/".join(name for name in (self.root, *names) if name)

    def _names(self, folder: str) -> list[str]:
        try:
            self.files.invalidate_cache()
            found = self.files.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise StorageError(f"{self}: cannot be read: {error}") from error
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def _load(self) -> None:
        if self._is_held:
            return
        if self._read_marker() is None:
            if self._marker is not None:
                raise StorageError(f"{self}: held this world's past, and is gone. Put it back, or choose another state_dir")
            return
        super()._load()

    def _files(self) -> Iterator[tuple[str, int, Any, int]]:
        assert self._marker is not None
        owners = [self._marker["id"], *self._marker["ancestors"]]
        for name in self._names(LOG):
            number = segment_number(name, owners)
            if number is not None:
                size = int(self.files.size(self._at(LOG, name)) or 0)
                yield name, number, size, size

    def _open(self, name: str, number: int) -> RemoteSegment:
        path = self._at(LOG, name)
        return RemoteSegment(self.files, path, number, int(self.files.size(path) or 0))

    def _next_number(self) -> int | None:
        return 1 + max((known.file.number for known in self._segments.values()), default=0)

    def _append(self, parts: list[Any], record_id: str) -> tuple[RemoteSegment, int]:
        assert self._marker is not None
        number = self._next_number()
        assert number is not None
        if not self.files.exists(self._at(MARKER)):
            raise StorageError(f"{self}: went away during the run; what it lived since cannot be kept. Put it back")
        path = self._at(LOG, segment_name(number, self._marker["id"]))
        raw = b"".join(parts)
        self._create(path, raw)
        return RemoteSegment(self.files, path, number, len(raw)), 0

    def _create(self, path: str, raw: bytes) -> None:
        try:
            try:
                self.files.pipe_file(path, raw, mode="create")
            except FileNotFoundError:  # object stores have no folders, and a request for each commit is one too many
                self.files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                self.files.pipe_file(path, raw, mode="create")
        except FileExistsError as error:
            raise StorageError(f"{self}: another run writes to this storage; wait for it, or choose another state_dir") from error
        except (OSError, ValueError, NotImplementedError) as error:
            raise StorageError(f"{self}: cannot be written: {error}") from error

    # --- what is dropped ----------------------------------------------------------------------------------------------

    def _starts_anew(self) -> bool:
        return self.max_snapshots is not None and len(self._segments) % _WHOLE_EVERY == 0

    def _drop_old(self) -> None:
        if self.max_snapshots is None or len(self._segments) < self._dropped + _DROP_EVERY:
            return
        self._dropped = len(self._segments)
        stored = self._stored()
        live, digests = self.needed_from(stored[min(stored)])
        for known in list(self._segments.values()):
            file = known.file
            for record in scan(file.read, known.end, 0, str(file)):
                rows = [
                    record.id in live if index == 0 else blob.digest in digests and self._blobs[blob.digest][0] is file
                    for index, blob in enumerate(record.blobs)
                ]
                if any(blob.start >= 0 and not is_kept for blob, is_kept in zip(record.blobs, rows, strict=True)):
                    held = zip(record.blobs, rows, strict=True)
                    blobs = [[read_blob(file.read, blob, str(file))] if is_kept and blob.start >= 0 else None for blob, is_kept in held]
                    self.files.pipe_file(file.path, b"".join(pack(record.raw, blobs)[1]))  # type: ignore[attr-defined]
        self._is_held = False  # takes in the files as they are now
        try:
            self._load()
        finally:
            self._is_held = True


def _opened(address: str) -> tuple[Any, str]:
    fsspec: Any = require("fsspec", "remote")
    scheme = address.partition("://")[0].split("::")[0]
    if scheme not in fsspec.available_protocols():
        raise StorageError(f"{address}: no file system {scheme!r}; {suggest(scheme, fsspec.available_protocols())}")
    try:
        files, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        raise StorageError(f"{address}: cannot be opened: {error}") from error
    return files, str(root).rstrip("/")
