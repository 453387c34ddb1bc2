"""Inputs of several items put together for one call of a block that takes several samples, and its outputs taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.run.result_cache import is_same
from wgtorch.core.run.rng import Key


def can_join(child: Any, first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True when one call of a block can take the inputs of both."""
    if first.keys() != other.keys():
        return False
    if child.batched:
        ports = child.get_input_spec()
        return all(_is_equal(first[name], other[name]) for name in first if ports[name].dtype == "number")
    if not any(map(_is_container, (*first.values(), *other.values()))):
        leaves, others = list(first.values()), [other[name] for name in first]
    else:
        (leaves, tree), (others, other_tree) = tree_flatten(_opened(first)), tree_flatten(_opened({name: other[name] for name in first}))
        if tree != other_tree:
            return False
    rows = {leaf.shape[0] for leaf in (*leaves, *others) if _has_rows(leaf)}
    return len(rows) == 1 and all(map(_can_stack, leaves, others))


def _can_stack(first: Any, other: Any) -> bool:
    if _has_rows(first) and _has_rows(other):
        return bool(first.shape == other.shape and first.dtype == other.dtype and first.device == other.device)
    return _is_equal(first, other)


def _is_equal(first: Any, other: Any) -> bool:
    return first is other or is_same(first, other)


def _is_container(value: Any) -> bool:
    """True for what may hold other values."""
    return not isinstance(value, (Tensor, str, int, float, type(None)))


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _opened(value: Any) -> Any:
    """A value with dicts, lists and tuples in place of those of classes that PyTorch's pytree takes for one value, as ``UserDict``."""

    if type(value) is dict and not any(map(_is_container, value.values())):
        return value

    def opened(leaf: Any) -> Any:
        form = dict if isinstance(leaf, Mapping) else list if isinstance(leaf, list) else tuple if isinstance(leaf, tuple) else None
        return leaf if form is None or isinstance(leaf, torch.Size) else _opened(form(leaf))

    return tree_map(opened, value)


def stacked(items: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[int]]:
    """Inputs whose rows are those of all items one after the other, and how many each has."""
    flat = [tree_flatten(_opened(values)) for values in items]
    columns = zip(*[leaves for leaves, _ in flat], strict=True)
    joined = [torch.cat(column) if _has_rows(column[0]) else column[0] for column in columns]
    return tree_unflatten(joined, flat[0][1]), [next(leaf.shape[0] for leaf in leaves if _has_rows(leaf)) for leaves, _ in flat]


def rows_of(outputs: Any, sizes: Sequence[int]) -> list[Any]:
    """Each item's rows of what a joined call gave.

    Raises:
        PortError: it gave other rows than it was given.
    """
    total, ends = sum(sizes), list(accumulate(sizes))

    def is_of_samples(value: Any) -> bool:
        """True for a list with one of each sample, such as texts."""
        return isinstance(value, list) and len(value) == total and not any(map(_has_rows, tree_leaves(value)))

    def cut(value: Any) -> list[Any]:
        if is_of_samples(value):
            return [value[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        if not _has_rows(value):
            return [value] * len(sizes)
        if value.shape[0] != total:
            raise PortError(f"a call for {total} rows gave {describe(value)}; expected as many rows")
        return list(value.split(list(sizes)))

    leaves, tree = tree_flatten(_opened(outputs), is_leaf=is_of_samples)
    columns = [cut(leaf) for leaf in leaves]
    return [tree_unflatten([column[index] for column in columns], tree) for index in range(len(sizes))]


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
