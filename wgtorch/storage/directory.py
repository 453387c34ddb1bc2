"""A storage in a folder.

state_dir/
  wgtorch-storage.json   the marker: this folder is a storage, and its id
  00001/                 one complete state, named by naming_template
    state.json           slots, and the number of the step
    content.json         the world's content after the update
    tensors.safetensors  tensors of both
    artifacts_0.png      pictures among the artifacts
  life-<n>/              the life in flight; CURRENT names the newest whole one
  CURRENT
  traces/00000001.jsonl  what the stages of a pass left to be looked at: a line of JSON for each

``state.json`` and ``life.json`` say which storage wrote their folder, under which name, and which files; the lines of traces and
the names of unfinished folders hold the storage's id. Only what is known so is ever moved or deleted.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.checkpoint.atomic import sync, write_file, write_folder
from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.core.errors import StorageError
from wgtorch.storage.base import Life, register_storage
from wgtorch.storage.encoding import decode, encode, images_in, write_png
from wgtorch.world_runtime.state import State

FORMAT_VERSION = "1.0"
_TRACES = "traces"
_MARKER = "wgtorch-storage.json"
_MARKER_FORMAT = "wgtorch-storage"


@register_storage("directory")
class DirectoryStorage:
    """Keeps every complete state in a folder of its own, whole or not at all.

    Args:
        state_dir: where.
        naming_template: name of a step's folder; ``{step}`` is its number. Where something else has that name, ``_`` is added.
        max_snapshots: how many steps are kept; the oldest are dropped. None keeps all.

    Raises:
        StorageError: the template does not name the step, or ``max_snapshots`` is less than 1.
    """

    def __init__(self, state_dir: str | os.PathLike[str], *, naming_template: str = "{step:05d}", max_snapshots: int | None = None) -> None:
        if not _names_steps(naming_template):
            raise StorageError(f"naming_template {naming_template!r}: expected a folder's name with one {{step}}, as '{{step:05d}}'")
        if max_snapshots is not None and max_snapshots < 1:
            raise StorageError(f"max_snapshots {max_snapshots}: expected at least 1, or None to keep all")
        self.folder = Path(state_dir)
        self.naming_template = naming_template
        self.max_snapshots = max_snapshots
        self._step_of: dict[str, int | None] = {}  # by folder, so that a long history is not read again for every look at it

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other writers away.

        Raises:
            StorageError: another run writes here, or the folder holds files that no world wrote.
        """
        import fcntl

        marker = self._claim()
        with (self.folder / ".lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StorageError(f"{self.folder}: another run writes to this storage; wait for it, or choose another state_dir") from None
            for left in self.folder.glob(f".*.{marker['id']}.*.new"):  # by writers that were killed
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            yield

    def store(self, step: int, state: State, content: Mapping[str, Any]) -> str:
        """Writes a complete state and the content after it."""
        marker = self._claim()
        names = [self.naming_template.format(step=step)]
        while (self.folder / names[-1]).exists():
            names.append(f"{names[-1]}_")
        name = next(name for name in names if name == names[-1] or self._is_wholly_own(self.folder / name))

        def fill(folder: Path) -> None:
            tensors: dict[str, Tensor] = {}
            slots = {slot: encode(state[slot], slot, tensors) for slot in state.schema}
            _write_json(folder / "content.json", encode(dict(content), "content", tensors))
            _write_tensors(folder, tensors)
            for picture, image in _pictures(state).items():
                write_png(image, folder / picture)
            entry = {"format_version": FORMAT_VERSION, "step": step, "schema": list(state.schema), "slots": slots}
            _write_json(folder / "state.json", {**entry, **_record(marker, name, folder)})

        write_folder(self.folder / name, fill, token=marker["id"])
        self._step_of[name] = step
        for other in names[:-1]:  # the step as it was, where somebody put something beside it
            if other != name:
                self._remove(self.folder / other)
        self._drop_oldest()
        return name

    def steps(self) -> list[int]:
        """Numbers of the stored steps, oldest first."""
        return sorted(self._folders())

    def read(self, step: int) -> tuple[State, dict[str, Any]]:
        """A stored state and the content after it.

        Raises:
            StorageError: there is no such step, or its files are damaged.
        """
        folders = self._folders()
        if step not in folders:
            raise StorageError(f"{self.folder}: no step {step}; there are {sorted(folders)}")
        with _whole(folders[step]):
            entry = _read_entry(folders[step] / "state.json")
            tensors = _read_tensors(folders[step])
            slots = {slot: decode(value, tensors) for slot, value in entry["slots"].items()}
            return State(schema=tuple(entry["schema"]), **slots), decode(_read_json(folders[step] / "content.json"), tensors)

    def keep_life(self, life: Life) -> None:
        """Writes the life in flight beside the old one, and then names it as the current."""
        marker = self._claim()
        previous = self._current()
        number = int(previous.rpartition("-")[2]) + 1 if previous else 1
        while (self.folder / f"life-{number}").exists():
            number += 1
        name = f"life-{number}"

        def fill(folder: Path) -> None:
            write_life(life, folder, lambda: _record(marker, name, folder))

        def point_to_it(file: Path) -> None:
            file.write_text(name, encoding="utf-8")

        write_folder(self.folder / name, fill, token=marker["id"])
        write_file(self.folder / "CURRENT", point_to_it, token=marker["id"])
        for old in self.folder.glob("life-*/life.json"):
            if old.parent.name != name:
                self._remove(old.parent)

    def read_life(self) -> Life | None:
        """The life that was kept last; None when there is none."""
        name = self._current()
        return read_life(self.folder / name) if name else None

    def keep_trace(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to the traces of its pass. A line that a kill cut is left behind, and not read."""
        marker = self._claim()
        path = self.folder / _TRACES / f"{entry['pass']:08d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        while path.exists() and not self._is_own_trace(path):
            path = path.with_stem(f"{path.stem}_")
        with path.open("ab+") as handle:
            if handle.tell() and (handle.seek(-1, os.SEEK_END), handle.read(1))[1] != b"\n":
                handle.write(b"\n")
            handle.write(json.dumps({"storage": marker["id"], **entry}).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())

    def traces(self) -> list[dict[str, Any]]:
        """What stages left, in the order of the passes; of a stage that ran again, the last."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for path in sorted((self.folder / _TRACES).glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                    entry.pop("storage", None)
                    found[entry["pass"], entry["place"]] = entry
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
        return [found[key] for key in sorted(found)]

    def _current(self) -> str:
        pointer = self.folder / "CURRENT"
        name = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
        if name and not re.fullmatch(r"life-\d+", name):
            raise StorageError(f"{pointer}: holds {name!r}; expected 'life-<number>'")
        return name

    def _folders(self) -> dict[int, Path]:
        paths = sorted(self.folder.glob("*/state.json"))
        marker = self._marker() if any(path.parent.name not in self._step_of for path in paths) else None
        found = {}
        for path in paths:
            name = path.parent.name
            if name.startswith("."):
                continue
            if name not in self._step_of:
                with _whole(path.parent):
                    entry = _read_entry(path)
                    foreign = "storage" in entry and marker is not None and not _is_own(marker, name, entry)
                    self._step_of[name] = None if foreign else int(entry["step"])  # a copy of a step is not the step
            step = self._step_of[name]
            if step is not None:
                found[step] = path.parent
        return found

    def _drop_oldest(self) -> None:
        if self.max_snapshots is not None:
            folders = self._folders()
            first = min(sorted(folders)[-self.max_snapshots :], default=0)
            for path in (self.folder / _TRACES).glob("*.jsonl"):
                number = path.stem.rstrip("_")
                if (
                    number.isdecimal() and int(number) < first - 1 and self._is_own_trace(path)
                ):  # the oldest that stays began in the pass before
                    path.unlink(missing_ok=True)
            for step in sorted(folders)[: -self.max_snapshots]:
                self._remove(folders[step])

    # --- what is the storage's own ------------------------------------------------------------------------------------

    def _marker(self) -> dict[str, Any] | None:
        """What the marker holds; None when there is none, or a kill struck before it was written."""
        path = self.folder / _MARKER
        if not path.is_file() or not path.stat().st_size:
            return None
        marker: Any = _read_json(path)
        if (
            not isinstance(marker, dict)
            or marker.get("format") != _MARKER_FORMAT
            or not re.fullmatch("[0-9a-f]{16}", str(marker.get("id")))
        ):
            raise StorageError(f"{path}: is no marker of a storage; expected format {_MARKER_FORMAT!r} and an id. Choose another state_dir")
        if marker["format_version"] != FORMAT_VERSION:
            raise StorageError(f"{path}: format_version {marker['format_version']!r}; this version reads {FORMAT_VERSION!r}")
        return marker

    def _claim(self) -> dict[str, Any]:
        """The marker, written when the folder is new, or a storage from before there were markers.

        Raises:
            StorageError: the folder holds files that no world wrote; nothing was written.
        """
        marker = self._marker()
        if marker is not None:
            return marker
        held = sorted(entry.name for entry in self.folder.iterdir() if entry.name != _MARKER) if self.folder.is_dir() else []
        if held and self.read_life() is None:  # raises where CURRENT names a life that is damaged
            raise StorageError(
                f"{self.folder}: holds {held[:5]}, which no world wrote, and no {_MARKER}. A storage needs a folder of its own: "
                f"give a new or empty one, as state_dir={str(self.folder / 'states')!r}"
            )
        marker = {"format": _MARKER_FORMAT, "format_version": FORMAT_VERSION, "id": secrets.token_hex(8), "adopted": self._unmarked()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _MARKER).open("ab") as handle:
            if handle.tell() == 0:
                handle.write(json.dumps(marker).encode())
                handle.flush()
                os.fsync(handle.fileno())
        sync(self.folder)
        return marker

    def _unmarked(self) -> list[str]:
        """Names of the steps, lives and traces in a storage from before there were markers."""
        names = [path.name for path in self._folders().values()]
        for path in self.folder.glob("life-*/life.json"):
            try:
                read_life(path.parent)
            except StorageError:  # by a kill, or somebody else's: left alone
                continue
            names.append(path.parent.name)
        for path in (self.folder / _TRACES).glob("*.jsonl"):
            try:
                entries = [json.loads(line) for line in path.read_bytes().splitlines()]
                if entries and all(path.stem == f"{entry['pass']:08d}" and "place" in entry for entry in entries):
                    names.append(f"{_TRACES}/{path.name}")
            except (ValueError, KeyError, TypeError):
                continue
        return names

    def _own_files(self, folder: Path) -> set[str]:
        """Names of the files in a step's or a life's folder that this storage wrote."""
        marker = self._claim()
        try:
            path = next(path for name in ("state.json", "life.json") if (path := folder / name).is_file())
            with _whole(folder):
                entry = _read_entry(path)
                if _is_own(marker, folder.name, entry):
                    return {str(name) for name in entry["files"]}
                if "storage" in entry or folder.name not in marker["adopted"]:
                    return set()
                if path.name == "life.json":
                    return {"life.json", "life.safetensors"}
                tensors = _read_tensors(folder)
                state = State(schema=tuple(entry["schema"]), **{slot: decode(value, tensors) for slot, value in entry["slots"].items()})
                return {"state.json", "content.json", "tensors.safetensors", *_pictures(state)}
        except (StopIteration, StorageError):  # what cannot be read is not known to be ours
            return set()

    def _is_wholly_own(self, folder: Path) -> bool:
        return folder.is_dir() and not folder.is_symlink() and {path.name for path in folder.iterdir()} <= self._own_files(folder)

    def _is_own_trace(self, path: Path) -> bool:
        marker = self._claim()
        with path.open("rb") as handle:
            start = handle.read(64)
        return not start or start.startswith(f'{{"storage": "{marker["id"]}"'.encode()) or f"{_TRACES}/{path.name}" in marker["adopted"]

    def _remove(self, folder: Path) -> None:
        """Takes away what this storage wrote into a folder, at once where there is nothing else in it."""
        own = self._own_files(folder)
        if own and self._is_wholly_own(folder):
            dropped = self.folder / f".{folder.name}.{self._claim()['id']}.{secrets.token_hex(6)}.new"
            folder.rename(dropped)  # at once, so that no half of it is ever seen
            shutil.rmtree(dropped, ignore_errors=True)
        else:
            for name in sorted(own, key=lambda name: name not in ("state.json", "life.json")):
                (folder / name).unlink(missing_ok=True)
        self._step_of.pop(folder.name, None)


def _is_own(marker: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> bool:
    """True when a folder's entry was written by this storage, for a folder of this name."""
    return entry.get("storage") == marker["id"] and entry.get("folder") == name


def _record(marker: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Whose a folder is, and which files were written into it; the entry that holds this is written last."""
    entry = "life.json" if name.startswith("life-") else "state.json"
    return {"storage": marker["id"], "folder": name, "files": sorted({entry, *(path.name for path in folder.iterdir())})}


def _pictures(state: State) -> dict[str, Any]:
    """The pictures of a state by the names of their files."""
    found: dict[str, Any] = {}
    for slot in state.schema:
        for picture, image in images_in(state[slot], slot):
            while f"{picture}.png" in found:
                picture += "_"
            found[f"{picture}.png"] = image
    return found


def _names_steps(template: str) -> bool:
    """True when a template gives every step a folder's name of its own, and none that the life in flight uses."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        name = template.format(step=1) if fields == ["step"] else ""
    except (ValueError, IndexError):
        return False
    return name != "" and "/" not in name and not name.startswith((".", "life-"))


def write_life(life: Life, folder: Path, record: Callable[[], dict[str, Any]] = dict) -> None:
    """Writes a life into a folder; ``record`` says more for its entry, once the tensors are there."""
    tensors: dict[str, Tensor] = {}
    state = life.state
    entry = {
        "format_version": FORMAT_VERSION,
        "passes": life.passes,
        "stage": life.stage,
        "seed": life.seed,
        "id": life.id,
        "content": encode(dict(life.content), "content", tensors),
        "schema": None if state is None else list(state.schema),
        "slots": None if state is None else {slot: encode(state[slot], slot, tensors) for slot in state.schema},
    }
    _write_tensors(folder, tensors, "life.safetensors")
    _write_json(folder / "life.json", {**entry, **record()})


def read_life(folder: Path) -> Life:
    """Reads what :func:`write_life` wrote."""
    with _whole(folder):
        entry = _read_entry(folder / "life.json")
        tensors = _read_tensors(folder, "life.safetensors")
        state = None
        if entry["schema"] is not None:
            state = State(schema=tuple(entry["schema"]), **{slot: decode(value, tensors) for slot, value in entry["slots"].items()})
        return Life(decode(entry["content"], tensors), state, entry["passes"], entry["stage"], entry["seed"], entry["id"])


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Says of what is read inside where it is damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StorageError) and str(folder) in str(error):
            raise
        raise StorageError(f"{folder}: damaged, or not written by a storage: {error}") from error


def _write_json(path: Path, content: Any) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, as cut text may end with: its escape can be written
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


def _read_entry(path: Path) -> dict[str, Any]:
    entry = _read_json(path)
    if entry["format_version"] != FORMAT_VERSION:
        raise StorageError(f"{path}: format_version {entry['format_version']!r}; this version reads {FORMAT_VERSION!r}")
    return entry


def _write_tensors(folder: Path, tensors: dict[str, Tensor], name: str = "tensors.safetensors") -> None:
    if tensors:
        write_tensors(folder / name, tensors)


def _read_tensors(folder: Path, name: str = "tensors.safetensors") -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / name
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
