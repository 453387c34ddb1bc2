"""Inputs of several items put together for one call of a block that takes several samples, and its outputs taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.run.rng import Key


def can_join(child: Any, first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True when one call of a block can take the inputs of both."""
    if first.keys() != other.keys():
        return False
    pairs = [(first[name], other[name]) for name in first]
    if child.batched:
        ports = child.get_input_spec()
        return all(_is_equal(*pair) for name, pair in zip(first, pairs, strict=True) if ports[name].dtype == "number")
    return all(_can_stack(*pair) for pair in pairs) and _rows(first) is not None and _rows(first) == _rows(other)


def _can_stack(first: Any, other: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(other, Tensor):
        if first.dim() and other.dim():
            return first.shape == other.shape and first.dtype == other.dtype and first.device == other.device
        return _is_equal(first, other)
    if type(first) is not type(other):
        return False
    if isinstance(first, (list, tuple)):
        return len(first) == len(other) and all(map(_can_stack, first, other))
    if isinstance(first, Mapping):
        return first.keys() == other.keys() and all(_can_stack(first[key], other[key]) for key in first)
    return _is_equal(first, other)


def _is_equal(first: Any, other: Any) -> bool:
    if first is other:
        return True
    if isinstance(first, Tensor) or isinstance(other, Tensor):
        return isinstance(first, Tensor) and isinstance(other, Tensor) and first.shape == other.shape and torch.equal(first, other)
    try:
        return type(first) is type(other) and bool(first == other)
    except Exception:  # whatever a foreign class does when compared, it is not known to be the same
        return False


def _rows(values: Any) -> int | None:
    """Rows of the tensors among the inputs of one item; None where they differ, or there are none."""
    found = {tensor.shape[0] for tensor in _tensors(values)}
    return found.pop() if len(found) == 1 else None


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.dim() else []
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def stacked(items: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[int]]:
    """Inputs whose rows are those of all items one after the other, and how many each has."""
    return _concatenated(items), [_rows(values) or 0 for values in items]


def _concatenated(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values)) if first.dim() else first
    if isinstance(first, Mapping):
        return {key: _concatenated([value[key] for value in values]) for key in first}
    if isinstance(first, (list, tuple)):
        joined = [_concatenated(each) for each in zip(*values, strict=True)]
        return joined if isinstance(first, list) else type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return first


def rows_of(outputs: Any, sizes: Sequence[int]) -> list[Any]:
    """Each item's rows of what a joined call gave.

    Raises:
        PortError: it gave other rows than it was given.
    """
    if isinstance(outputs, Tensor) and outputs.dim():
        if outputs.shape[0] != sum(sizes):
            raise PortError(f"a call for {sum(sizes)} rows gave {describe(outputs)}; expected as many rows")
        return list(outputs.split(list(sizes)))
    if isinstance(outputs, Mapping):
        parts = {key: rows_of(value, sizes) for key, value in outputs.items()}
        return [{key: part[index] for key, part in parts.items()} for index in range(len(sizes))]
    if isinstance(outputs, list) and len(outputs) == sum(sizes) and not _tensors(outputs):  # one of each sample, such as texts
        return [outputs[sum(sizes[:index]) : sum(sizes[: index + 1])] for index in range(len(sizes))]
    if isinstance(outputs, (list, tuple)):
        columns = [rows_of(value, sizes) for value in outputs]
        rows = [[column[index] for column in columns] for index in range(len(sizes))]
        made: Any = list if isinstance(outputs, list) else (lambda row: type(outputs)(*row)) if hasattr(outputs, "_fields") else tuple
        return [made(row) for row in rows]
    return [outputs] * len(sizes)


def listed(items: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[int]]:
    """Inputs with a list of all items' values where they differ."""
    differ = [name for name in items[0] if not all(_is_equal(items[0][name], values[name]) for values in items[1:])]
    if not differ:
        raise PortError("the items' inputs are the same, so nothing says which of them would be a list")
    if any(isinstance(values[name], (list, tuple)) for values in items for name in differ):
        raise PortError("an item brings a list already")
    return {name: [values[name] for values in items] if name in differ else value for name, value in items[0].items()}, [1] * len(items)


def items_of(outputs: Mapping[str, Any], count: int, where: str) -> list[dict[str, Any]]:
    """Each item's outputs of a call for a whole list; a tensor [count, ...] is cut into [1, ...].

    Raises:
        PortError: it gave another number of them.
    """
    columns = {name: list(value.split(1)) if isinstance(value, Tensor) else value for name, value in outputs.items()}
    for name, value in columns.items():
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise PortError(f"{where}.{name}: a batched call over {count} items gave {describe(value)}; expected one output for each item")
    return [{name: value[index] for name, value in columns.items()} for index in range(count)]


def joined_key(keys: Sequence[Key | None]) -> Key | None:
    """What the draws of a joined call are keyed by: each item's own key, or all of an item that has one for each sample."""
    if keys[0] is None:
        return None
    return tuple([part for key in keys for part in (key if isinstance(key, tuple) else (key,))])  # type: ignore[misc]
