"""Outputs of I/O-bound nodes, kept so that a retried step does not call them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import WgtorchError
from wgtorch.core.port import MISSING


class ResultCache:
    """Results of calls by place, iteration and sample, each with what it was called with.

    A result is given again only to the same child, called with the same values: what was edited after the failure is
    asked for anew. May be used from several threads.

    Args:
        on_keep: told of every result when it comes, as plain data and tensors for :meth:`take` in another process.
    """

    def __init__(self, on_keep: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._results: dict[tuple[Any, ...], tuple[Any, dict[str, Any], Any]] = {}
        self._on_keep = on_keep

    def find(self, key: tuple[Any, ...], child: object, values: Mapping[str, Any]) -> Any:
        """The result of this call, or MISSING."""
        known = self._results.get(key)
        if known is None or not is_same(known[1], values):
            return MISSING
        is_child = known[0] == _described(child) if isinstance(known[0], str) else known[0] is child
        return known[2] if is_child else MISSING

    def keep(self, key: tuple[Any, ...], child: object, values: Mapping[str, Any], result: Any) -> None:
        """Takes a result."""
        self._results[key] = (child, dict(values), result)
        if self._on_keep is not None and (described := _described(child)) is not None:
            self._on_keep({"key": key, "child": described, "values": dict(values), "result": result})

    def take(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Takes what was told elsewhere. A result is given again to a child of the same config."""
        for entry in entries:
            self._results.setdefault(entry["key"], (entry["child"], entry["values"], entry["result"]))

    def __len__(self) -> int:
        return len(self._results)

    def __bool__(self) -> bool:
        return True


def _described(child: object) -> str | None:
    """What tells a child's config from another; None where no config can name it, so that another process has none like it."""
    try:
        config = getattr(child, "to_config", lambda: repr(type(child)))()
    except WgtorchError:
        return None
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=repr).encode()).hexdigest()


def is_same(first: Any, second: Any) -> bool:
    """True for equal values of equal types."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(is_same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(is_same, first, second))
    try:
        return bool(first == second)
    except Exception:  # whatever a foreign class does when compared, it is not known to be the same
        return False
