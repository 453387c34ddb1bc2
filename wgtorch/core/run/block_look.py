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
from wgtorch.core.run.installed import is_installed

_FIXED = PLAIN | {torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout, types.EllipsisType}
_NESTED = NESTED | {OrderedDict}
_TABLES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_tables_of = operator.itemgetter(*_TABLES)
_attributes_of, _address_of = operator.attrgetter("__dict__"), operator.attrgetter("_cdata")
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
        self._seen: set[int] = set()
        self._modules: list[Any] = []
        self._objects: list[Any] = []
        self._held: list[Any] = []
        self._mappings: list[dict[Any, Any]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._places: list[tuple[str, int, Any]] = []
        self._roots: list[type] = []
        self._module(block)
        self._tree = len(self._modules)  # of which runs set train or eval; others come after
        self._walk(told)
        self._roots = [kind for kind in self._roots if not told.code(kind).is_fixed]
        modules, objects = self._modules, self._objects
        owns = [vars(thing) for thing in (*modules, *objects)]
        self._versions = list(map(attribute_version, owns))
        self._held.extend(chain.from_iterable(owns))
        self._entries = self._entries_of(owns)
        is_whole = all(isinstance(own.get(table), dict) for own in owns[: len(modules)] for table in _TABLES)  # not so where it is scripted
        self._weights = [(index, name) for index in range(len(modules)) for name in _TABLES[:2] if is_whole and owns[index][name]]
        tensors = self._tensors(owns)
        self._is_whole = is_whole and all(state_of(tensor) is not None for tensor in tensors)
        self._probes = _Probes(tensors if self._is_whole else [])
        self._storages = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors if self._is_whole]
        self._found = self._contents = None
        self._ids = frozenset(map(id, modules))
        if self._is_whole:
            self._contents = self._inside(owns, objects)
            self._found = self._now(told, modules, objects, owns)
        self._modules, self._objects = [weakref.ref(module) for module in modules], [weakref.ref(thing) for thing in objects]
        self._seen.clear()

    def holds(self, told: Any) -> bool:
        """False where something of it is not as it was, or something was in it of which only its content tells."""
        if not self._is_whole:
            return False
        modules, objects = [reference() for reference in self._modules], [reference() for reference in self._objects]
        if not all(map(operator.is_not, chain(modules, objects), repeat(None))):
            return False
        owns: list[Any] = list(map(vars, chain(modules, objects)))
        versions = list(map(attribute_version, owns))
        if versions != self._versions:  # modes are set and set back by each run
            if self._entries_of(owns) != self._entries:
                return False
            self._versions = versions
        if self._inside(owns, objects) != self._contents:
            return False
        return self._probes.hold(self._tensors(owns)) and self._now(told, modules, objects, owns) == self._found

    def modes(self) -> bytes:
        """Which modules are in train; empty where none is."""
        modes = bytes([getattr(reference(), "training", False) for reference in self._modules[: self._tree]])
        return modes if any(modes) else b""

    # --- what is compared ---------------------------------------------------------------------------------------------

    def _now(self, told: Any, modules: list[Any], objects: list[Any], owns: list[dict[str, Any]]) -> Any:
        """What is neither an attribute of modules and objects, nor in a mapping, nor a weight; None where something was changed already."""
        codes = [told.code(kind) for kind in self._roots]
        roots = [code.values for code in codes]
        if any(len(now) != len(was) or not all(map(operator.is_, now, was)) for now, was in self._lists):
            return None
        orders = [list(OrderedDict.__iter__(each)) for each in chain(objects, self._mappings) if isinstance(each, OrderedDict)]
        told_as: list[Any] = [environment() for code in codes if code.reads_environment]
        if self._places:
            spaces = {"modules": owns, "objects": owns[len(modules) :], "entries": objects, "roots": roots}
            try:
                values = [dict.__getitem__(spaces[space][index], name) for space, index, name in self._places]
            except KeyError:
                return None
            with told.inside.of(self._ids):
                told_as += [told.attribute(value, 0) for value in values]
        return list(map(type, chain(modules, objects))), list(map(dict_version, roots)), orders, repr(told_as)

    def _inside(self, owns: list[dict[str, Any]], objects: list[Any]) -> list[Any]:
        """Versions of mappings that modules and objects hold, or are."""
        tables = chain.from_iterable(map(_tables_of, owns[: len(self._modules)]))
        return list(map(dict_version, chain(tables, self._mappings, [thing for thing in objects if isinstance(thing, dict)])))

    def _entries_of(self, owns: list[dict[str, Any]]) -> Any:
        """Which names stand for which objects, told by addresses; train or eval is no matter."""
        owns = [{**own, "training": None} if index < self._tree else own for index, own in enumerate(owns)]
        return list(map(len, owns)), addresses_of(chain(chain.from_iterable(owns), chain.from_iterable(map(dict.values, owns))))

    def _tensors(self, owns: list[Any]) -> list[Tensor]:
        return [tensor for index, name in self._weights for tensor in owns[index][name].values() if tensor is not None]

    # --- walking ------------------------------------------------------------------------------------------------------

    def _walk(self, told: Any) -> None:
        modules = objects = roots = 0
        while True:
            if modules < len(self._modules):
                self._attributes("modules", modules, self._modules[modules])
                modules += 1
            elif objects < len(self._objects):
                self._attributes("objects", objects, self._objects[objects])
                objects += 1
            elif roots < len(self._roots):
                for name, value in told.code(self._roots[roots]).values.items():  # what its methods read of their modules
                    self._value(value, ("roots", roots, name))
                roots += 1
            else:
                return

    def _module(self, root: nn.Module) -> None:
        for module in root.modules():
            if id(module) not in self._seen:
                self._seen.add(id(module))
                self._modules.append(module)
                self._root(type(module))

    def _root(self, kind: type) -> None:
        if kind not in self._roots:
            self._roots.append(kind)

    def _attributes(self, space: str, index: int, thing: Any) -> None:
        is_module = space == "modules"
        for name, value in vars(thing).items():
            if not is_module or name not in self._skipped:
                self._value(value, (space, index, name))
            elif name in ("_forward_hooks", "_forward_pre_hooks") and value:
                self._places.append((space, index, name))
        if isinstance(thing, dict):
            for key, value in dict.items(thing):
                self._value(value, ("entries", index, key))

    def _value(self, value: Any, place: tuple[str, int, Any]) -> None:
        kind = type(value)
        if kind in _FIXED:
            self._held.append(value)
        elif id(value) in self._seen:
            return
        elif isinstance(value, nn.Module):
            self._module(value)
        elif kind in _NESTED and is_plain(value, _FIXED, _NESTED):
            self._container(value)
        elif _is_open(kind) and type(vars(value)) is dict and (not isinstance(value, dict) or _has_plain_keys(value)):
            self._seen.add(id(value))
            self._objects.append(value)
            if not is_installed(kind.__module__):
                self._root(kind)
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
        self._reads: list[Callable[[list[Tensor]], Iterable[Any]]] = [
            *[partial(map, read) for read in _READS],
            lambda tensors: map(_address_of, map(Tensor.untyped_storage, tensors)),
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
