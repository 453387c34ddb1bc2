"""Numbers that tell whether many things are still the same: versions of dictionaries, and addresses of objects.

A version changes whenever a key or value does, as the guards of ``torch.compile`` are told it.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

try:
    from torch._C._dynamo.guards import dict_version
except ImportError:  # a private name of PyTorch: where it is missing, keys and identities of values are compared

    def dict_version(entries: Mapping[Any, Any]) -> Any:  # type: ignore[misc]
        """What a dictionary holds."""
        return tuple(entries), tuple(map(id, entries.values()))


__all__ = ["addresses_of", "attribute_version", "dict_version"]


def _tells_of_attributes() -> bool:
    """False in a Python that keeps values of attributes beside the dictionary which shows them, and says nothing to it: 3.13."""
    sample = type("_Sample", (), {})()
    sample.value = 1
    before = dict_version(vars(sample))
    sample.value = 2
    return bool(dict_version(vars(sample)) != before)


_never_again = count()
attribute_version: Callable[[dict[Any, Any]], Any] = dict_version if _tells_of_attributes() else lambda entries: next(_never_again)
"""The version of an object's attributes, another one each time where nothing tells whether they changed."""


def _addresses_in_memory(values: list[Any]) -> bytes:
    place = ctypes.c_void_p.from_address(id(values) + tuple.__basicsize__).value  # after what lists and tuples begin with
    return ctypes.string_at(place, len(values) * ctypes.sizeof(ctypes.c_void_p)) if place is not None else b""


def _addresses_by_id(values: list[Any]) -> bytes:
    return array("Q", map(id, values)).tobytes()


def _are_in_memory() -> bool:
    """False in a Python whose lists are laid out otherwise."""
    sample = [None, int, "", 3]
    is_likely = tuple.__basicsize__ + 2 * ctypes.sizeof(ctypes.c_void_p) == list.__basicsize__ and type(id(sample)) is int
    return is_likely and _addresses_in_memory(sample) == _addresses_by_id(sample)


addresses_of = _addresses_in_memory if _are_in_memory() else _addresses_by_id
"""Addresses of all items of a list, as bytes: they tell at the speed of memory whether the same objects are in it."""
