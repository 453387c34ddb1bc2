"""What a block computes with besides its inputs, as digests: code, config, attributes, weights, hooks.

    parts  {(0, "factor"): 2.0, (0, "code"): ..., (1, "weight"): ...}   one for each module of the block and each of its attributes

A block that counts its calls changes an attribute by being called. What a call was seen to change, beside tensors, is no part of the
fingerprint from then on: nothing of a run is kept in a block, so it is bookkeeping. Blocks whose outputs depend on such a memory say
``cacheable = False``.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import sys
import sysconfig
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.run.content_digest import ContentDigests, NoDigest, digest_of, probe_of

Part = tuple[int, str]
Parts = dict[Part, Any]

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_OWN = ("_parameters", "_buffers", "_modules")
_READ = {"training", "_forward_hooks", "_forward_pre_hooks", *_OWN}
_SKIPPED = (frozenset(nn.Module().__dict__) - _READ) | {"_frozen", "_block_id", "_adapter_gate"}
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, staticmethod, classmethod)
_LARGE = 64 * 2**20
"""Bytes of a block's weights beyond which a cache in memory tells them apart by object and version, without reading them."""
_LARGE_OBJECT = 2**16
"""Bytes beyond which an object that is no tensor, such as a tokenizer, is read once and then told by being the same one."""
_DEEP, _MOST = 6, 4096
_EVERYWHERE = -1  # stands for the module where something belongs to a class or function, whichever module has it
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))


class Fingerprints:
    """Fingerprints of blocks.

    Args:
        digests: of values.
        persistent: they have to be the same in other processes, so nothing is told apart by being another object.
    """

    def __init__(self, digests: ContentDigests, *, persistent: bool) -> None:
        self.digests, self.persistent = digests, persistent
        self.bookkeeping: dict[str, frozenset[Part]] = {}
        """By class, what its calls were seen to change."""
        self._looks: weakref.WeakKeyDictionary[nn.Module, tuple[Look, bytes]] = weakref.WeakKeyDictionary()
        self._weights: dict[int, tuple[weakref.ref[Tensor], Any, _Weight]] = {}
        self._large: dict[int, tuple[weakref.ref[Any], _Digest]] = {}
        self._objects: dict[int, tuple[Any, bytes]] = {}
        self._serial = 0

    def parts(self, block: nn.Module) -> Parts:
        """Everything that a block computes with, by module and attribute.

        Raises:
            NoDigest: it holds something that cannot be told apart.
        """
        found: Parts = {}
        known: dict[int, Any] = {}  # models hold their config in each of their modules
        size = sum([tensor.numel() * tensor.element_size() for tensor in (*block.parameters(), *block.buffers())])
        for index, module in enumerate(block.modules()):
            kind, own = type(module), module.__dict__
            found[index, "class"] = name_of(kind)
            if is_installed(kind.__module__):
                found[index, "code"] = _version(kind.__module__.partition(".")[0]) if self.persistent else None
                if index == 0 and isinstance(kind.forward, types.FunctionType):
                    found[index, "forward"] = _code(kind.forward.__code__)
            else:
                code_of_class(kind, self, found)
            for name, value in own.items():
                if name in _SKIPPED or name in _OWN:
                    continue
                if type(value) in _PLAIN:
                    found[index, name] = value
                elif isinstance(value, _FUNCTIONS):
                    self._function(value, 0, index, name, found)
                elif name.endswith("_hooks") and isinstance(value, Mapping):
                    for number, hook in enumerate(value.values()):
                        self._function(hook, 0, index, f"{name}.{number}", found)
                else:
                    if id(value) not in known:
                        known[id(value)] = self._attribute(value, 0)
                    found[index, name] = known[id(value)]
            for name in ("_parameters", "_buffers"):
                for key, tensor in own.get(name, {}).items():
                    found[index, key] = None if tensor is None else self._weight(tensor, size > _LARGE)
            found[index, "modules"] = tuple(own.get("_modules", ()))
        return found

    def digest(self, parts: Parts, bookkeeping: Iterable[Part] = ()) -> bytes:
        """One digest of all parts but some."""
        left_out = frozenset(bookkeeping)
        return hashlib.blake2b(
            repr([(part, value) for part, value in parts.items() if part not in left_out]).encode(), digest_size=20
        ).digest()

    def of(self, block: nn.Module) -> bytes:
        """The fingerprint of a block; derived anew where a look at it finds something else than at the last one.

        Raises:
            NoDigest: it holds something that cannot be told apart.
        """
        look = Look(self, block)
        known = self._looks.get(block)
        if known is not None and known[0].is_like(look):
            return known[1]
        digest = self.digest(self.parts(block), self.bookkeeping_of(block))
        self._looks[block] = (look.settled(), digest)
        return digest

    def bookkeeping_of(self, block: nn.Module) -> frozenset[Part]:
        """What calls of blocks of its class were seen to change."""
        return self.bookkeeping.get(name_of(type(block)), frozenset())

    def learn(self, block: nn.Module, before: Parts, after: Parts) -> None:
        """Takes what a call changed for bookkeeping; tensors never are."""
        changed = {part for part in before.keys() | after.keys() if before.get(part) != after.get(part)}
        changed = {part for part in changed if not isinstance(before.get(part), _Weight) and not isinstance(after.get(part), _Weight)}
        if changed:
            kinds: set[Any] = {type(module) for module in block.modules()}
            assigned = frozenset(name for kind in kinds for name in _assigned_by(kind))
            plain = {part for part in changed if type(after.get(part)) in _PLAIN and part[0] >= 0}
            # Somebody else may have set an attribute meanwhile; what no method of the class sets was not set by the call.
            changed -= {part for part in plain if part[1] not in assigned}
            self.bookkeeping[name_of(type(block))] = self.bookkeeping_of(block) | changed

    # --- private steps ------------------------------------------------------------------------------------------------

    def _weight(self, tensor: Tensor, is_large: bool) -> _Weight:
        """What tells one weight from another: its content, read once for each version of it.

        Args:
            tensor: the weight.
            is_large: it is one of so many that they are not read where the cache is in memory: the object and its version tell.
        """
        state = _state_of_weight(tensor)
        known = self._weights.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1] == state:
            return known[2]
        if is_large and not self.persistent:
            self._serial += 1
            digest = _Weight(b"weight %d" % self._serial)
        else:
            digest = _Weight(self.digests.of_tensor(tensor))
        key, weights = id(tensor), self._weights
        self._weights[key] = (weakref.ref(tensor, lambda _: weights.pop(key, None)), state, digest)
        return digest

    def _attribute(self, value: Any, depth: int) -> Any:
        """A digest of an attribute that is neither plain, nor a tensor of the module's own, nor a module."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, Tensor):
            return _Weight(self.digests.of_tensor(value))
        if isinstance(value, nn.Module):  # one that is held beside the tree of modules
            return self.digest(self.parts(value)) if depth < 2 else name_of(kind)
        if isinstance(value, _FUNCTIONS):
            found: Parts = {}
            self._function(value, depth, 0, "", found)
            return list(found.items())
        if depth >= _DEEP:
            return name_of(kind)
        if isinstance(value, (list, tuple, set, frozenset)):
            if len(value) > _MOST:
                return self._as_object(value)
            items = [self._attribute(item, depth + 1) for item in value]
            return (kind.__name__, sorted(map(repr, items)) if isinstance(value, (set, frozenset)) else items)
        if isinstance(value, Mapping):
            if len(value) > _MOST:
                return self._as_object(value)
            return (kind.__name__, [(self._attribute(key, depth + 1), self._attribute(item, depth + 1)) for key, item in value.items()])
        if isinstance(value, type):
            return name_of(value)
        large = self._large.get(id(value))
        if large is not None and large[0]() is value:
            return large[1]
        before = self.digests.pickled_bytes
        try:
            digest = _Digest(self.digests.of(value))
        except NoDigest:
            return self._as_object(value, depth)
        if self.digests.pickled_bytes - before > _LARGE_OBJECT:
            with contextlib.suppress(TypeError):  # not every class can be referred to weakly
                self._large[id(value)] = (weakref.ref(value), digest)
        return digest

    def _as_object(self, value: Any, depth: int = 0) -> Any:
        """An object whose content nothing tells: its own attributes, and, in this process, which object it is."""
        name = name_of(type(value))
        own = getattr(value, "__dict__", None)
        if own is not None and not isinstance(value, types.ModuleType):
            return (name, [(key, self._attribute(item, depth + 1)) for key, item in own.items()])
        if self.persistent:
            return (name, len(value)) if hasattr(value, "__len__") else name
        known = self._objects.get(id(value))
        if known is None or known[0] is not value:
            self._serial += 1
            known = self._objects[id(value)] = (value, b"object %d" % self._serial)
        return (name, known[1], len(value) if hasattr(value, "__len__") else None)

    def _function(self, function: Any, depth: int, index: int, name: str, found: Parts) -> None:
        """Parts of a function: its code, and each thing that it reads."""
        if isinstance(function, types.MethodType):
            holder = function.__self__
            found[index, f"{name}.self"] = name_of(type(holder)) if isinstance(holder, nn.Module) else self._attribute(holder, depth + 1)
            function = function.__func__
        if isinstance(function, functools.partial):
            found[index, f"{name}.arguments"] = self._attribute([function.args, function.keywords], depth + 1)
            function = function.func
        if isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        if isinstance(function, types.FunctionType):
            code_of_function(function, self, depth, index, name, found)
        elif isinstance(function, _FUNCTIONS):
            self._function(function, depth + 1, index, name, found)
        elif depth < _DEEP:
            found[index, name] = self._attribute(function, depth + 1)


class _Digest(bytes):
    """The digest of an attribute; no plain value."""


class _Weight(bytes):
    """The digest of a tensor."""


class Look:
    """A quick look at a block: everything that is compared in place, and digests of the little that is not.

    Args:
        told: what makes digests.
        block: what is looked at.
    """

    __slots__ = ("_tensors", "flat", "others", "refs")

    def __init__(self, told: Fingerprints, block: nn.Module) -> None:
        flat: list[Any] = [len(told.bookkeeping_of(block))]
        self.flat, self.others = flat, []
        self._tensors: list[Tensor] = []
        self.refs: list[weakref.ref[Tensor]] = []
        others: list[Any] = []
        code: Parts = {}
        todo, seen = [block], set()
        while todo:
            module = todo.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            own, kind = module.__dict__, type(module)
            flat.append(kind)
            for name, value in own.items():
                if name in _SKIPPED:
                    continue
                if name == "_modules":
                    for key, child in value.items():
                        flat.append(key)
                        if child is not None:
                            todo.append(child)
                elif name in _OWN:
                    for tensor in value.values():
                        if tensor is not None:
                            self._tensors.append(tensor)
                            flat.append(_state_of_weight(tensor))
                elif (kind_of := type(value)) in _PLAIN:
                    flat += (name, kind_of, value)
                elif value or name[-6:] != "_hooks":
                    flat.append(name)
                    _flatten(value, flat, others, 0)
            if not is_installed(kind.__module__):
                code_of_class(kind, told, code)
        forward = type(block).forward
        flat.append(getattr(forward, "__code__", None))
        unique = {id(value): value for value in others}
        told_as = {key: told._attribute(value, 0) for key, value in unique.items()}
        self.others = [told_as[id(value)] for value in others] + [list(code.items())]

    def settled(self) -> Look:
        """The look, holding none of the block's tensors."""
        self.refs, self._tensors = [weakref.ref(tensor) for tensor in self._tensors], []
        return self

    def is_like(self, other: Look) -> bool:
        """True when another look finds the same."""
        return (
            self.flat == other.flat
            and len(self.refs) == len(other._tensors)
            and all(ref() is tensor for ref, tensor in zip(self.refs, other._tensors, strict=True))
            and self.others == other.others
        )


def _state_of_weight(tensor: Tensor) -> Any:
    """What stays the same as long as a weight does: its version, place and a few of its bytes."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_inference() or tensor.is_meta or tensor.layout is not torch.strided:
        return object()  # like nothing else
    probe = probe_of(tensor) if tensor.is_cpu and tensor.numel() else None
    return tensor._version, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.device, probe


def _flatten(value: Any, flat: list[Any], others: list[Any], depth: int) -> None:
    """Plain values inside of lists and mappings, one after the other; what is not plain goes to ``others``."""
    kind = type(value)
    if kind in _PLAIN:
        flat.append(kind)
        flat.append(value)
    elif kind in (list, tuple) and depth < _DEEP and len(value) <= _MOST:
        flat.append((kind, len(value)))
        for item in value:
            if (kind_of := type(item)) in _PLAIN:  # written out, as below: the call costs more
                flat += (kind_of, item)
            else:
                _flatten(item, flat, others, depth + 1)
    elif kind in (dict, OrderedDict) and depth < _DEEP and len(value) <= _MOST:
        flat.append((kind, len(value)))
        for key, item in value.items():
            flat.append(key if type(key) in _PLAIN else repr(key))
            if (kind_of := type(item)) in _PLAIN:
                flat += (kind_of, item)
            else:
                _flatten(item, flat, others, depth + 1)
    else:
        flat.append(kind)
        others.append(value)


def name_of(kind: type[Any]) -> str:
    """A class by its module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"


# --- code -------------------------------------------------------------------------------------------------------------


@functools.cache
def is_installed(module: str) -> bool:
    """True for code that is told apart by the version of its package."""
    root = module.partition(".")[0]
    if root in sys.builtin_module_names:
        return True
    found = sys.modules.get(root)
    file = getattr(found, "__file__", None)
    return root == "wgtorch" or (file is not None and file.startswith(_INSTALLED))


@functools.cache
def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    if package == "wgtorch":  # it may be a checkout that changes under the same version
        root = Path(sys.modules["wgtorch"].__file__ or "").parent
        return digest_of(*[file.read_bytes() for file in sorted(root.rglob("*.py"))]).hex()
    try:
        return version(package)
    except PackageNotFoundError:
        return sys.version


def code_of_class(kind: type[Any], told: Fingerprints, found: Parts) -> None:
    """Parts of a class of the user's own, and of its bases as far as they are: their methods, and what those read."""
    index = _EVERYWHERE
    for base in kind.__mro__:
        if (index, name_of(base)) in found:
            continue
        found[index, name_of(base)] = None
        if is_installed(base.__module__):
            found[index, name_of(base)] = _version(base.__module__.partition(".")[0]) if told.persistent else None
            continue
        for name, entry in base.__dict__.items():
            where = f"{name_of(base)}.{name}"
            if isinstance(entry, property):
                entry = entry.fget
            if isinstance(entry, _FUNCTIONS):
                told._function(entry, 1, index, where, found)
            elif not name.startswith("__") and (type(entry) in _PLAIN or isinstance(entry, (list, tuple, dict))):
                found[index, where] = told._attribute(entry, 1)


def code_of_function(function: types.FunctionType, told: Fingerprints, depth: int, index: int, name: str, found: Parts) -> None:
    """Parts of a function: code, defaults, closure, and what it reads of its module as far as that is the user's own."""
    if is_installed(function.__module__ or "builtins"):
        found[index, name] = f"{function.__module__}.{function.__qualname__}"
        return
    found[index, name] = _code(function.__code__)
    if depth >= _DEEP:
        return
    found[index, f"{name}.defaults"] = told._attribute([function.__defaults__, function.__kwdefaults__], depth + 1)
    read: dict[str, Any] = {key: function.__globals__.get(key) for key in sorted(_names(function.__code__))}
    for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            read[key] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for key, value in read.items():
        where = f"{name} {key}"
        if value is None or isinstance(value, (types.ModuleType, type)) or value is function or len(where) > 400:
            continue
        if isinstance(value, _FUNCTIONS):
            module = getattr(value, "__module__", None) or ""
            own = where
            if isinstance(value, types.FunctionType):
                own = f"{module}.{value.__qualname__}:{value.__code__.co_firstlineno}"
            if not is_installed(module) and (_EVERYWHERE, own) not in found:
                told._function(value, depth + 1, _EVERYWHERE, own, found)
        else:
            found[index, where] = told._attribute(value, depth + 1)


@functools.cache
def _assigned_by(kind: type[Any]) -> frozenset[str]:
    """Attributes that methods of a class set, beside its constructor."""
    found: set[str] = set()
    for base in kind.__mro__:
        for name, entry in base.__dict__.items():
            if isinstance(entry, types.FunctionType) and name not in ("__init__", "__new__", "__setstate__"):
                found |= {str(each.argval) for each in dis.get_instructions(entry.__code__) if each.opname == "STORE_ATTR"}
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def _code(code: types.CodeType) -> bytes:
    constants = [_code(constant) if isinstance(constant, types.CodeType) else repr(constant).encode() for constant in code.co_consts]
    names = repr((code.co_names, code.co_varnames, code.co_argcount, code.co_kwonlyargcount, code.co_flags)).encode()
    return digest_of(code.co_code, names, *constants)


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> frozenset[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return frozenset(found)
