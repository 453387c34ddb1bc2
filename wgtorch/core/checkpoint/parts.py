"""The blocks of a level, each once however many places use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_MOST_USERS = 100_000  # paths that are listed; levels shared inside shared levels could give any number


@dataclass(slots=True)
class Part:
    """One unique block.

    Args:
        block: the block.
        users: paths it stands at, node ids joined by dots; the first names its files.
        holders: (level, node id) of every place.
    """

    block: Any
    users: list[str] = field(default_factory=list)
    holders: list[tuple[Any, str]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The path that names it."""
        return self.users[0]


def is_level(child: Any) -> bool:
    """True for what holds other executables."""
    return getattr(child, "level", "block") != "block"


def parts_of(root: Any) -> dict[str, Part]:
    """Unique blocks by the first path they stand at; a block alone stands at ``block``."""
    if not is_level(root):
        return {"block": Part(root, ["block"])}
    found: dict[int, Part] = {}
    for count, (path, level, node_id, block) in enumerate(_walk(root, "")):
        part = found.setdefault(id(block), Part(block))
        if count < _MOST_USERS or not part.users:
            part.users.append(path)
        if (level, node_id) not in part.holders[-8:]:
            part.holders.append((level, node_id))
        if count > 10 * _MOST_USERS:
            break
    return {part.path: part for part in found.values()}


def _walk(level: Any, prefix: str) -> Iterator[tuple[str, Any, str, Any]]:
    for node_id, child in level.nodes.items():
        path = f"{prefix}{node_id}"
        if is_level(child):
            yield from _walk(child, f"{path}.")
        else:
            yield path, level, node_id, child


def dotted(path: str) -> str:
    """A path as files and manifests write it: ``creator/paint/t2i`` is ``creator.paint.t2i``."""
    return path.strip("/").replace("/", ".")
