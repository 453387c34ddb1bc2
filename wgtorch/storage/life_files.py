"""A life as files, for a saved world: ``life.json`` and the tensors in ``life.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import check_json
from wgtorch.storage.base import Life
from wgtorch.storage.encoding import encode
from wgtorch.storage.version_1 import FORMAT_VERSION, read_life

__all__ = ["read_life", "write_life"]


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
    try:
        text = json.dumps(entry, indent=1, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, as cut text may end with: its escape can be written
        text = json.dumps(entry, indent=1).encode()
    check_json(text, str(folder / "life.json"), StorageError)
    (folder / "life.json").write_bytes(text)
