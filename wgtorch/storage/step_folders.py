"""Complete states for people to look at: texts and data as JSON, pictures as PNG. The log is what is read; these are not."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import string
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.encoding import encode_with
from wgtorch.core.json_text import json_bytes
from wgtorch.core.kinds import describe
from wgtorch.storage.encoding import images_in, write_png
from wgtorch.storage.marker import LOG, MARKER
from wgtorch.world_runtime.state import State

_NOTE = "wgtorch-storage"
_STATE = "state.json"
_BLOCK = 4096


class StepFolders:
    """A folder for each stored step. Every file carries inside whose it is, so that nothing else is ever replaced or deleted.

    Args:
        folder: the storage's.
        owners: ids of the storage, and of those it was forked from.
    """

    def __init__(self, folder: Path, owners: Sequence[str]) -> None:
        self.folder, self.owners = folder, owners

    def write(self, name: str, step: int, state: State) -> str:
        """Writes a state into a folder; returns its name, with ``_`` added where something else is there."""
        shared = []
        while (self.folder / name).exists() and not self.is_own(self.folder / name):
            shared.append(name)
            name += "_"
        for other in shared:  # the step as it was, where somebody put something beside it
            self.remove(other)
        fresh = self._aside(name)
        fresh.mkdir()
        try:
            (fresh / _STATE).write_bytes(self._start(self.owners[0]) + _text(step, state))
            for file, image in pictures_of(state).items():
                write_png(image, fresh / file, notes={_NOTE: self.owners[0]})
            self.remove(name)
            fresh.rename(self.folder / name)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return name

    def remove(self, name: str) -> None:
        """Takes away what the storage wrote into a folder, and the folder where nothing else is in it."""
        folder = self.folder / name
        if not folder.is_dir() or folder.is_symlink():
            return
        if self.is_own(folder):  # goes at once: half of it, or an empty folder, would be nobody's after a kill
            folder = folder.rename(self._aside(name))
        for path in list(folder.iterdir()):
            if self._is_own_file(path):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def room(self, name: str) -> int:
        """Bytes that a step's folder takes on a disk that gives room by 4096 of them."""
        folder = self.folder / name
        if not folder.is_dir() or folder.is_symlink():
            return 0
        return _BLOCK + sum(-(-path.stat().st_size // _BLOCK) * _BLOCK for path in folder.iterdir())

    def link(self, name: str, target: Path) -> None:
        """Has a step's folder in another storage as well."""
        folder = self.folder / name
        if not self.is_own(folder):
            return
        (target / name).mkdir()
        for path in folder.iterdir():
            try:
                os.link(path, target / name / path.name)
            except OSError:
                shutil.copyfile(path, target / name / path.name)

    def is_own(self, folder: Path) -> bool:
        """True for a folder with files of this storage and nothing else."""
        if not folder.is_dir() or folder.is_symlink():
            return False
        found = list(folder.iterdir())
        return bool(found) and all(map(self._is_own_file, found))

    def _is_own_file(self, path: Path) -> bool:
        if not (path.suffix == ".png" or path.name == _STATE) or path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as handle:  # the note is among the first pieces of the file
            head = handle.read(512)
        if path.name == _STATE:
            return any(head.startswith(self._start(owner)) for owner in self.owners)
        return any(f"{_NOTE}\0{owner}".encode() in head for owner in self.owners)

    def _aside(self, name: str) -> Path:
        """A name that the storage takes away when it is opened."""
        return self.folder / f".{name}.{self.owners[0]}.{secrets.token_hex(6)}.new"

    @staticmethod
    def _start(owner: str) -> bytes:
        return f'{{"storage": "{owner}",'.encode()


def _text(step: int, state: State) -> bytes:
    """What follows the first words of ``state.json``."""

    def tell(tensor: Any, path: str) -> str:
        return describe(tensor)

    slots = {slot: encode_with(state[slot], slot, Tensor, tell) for slot in state.schema}
    start = f' "step": {step}, "schema": {json.dumps(state.schema)}, "slots": {{\n '.encode()
    lines = [b"%b: %b" % (json_bytes(slot), json_bytes(value)) for slot, value in slots.items()]  # indented it takes ten times as long
    return start + b",\n ".join(lines) + b"\n}}\n"


def pictures_of(state: State) -> dict[str, Any]:
    """The pictures of a state by the names of their files."""
    found: dict[str, Any] = {}
    for slot in state.schema:
        for picture, image in images_in(state[slot], slot):
            while f"{picture}.png" in found:
                picture += "_"
            found[f"{picture}.png"] = image
    return found


def names_steps(template: str) -> bool:
    """True when a template gives every step a folder's name of its own, and none that the storage uses."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        name = template.format(step=1) if fields == ["step"] else ""
    except (ValueError, IndexError):
        return False
    return name not in ("", LOG, MARKER) and "/" not in name and not name.startswith(".")
