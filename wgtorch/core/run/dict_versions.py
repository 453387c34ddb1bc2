"""Numbers that tell whether many things are still the same: versions of dictionaries, and addresses of objects.

A version changes whenever a key or value does, as the guards of ``torch.compile`` are told it.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

try:
    from torch._C._dynamo.guards import dict_version
except ImportError:  # a private name of PyTorch: where it is missing, keys and identities of values are compared

    def dict_version(entries: Mapping[Any, Any]) -> Any:  # type: ignore[misc]
        """What a dictionary holds."""
        return tuple(entries), tuple(map(id, entries.values()))


__all__ = ["WatchedDicts", "addresses_of", "attribute_version", "dict_version"]

_VERSION = ctypes.c_char * 8
_VERSION_AT = 24
"""Where a dictionary of CPython 3.11 has its version."""


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


def _lies_there(entries: dict[Any, Any]) -> bool:
    return bytes(_VERSION.from_address(id(entries) + _VERSION_AT)) == dict_version(entries).to_bytes(8, "little")


def _is_readable() -> bool:
    """True where versions of dictionaries are numbers that can be read where they lie."""
    sample: dict[Any, Any] = {}
    before = dict_version(sample)
    if sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 11) or type(before) is not int or not _lies_there(sample):
        return False
    sample["key"] = 1
    return dict_version(sample) != before and _lies_there(sample)


class WatchedDicts:
    """Thousands of dictionaries, whose versions are read together."""

    def __init__(self) -> None:
        self._all: list[dict[Any, Any]] = []
        self._places: list[Any] | None = [] if _is_readable() else None

    def append(self, entries: dict[Any, Any]) -> None:
        """One more, which is kept alive."""
        self._all.append(entries)
        if self._places is not None:
            self._places.append(_VERSION.from_address(id(entries) + _VERSION_AT))

    def versions(self) -> Sequence[Any]:
        """What is another sequence once one of them has changed; by their order, the version of each, see :meth:`each`."""
        return list(map(dict_version, self._all)) if self._places is None else b"".join(self._places)

    @staticmethod
    def each(versions: Sequence[Any]) -> Sequence[Any]:
        """The version of each."""
        return memoryview(versions).cast("Q") if isinstance(versions, bytes) else versions
