"""Files of commits: records one after the other, each whole or not there.

[8 bytes: "wgcommit"][u32: length of meta][u32: number of blobs][u64: length of the blobs that are there][20 bytes: hash of meta]
[u32: CRC of the header and of what follows it][one byte a blob: 1 where it is there][meta: JSON][blobs][8 bytes: "\\nwgend!\\n"]

``meta`` names the parent by its hash and every blob by its own, so that a commit's hash is that of all it says and holds, back to the
first. Blobs are the change as JSON (long ones through zlib), and tensors (:mod:`wgtorch.storage.tensor_blobs`). Every bit of a record is
covered: by the CRC, by the hash of meta, by the hash of its blob, or as a constant. A record that a kill or a power cut left unfinished
is at the end of its file, and shorter than it says or without its last eight bytes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import expect, read_json

MAGIC = b"wgcommit"
END = b"\nwgend!\n"
_HEADER = struct.Struct("<8sIIQ20sI")
MAX_META = 8 << 20
MAX_BLOBS = 100_000
_UNFINISHED = 256 << 20  # bytes of a record that may be found without its end
_AHEAD = 4096  # bytes that are read at once: a header and most metas

Read = Callable[[int, int], bytes]
"""(from which byte, how many): bytes of a file, fewer at its end."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in a record, named by their hash.

    Args:
        digest: its hash.
        start: byte of the file where it begins; -1 where it was dropped.
        length: its bytes.
    """

    digest: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Record:
    """One commit in a file.

    Args:
        id: hash of its meta.
        meta: what it says.
        raw: the bytes of meta.
        blobs: the change first, then tensors.
        start: byte of the file where it begins.
        end: byte after it.
    """

    id: str
    meta: dict[str, Any]
    raw: bytes
    blobs: tuple[Blob, ...]
    start: int
    end: int


def digest_of(*parts: Any) -> str:
    """The hash that names bytes: SHA-256, its first 20 bytes."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()[:40]


def pack(meta: bytes, blobs: Sequence[Sequence[Any] | None]) -> tuple[str, list[Any]]:
    """The id of a record and its bytes in parts. A blob is a list of buffers; None where it was dropped."""
    there = bytes(blob is not None for blob in blobs)
    parts = [part for blob in blobs if blob is not None for part in blob]
    record_id = digest_of(meta)
    length = sum(memoryview(part).nbytes for part in parts)
    start = (MAGIC, len(meta), len(blobs), length, bytes.fromhex(record_id))
    crc = zlib.crc32(there, zlib.crc32(_HEADER.pack(*start, 0)))
    return record_id, [_HEADER.pack(*start, crc), there, meta, *parts, END]


def scan(read: Read, size: int, start: int, where: str) -> Iterator[Record]:
    """The whole records of a file from a byte on; what a kill left at its end is passed over.

    Raises:
        StorageError: a record is damaged; says at which byte.
    """
    while size - start >= _HEADER.size:
        try:
            record = _next(read, size, start, f"{where}, byte {start}")
        except StorageError:
            if _is_unfinished(read, size, start):
                return
            raise
        if record is None:
            return
        yield record
        start = record.end


def _next(read: Read, size: int, start: int, place: str) -> Record | None:
    """The record at a byte; None where the file ends before the record does."""
    ahead = read(start, _AHEAD)
    if len(ahead) < _HEADER.size:
        return None
    magic, meta_length, count, length, digest, crc = _HEADER.unpack_from(ahead)
    inner = _HEADER.size + count + meta_length
    end = start + inner + length + len(END)
    if magic != MAGIC:
        raise StorageError(f"{place}: holds {magic!r}; expected a commit, so the file is damaged, or none of a world's log")
    if meta_length > MAX_META or count > MAX_BLOBS:
        raise StorageError(f"{place}: announces {meta_length} bytes and {count} blobs; the file is damaged")
    if len(ahead) < inner:
        ahead = read(start, inner)
    there = ahead[_HEADER.size : _HEADER.size + count]
    if len(there) == count and crc != zlib.crc32(there, zlib.crc32(_HEADER.pack(magic, meta_length, count, length, digest, 0))):
        raise StorageError(f"{place}: the commit's header is not what was written; the file is damaged")
    if end > size or len(ahead) < inner:
        if size - start >= _HEADER.size + len(END) and not _is_cut(read, size, start):
            raise StorageError(f"{place}: the commit ends after the file does, which goes on behind it; the file is damaged")
        return None
    raw = ahead[_HEADER.size + count : inner]
    if read(end - len(END), len(END)) != END:
        raise StorageError(f"{place}: the commit's last bytes are not what was written; the file is damaged")
    if digest_of(raw) != digest.hex():
        raise StorageError(f"{place}: the commit is not what was written (its hash differs); the file is damaged")
    return _record(digest.hex(), raw, there, start, start + inner, end, place)


def _is_cut(read: Read, size: int, start: int) -> bool:
    """True for what a kill leaves of the record at a byte: nothing ends or begins behind it."""
    rest = read(start + len(MAGIC), min(size - start, _UNFINISHED))
    return not rest.endswith(END) and END + MAGIC not in rest


def _is_unfinished(read: Read, size: int, start: int) -> bool:
    """True for what a power cut leaves: the file has grown, the last of its bytes have not come; a whole record never ends so."""
    if read(size - len(END), len(END)).strip(b"\0"):
        return False
    return MAGIC not in read(start + len(MAGIC), min(size - start, _UNFINISHED))


def _record(record_id: str, raw: bytes, there: bytes, start: int, body: int, end: int, place: str) -> Record:
    meta = expect(read_json(raw, place, StorageError), dict, "the commit", place, StorageError)
    entries = expect(meta.get("blobs"), list, "blobs", place, StorageError)
    blobs = []
    at = body
    for entry, is_there in zip(entries, there, strict=False):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str) or type(entry[1]) is not int or entry[1] < 0:
            raise StorageError(f"{place}: blob {str(entry)[:60]}; expected [hash, length]")
        blobs.append(Blob(entry[0], at if is_there else -1, entry[1]))
        at += entry[1] if is_there else 0
    if len(entries) != len(there) or not blobs or at != end - len(END):
        raise StorageError(f"{place}: its blobs do not fill it; damaged")
    return Record(record_id, meta, raw, tuple(blobs), start, end)


def read_blob(read: Read, blob: Blob, where: str) -> bytes:
    """A blob's bytes.

    Raises:
        StorageError: they are not what was written.
    """
    found = read(blob.start, blob.length)
    if digest_of(found) != blob.digest:
        what = "is shorter than it was" if len(found) < blob.length else "is not what was written (its hash differs)"
        raise StorageError(f"{where}: blob {blob.digest[:12]} at byte {blob.start} {what}; the file is damaged")
    return found
