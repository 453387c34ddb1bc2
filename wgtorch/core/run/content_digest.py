"""Digests of values by their content: what is equal has the same digest, in every process.

A tensor is read once: while it is the same object, at the same version, its digest is remembered. What PyTorch's version does not tell
of - writes through ``.data`` or an array that shares the memory - is looked for at a few places of the memory; small tensors, and those
whose memory is not PyTorch's own, are read each time.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from wgtorch.core.encoding import stored_type_of
from wgtorch.core.port import MISSING

SMALL = 4096
"""Bytes of a tensor that is read each time."""
_PROBES = 256
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_NESTED = (list, tuple, dict)


class NoDigest(Exception):
    """A value has no digest: its class tells nothing of its content."""


def digest_of(*parts: bytes) -> bytes:
    """One digest of several byte strings."""
    hashed = hashlib.blake2b(digest_size=20)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()


class ContentDigests:
    """Digests of values, remembered for tensors that did not change since.

    Attributes:
        hashed_bytes: bytes of tensors that were read so far, and ``pickled_bytes`` of other objects.
    """

    def __init__(self) -> None:
        self._known = WeakIdKeyDictionary()  # Tensor -> (what tells that it is the same, its digest)
        self.of_code: Callable[[Any], bytes | None] | None = None
        """What tells a function or class by its code; by its name, as pickles do, where there is none."""
        self.hashed_bytes = self.pickled_bytes = 0

    def of(self, value: Any) -> bytes:
        """The digest of a value.

        Raises:
            NoDigest: it holds something whose content cannot be told.
        """
        kind = type(value)
        if kind in _PLAIN:
            return digest_of(kind.__name__.encode(), repr(value).encode("utf-8", "surrogatepass"))
        if isinstance(value, Tensor):
            return self.of_tensor(value)
        if kind in _NESTED and _is_plain(value):
            return digest_of(b"plain", repr(value).encode("utf-8", "surrogatepass"))
        if kind in (dict, types.MappingProxyType):
            items = sorted((self.of(key), self.of(item)) for key, item in value.items())
            order = digest_of(*[self.of(key) for key in value])
            return digest_of(b"dict", order, *[part for item in items for part in item])
        if kind in (list, tuple):
            return digest_of(kind.__name__.encode(), *[self.of(item) for item in value])
        if kind in (set, frozenset):
            return digest_of(b"set", *sorted(self.of(item) for item in value))
        if value is MISSING:
            return b"missing"
        return self._of_object(value)

    def _of_object(self, value: Any) -> bytes:
        name = f"{type(value).__module__}.{type(value).__qualname__}".encode()
        if (stored := stored_type_of(value)) is not None:
            return digest_of(name, self.of(stored.to_plain(value)))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return digest_of(name, *[self.of(item) for item in value])
        if isinstance(value, (torch.dtype, torch.device, torch.Size, type)):
            return digest_of(name, repr(value).encode())
        if isinstance(value, Mapping):
            return digest_of(name, self.of(dict(value)))
        if isinstance(value, torch.Generator):
            return digest_of(name, str(value.device).encode(), self.of_tensor(value.get_state()))
        try:
            pickled = io.BytesIO()
            _Pickler(pickled, self).dump(value)
            self.pickled_bytes += len(pickled.getvalue())
            return digest_of(name, pickled.getvalue())
        except Exception as error:  # whatever a foreign class raises when it is pickled
            raise NoDigest(f"{type(value).__name__} has no content that can be told: {error}") from error

    def of_tensor(self, tensor: Tensor) -> bytes:
        """The digest of a tensor: dtype, shape, strides, device and data.

        Raises:
            NoDigest: it has no data of its own (fake, sparse, quantised, sharded).
        """
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise NoDigest(f"a tensor of class {type(tensor).__name__} and layout {tensor.layout}")
        state = state_of(tensor)
        known = self._known.get(tensor)
        if known is not None and state is not None and known[0] == state:
            return known[1]
        data = bytes_of(tensor)
        self.hashed_bytes += len(data)
        about = repr((str(tensor.dtype), tuple(tensor.shape), tensor.stride(), str(tensor.device))).encode()
        digest = digest_of(about, data)
        if state is not None:
            self._known[tensor] = (state, digest)
        return digest


def _is_plain(value: Any) -> bool:
    """True for plain values, and lists, tuples and dicts of such, which ``repr`` tells apart."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return kind in _NESTED and all(map(_is_plain, value))


class _Pickler(pickle.Pickler):
    """Pickles objects with digests in place of tensors, whose own pickles differ from time to time."""

    def __init__(self, file: io.BytesIO, digests: ContentDigests) -> None:
        super().__init__(file)
        self.digests = digests

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, (types.FunctionType, type)):
            return None if self.digests.of_code is None else self.digests.of_code(value)
        return self.digests.of(value) if isinstance(value, (Tensor, torch.Generator)) else None


def bytes_of(tensor: Tensor) -> bytes:
    """A tensor's data as bytes."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    size = plain.numel() * plain.element_size()
    # Tensor.numpy() would mark the memory as shared with an array, for good.
    return bytes(_memory(plain.data_ptr(), size)) if size else b""


def state_of(tensor: Tensor) -> Any:
    """What stays the same as long as a tensor's content does; None where nothing tells of that but the content."""
    if tensor.is_inference() or not tensor.numel():
        return None
    where = (tensor._version, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
    if tensor.device.type != "cpu":
        return where
    if tensor.numel() * tensor.element_size() <= SMALL or not tensor.untyped_storage().resizable():
        return None
    return (*where, probe_of(tensor))


def probe_of(tensor: Tensor) -> bytes:
    """A few bytes of a tensor on the CPU, spread over its memory; all of a small one."""
    count = tensor.numel()
    if not tensor.is_contiguous():
        count = 1 + sum([(size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)])
    return bytes(_memory(tensor.data_ptr(), count * tensor.element_size())[:: _step(count * tensor.element_size())])


def _memory(start: int, size: int) -> memoryview:
    return memoryview((ctypes.c_char * size).from_address(start)).cast("B")


def _step(size: int) -> int:
    return 1 if size <= SMALL else size // _PROBES | 1  # odd, so that it meets every byte of a number
