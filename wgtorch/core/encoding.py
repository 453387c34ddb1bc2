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

_ALIGNED = 64
"""Bytes that memory of PyTorch's own begins at a multiple of."""
_SPREAD = 16
"""How many times its own size a tensor may be spread over for its strides to be kept."""
MAX_DEPTH = 200
"""Lists and mappings inside each other that are stored."""
_MARKS: Mapping[str, type] = {"$tensor": str, "$number": str, "$tuple": list, "$mapping": dict, "$value": list}
_LEAVES = frozenset((type(None), bool, int, str))  # what is JSON as it is, at one look
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


class StoredValue:
    """A value of a registered class as what is stored of it: its name in files, and what it is made of."""

    __slots__ = ("name", "plain")

    def __init__(self, name: str, plain: Any) -> None:
        self.name, self.plain = name, plain


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

    def put(tensor: Tensor, place: str) -> str:
        key = place
        while key in tensors:  # {"a.b": x, "a": {"b": y}} are two values at one path
            key += "'"
        tensors[key] = (keep or _own_copy)(tensor, place)
        return key

    return encode_with(value, path, Tensor, put)


def encode_with(value: Any, path: str, leaf: type, put: Callable[[Any, str], str], depth: int = 0) -> Any:
    """A value as JSON data; ``put`` is given what is a ``leaf``, with its path, and says under which name it is kept."""
    if type(value) in _LEAVES:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return {"$number": repr(float(value))}  # JSON has no word for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, leaf):
        return {"$tensor": put(value, path)}
    if (stored := stored_type_of(value)) is not None:
        value = StoredValue(stored.name, stored.to_plain(value))
    if isinstance(value, StoredValue):
        return {"$value": [value.name, encode_with(value.plain, path, leaf, put, depth + 1)]}
    if depth > MAX_DEPTH:
        raise StorageError(f"{path[:200]}...: lists and mappings lie more than {MAX_DEPTH} deep in each other; store it flatter")
    if isinstance(value, Mapping):
        is_marked = False
        for key in value:
            if not isinstance(key, str):
                raise StorageError(f"{path}: key {key!r} is {type(key).__name__}; expected str")
            is_marked = is_marked or key[:1] == _MARK
        encoded = {
            key: item if type(item) in _LEAVES else encode_with(item, f"{path}.{key}", leaf, put, depth + 1) for key, item in value.items()
        }
        return {"$mapping": encoded} if is_marked else encoded
    if isinstance(value, (list, tuple)):
        items = [
            item if type(item) in _LEAVES else encode_with(item, f"{path}.{place}", leaf, put, depth + 1)
            for place, item in enumerate(value)
        ]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise cannot_be_stored(value, path)


def cannot_be_stored(value: Any, path: str) -> StorageError:
    """The error for a value of a kind that no storage keeps."""
    return StorageError(f"{path}: {describe(value)} cannot be stored; expected text, numbers, tensors, and lists or mappings of these")


def check_tensor(value: Tensor, path: str) -> None:
    """Refuses a tensor that safetensors has no form for.

    Raises:
        StorageError: it is sparse, quantised, without data, or of a dtype that the format does not know.
    """
    if value.layout is not torch.strided or value.is_meta or not _has_format(value.dtype):
        what = f"{describe(value)}, {str(value.layout).removeprefix('torch.')} on {value.device.type},"
        raise StorageError(f"{path}: {what} cannot be stored; expected a dense tensor with data, of a dtype that safetensors has")


def _own_copy(value: Tensor, path: str) -> Tensor:
    """The tensor on the CPU in memory of its own: safetensors refuses two tensors that share some."""
    check_tensor(value, path)
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
        StorageError: a tensor is missing, a value is of a type that nothing registers, or an entry of ours (``{"$tensor": ...}``) is
            malformed.
    """

    def get(name: str) -> Tensor:
        try:
            return tensors[name]
        except KeyError:
            raise StorageError(f"the tensor {name[:200]!r} is missing") from None

    return decode_with(value, get)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, copied where memory of a file begins at no multiple of 64 bytes: kernels sum in another order there."""
    return tensor.clone() if tensor.is_cpu and tensor.layout is torch.strided and tensor.data_ptr() % _ALIGNED else tensor


def layout_of(tensor: Tensor) -> dict[str, Any]:
    """What files of tensors do not hold, as plain data: device, shape, strides, and how memory begins, which kernels look at as well."""
    begin = tensor.data_ptr() % _ALIGNED if tensor.is_cpu else 0
    return {"device": str(tensor.device), "strides": list(tensor.stride()), "shape": list(tensor.shape), "begin": begin}


def laid_out(tensor: Tensor, how: Mapping[str, Any] | None) -> Tensor:
    """A tensor in the memory layout and, where that is here, on the device that it had.

    What lay far apart in a much larger tensor lies together: its gaps would be memory that nothing uses.
    """
    size = 0
    if how is not None and tensor.numel() and 0 not in how["strides"]:
        size = tensor.itemsize * (1 + sum([(size - 1) * stride for size, stride in zip(how["shape"], how["strides"], strict=True)]))
    if how is not None and 0 < size <= _SPREAD * tensor.nbytes:
        memory = torch.empty(size + _ALIGNED, dtype=torch.uint8)
        begin = (how.get("begin", 0) - memory.data_ptr()) % _ALIGNED
        tensor = memory[begin : begin + size].view(tensor.dtype).as_strided(how["shape"], how["strides"]).copy_(tensor)
    try:
        return tensor if how is None else tensor.to(how["device"])
    except (RuntimeError, AssertionError):
        return tensor


def decode_with(value: Any, get: Callable[[str], Any], make: Callable[[str, Any], Any] | None = None) -> Any:
    """What :func:`encode_with` was given; ``get`` is asked for each leaf by its name, ``make`` for each value of a registered class."""
    if isinstance(value, list):
        return [decode_with(item, get, make) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        mark: str = next(iter(value))
        held: Any = value[mark]
        expected = _MARKS.get(mark)
        if expected is not None:
            if not isinstance(held, expected) or (mark == "$number" and held not in ("nan", "inf", "-inf")):
                raise StorageError(f"{{{mark!r}: {str(held)[:60]!r}}} is damaged, or not written by a storage")
            if isinstance(held, str):
                return get(held) if mark == "$tensor" else float(held)
            if isinstance(held, list) and mark == "$value":
                name, plain = held if len(held) == 2 else ("", None)
                return (make or value_of)(name, decode_with(plain, get, make))
            if isinstance(held, list):
                return tuple([decode_with(item, get, make) for item in held])
            value = held
    return {key: decode_with(item, get, make) for key, item in value.items()}


def value_of(name: Any, plain: Any) -> Any:
    """A value of a registered class, from its name in files and what it is made of."""
    if not isinstance(name, str) or name not in StoredTypes:
        raise StorageError(
            f"a value of type {name if isinstance(name, str) else '?'!r:.60}; expected one of {', '.join(StoredTypes.names())}"
        )
    return StoredTypes.get(name).from_plain(plain)
