"""Values as JSON with the tensors apart: what files and messages hold of what flows through ports."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import StorageError
from wgtorch.core.kinds import describe
from wgtorch.core.registry import Registry

_MARK = "$"  # starts the keys of our own entries; a user's mapping with such a key is written as "$mapping"


@dataclass(frozen=True)
class StoredType:
    """A class of values that is stored beside text, numbers, tensors, lists and mappings.

    Args:
        name: what files call it.
        type: the class.
        to_plain: a value as what can be stored; what follows from the rest is left out.
        from_plain: the value again.
    """

    name: str
    type: type[Any]
    to_plain: Callable[[Any], Any]
    from_plain: Callable[[Any], Any]


StoredTypes: Registry[StoredType] = Registry("type of stored values", group="wgtorch.stored_types")
_by_class: dict[type[Any], StoredType] = {}


def register_stored_type(name: str, type: type[Any], to_plain: Callable[[Any], Any], from_plain: Callable[[Any], Any]) -> None:
    """Says how values of a class are stored: in a paused run's file, a cache's folder, on the wire.

    Example:
        >>> register_stored_type("demo/span", Span, lambda span: [span.start, span.end], lambda plain: Span(*plain))
    """
    entry = StoredType(name, type, to_plain, from_plain)
    StoredTypes.register(name, entry)
    _by_class[type] = entry


def stored_type_of(value: Any) -> StoredType | None:
    """How a value of a registered class is stored."""
    return _by_class.get(type(value))


def encode(value: Any, path: str, tensors: dict[str, Tensor], *, keep: Callable[[Tensor, str], Tensor] | None = None) -> Any:
    """A value as JSON data; tensors are put into ``tensors`` under their path.

    Args:
        value: what is to be encoded.
        path: where it stands, for messages and for the names of tensors.
        tensors: where tensors go.
        keep: what becomes of each tensor, given its path; a copy on the CPU when left out.

    Raises:
        StorageError: the value cannot be stored; names its path.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"$number": repr(float(value))}  # JSON has no word for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        key = path
        while key in tensors:  # {"a.b": x, "a": {"b": y}} are two values at one path
            key += "'"
        tensors[key] = (keep or _own_copy)(value, path)
        return {"$tensor": key}
    if (stored := stored_type_of(value)) is not None:
        return {"$value": [stored.name, encode(stored.to_plain(value), path, tensors, keep=keep)]}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise StorageError(f"{path}: key {key!r} is {type(key).__name__}; expected str")
        encoded = {key: encode(item, f"{path}.{key}", tensors, keep=keep) for key, item in value.items()}
        return {"$mapping": encoded} if any(key.startswith(_MARK) for key in encoded) else encoded
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{path}.{index}", tensors, keep=keep) for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise StorageError(f"{path}: {describe(value)} cannot be stored; expected text, numbers, tensors, and lists or mappings of these")


def _own_copy(value: Tensor, path: str) -> Tensor:
    """The tensor on the CPU in memory of its own: safetensors refuses two tensors that share some."""
    if value.layout is not torch.strided or value.is_meta or not _has_format(value.dtype):
        what = f"{describe(value)}, {str(value.layout).removeprefix('torch.')} on {value.device.type},"
        raise StorageError(f"{path}: {what} cannot be stored; expected a dense tensor with data, of a dtype that safetensors has")
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


@functools.cache
def _has_format(dtype: torch.dtype) -> bool:
    from safetensors.torch import save

    try:
        save({"": torch.empty(0, dtype=dtype)})
    except (KeyError, RuntimeError, ValueError, TypeError):
        return False
    return True


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`encode` was given.

    Raises:
        StorageError: a tensor is missing, or a value is of a type that nothing registers.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$tensor"}:
        try:
            return tensors[value["$tensor"]]
        except KeyError:
            raise StorageError(f"the tensor {value['$tensor']!r} is missing") from None
    if set(value) == {"$number"}:
        return float(value["$number"])
    if set(value) == {"$tuple"}:
        return tuple(decode(item, tensors) for item in value["$tuple"])
    if set(value) == {"$value"}:
        name, plain = value["$value"]
        if name not in StoredTypes:
            raise StorageError(f"a value of type {name!r}; expected one of {', '.join(StoredTypes.names())}")
        return StoredTypes.get(name).from_plain(decode(plain, tensors))
    if set(value) == {"$mapping"}:
        value = value["$mapping"]
    return {key: decode(item, tensors) for key, item in value.items()}
