"""A storage in a folder.

state_dir/
  00001/                 one complete state, named by naming_template
    state.json           slots, and the number of the step
    content.json         the world's content after the update
    tensors.safetensors  tensors of both
    artifacts_0.png      pictures among the artifacts
  life-<n>/              the life in flight; CURRENT names the newest whole one
  CURRENT
  traces/00000001.jsonl  what the stages of a pass left to be looked at: a line of JSON for each
"""

from __future__ import annotations

import json
import os
import re
import shutil
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.errors import StorageError
from wgtorch.core.saving import sync, write_folder
from wgtorch.storage.base import Life, register_storage
from wgtorch.storage.encoding import decode, encode, images_in, write_png
from wgtorch.world_runtime.state import State

FORMAT_VERSION = "1.0"
_TRACES = "traces"


@register_storage("directory")
class DirectoryStorage:
    """Keeps every complete state in a folder of its own, whole or not at all.

    Args:
        state_dir: where.
        naming_template: name of a step's folder; ``{step}`` is its number.
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
        self._step_of: dict[str, int] = {}  # by folder, so that a long history is not read again for every look at it

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other writers away.

        Raises:
            StorageError: another run writes here.
        """
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StorageError(f"{self.folder}: another run writes to this storage; wait for it, or choose another state_dir") from None
            for left in (*self.folder.glob(".*.new"), *self.folder.glob(".*.dropped")):  # by writers that were killed
                shutil.rmtree(left, ignore_errors=True)
            yield

    def store(self, step: int, state: State, content: Mapping[str, Any]) -> str:
        """Writes a complete state and the content after it."""
        name = self.naming_template.format(step=step)

        def fill(folder: Path) -> None:
            tensors: dict[str, Tensor] = {}
            slots = {slot: encode(state[slot], slot, tensors) for slot in state.schema}
            _write_json(
                folder / "state.json", {"format_version": FORMAT_VERSION, "step": step, "schema": list(state.schema), "slots": slots}
            )
            _write_json(folder / "content.json", encode(dict(content), "content", tensors))
            _write_tensors(folder, tensors)
            for slot in state.schema:
                for picture, image in images_in(state[slot], slot):
                    while (folder / f"{picture}.png").exists():
                        picture += "_"
                    write_png(image, folder / f"{picture}.png")

        write_folder(self.folder / name, fill)
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
        previous = self._current()
        number = int(previous.rpartition("-")[2]) + 1 if previous else 1
        name = f"life-{number}"
        write_folder(self.folder / name, lambda folder: write_life(life, folder))
        pointer = self.folder / ".CURRENT.new"
        pointer.write_text(name, encoding="utf-8")
        sync(pointer)
        os.replace(pointer, self.folder / "CURRENT")
        sync(self.folder)
        for old in self.folder.glob("life-*"):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def read_life(self) -> Life | None:
        """The life that was kept last; None when there is none."""
        name = self._current()
        return read_life(self.folder / name) if name else None

    def keep_trace(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to the traces of its pass. A line that a kill cut is left behind, and not read."""
        path = self.folder / _TRACES / f"{entry['pass']:08d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as handle:
            if handle.tell() and (handle.seek(-1, os.SEEK_END), handle.read(1))[1] != b"\n":
                handle.write(b"\n")
            handle.write(json.dumps(entry).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())

    def traces(self) -> list[dict[str, Any]]:
        """What stages left, in the order of the passes; of a stage that ran again, the last."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for path in sorted((self.folder / _TRACES).glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                    found[entry["pass"], entry["place"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue
        return [found[key] for key in sorted(found)]

    def _current(self) -> str:
        pointer = self.folder / "CURRENT"
        name = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
        if name and not re.fullmatch(r"life-\d+", name):
            raise StorageError(f"{pointer}: holds {name!r}; expected 'life-<number>'")
        return name

    def _folders(self) -> dict[int, Path]:
        found = {}
        for entry in self.folder.glob("*/state.json"):
            name = entry.parent.name
            if name.startswith("."):
                continue
            if name not in self._step_of:
                with _whole(entry.parent):
                    self._step_of[name] = int(_read_entry(entry)["step"])
            found[self._step_of[name]] = entry.parent
        return found

    def _drop_oldest(self) -> None:
        if self.max_snapshots is not None:
            folders = self._folders()
            first = min(sorted(folders)[-self.max_snapshots :], default=0)
            for path in (self.folder / _TRACES).glob("*.jsonl"):
                if path.stem.isdecimal() and int(path.stem) < first - 1:  # the oldest state that stays began in the pass before
                    path.unlink(missing_ok=True)
            for step in sorted(folders)[: -self.max_snapshots]:
                dropped = self.folder / f".{folders[step].name}.dropped"
                folders[step].rename(dropped)  # at once, so that no half of it is ever seen
                shutil.rmtree(dropped, ignore_errors=True)


def _names_steps(template: str) -> bool:
    """True when a template gives every step a folder's name of its own, and none that the life in flight uses."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        name = template.format(step=1) if fields == ["step"] else ""
    except (ValueError, IndexError):
        return False
    return name != "" and "/" not in name and not name.startswith((".", "life-"))


def write_life(life: Life, folder: Path) -> None:
    """Writes a life into a folder."""
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
    _write_json(folder / "life.json", entry)
    _write_tensors(folder, tensors, "life.safetensors")


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
    from safetensors.torch import save_file

    if tensors:
        save_file(tensors, folder / name)


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
