"""Storages of format 1.0, and from before formats had versions: read, and taken over as a log.

00001/state.json, content.json, tensors.safetensors    a complete state, and the content after it
life-<n>/life.json, life.safetensors                    the life in flight; CURRENT names the newest whole one
traces/00000001.jsonl                                   what the stages of a pass left
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wgtorch.core.checkpoint.tensors import map_tensors, read_header
from wgtorch.core.errors import CheckpointError, StorageError
from wgtorch.core.json_text import MAX_BYTES, expect, read_json
from wgtorch.core.limits import check_limit
from wgtorch.storage.base import Life
from wgtorch.storage.encoding import decode
from wgtorch.world_runtime.state import State

if TYPE_CHECKING:
    from wgtorch.storage.log import CommitLog

FORMAT_VERSION = "1.0"
_MARKER = "wgtorch-storage.json"
_NO_ID = "0" * 16


class Version1:
    """A folder of the older format.

    Args:
        folder: where; nothing is written to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_there(self) -> bool:
        """True where the folder holds something of that format."""
        return (self.folder / "CURRENT").is_file() or next(self.folder.glob("*/state.json"), None) is not None

    def fingerprint(self) -> tuple[Any, ...]:
        """Another one when something was written since."""
        paths = [self.folder / "CURRENT", *sorted(self.folder.glob("*/state.json")), *sorted(self.folder.glob("traces/*.jsonl"))]
        return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file())

    def steps(self) -> dict[int, Path]:
        """Folders by stored step. A copy of one under another name is none."""
        marker: Any = {}
        if (self.folder / _MARKER).is_file() and (self.folder / _MARKER).stat().st_size:
            marker = _read_json(self.folder / _MARKER)
        found = {}
        for path in sorted(self.folder.glob("*/state.json")):
            if not path.parent.name.startswith("."):
                with _whole(path.parent):
                    entry = _read_entry(path)
                    if "storage" in entry and marker and (entry["storage"], entry.get("folder")) != (marker.get("id"), path.parent.name):
                        continue
                    found[expect(entry["step"], int, "step", str(path), StorageError)] = path.parent
        return found

    def read(self, folder: Path) -> tuple[State, dict[str, Any]]:
        """A stored state and the content after it."""
        with _whole(folder):
            entry = _read_entry(folder / "state.json")
            tensors = _read_tensors(folder / "tensors.safetensors")
            content = expect(decode(_read_json(folder / "content.json"), tensors), dict, "the content", str(folder), StorageError)
            return _state(entry, tensors), content

    def read_life(self) -> Life | None:
        """The life that was kept last; None when there is none."""
        pointer = self.folder / "CURRENT"
        if not pointer.is_file():
            return None
        check_limit(pointer.stat().st_size, 100, "{} bytes", str(pointer), StorageError)
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if not re.fullmatch(r"life-\d+", name):
            raise StorageError(f"{pointer}: holds {name!r}; expected 'life-<number>'")
        return read_life(self.folder / name)

    def traces(self) -> list[dict[str, Any]]:
        """What stages left, in the order of the passes; of a stage that ran again, the last. Lines that a kill cut are left out."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for path in sorted((self.folder / "traces").glob("*.jsonl")):
            check_limit(path.stat().st_size, MAX_BYTES, "{} bytes", str(path), StorageError)
            for line in path.read_bytes().splitlines():
                try:
                    entry = expect(read_json(line, str(path), StorageError), dict, "a trace", str(path), StorageError)
                    place = (expect(entry["pass"], int, "pass", "", StorageError), expect(entry["place"], int, "place", "", StorageError))
                except (StorageError, KeyError):
                    continue
                entry.pop("storage", None)
                found[place] = entry
        return [found[place] for place in sorted(found)]

    def as_log(self) -> CommitLog:
        """All of it as a log in memory."""
        from wgtorch.storage.memory import MemoryStorage

        log = MemoryStorage()
        steps = self.steps()
        with log.hold():
            for step in sorted(steps):
                state, content = self.read(steps[step])
                log.store(step, state, content)
                log._flush()
            for trace in self.traces():
                log.keep_trace(trace)
            life = self.read_life()
            if life is not None:
                log.keep_life(life)
        return log


def read_life(folder: Path) -> Life:
    """A life that lies in a folder of its own: ``life.json``, ``life.safetensors``.

    Raises:
        StorageError: it is damaged, or of another format.
    """
    with _whole(folder):
        entry = _read_entry(folder / "life.json")
        tensors = _read_tensors(folder / "life.safetensors")
        where = str(folder / "life.json")
        state = None if entry["schema"] is None else _state(entry, tensors)
        content = expect(decode(entry["content"], tensors), dict, "content", where, StorageError)
        passes, stage = (expect(entry[name], int, name, where, StorageError) for name in ("passes", "stage"))
        seed = expect(entry["seed"], (int, type(None)), "seed", where, StorageError)
        life_id = expect(entry.get("id", _NO_ID), str, "id", where, StorageError)  # the first worlds had none
        return Life(content, state, passes, stage, seed, life_id)


def _state(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> State:
    slots = expect(entry["slots"], dict, "slots", "the state", StorageError)
    return State(schema=tuple(entry["schema"]), **{slot: decode(value, tensors) for slot, value in slots.items()})


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Says of what is read inside where it is damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        if isinstance(error, StorageError) and str(folder) in str(error):
            raise
        raise StorageError(f"{folder}: damaged, or not written by a storage: {str(error)[:200]}") from error


def _read_json(path: Path) -> Any:
    try:
        check_limit(path.stat().st_size, MAX_BYTES, "{} bytes", str(path), StorageError)
        raw = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    return read_json(raw, str(path), StorageError)


def _read_entry(path: Path) -> dict[str, Any]:
    entry = expect(_read_json(path), dict, "the entry", str(path), StorageError)
    if entry["format_version"] != FORMAT_VERSION:
        raise StorageError(f"{path}: format_version {str(entry['format_version'])[:40]!r}; this version reads {FORMAT_VERSION!r}")
    return dict(entry)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        return {}
    try:
        buffer = bytearray(path.read_bytes())
        header = read_header(buffer, 0, len(buffer), str(path))
        return map_tensors(buffer, 0, header)  # type: ignore[arg-type]  # any writable buffer will do
    except (CheckpointError, OSError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
