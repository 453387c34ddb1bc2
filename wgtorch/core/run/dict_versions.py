"""Numbers that tell whether many things are still the same: versions of dictionaries, and addresses of objects.

A version changes whenever a key or value does, as the guards of ``torch.compile`` are told it.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, zip_longest
from typing import Any

import numpy as np

try:
    from torch._C._dynamo.guards import dict_version
except ImportError:  # a private name of PyTorch: where it is missing, keys and identities of values are compared

    def dict_version(entries: Mapping[Any, Any]) -> Any:  # type: ignore[misc]
        """What a dictionary holds."""
        return tuple(entries), tuple(map(id, entries.values()))


__all__ = ["Versions", "addresses_of", "attribute_version", "dict_version", "differing"]


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


def addresses_of(values: Iterable[Any]) -> bytes:
    """Addresses of objects: they tell whether the same ones are there, and keep none of them."""
    return array("Q", map(id, values)).tobytes()


class Versions:
    """Versions of many dictionaries, which are read at once.

    CPython 3.11 keeps a dictionary's version at a fixed place in it, so that those of ten thousand are one indexing of memory: 0.02 ms,
    where asking for each takes 0.3 ms. In other versions of Python each is asked for.
    """

    __slots__ = ("_entries", "_places")

    def __init__(self) -> None:
        self._entries: list[dict[Any, Any]] = []
        self._places = _places_of(())

    def __len__(self) -> int:
        return len(self._entries) if _take is None else len(self._places)

    def add(self, entries: Sequence[dict[Any, Any]]) -> None:
        """Reads these as well. Somebody else holds them for as long as they are read."""
        if _take is None:
            self._entries.extend(entries)
        else:
            self._places = np.concatenate([self._places, _places_of(entries)])

    def read(self) -> Any:
        """All of them, to be compared."""
        return list(map(dict_version, self._entries)) if _take is None else _take(self._places).tobytes()


def differing(was: Any, now: Any) -> list[int]:
    """Which dictionaries, in the order in which they came, are not as they were, or came later."""
    if _take is not None:
        was, now = np.frombuffer(was, np.uint64).tolist(), np.frombuffer(now, np.uint64).tolist()
    return [index for index, (old, new) in enumerate(zip_longest(was, now)) if old != new]


def _places_of(entries: Sequence[dict[Any, Any]]) -> Any:
    return (np.fromiter(map(id, entries), np.int64, len(entries)) + _OFFSET - _FIRST) // 8


def _memory() -> Callable[[Any], Any] | None:
    """What reads versions at their places; None where they are not found there in dictionaries of several kinds, and after changes."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 11) or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    size = (1 << 47) // 8 - 2  # nothing is read but what is asked for
    take = np.ctypeslib.as_array((ctypes.c_uint64 * size).from_address(_FIRST)).take
    samples: list[dict[Any, Any]] = [{}, {1: 2}, {"a": 1, "b": 2}, vars(np), dict.fromkeys(range(1000))]
    for change in range(3):
        if take(_places_of(samples)).tolist() != list(map(dict_version, samples)):
            return None
        samples[0][change] = samples[1][1] = change
    return take


_FIRST, _OFFSET = 8, 24
_take = _memory()
