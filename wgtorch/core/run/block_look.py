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
from collections.abc import Iterable
from itertools import chain, starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from wgtorch.core.run.code_digest import environment
from wgtorch.core.run.content_digest import probed, state_of
from wgtorch.core.run.dict_versions import addresses_of, attribute_version, dict_version
from wgtorch.core.run.installed import is_installed

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_FIXED = _PLAIN | {torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout, types.EllipsisType}
_TABLES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_tables_of = operator.itemgetter(*_TABLES)
_layout_of = operator.attrgetter("dtype", "shape", "requires_grad")
_version_of, _attributes_of, _address_of = operator.attrgetter("_version"), operator.attrgetter("__dict__"), operator.attrgetter("_cdata")
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
        self._walk(told)
        self._roots = [kind for kind in self._roots if not told.code(kind).is_fixed]
        modules, objects = self._modules, self._objects
        owns = [vars(thing) for thing in (*modules, *objects)]
        self._versions = list(map(attribute_version, owns))
        self._held.extend(chain.from_iterable(owns))
        self._entries = _entries_of(owns)
        is_whole = all(isinstance(own.get(table), dict) for own in owns[: len(modules)] for table in _TABLES)  # not so where it is scripted
        self._weights = [(index, name) for index in range(len(modules)) for name in _TABLES[:2] if is_whole and owns[index][name]]
        tensors = self._tensors(owns)
        self._is_whole = is_whole and all(state_of(tensor) is not None for tensor in tensors)
        self._probes = _Probes(tensors if self._is_whole else ())
        self._storages = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors if self._is_whole]
        self._found: Any = None
        if self._is_whole:
            self._found = self._now(told, modules, objects)
        self._modules, self._objects = [weakref.ref(module) for module in modules], [weakref.ref(thing) for thing in objects]
        self._seen.clear()

    def holds(self, told: Any) -> bool:
        """False where something of it is not as it was, or something was in it of which only its content tells."""
        if not self._is_whole:
            return False
        modules, objects = [reference() for reference in self._modules], [reference() for reference in self._objects]
        if any(thing is None for thing in chain(modules, objects)):
            return False
        owns: list[Any] = list(map(vars, chain(modules, objects)))
        versions = list(map(attribute_version, owns))
        if versions != self._versions:  # modes are set and set back by each run
            if _entries_of(owns) != self._entries:
                return False
            self._versions = versions
        return (now := self._now(told, modules, objects)) is not None and now == self._found

    # --- what is compared ---------------------------------------------------------------------------------------------

    def _now(self, told: Any, modules: list[Any], objects: list[Any]) -> Any:
        """All but the attributes of modules and objects themselves; None where something was changed already."""
        owns = list(map(vars, modules))
        tables = list(chain.from_iterable(map(_tables_of, owns)))
        codes = [told.code(kind) for kind in self._roots]
        roots = [code.values for code in codes]
        mappings = [thing for thing in objects if isinstance(thing, dict)]
        versions = list(map(dict_version, chain(tables, self._mappings, mappings, roots)))
        if self._found is not None and versions != self._found[1]:
            return None
        if any(len(now) != len(was) or not all(map(operator.is_, now, was)) for now, was in self._lists):
            return None
        orders = [list(OrderedDict.__iter__(each)) for each in chain(mappings, self._mappings) if isinstance(each, OrderedDict)]
        weights = self._probes.of(self._tensors(owns))
        told_as: list[Any] = [environment() for code in codes if code.reads_environment]
        if self._places:
            spaces = {"modules": owns, "objects": list(map(vars, objects)), "entries": objects, "roots": roots}
            try:
                values = [dict.__getitem__(spaces[space][index], name) for space, index, name in self._places]
            except KeyError:
                return None
            with told.inside.of(modules):
                told_as += [told.attribute(value, 0) for value in values]
        return list(map(type, chain(modules, objects))), versions, orders, weights, repr(told_as)

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
        elif kind in (dict, OrderedDict, list, tuple) and _is_plain(value, 0):
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
            if type(item) not in _FIXED:
                self._container(item)


def _entries_of(owns: list[dict[str, Any]]) -> Any:
    """Which names stand for which objects, told by addresses."""
    return list(map(len, owns)), addresses_of(chain(chain.from_iterable(owns), chain.from_iterable(map(dict.values, owns))))


class _Probes:
    """What tells of weights whether they were changed.

    Args:
        tensors: that are looked at.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._layout: Any = None
        self._small: list[tuple[int, int]] = []
        self._large: list[tuple[Any, slice]] = []
        for tensor in tensors:
            if tensor.is_cpu and tensor.numel():
                address, size, step = probed(tensor)
                if step == 1:
                    self._small.append((address, size))
                else:
                    self._large.append(((ctypes.c_char * size).from_address(address), slice(None, None, step)))

    def of(self, tensors: list[Tensor]) -> Any:
        """Where they lie, their versions, and a few of their bytes."""
        layout = (
            list(map(type, tensors)),
            list(map(_layout_of, tensors)),
            list(map(Tensor.stride, tensors)),
            list(map(Tensor.data_ptr, tensors)),
            list(map(_address_of, map(Tensor.untyped_storage, tensors))),
            list(map(Tensor.is_conj, tensors)),
            list(map(Tensor.is_neg, tensors)),
        )
        if self._layout is None:
            self._layout = layout
        elif layout != self._layout:
            return None  # and addresses need not be those of memory
        versions = list(map(_version_of, tensors))
        own = [repr(own) for own in map(_attributes_of, tensors) if own]
        return versions, own, list(starmap(ctypes.string_at, self._small)), list(starmap(operator.getitem, self._large))


def _is_plain(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind in _FIXED:
        return True
    if kind in (dict, OrderedDict):
        return depth < 10 and _has_plain_keys(value) and all(_is_plain(item, depth + 1) for item in value.values())
    return kind in (list, tuple) and depth < 10 and all(_is_plain(item, depth + 1) for item in value)


def _has_plain_keys(value: dict[Any, Any]) -> bool:
    return all(type(key) in _FIXED for key in dict.keys(value))


def _is_open(kind: type) -> bool:
    """True where all that objects of a class are is in their attributes, and, for mappings, their entries."""
    base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP)
    if base not in (object, dict, OrderedDict) or not kind.__dictoffset__ or not kind.__weakrefoffset__:
        return False
    slots = any(base.__dict__.get("__slots__") for base in kind.__mro__)
    return kind.__basicsize__ - base.__basicsize__ <= 16 and not slots and not hasattr(kind, "__next__")
