"""A storage in a folder.

state_dir/
  wgtorch-storage.json            the marker: this folder is a storage, its id, and those of the storages it was forked from
  log/00000001-<id>.commits       the log: commits one after the other (:mod:`wgtorch.storage.segment`)
  00001/state.json, artifacts_0.png   a complete state for people to look at, in a folder named by naming_template; where it takes more
                                  room than the log has of it, the newest 32 (``world.history.export(folder)`` writes any)
  .lock                           held by the one that writes

The log is all that is read. The commits of a pass are one write at the end of the newest file, and synced, against power cuts, when the
pass is told of; stages that took long are written when they end, and answers that were paid for when they come, see
:mod:`wgtorch.storage.log`. Files of the log carry the id of who wrote them in their names, the others inside: only what is known so is
ever moved or deleted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.atomic import sync, write_folder
from wgtorch.core.errors import StorageError
from wgtorch.core.system_files import is_of_system
from wgtorch.storage.base import Life
from wgtorch.storage.commit import Commit
from wgtorch.storage.local_segment import LocalSegment, link, named, rewrite
from wgtorch.storage.log import CommitLog
from wgtorch.storage.marker import LOG, MARKER, new_marker, parse_marker
from wgtorch.storage.segment_log import SegmentLog, segment_name, segment_number
from wgtorch.storage.step_folders import StepFolders, names_steps
from wgtorch.world_runtime.state import State

SEGMENT = 64 << 20
"""Bytes of a file of the log after which another is begun."""
RECENT = 32
"""Newest steps whose folders stay, however small the states are."""
SMALL_SEGMENT = 1 << 20
"""Likewise where old steps are dropped, which is done file by file."""


class DirectoryStorage(SegmentLog):
    """Keeps a world's log in a folder of its own, and every complete state beside it for people to look at.

    Args:
        state_dir: where.
        naming_template: name of a step's folder; ``{step}`` is its number. Where something else has that name, ``_``
            is added.
        max_snapshots: how many steps are kept; the oldest are dropped. None keeps all.

    Raises:
        StorageError: the template does not name the step, or ``max_snapshots`` is less than 1.
    """

    def __init__(self, state_dir: str | os.PathLike[str], *, naming_template: str = "{step:05d}", max_snapshots: int | None = None) -> None:
        if not names_steps(naming_template):
            raise StorageError(f"naming_template {naming_template!r}: expected a folder's name with one {{step}}, as '{{step:05d}}'")
        if "://" in os.fspath(state_dir):
            raise StorageError(f"{state_dir}: is an address, not a folder; use wgtorch.storage.open_storage({str(state_dir)!r})")
        if "\0" in os.fspath(state_dir):
            raise StorageError(f"state_dir is {os.fspath(state_dir)!r}; expected a folder's name, and no name has a NUL")
        super().__init__(max_snapshots)
        self.folder = Path(state_dir).expanduser()
        self.naming_template = naming_template
        self._marker: dict[str, Any] | None = None
        self._tail: tuple[LocalSegment, int] | None = None  # the file that is written to, and its handle
        self._is_rewritten = True

    def __str__(self) -> str:
        return str(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_tail": None}

    # --- who may write ------------------------------------------------------------------------------------------------

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keeps other writers away.

        Raises:
            StorageError: another run writes here, or the folder holds files that no world wrote.
        """
        from filelock import FileLock, Timeout

        with named(self.folder):
            self._claim()
            lock = FileLock(self.folder / ".lock", timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise StorageError(f"{self.folder}: another run writes to this storage; wait for it, or choose another state_dir") from None
        try:
            self._check_links()
            with named(self.folder):
                self._clean()
            yield
        finally:
            self._close_tail()
            lock.release()

    def _claim(self) -> None:
        """Writes the marker when the folder is new.

        Raises:
            StorageError: the folder holds files that no world wrote, or was here and is gone; nothing was written.
        """
        if self._read_marker() is not None:
            return
        self._check_there()
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        held = sorted(entry.name for entry in entries if entry.name not in (MARKER, ".lock") and not is_of_system(entry.name))
        if held:
            raise StorageError(
                f"{self.folder}: holds {held[:5]}, which no world wrote, and no {MARKER}. A storage needs a folder of its own: "
                f"give a new or empty one, as state_dir={str(self.folder / 'states')!r}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / MARKER).open("ab") as handle:
            if handle.tell() == 0:
                handle.write(json.dumps(new_marker()).encode())
                handle.flush()
                os.fsync(handle.fileno())
        sync(self.folder)
        self._read_marker()

    def _read_marker(self) -> dict[str, Any] | None:
        """What the marker holds; None when there is none, or a kill struck before it was written."""
        path = self.folder / MARKER
        try:
            raw = path.read_bytes() if path.stat().st_size < 1 << 20 else b"{"
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
        if not raw:
            return None
        marker = parse_marker(raw, str(path))
        if self._marker is not None and self._marker["id"] != marker["id"]:
            raise StorageError(f"{self.folder}: is another storage now than it was; choose another state_dir, or make the world anew")
        self._marker = marker
        return marker

    def _check_links(self) -> None:
        """Refuses to write through links to files elsewhere, as a folder from somebody else may hold them."""
        for path in (self.folder / LOG, *self._log_files()):
            if path.is_symlink() and not path.resolve().is_relative_to(self.folder.resolve()):
                raise StorageError(f"{path}: is a link that leaves the storage's folder; put there what it leads to")

    def _check_there(self) -> None:
        """Refuses to begin anew where a past was."""
        if self._marker is not None:
            raise StorageError(f"{self.folder}: the folder held this world's past, and is gone. Put it back, or choose another state_dir")

    def _clean(self) -> None:
        """Takes away what killed writers left, and cuts off what they did not finish."""
        assert self._marker is not None
        owner = self._marker["id"]
        for folder in (self.folder, self.folder / LOG):
            for left in folder.glob(f".*.{owner}.*.new"):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    # --- files of the log ---------------------------------------------------------------------------------------------

    def _owners(self) -> list[str]:
        return [] if self._marker is None else [self._marker["id"], *self._marker["ancestors"]]

    def _log_files(self) -> list[Path]:
        try:
            names = os.listdir(self.folder / LOG)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"{self.folder / LOG}: cannot be read: {error}") from error
        owners = self._owners()
        found = [(number, name) for name in names if (number := segment_number(name, owners)) is not None]
        return [self.folder / LOG / name for _, name in sorted(found)]

    def _load(self) -> None:
        if self._is_held:
            return
        marker = self._read_marker()
        if marker is None and self._marker is not None:
            self._check_there()
        if marker is not None:
            super()._load()

    def _files(self) -> Iterator[tuple[str, int, Any, int]]:
        for path in self._log_files():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            number = segment_number(path.name, self._owners())
            assert number is not None
            yield path.name, number, found.st_ino, found.st_size

    def _open(self, name: str, number: int) -> LocalSegment:
        return LocalSegment(self.folder / LOG / name, number)

    def _next_number(self) -> int | None:
        with named(self.folder):
            self._check_marker()
            if self._tail is None:
                self._open_tail()
            if self._tail is not None:
                segment, handle = self._tail
                found = os.fstat(handle)
                limit = SEGMENT if self.max_snapshots is None else SMALL_SEGMENT
                if found.st_nlink == 1 and found.st_size < limit:  # what a fork shares is added to by nobody
                    return segment.number if found.st_size == 0 else None
                self._sync()
                self._close_tail()
            self._begin_segment()
            assert self._tail is not None
            return self._tail[0].number

    def _check_marker(self) -> None:
        if not (self.folder / MARKER).is_file():
            raise StorageError(f"{self.folder}: the folder went away during the run; what it lived since cannot be kept. Put it back")

    def _open_tail(self) -> None:
        """Goes on with the newest file, what a kill left at its end cut off."""
        assert self._marker is not None
        paths = self._log_files()
        if not paths or segment_number(paths[-1].name, [self._marker["id"]]) is None:
            return
        known = self._segments.get(paths[-1].name)
        if known is None or known.is_copy or os.stat(paths[-1]).st_nlink > 1:
            return
        handle = os.open(paths[-1], os.O_RDWR | getattr(os, "O_BINARY", 0))
        if os.fstat(handle).st_size > known.end:
            os.ftruncate(handle, known.end)
        assert isinstance(known.file, LocalSegment)
        self._tail = (known.file, handle)

    def _begin_segment(self) -> None:
        assert self._marker is not None
        log = self.folder / LOG
        if not log.is_dir():
            log.mkdir()
            sync(self.folder)
        paths = self._log_files()
        number = 1 + (segment_number(paths[-1].name, self._owners()) or 0) if paths else 1
        path = log / segment_name(number, self._marker["id"])
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        sync(log)
        self._tail = (LocalSegment(path, number), handle)

    def _append(self, parts: list[Any], record_id: str) -> tuple[LocalSegment, int]:
        assert self._tail is not None
        segment, handle = self._tail
        start = os.fstat(handle).st_size
        try:
            os.lseek(handle, start, os.SEEK_SET)
            small = sum(memoryview(part).nbytes for part in parts) < 4 << 20
            for part in [b"".join(parts)] if small else parts:
                view = memoryview(part).cast("B")
                while len(view):
                    view = view[os.write(handle, view) :]
            found = os.stat(segment.path)
            if found.st_ino != segment.token:
                raise FileNotFoundError(2, "another file is there now", str(segment.path))
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(handle, start)
            if isinstance(error, FileNotFoundError):
                self._close_tail()
                raise StorageError(f"{self.folder}: the folder went away during the run; nothing is kept there any more") from error
            raise StorageError(f"{segment.path}: cannot be written: {error}") from error
        return segment, start

    def _sync(self) -> None:
        if self._tail is not None:
            try:
                os.fsync(self._tail[1])
            except OSError as error:
                raise StorageError(f"{self._tail[0]}: cannot be brought to the disk: {error}") from error

    def _close_tail(self) -> None:
        if self._tail is not None:
            os.close(self._tail[1])
            self._tail = None

    # --- what people look at, and what is dropped --------------------------------------------------------------------------------

    def _step_folders(self) -> StepFolders:
        return StepFolders(self.folder, self._owners())

    def _show(self, step: int, state: State) -> str:
        with named(self.folder):
            self._check_marker()
            return self._step_folders().write(self.naming_template.format(step=step), step, state)

    def _starts_anew(self) -> bool:
        return self.max_snapshots is not None and self._tail is not None and os.fstat(self._tail[1]).st_size >= SMALL_SEGMENT

    def _thin(self) -> None:
        """Takes away the folder of a step of before the newest 32, where it takes more room than what the log holds of the step."""
        steps = self._stored()
        old = steps.get(max(steps) - RECENT) if steps else None
        if old is not None and old.stored is not None:
            folders, place = self._step_folders(), self._places[old.id]
            if folders.room(old.stored.name) > sum(blob.length for blob in place.blobs):
                folders.remove(old.stored.name)

    def _drop_old(self) -> None:
        self._thin()
        if self.max_snapshots is None:
            return
        held, steps = self._stored(), self._steps[1]
        for step in sorted(steps)[: -len(held)][-3:]:
            stored = steps[step].stored
            if stored is not None:
                self._step_folders().remove(stored.name)
        sealed = [known for known in self._segments.values() if self._tail is None or known.file is not self._tail[0]]
        if self._is_rewritten and len(sealed) == self._sealed:
            return
        self._sealed, self._is_rewritten = len(sealed), True
        with named(self.folder):
            self._rewrite(held[min(held)])

    _sealed = 0

    def _rewrite(self, oldest: Commit) -> None:
        """Writes files of the log anew, without what nothing refers to that is kept."""
        live, digests = self.needed_from(oldest)
        assert self._marker is not None
        for known in list(self._segments.values()):
            file = known.file
            if (self._tail is None or file is not self._tail[0]) and isinstance(file, LocalSegment) and file.path.exists():
                held = {digest for digest in digests if digest in self._blobs and self._blobs[digest][0] is file}
                rewrite(file, known.end, live, held, self._marker["id"])
        self._is_held = False  # takes in the files as they are now
        try:
            super()._load()
        finally:
            self._is_held = True

    # --- forks --------------------------------------------------------------------------------------------------------

    def _share(self, source: CommitLog, commit: Commit, life: Life) -> bool:
        if not isinstance(source, DirectoryStorage) or (self.folder.is_dir() and any(self.folder.iterdir())):
            with named(self.folder):
                self._claim()
            return False
        last = source._places[commit.id].file.number

        def fill(fresh: Path) -> None:
            (fresh / LOG).mkdir()
            for known in source._segments.values():
                if known.file.number <= last and isinstance(known.file, LocalSegment):
                    link(known.file, fresh / LOG / known.file.name)
            marker = {**new_marker(), "ancestors": source._owners()}
            (fresh / MARKER).write_text(json.dumps(marker), encoding="utf-8")
            for stored in source._stored().values():
                if stored.stored is not None and (stored.passes, stored.stage) <= (commit.passes, commit.stage):
                    source._step_folders().link(stored.stored.name, fresh)
            inner = DirectoryStorage(fresh, naming_template=self.naming_template, max_snapshots=self.max_snapshots)
            inner._tensors = source._tensors
            with inner.hold():
                inner._head = inner._known(commit.id)
                inner._commit(life)

        with named(self.folder):
            if self.folder.is_dir():
                self.folder.rmdir()  # it is empty
            write_folder(self.folder, fill)
        self._tensors = source._tensors
        self._load()
        return True
