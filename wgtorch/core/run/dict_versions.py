"""Numbers that tell whether many things are still the same: versions of dictionaries, and addresses of objects.

A version changes whenever a key or value does, as the guards of ``torch.compile`` are told it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
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


def addresses_of(values: Iterable[Any]) -> bytes:
    """Addresses of objects: they tell whether the same ones are there, and keep none of them."""
    return array("Q", map(id, values)).tobytes()
