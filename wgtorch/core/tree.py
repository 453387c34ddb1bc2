"""The blocks of a level, each once however many places use it."""

from __future__ import annotations

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
    seen: set[int] = set()
    left = _MOST_USERS

    def walk(level: Any, prefix: str) -> None:
        nonlocal left
        first = id(level) not in seen
        seen.add(id(level))
        for node_id, child in level.nodes.items():
            path = f"{prefix}{node_id}"
            if not first and left <= 0:
                return  # everything below is known by its first path
            if is_level(child):
                walk(child, f"{path}.")
                continue
            part = found.setdefault(id(child), Part(child))
            part.users.append(path)
            left -= 1
            if first:
                part.holders.append((level, node_id))

    walk(root, "")
    return {part.path: part for part in found.values()}


def levels_of(root: Any) -> list[Any]:
    """All levels of a tree, each once."""
    found: dict[int, Any] = {}

    def walk(level: Any) -> None:
        if id(level) not in found:
            found[id(level)] = level
            for child in level.nodes.values():
                if is_level(child):
                    walk(child)

    if is_level(root):
        walk(root)
    return list(found.values())


def dotted(path: str) -> str:
    """A path as files and manifests write it: ``creator/paint/t2i`` is ``creator.paint.t2i``."""
    return path.strip("/").replace("/", ".")
