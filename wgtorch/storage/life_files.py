"""A life as files, for a saved world: ``life.json`` and the tensors in ``life.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.checkpoint.io import mapping
from wgtorch.core.checkpoint.manifest import map_header
from wgtorch.core.checkpoint.tensors import map_tensors, write_tensors
from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import MAX_BYTES, check_json, expect, json_bytes, read_json
from wgtorch.core.limits import check_limit
from wgtorch.storage.base import Life
from wgtorch.storage.encoding import decode, encode
from wgtorch.world_runtime.state import State

FORMAT_VERSION = "1.0"


def write_life(life: Life, folder: Path) -> None:
    """Writes a life into a folder.

    Raises:
        StorageError: something in it cannot be stored; names its path.
    """
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
    if tensors:
        write_tensors(folder / "life.safetensors", tensors)
    text = json_bytes(entry, indent=1)
    check_json(text, str(folder / "life.json"), StorageError)
    (folder / "life.json").write_bytes(text)


def read_life(folder: Path) -> Life:
    """A life that lies in a folder of its own: ``life.json``, ``life.safetensors``.

    Raises:
        StorageError: it is damaged, or of another format.
    """
    where = str(folder / "life.json")
    try:
        entry = expect(_read_json(folder / "life.json"), dict, "the entry", where, StorageError)
        if entry["format_version"] != FORMAT_VERSION:
            raise StorageError(f"{where}: format_version {str(entry['format_version'])[:40]!r}; this version reads {FORMAT_VERSION!r}")
        with mapping(False):  # a saved world may be replaced while what was read of it lives
            tensors = map_tensors(*map_header(file)) if (file := folder / "life.safetensors").is_file() else {}
        state = None
        if entry["schema"] is not None:
            slots = expect(entry["slots"], dict, "slots", "the state", StorageError)
            state = State(schema=tuple(entry["schema"]), **{slot: decode(value, tensors) for slot, value in slots.items()})
        content = expect(decode(entry["content"], tensors), dict, "content", where, StorageError)
        passes, stage = (expect(entry[name], int, name, where, StorageError) for name in ("passes", "stage"))
        seed = expect(entry["seed"], (int, type(None)), "seed", where, StorageError)
        life_id = expect(entry.get("id", "0" * 16), str, "id", where, StorageError)  # the first worlds had none
        return Life(content, state, passes, stage, seed, life_id)
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        if isinstance(error, StorageError) and str(folder) in str(error):
            raise
        raise StorageError(f"{folder}: damaged, or not written by a storage: {str(error)[:200]}") from error


def _read_json(path: Path) -> Any:
    try:
        check_limit(path.stat().st_size, MAX_BYTES, "{} bytes", str(path), StorageError)
        return read_json(path.read_bytes(), str(path), StorageError)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
