"""What an update changed of a world's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import is_
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
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and _same_items(before, after[: len(before)]):
        return [Change(path, "grew", "", _words(list(after[len(before) :])))]
    if isinstance(before, (list, tuple)) and type(before) is type(after) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [found for index, pair in pairs for found in changes(*pair, f"{path}.{index}" if path else str(index))]
    return [Change(path, "changed", _words(before), _words(after))]


def first_difference(before: Any, after: Any, path: str = "") -> str | None:
    """Where two values differ first, bit for bit and type for type; None where they do not."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.dtype != after.dtype or before.shape != after.shape:
            return f"{path}: {describe(before)}, and again {describe(after)}"
        same = torch.equal(_bits(before), _bits(after))
        return None if same else f"{path}: other numbers in {int((_bits(before) != _bits(after)).any(-1).sum())} of {before.numel()} places"
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if list(before) != list(after):
            return f"{path or 'fields'}: {list(before)}, and again {list(after)}"
        return next(
            (found for key in before if (found := first_difference(before[key], after[key], f"{path}.{key}" if path else key))), None
        )
    if type(before) is not type(after):
        return f"{path}: {describe(before)}, and again {describe(after)}"
    if isinstance(before, (list, tuple)):
        if len(before) != len(after):
            return f"{path}: {len(before)} items, and again {len(after)}"
        pairs = enumerate(zip(before, after, strict=True))
        return next((found for index, pair in pairs if (found := first_difference(*pair, f"{path}.{index}"))), None)
    if repr(before) == repr(after) if isinstance(before, float) else before == after:
        return None
    return f"{path}: {_words(before)!r}, and again {_words(after)!r}"


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of each element, [N, itemsize]: NaN equals itself, and 0 differs from -0."""
    return tensor.detach().cpu().contiguous().view(-1, 1).view(torch.uint8)


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return isinstance(first, Tensor) and isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return _same_items(first, second)
    return type(first) is type(second) and bool(first == second)


def _same_items(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Told at once where the items are the very same ones: a past that goes on is long, and shares them."""
    return len(first) == len(second) and (all(map(is_, first, second)) or all(map(_same, first, second)))


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
