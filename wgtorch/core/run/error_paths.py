"""Where in a run something failed: the node's path, written into the exception on its way out."""

from __future__ import annotations


def locate(error: BaseException, node_id: str, *, below: bool = False) -> None:
    """Writes the path of the failing node into the exception's notes, one level further out each time.

    Args:
        error: what was raised.
        node_id: the node it came out of.
        below: the node is a level, so the path of what failed inside it is there already.
    """
    inner = getattr(error, "node_path", None) if below else None
    _note_path(error, f"{node_id}/{inner}" if inner else node_id, "")


def _note_path(error: BaseException, path: str, root: str) -> None:
    try:
        error.node_path = path  # type: ignore[attr-defined]
    except AttributeError:  # an exception with __slots__
        return
    notes = [note for note in getattr(error, "__notes__", []) if not note.startswith("raised in node ")]
    error.__notes__ = [*notes, f"raised in node {path}{f' of {root}' if root else ''}"]


def name_root(error: Exception, root: str) -> None:
    """Names the level that a run started at beside the path of the failing node."""
    if hasattr(error, "node_path"):
        _note_path(error, error.node_path, root)
