"""A look at a block, which tells for little whether all that it computes with is still as it was.

    modules, objects    weak references --> versions of their attributes --> versions of mappings inside --> plain values
    weights             where they lie, versions, and a few of their bytes
    all else            digests, told anew

Nothing of the block is kept alive by it. What is held are plain values: while they are, no other one gets their address.
"""

from __future__ import annotations

import ctypes
import operator
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, compress, repeat, starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from wgtorch.core.run.code_digest import environment
from wgtorch.core.run.content_digest import NESTED, PLAIN, is_plain, probed, state_of
from wgtorch.core.run.dict_versions import addresses_of, attribute_version, dict_version

_FIXED = PLAIN | {torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout, types.EllipsisType}
_NESTED = NESTED | {OrderedDict}
_TABLES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_tables_of, _weights_of = operator.itemgetter(*_TABLES), operator.itemgetter(*_TABLES[:2])
_attributes_of = operator.attrgetter("__dict__")
_READS = (type, *map(operator.attrgetter, ("dtype", "shape", "requires_grad", "_version")), Tensor.stride, Tensor.data_ptr, Tensor.is_neg)
_HEAP = 1 << 9
"""Flag of classes that are defined in Python."""


class Look:
    """What a block computed with when it was looked at.

    Args:
        told: what makes digests, :class:`~wgtorch.core.run.fingerprint.Fingerprints`.
        block: what is looked at.
        skipped: attributes of modules that nothing depends on.
    """

    def __init__(self, told: Any, block: nn.Module, skipped: frozenset[str]) -> None:
        self._skipped = skipped
        self._found: Any = None
        self._seen: set[int] = set()
        things: list[Any] = []  # modules, and objects that are told by their attributes
        self._things = things
        self._held: list[Any] = []
        self._mappings: list[dict[Any, Any]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._places: list[tuple[str, int, Any]] = []
        self._roots: list[type] = []
        self._module(told, block)
        self._tree = len(things)  # modules of which runs set train or eval
        for index, thing in enumerate(things):  # which become more meanwhile
            self._attributes(told, index, thing)
        self._seen.clear()
        owns: list[Any] = list(map(vars, things))
        self._is_module = [isinstance(thing, nn.Module) for thing in things]
        self._ids = frozenset(map(id, compress(things, self._is_module)))
        self._held.extend(chain.from_iterable(owns))
        self._versions, self._entries = list(map(attribute_version, owns)), self._entries_of(owns)
        modules = list(compress(owns, self._is_module))
        self._is_whole = all(isinstance(own.get(table), dict) for own in modules for table in _TABLES)  # not so where it is scripted
        tensors = self._tensors(owns) if self._is_whole else []
        self._is_whole = self._is_whole and all(state_of(tensor) is not None for tensor in tensors)
        self._probes = _Probes(tensors if self._is_whole else [])
        if self._is_whole:
            self._found = self._now(told, things, owns)
        self._things = list(map(weakref.ref, things))

    def holds(self, told: Any) -> bool:
        """False where something of it is not as it was, or something was in it of which only its content tells."""
        things = [reference() for reference in self._things]
        if not self._is_whole or not all(map(operator.is_not, things, repeat(None))):
            return False
        owns: list[Any] = list(map(vars, things))
        versions = list(map(attribute_version, owns))
        if versions != self._versions:  # modes are set and set back by each run
            if self._entries_of(owns) != self._entries:
                return False
            self._versions = versions
        return self._now(told, things, owns) == self._found

    def modes(self) -> bytes:
        """Which modules are in train; empty where none is."""
        modes = bytes([getattr(reference(), "training", False) for reference in self._things[: self._tree]])
        return modes if any(modes) else b""

    # --- what is compared ---------------------------------------------------------------------------------------------

    def _now(self, told: Any, things: list[Any], owns: list[dict[str, Any]]) -> Any:
        """All but the attributes of modules and objects themselves; None where something was changed already."""
        codes = [told.code(kind) for kind in self._roots]
        spaces: dict[str, list[Any]] = {"attributes": owns, "entries": things, "roots": [code.values for code in codes]}
        tables = chain.from_iterable(map(_tables_of, compress(owns, self._is_module)))
        mappings = [*self._mappings, *[thing for thing in things if isinstance(thing, dict)]]
        found = [list(map(type, things)), list(map(dict_version, chain(tables, mappings, spaces["roots"])))]
        if self._found is not None and found != self._found[:2]:
            return None  # so that the weights may be others
        if any(len(now) != len(was) or not all(map(operator.is_, now, was)) for now, was in self._lists):
            return None
        if not self._probes.hold(self._tensors(owns)):
            return None
        told_as: list[Any] = [list(OrderedDict.__iter__(each)) for each in mappings if isinstance(each, OrderedDict)]
        told_as += [environment() for code in codes if code.reads_environment]
        try:
            values = [dict.__getitem__(spaces[space][index], name) for space, index, name in self._places]
        except KeyError:
            return None
        with told.inside.of(self._ids):
            told_as += [told.attribute(value, 0) for value in values]
        return [*found, repr(told_as)]

    def _entries_of(self, owns: list[dict[str, Any]]) -> Any:
        """Which names stand for which objects, told by addresses; train or eval is no matter."""
        owns = [{**own, "training": None} if index < self._tree else own for index, own in enumerate(owns)]
        return list(map(len, owns)), addresses_of(chain(chain.from_iterable(owns), chain.from_iterable(map(dict.values, owns))))

    def _tensors(self, owns: list[dict[str, Any]]) -> list[Tensor]:
        tables = chain.from_iterable(map(_weights_of, compress(owns, self._is_module)))
        return [tensor for table in tables for tensor in table.values() if tensor is not None]

    # --- walking ------------------------------------------------------------------------------------------------------

    def _module(self, told: Any, root: nn.Module) -> None:
        for module in root.modules():
            if id(module) not in self._seen:
                self._thing(told, module)

    def _thing(self, told: Any, thing: Any) -> None:
        """Looks at all attributes of a module or an object from now on, and at what the methods of its class read of their modules."""
        self._seen.add(id(thing))
        self._things.append(thing)
        kind = type(thing)
        if kind not in self._roots and not (code := told.code(kind)).is_fixed:
            self._roots.append(kind)
            index = len(self._roots) - 1
            for name, value in code.values.items():
                self._value(told, value, ("roots", index, name))

    def _attributes(self, told: Any, index: int, thing: Any) -> None:
        is_module = isinstance(thing, nn.Module)
        for name, value in vars(thing).items():
            if not is_module or name not in self._skipped:
                self._value(told, value, ("attributes", index, name))
            elif name in ("_forward_hooks", "_forward_pre_hooks") and value:
                self._places.append(("attributes", index, name))
        if isinstance(thing, dict):
            for key, value in dict.items(thing):
                self._value(told, value, ("entries", index, key))

    def _value(self, told: Any, value: Any, place: tuple[str, int, Any]) -> None:
        kind = type(value)
        if kind in _FIXED:
            self._held.append(value)
        elif id(value) in self._seen:
            return
        elif isinstance(value, nn.Module):
            self._module(told, value)
        elif kind in _NESTED and is_plain(value, _FIXED, _NESTED):
            self._container(value)
        elif _is_open(kind) and type(vars(value)) is dict and (not isinstance(value, dict) or _has_plain_keys(value)):
            self._thing(told, value)
        else:
            self._seen.add(id(value))
            self._places.append(place)

    def _container(self, value: Any) -> None:
        self._seen.add(id(value))
        self._held.append(value)
        if isinstance(value, dict):
            self._mappings.append(value)
        elif type(value) is list:
            self._lists.append((value, list(value)))
        for item in value.values() if isinstance(value, dict) else value:
            if type(item) not in _FIXED and id(item) not in self._seen:
                self._container(item)


class _Probes:
    """What tells of weights whether they were changed: where they lie, their versions, and a few of their bytes.

    What is read is compared one by one: lists of it would set off the collection of garbage.

    Args:
        tensors: that are looked at.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        is_complex = [tensor.is_complex() for tensor in tensors]
        self._held = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors]  # no other one gets its memory while it is there
        self._storages = [reference.cdata for reference in self._held]
        self._reads: list[Callable[[list[Tensor]], Iterable[Any]]] = [
            *[partial(map, read) for read in _READS],
            lambda tensors: map(torch.UntypedStorage._expired, self._storages),
            lambda tensors: map(Tensor.is_conj, compress(tensors, is_complex)),
            lambda tensors: [[repr(own) for own in map(_attributes_of, tensors) if own]],
            lambda tensors: starmap(operator.getitem, self._places),  # the last, since the addresses have to be those of memory
        ]
        places = [probed(tensor) for tensor in tensors if tensor.is_cpu and tensor.numel()]
        self._places = [((ctypes.c_char * size).from_address(address), slice(None, None, step)) for address, size, step in places]
        self._found = [list(read(tensors)) for read in self._reads]

    def hold(self, tensors: list[Tensor]) -> bool:
        """False where something of them is not as it was."""
        return all(all(map(operator.eq, read(tensors), was)) for read, was in zip(self._reads, self._found, strict=True))


def _has_plain_keys(value: dict[Any, Any]) -> bool:
    return all(type(key) in _FIXED for key in dict.keys(value))


def _is_open(kind: type) -> bool:
    """True where all that objects of a class are is in their attributes, and, for mappings, their entries."""
    base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP)
    if base not in (object, dict, OrderedDict) or not kind.__dictoffset__ or not kind.__weakrefoffset__:
        return False
    slots = any(base.__dict__.get("__slots__") for base in kind.__mro__)
    return kind.__basicsize__ - base.__basicsize__ <= 16 and not slots and not hasattr(kind, "__next__")
