"""What an update changed of a world's content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.kinds import describe

_LONGEST = 600  # letters of a value


@dataclass(frozen=True, slots=True)
class Change:
    """One field that is not what it was.

    Args:
        path: of the field, by dots.
        kind: ``added``, ``removed``, ``grew`` (at its end) or ``changed``.
        before: what it was, in words; empty where it grew or was not there.
        after: what it is, or by how much it grew.
    """

    path: str
    kind: str
    before: str
    after: str


def changes(before: Any, after: Any, path: str = "") -> list[Change]:
    """Every field that differs, in the order of the content after, and then what is gone."""
    if _same(before, after):
        return []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for key, value in after.items():
            inner = f"{path}.{key}" if path else str(key)
            found += changes(before[key], value, inner) if key in before else [Change(inner, "added", "", _words(value))]
        gone = [key for key in before if key not in after]
        return found + [Change(f"{path}.{key}" if path else str(key), "removed", _words(before[key]), "") for key in gone]
    if isinstance(before, str) and isinstance(after, str) and before and after.startswith(before):
        return [Change(path, "grew", "", _words(after[len(before) :].strip()))]
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and _same(list(before), list(after[: len(before)])):
        return [Change(path, "grew", "", _words(list(after[len(before) :])))]
    return [Change(path, "changed", _words(before), _words(after))]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return isinstance(first, Tensor) and isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and bool(first == second)


def _words(value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, (list, tuple)):
        text = "\n".join(_words(item) for item in value)
    elif isinstance(value, Mapping):
        text = "; ".join(f"{key}: {_words(item)}" for key, item in value.items())
    else:
        text = describe(value) if isinstance(value, Tensor) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
