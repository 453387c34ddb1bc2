"""Places and parameters of a target by path, and the patterns that configs choose them with.

A pattern is a path such as ``creator/paint/t2i/backbone``, with ``*`` for anything; it means that place and all below it. After
a colon follows a parameter's name inside a block: ``*/backbone:blocks.0.*``, or ``:blocks.0.*`` where the target is a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from wgtorch.core.block import Block
from wgtorch.core.errors import TrainingError, suggest
from wgtorch.core.tree import is_level, walk


def blocks_at(target: Block) -> Iterator[tuple[str, Block]]:
    """Blocks with their paths, at every place; see :func:`wgtorch.core.tree.walk`."""
    return ((path, child) for path, child, _ in walk(target) if not is_level(child))


def names_of(target: Block) -> dict[int, list[str]]:
    """``path:name`` of every parameter by its ``id``; one that stands at several places has several."""
    found: dict[int, list[str]] = {}
    for path, block in blocks_at(target):
        for name, parameter in block.named_parameters():
            found.setdefault(id(parameter), []).append(f"{path}:{name}")
    return found


def patterns_of(given: Sequence[str] | str | None, where: str = "patterns") -> list[str]:
    """One pattern, or several, as a list.

    Raises:
        TrainingError: one is no text.
    """
    found = [given] if isinstance(given, str) else list(given or ())
    for pattern in found:
        if not isinstance(pattern, str):
            raise TrainingError(f"{where}: found {pattern!r}; expected texts, as '*backbone'")
    return found


def matches(pattern: str, name: str) -> bool:
    """True when a pattern means a place (``a/b``) or a parameter (``a/b:weight``)."""
    path, _, parameter = name.partition(":")
    wanted, colon, inside = pattern.partition(":")
    if colon and not fnmatchcase(parameter, inside):
        return False
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[:end]), wanted) for end in range(1, len(parts) + 1))


def check_patterns(target: Block, patterns: Sequence[str], where: str) -> None:
    """Refuses patterns that mean nothing.

    Raises:
        TrainingError: one of them means nothing in this target.
    """
    paths = [path for path, *_ in walk(target)]
    names = [name for each in names_of(target).values() for name in each]
    for pattern in patterns:
        known = names if ":" in pattern else paths
        if not any(matches(pattern, name) for name in known):
            raise TrainingError(
                f"{where}: {pattern!r} means nothing in {target.block_id}; {suggest(pattern, [path for path in known if path])}"
            )


def freeze(target: Block, patterns: Sequence[str], where: str = "freeze") -> None:
    """Sets places not to train, and parameters (patterns with a colon) not to take gradients.

    Raises:
        TrainingError: a pattern means nothing; nothing has changed then.
    """
    check_patterns(target, patterns, where)
    for pattern in patterns:
        if ":" in pattern or not is_level(target):
            _freeze_parameters(target, pattern)
            continue
        for path, _, level in list(walk(target)):
            if matches(pattern, path):
                level.set_trainable(path.rpartition("/")[2], False)


def train_only(target: Block, patterns: Sequence[str], where: str = "train_only") -> None:
    """Sets every place and parameter that no pattern means not to train.

    Raises:
        TrainingError: a pattern means nothing; nothing has changed then.
    """
    check_patterns(target, patterns, where)
    for path, child, level in list(walk(target)):
        holds_weights = not is_level(child) and any(True for _ in child.parameters())
        wanted = [pattern for pattern in patterns if matches(pattern.partition(":")[0], path)]
        if level is not None and holds_weights and not wanted:
            level.set_trainable(path.rpartition("/")[2], False)
    if any(":" in pattern for pattern in patterns):
        names = names_of(target)
        for parameter in target.parameters():
            if not any(matches(pattern, name) for pattern in patterns for name in names.get(id(parameter), ())):
                parameter.requires_grad_(False)


def _freeze_parameters(target: Block, pattern: str) -> None:
    names = names_of(target)
    for parameter in target.parameters():
        if any(matches(pattern, name) for name in names.get(id(parameter), ())):
            parameter.requires_grad_(False)
