"""Digests of values by their content: what is equal has the same digest, in every process.

A tensor is read once: while it is the same object, at the same version, its digest is remembered. What PyTorch's version does not tell
of - writes through ``.data`` or an array that shares the memory - is looked for at a few places of the memory; small tensors, and those
whose memory is not PyTorch's own, are read each time.
"""

from __future__ import annotations

import copyreg
import ctypes
import hashlib
import io
import marshal
import pickle
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import suppress
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from wgtorch.core.encoding import stored_type_of
from wgtorch.core.port import MISSING
from wgtorch.core.run.installed import is_installed

SMALL = 4096
"""Bytes of a tensor that is read each time."""
_PROBES = 256
_KNOWN = 4096
"""Tensors whose digest is remembered before those that are gone are forgotten."""
_numbers = count()
PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
"""Types of values that are told by what they are, and never change."""
NESTED = frozenset((list, tuple, dict))
_READABLE = (Tensor, torch.nn.Parameter)


class NoDigest(Exception):
    """A value has no digest: its class tells nothing of its content."""


def digest_of(*parts: bytes) -> bytes:
    """One digest of several byte strings."""
    hashed = hashlib.blake2b(digest_size=20)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()


def is_whole(value: Any) -> bool:
    """True for all but plain lists, tuples and mappings: other classes that PyTorch's pytree takes apart may come back with less."""
    return type(value) not in NESTED


class ContentDigests:
    """Digests of values, remembered for tensors that did not change since.

    Attributes:
        hashed_bytes: bytes of tensors that were read so far, and ``pickled_bytes`` of other objects.
    """

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Any, StorageWeakRef, bytes]] = {}  # by tensor: what tells that it is the same, and its digest
        self._most = _KNOWN
        self.of_code: Callable[[Any], bytes | None] | None = None
        """What tells a function or class by its code; by its name, as pickles do, where there is none."""
        self.hashed_bytes = self.pickled_bytes = 0

    def of(self, value: Any) -> bytes:
        """The digest of a value.

        Raises:
            NoDigest: it holds something whose content cannot be told.
        """
        kind = type(value)
        if kind in PLAIN:
            return digest_of(kind.__name__.encode(), repr(value).encode("utf-8", "surrogatepass"))
        if isinstance(value, Tensor):
            return self.of_tensor(value)
        if kind in NESTED and is_plain(value):
            with suppress(ValueError):  # it is too deep, or lies inside of itself
                return digest_of(b"plain", marshal.dumps(value, 2))
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
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}".encode() + ((self.of_code and self.of_code(kind)) or b"")
        if (stored := stored_type_of(value)) is not None:
            return digest_of(name, self.of(stored.to_plain(value)))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return digest_of(name, *[self.of(item) for item in value], self.of(dict(attributes_of(value))))
        if isinstance(value, memoryview):
            return digest_of(name, repr((value.format, value.shape, value.strides)).encode(), value.tobytes())
        if isinstance(value, (torch.dtype, torch.device, torch.Size)):
            return digest_of(name, repr(value).encode())
        if isinstance(value, type):
            return digest_of(name, repr(value).encode(), (self.of_code and self.of_code(value)) or b"")
        if isinstance(value, Mapping):
            own = {**dict(attributes_of(value)), "default_factory": getattr(value, "default_factory", None)}
            return digest_of(name, self.of(dict(value)), self.of(own))
        if isinstance(value, torch.Generator):
            return digest_of(name, str(value.device).encode(), self.of_tensor(value.get_state()))
        try:
            pickled = io.BytesIO()
            _Pickler(pickled, self).dump(value)
            self.pickled_bytes += len(pickled.getvalue())
            return digest_of(name, pickled.getvalue())
        except Exception as error:  # whatever a foreign class raises when it is pickled
            raise NoDigest(f"{type(value).__name__} has no content that can be told: {error}") from error

    def of_tensor(self, tensor: Tensor, *, is_weight: bool = False, is_read: bool = True) -> bytes:
        """The digest of a tensor: dtype, shape, strides, device, data, and whether it takes gradients.

        Args:
            is_weight: a block holds it; others whose memory an array or a file shares are read each time.
            is_read: False gives it a number of its own in place of reading it, which it has as long as it is not changed.

        Raises:
            NoDigest: it has no data of its own (fake, sparse, quantised, sharded).
        """
        if not is_readable(tensor):
            raise NoDigest(f"a tensor of class {type(tensor).__name__} and layout {tensor.layout}")
        state = state_of(tensor) if is_weight or not tensor.is_cpu or tensor.untyped_storage().resizable() else None
        if state is None:
            return self.read(tensor)
        known = self._known.get((id(tensor), is_read))
        if known is None or known[0] != state:
            digest = self.read(tensor) if is_read else b"tensor %d" % next(_numbers)
            if len(self._known) >= self._most:
                self._known = {key: entry for key, entry in self._known.items() if not entry[1].expired()}
                self._most = max(_KNOWN, 2 * len(self._known))
            known = self._known[id(tensor), is_read] = (state, StorageWeakRef(tensor.untyped_storage()), digest)
        return known[2]

    def read(self, tensor: Tensor) -> bytes:
        """The digest of a tensor, whatever is known of it."""
        data = bytes_of(tensor)
        self.hashed_bytes += len(data)
        about = (type(tensor).__name__, str(tensor.dtype), tuple(tensor.shape), tensor.stride(), str(tensor.device), tensor.requires_grad)
        return digest_of(repr(about).encode(), data, *([self.of(tensor.__dict__)] if tensor.__dict__ else ()))


def is_plain(value: Any, leaves: Set[type] = PLAIN, nested: Collection[type] = NESTED) -> bool:
    """True for plain values, and lists, tuples and mappings of such, however deep: what ``marshal`` tells apart."""
    if type(value) in leaves:
        return True
    seen, todo = {id(value)}, [value]
    while todo:
        held = todo.pop()
        if type(held) not in nested:
            return False
        is_mapping = isinstance(held, dict)
        if is_mapping and not all(type(key) in leaves for key in held):
            return False
        for item in held.values() if is_mapping else held:
            if type(item) not in leaves and id(item) not in seen:
                seen.add(id(item))
                todo.append(item)
    return True


def _says_how(kind: type) -> bool:
    """True where a class says what of its objects is pickled."""
    own = any(name in vars(base) for base in kind.__mro__[:-1] for name in ("__reduce__", "__reduce_ex__", "__getstate__"))
    return own or kind in copyreg.dispatch_table


def attributes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of an object, those in slots as well."""
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)
    yield from getattr(value, "__dict__", {}).items()


def _told(*parts: Any) -> None:
    """Stands for an object in pickles that nobody reads."""


class _Pickler(pickle.Pickler):
    """Pickles objects with digests in place of tensors, whose own pickles differ from time to time."""

    def __init__(self, file: io.BytesIO, digests: ContentDigests) -> None:
        super().__init__(file)
        self.digests = digests

    def reducer_override(self, value: Any) -> Any:
        """What a class of the user's own leaves out of its pickles is told as well."""
        kind = type(value)
        if isinstance(value, type) or is_installed(kind.__module__) or not _says_how(kind):
            return NotImplemented
        reduced = value.__reduce_ex__(4)
        own = {
            name: item
            for name, item in attributes_of(value)
            if type(item).__module__ not in ("_thread", "threading", "_weakref", "weakref")
        }
        if isinstance(reduced, tuple):  # and what is in it, if it is a list or a mapping
            reduced = [list(part) if index in (3, 4) and part is not None else part for index, part in enumerate(reduced)]
        return (_told, (kind,), (reduced, own)) if own else NotImplemented

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, (types.FunctionType, type)):
            return None if self.digests.of_code is None else self.digests.of_code(value)
        return self.digests.of(value) if isinstance(value, (Tensor, torch.Generator)) else None


def bytes_of(tensor: Tensor) -> bytes:
    """A tensor's data as bytes."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    # Tensor.numpy() would mark the memory as shared with an array, for good.
    return (ctypes.c_char * plain.nbytes).from_address(plain.data_ptr()).raw if plain.nbytes else b""


def is_readable(tensor: Tensor) -> bool:
    """False for tensors without data of their own: fake, sparse, quantised, sharded."""
    return type(tensor) in _READABLE and tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)


def state_of(tensor: Tensor) -> Any:
    """What stays the same as long as a tensor's content does; None where nothing tells of that but the content.

    It holds for as long as a :class:`StorageWeakRef` keeps the address of the tensor's storage from being given to another one. There is no
    weak reference to the tensor itself: ``torch.utils.swap_tensors`` refuses tensors that have one.
    """
    if not is_readable(tensor) or tensor.is_inference():
        return None
    own: Any = tensor.__dict__
    if own and not all(type(value) in PLAIN for value in own.values()):
        return None
    dtype, storage = tensor.dtype, tensor.untyped_storage()
    is_conj = dtype.is_complex and tensor.is_conj()
    layout = (id(tensor), type(tensor), storage._cdata, tensor.data_ptr(), dtype, tensor.shape, tensor.stride(), is_conj, tensor.is_neg())
    probe = probe_of(tensor) if tensor.is_cpu and tensor.numel() else None
    return layout, tensor._version, tensor.requires_grad, probe, tuple(own.items()) if own else None


def probed(tensor: Tensor) -> tuple[int, int, int]:
    """Where in memory a tensor on the CPU is looked at: an address, bytes from there on, and which of them: each so many."""
    size = tensor.nbytes
    if not tensor.is_contiguous():
        size = tensor.itemsize * (1 + sum([(size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]))
    return tensor.data_ptr(), size, 1 if size <= SMALL else size // _PROBES | 1  # odd, so that it meets every byte of a number


def probe_of(tensor: Tensor) -> bytes:
    """A few bytes of a tensor on the CPU, spread over its memory; all of a small one."""
    address, size, step = probed(tensor)
    data: bytes = (ctypes.c_char * size).from_address(address)[::step]  # type: ignore[assignment]
    return data
