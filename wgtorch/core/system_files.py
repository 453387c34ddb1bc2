"""Files that systems leave in folders that people look at or copy."""

from __future__ import annotations

_NAMES = frozenset((".DS_Store", ".localized", ".directory", "Thumbs.db", "ehthumbs.db", "desktop.ini"))


def is_of_system(name: str) -> bool:
    """True for a file that nobody put there: of macOS, Windows or a desktop, and the twin (``._a.yaml``) that macOS writes on other disks.

    Folders of ours are read as if it was not there, and it goes with what is replaced.
    """
    return name in _NAMES or name.startswith("._")
