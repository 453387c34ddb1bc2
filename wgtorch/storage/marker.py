"""The marker of a storage: the file that says that a folder or address is one, its id, and those it was forked from."""

from __future__ import annotations

import re
import secrets
from typing import Any

from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import read_json

MARKER = "wgtorch-storage.json"
MARKER_FORMAT = "wgtorch-storage"
FORMAT_VERSION = "2.0"
LOG = "log"
"""The folder that the files of the log are in."""


def parse_marker(raw: bytes, where: str) -> dict[str, Any]:
    """What a marker says.

    Raises:
        StorageError: it is none, or of a version that is not known here.
    """
    marker: Any = read_json(raw, where, StorageError, max_bytes=1 << 20)
    is_ours = isinstance(marker, dict) and marker.get("format") == MARKER_FORMAT and re.fullmatch("[0-9a-f]{16}", str(marker.get("id")))
    if not is_ours:
        raise StorageError(f"{where}: is no marker of a storage; expected format {MARKER_FORMAT!r} and an id. Choose another state_dir")
    if marker.get("format_version") != FORMAT_VERSION:
        raise StorageError(f"{where}: format_version {str(marker.get('format_version'))[:40]!r}; this version reads {FORMAT_VERSION!r}")
    ancestors = marker.setdefault("ancestors", [])
    if not isinstance(ancestors, list) or not all(isinstance(entry, str) and re.fullmatch("[0-9a-f]{16}", entry) for entry in ancestors):
        raise StorageError(f"{where}: ancestors is {str(ancestors)[:60]}; expected a list of ids")
    return dict(marker)


def new_marker() -> dict[str, Any]:
    """What a new storage's marker holds."""
    return {"format": MARKER_FORMAT, "format_version": FORMAT_VERSION, "id": secrets.token_hex(8), "ancestors": []}
