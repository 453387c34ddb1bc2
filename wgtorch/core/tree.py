"""The tree of levels and blocks: the one traversal that everything else uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_REPEATS = 100_000  # levels shared inside shared levels could give any number


def is_level(child: Any) -> bool:
    """True for what holds other executables."""
    return getattr(child, "level", "block") != "block"


def walk(root: Any, *, repeats: int = _REPEATS) -> Iterator[tuple[str, Any, Any]]:
    """Every place below a root, depth first in the order of nodes: (path, child, the level it stands in).

    A block is its own only place: ``("", block, None)``.

    Args:
        root: a level or a block.
        repeats: what lies in a level that stands at several places comes again for each of them, at most so many times in
            all; 0 gives the inside of every level once, under the first path that leads to it.
    """
    if not is_level(root):
        yield "", root, None
        return
    seen = {id(root)}
    stack = [(root, "", iter(root.nodes.items()), True)]
    while stack:
        level, prefix, children, is_first = stack[-1]
        for node_id, child in children:
            if not is_first:
                if repeats <= 0:
                    stack.pop()
                    break
                repeats -= 1
            yield f"{prefix}{node_id}", child, level
            if is_level(child) and (id(child) not in seen or repeats > 0):
                stack.append((child, f"{prefix}{node_id}/", iter(child.nodes.items()), id(child) not in seen))
                seen.add(id(child))
                break
        else:
            stack.pop()


def levels(root: Any) -> list[Any]:
    """The root and all levels below, each once; none for a block."""
    if not is_level(root):
        return []
    return list({id(level): level for level in (root, *(child for _, child, _ in walk(root, repeats=0) if is_level(child)))}.values())


@dataclass(slots=True)
class UniqueBlock:
    """A block, with the places it stands at.

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


def unique_blocks(root: Any) -> dict[str, UniqueBlock]:
    """Blocks below, each once, by the first path they stand at; a block alone stands at ``block``."""
    if not is_level(root):
        return {"block": UniqueBlock(root, ["block"])}
    found: dict[int, UniqueBlock] = {}
    held: set[tuple[int, str]] = set()
    for path, child, parent in walk(root):
        if not is_level(child):
            unique = found.setdefault(id(child), UniqueBlock(child))
            unique.users.append(dotted(path))
            node_id = path.rpartition("/")[2]
            if (id(parent), node_id) not in held:
                held.add((id(parent), node_id))
                unique.holders.append((parent, node_id))
    return {unique.path: unique for unique in found.values()}


def paths_below(paths: Iterable[str], node_id: str) -> tuple[str, ...]:
    """What of some paths leads below a node, as it is written there: of ``a/b`` and ``c``, below ``a``, ``b``."""
    return tuple(path[len(node_id) + 1 :] for path in paths if path.startswith(f"{node_id}/"))


def dotted(path: str) -> str:
    """A path as files and manifests write it: ``creator/paint/t2i`` is ``creator.paint.t2i``."""
    return path.strip("/").replace("/", ".")


def split_path(name: str) -> tuple[tuple[str, ...], str]:
    """The path and the port of what users write: ``first/a.y`` is (("first", "a"), "y")."""
    path, _, port = name.rpartition(".")
    return tuple(part for part in path.split("/") if part), port
