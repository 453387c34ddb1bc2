"""A log whose commits lie in files, wherever those are."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from wgtorch.core.encoding import StoredValue, decode_with, encode_with
from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import MAX_BYTES, check_json, expect, json_bytes, read_json
from wgtorch.core.limits import check_limit
from wgtorch.storage.commit import Body, Commit, Moment, commit_from, meta_of
from wgtorch.storage.known_tensors import KnownTensors
from wgtorch.storage.log import CommitLog
from wgtorch.storage.segment import MAX_BLOBS, Blob, Record, digest_of, pack, read_blob, scan
from wgtorch.storage.snapshot import TensorRef, refs_in
from wgtorch.storage.tensor_blobs import tensor_of

_LOOKS = 1000
_SHARED = ("seed", "life")  # said once for all commits of a record, where they are the same
_SMALL = 400  # bytes of JSON that are written as they are
_SEGMENT_NAME = re.compile(r"(\d{8,})-([0-9a-f]{16})\.commits")


class SegmentFile(Protocol):
    """A file of commits, open for reading; what it held when it was opened stays readable."""

    name: str
    number: int
    token: Any

    def read(self, start: int, length: int) -> bytes:
        """Bytes of it; fewer at its end."""

    def __str__(self) -> str: ...


@dataclass(slots=True)
class _Scanned:
    file: SegmentFile
    end: int = 0
    last: str | None = None
    is_copy: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a commit lies.

    Args:
        file: which.
        blobs: of its record.
        record: the record's id, which is that of its last commit.
        index: of the commit among those of its record.
    """

    file: SegmentFile
    blobs: tuple[Blob, ...]
    record: str
    index: int


def ids_of(record_id: str, count: int) -> list[str]:
    """The ids of the commits of a record: the last has the record's own."""
    return [*(digest_of(bytes.fromhex(record_id), b"%d" % index) for index in range(count - 1)), record_id]


def segment_name(number: int, owner: str) -> str:
    """The name of a file of commits; owner is the id of the storage that writes it."""
    return f"{number:08d}-{owner}.commits"


def segment_number(name: str, owners: Iterable[str]) -> int | None:
    """The number of a file of commits of one of these storages; None for any other file."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1]) if match is not None and match[2] in owners else None


class SegmentLog(CommitLog):
    """Commits in numbered files, tensors among them by their hash.

    A kind gives ``_files`` (what there is now) and ``_append`` (one record, whole or not at all).
    """

    def __init__(self, max_snapshots: int | None = None) -> None:
        super().__init__(max_snapshots)
        self._segments: dict[str, _Scanned] = {}
        self._places: dict[str, Place] = {}
        self._opened: tuple[str, list[Body]] = ("", [])  # the record that was read last
        self._blobs: dict[str, tuple[SegmentFile, Blob]] = {}
        self._tensors = KnownTensors()

    # --- what a kind gives --------------------------------------------------------------------------------------------

    def _files(self) -> Iterator[tuple[str, int, Any, int]]:
        """Files of commits in their order: name, number, what changes when the file is another, and size."""
        raise NotImplementedError

    def _open(self, name: str, number: int) -> SegmentFile:
        """Opens a file of commits."""
        raise NotImplementedError

    def _append(self, parts: list[Any], record_id: str) -> tuple[SegmentFile, int]:
        """Writes a record at the end; returns its file, and at which byte it begins."""
        raise NotImplementedError

    def _next_number(self) -> int | None:
        """The number of the file that the next record is the first of; None where it is not the first."""
        raise NotImplementedError

    # --- reading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._is_held:  # nobody else writes
            return
        found = list(self._files())
        for _ in range(_LOOKS):
            for name, number, token, size in found:
                known = self._segments.get(name)
                if known is None or known.file.token != token:
                    if known is not None:  # written anew without what was dropped; views go on with the file they have
                        self._places = dict(self._places)
                        self._blobs = {digest: place for digest, place in self._blobs.items() if place[0] is not known.file}
                    known = self._segments[name] = _Scanned(self._open(name, number))
                if size > known.end and not known.is_copy:
                    self._scan(known, size)
            seen, found = found, list(self._files())
            if [entry[:3] for entry in found] == [entry[:3] for entry in seen]:  # nothing was dropped or begun meanwhile
                break
        else:
            raise StorageError(f"{self}: another process writes faster than it can be read; look again later")
        heads = [last for name, *_ in seen if (last := self._segments[name].last) is not None]
        if heads:
            self._head = self._known(heads[-1])

    def _scan(self, known: _Scanned, size: int) -> None:
        file = known.file
        for record in scan(file.read, size, known.end, str(file)):
            where = f"{file}, byte {record.start}"
            if record.start == 0 and record.meta.get("segment") != file.number:  # of a number that is not its own
                known.is_copy = True
                return
            self._take_in(record, file, where)
            for blob in record.blobs[1:]:
                if blob.start >= 0:
                    self._blobs[blob.digest] = (file, blob)
            known.end, known.last = record.end, record.id

    def _take_in(self, record: Record, file: SegmentFile, where: str) -> None:
        """Notes the commits of a record."""
        own = {name: record.meta.get(name) for name in _SHARED}
        before = expect(record.meta.get("before", []), list, "before", where, StorageError)
        check_limit(len(before), MAX_BLOBS, "holds {} commits in one record", where, StorageError)
        metas = [{**own, **expect(entry, dict, "a commit", where, StorageError)} for entry in before] + [record.meta]
        parent, weight = record.meta.get("parent"), record.blobs[0].length  # the first stands for all
        for index, (commit_id, meta) in enumerate(zip(ids_of(record.id, len(metas)), metas, strict=True)):
            self._commits[commit_id] = commit_from({**meta, "parent": parent}, commit_id, weight, where)
            self._places[commit_id] = Place(file, record.blobs, record.id, index)
            parent, weight = commit_id, 0

    def _body(self, commit: Commit) -> Body:
        place = self._places[commit.id]
        where = f"{place.file}: {commit}"
        if place.blobs[0].start < 0:
            raise StorageError(f"{where}: what it held was dropped, as max_snapshots says")
        if self._opened[0] != place.record:
            self._opened = (place.record, self._read_bodies(place, where))
        bodies = self._opened[1]
        if place.index >= len(bodies):
            raise StorageError(f"{where}: damaged: its record holds {len(bodies)} commits")
        return bodies[place.index]

    def _read_bodies(self, place: Place, where: str) -> list[Body]:
        text = _unpacked(read_blob(place.file.read, place.blobs[0], where), where)
        entry = expect(read_json(text, where, StorageError), dict, "the change", where, StorageError)
        before = expect(entry.get("before", []), list, "before", where, StorageError)
        return [_body_of(expect(one, dict, "a change", where, StorageError), where) for one in [*before, entry]]

    def has_body(self, commit: Commit) -> bool:
        return self._places[commit.id].blobs[0].start >= 0

    def _tensor(self, ref: TensorRef) -> Tensor:
        assert ref.digest is not None
        if ref.digest not in self._blobs:
            raise StorageError(f"{self}: the tensor {ref.digest[:12]} is missing; a file of the log was taken away, or damaged")
        file, blob = self._blobs[ref.digest]
        return tensor_of(read_blob(file.read, blob, f"{file}: a tensor"), str(file))

    def _take(self, tensor: Tensor, path: str) -> TensorRef:
        return TensorRef(tensor, self._tensors.digest(tensor, path, is_kept=self._is_held))

    def _is_due(self) -> bool:
        return self._tensors.has_large

    def _live(self, ref: TensorRef) -> Tensor:
        """The tensor itself where the process has it, else from its file."""
        assert ref.digest is not None
        found = self._tensors.find(ref.digest)
        return self._tensor(ref) if found is None else found

    def size(self) -> int:
        """Bytes of the log's files."""
        return sum(size for *_, size in self._files())

    def verify(self) -> int:
        """Reads every commit and every tensor there is.

        Returns:
            How many bytes were found to be what was written.

        Raises:
            StorageError: something is not; names the file and the commit.
        """
        with self._lock:
            view = self.pinned()
            count = 0
            seen = ""
            for commit in [] if view._head is None else view._back_from(view._head):
                place = view._places[commit.id]
                for blob in place.blobs if place.record != seen else ():
                    if blob.start >= 0:
                        count += len(read_blob(place.file.read, blob, f"{place.file}: {commit}"))
                seen = place.record
            return count

    def needed_from(self, oldest: Commit) -> tuple[set[str], set[str]]:
        """Records whose changes, and tensors, are needed to read the chain from a stored step on."""
        live: set[str] = set()
        digests: set[str] = set()
        first = oldest if oldest.parent is None else self._known(oldest.parent)
        is_past = False
        for commit in self._back_from(self._head):
            if not self.has_body(commit):
                break
            body = self._body(commit)
            live.add(self._places[commit.id].record)
            if not is_past:  # of moments before the first that is kept, the changes alone
                digests |= {ref.digest for ref in refs_in(body.held) if ref.digest is not None}
            is_past = is_past or commit.id == first.id
            if is_past and body.whole is not None:
                break
        if self.has_body(first):
            digests |= {ref.digest for ref in refs_in(self._snapshot(first)) if ref.digest is not None}
        return live, digests

    def __getstate__(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {
            "_segments": {},
            "_places": {},
            "_opened": ("", []),
            "_blobs": {},
            "_commits": {},
            "_head": None,
            "_steps": (None, {}),
            "_tensors": KnownTensors(),
        }
        return {**super().__getstate__(), **fresh}  # files are opened anew

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self, parent: str | None, moments: list[Moment]) -> list[Commit]:
        new: dict[str, list[Any]] = {}
        for ref in refs_in([moment.body.held for moment in moments]):
            assert ref.digest is not None
            if ref.digest not in self._blobs and ref.digest not in new:
                new[ref.digest] = self._tensors.blob(ref)
        text = self._text([moment.body for moment in moments])
        held = [[text], *new.values()]
        lengths = [sum(memoryview(part).nbytes for part in parts) for parts in held]
        blobs = list(zip([digest_of(text), *new], lengths, strict=True))
        number = self._next_number()
        meta = {"parent": parent, **meta_of(moments[-1]), **({} if number is None else {"segment": number}), "blobs": blobs}
        if before := [meta_of(moment) for moment in moments[:-1]]:
            for entry in before:
                for name in _SHARED:
                    if entry.get(name) == meta.get(name):
                        entry.pop(name, None)
                    else:
                        entry.setdefault(name, None)
            meta["before"] = before
        raw = json.dumps(meta, separators=(",", ":")).encode()
        record_id, parts = pack(raw, held)
        file, start = self._append(parts, record_id)
        at = start + sum(memoryview(part).nbytes for part in parts[:3])
        placed = []
        for digest, length in blobs:
            placed.append(Blob(digest, at, length))
            at += length
        self._tensors.written()
        self._blobs |= {blob.digest: (file, blob) for blob in placed[1:]}
        known = self._segments.setdefault(file.name, _Scanned(file))
        known.end, known.last = start + sum(memoryview(part).nbytes for part in parts), record_id
        commits, weight = [], len(text)
        for index, (commit_id, moment) in enumerate(zip(ids_of(record_id, len(moments)), moments, strict=True)):
            self._places[commit_id] = Place(file, tuple(placed), record_id, index)
            commits.append(moment.written(commit_id, parent, weight))
            parent, weight = commit_id, 0  # the first stands for all
        return commits

    def _weigh(self, body: Body) -> int:
        return len(self._text([body]))

    def _text(self, bodies: list[Body]) -> bytes:
        """What commits changed, as JSON.

        Raises:
            StorageError: it is more than is read again.
        """
        entry = _entry_of(bodies[-1])
        if len(bodies) > 1:
            entry["before"] = [_entry_of(body) for body in bodies[:-1]]
        text = json_bytes(entry, separators=(",", ":"), allow_nan=False)
        check_json(text, f"{self}: what is to be stored", StorageError)
        packed = zlib.compress(text, 1) if len(text) > _SMALL else text
        return packed if len(packed) < len(text) else text


def _entry_of(body: Body) -> dict[str, Any]:
    """What a commit changed, as plain data."""

    def name(ref: TensorRef, path: str) -> str:
        assert ref.digest is not None
        return ref.digest

    def plain(value: Any) -> Any:
        return encode_with(value, "", TensorRef, name)

    entry: dict[str, Any] = {} if body.whole is None else {"whole": plain(body.whole)}
    if body.changes:
        entry["changes"] = [[at, word, plain(value)] for at, word, value in body.changes]
    if body.action is not None:
        entry["action"] = plain(body.action)
    if body.traces:
        entry["traces"] = [dict(trace) for trace in body.traces]
    if body.answers:
        entry["answers"] = plain(body.answers)
    return entry


def _body_of(entry: dict[str, Any], where: str) -> Body:
    """What plain data says that a commit changed.

    Raises:
        StorageError: something in it is not what belongs there.
    """

    def ref(digest: str) -> TensorRef:
        return TensorRef(None, digest)

    try:
        changes = expect(entry.get("changes", []), list, "changes", where, StorageError)
        traces = expect(entry.get("traces", []), list, "traces", where, StorageError)
        answers = expect(entry.get("answers", []), list, "answers", where, StorageError)
        for trace in traces:
            expect(trace, dict, "a trace", where, StorageError)
            for name in ("pass", "place"):
                expect(trace.get(name), int, f"a trace's {name}", where, StorageError)
        whole = decode_with(entry["whole"], ref, StoredValue) if "whole" in entry else None
        return Body(
            [[at, word, decode_with(value, ref, StoredValue)] for at, word, value in changes],
            whole,
            decode_with(entry.get("action"), ref, StoredValue),
            traces,
            [_answer(decode_with(answer, ref, StoredValue), where) for answer in answers],
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"{where}: damaged: {str(error)[:200]}") from error


def _answer(entry: Any, where: str) -> dict[str, Any]:
    expect(entry, dict, "an answer", where, StorageError)
    for name, kind in (("key", tuple), ("child", str), ("values", dict)):
        expect(entry.get(name), kind, f"an answer's {name}", where, StorageError)
    return {name: entry.get(name) for name in ("key", "child", "values", "result")}


def _unpacked(raw: bytes, where: str) -> bytes:
    """JSON as it is, or compressed with zlib; JSON never begins as that does."""
    if raw[:1] != b"x":
        return raw
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(raw, MAX_BYTES)
    except zlib.error as error:
        raise StorageError(f"{where}: cannot be unpacked: {error}; the file is damaged") from error
    if not unpacking.eof:
        raise StorageError(f"{where}: holds more than {MAX_BYTES} bytes of JSON, or is cut off")
    return text
