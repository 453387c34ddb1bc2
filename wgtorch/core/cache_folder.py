"""Where files are kept that can be made again: converted models, what was learnt of servers."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "WGTORCH_CACHE"


def cache_folder() -> Path:
    """The user's cache: what ``WGTORCH_CACHE`` names, else ``wgtorch`` under ``XDG_CACHE_HOME`` or ``~/.cache``."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "wgtorch"
