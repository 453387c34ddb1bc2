"""Versions of dictionaries: numbers that change whenever a key or value does, as the guards of ``torch.compile`` are told them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from torch._C._dynamo.guards import dict_version
except ImportError:  # a private name of PyTorch: where it is missing, keys and identities of values are compared

    def dict_version(entries: Mapping[Any, Any]) -> Any:  # type: ignore[misc]
        """What a dictionary holds."""
        return tuple(entries), tuple(map(id, entries.values()))


__all__ = ["dict_version"]
