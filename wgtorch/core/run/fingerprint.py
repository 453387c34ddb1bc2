"""What a block computes with besides its inputs and train or eval, as digests: code, config, attributes, weights, hooks.

    parts  {(0, "factor"): 2.0, (0, "code"): ..., (1, "weight"): ...}   one for each module of the block and each of its attributes

What the code of a block writes of itself and never reads, such as a count of its calls, is no part of it
(:mod:`~wgtorch.core.run.attribute_uses`). Everything else is, and a call that changes some of it has a memory: its result is not kept.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.run.attribute_uses import bookkeeping_of, is_book
from wgtorch.core.run.block_look import Look
from wgtorch.core.run.code_digest import Code, environment, name_of, unwrapped
from wgtorch.core.run.content_digest import NESTED, PLAIN, ContentDigests, NoDigest, attributes_of, is_plain
from wgtorch.core.run.installed import is_installed
from wgtorch.core.run.replaced_code import is_foreign, replacements

Part = tuple[int, str]
Parts = dict[Part, Any]

_OWN = ("_parameters", "_buffers", "_modules")
_READ = {"_forward_hooks", "_forward_pre_hooks", *_OWN}
_SKIPPED = (frozenset(nn.Module().__dict__) - _READ) | {"_frozen", "_block_id", "_adapter_gate"}
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, staticmethod, classmethod)
_LARGE = 64 * 2**20
"""Bytes of a block's weights beyond which a cache in memory tells them apart by object and version, without reading them."""
_LARGE_OBJECT = 2**16
"""Bytes beyond which an object that is no tensor, such as a tokenizer, is read once and then told by being the same one."""
_DEEP = 60
_EMPTY = frozenset(("builtins", "_thread", "threading", "_weakref", "weakref"))
"""Modules whose objects without attributes hold nothing that a result depends on, such as locks."""
_CODES = 512
"""Classes and functions whose code is remembered."""
_EVERYWHERE = -1  # stands for the module where something belongs to a class or function, whichever module has it


class Fingerprints:
    """Fingerprints of blocks.

    Args:
        digests: of values.
        persistent: they have to be the same in other processes, so nothing is told apart by being another object.
    """

    def __init__(self, digests: ContentDigests, *, persistent: bool) -> None:
        self.digests, self.persistent = digests, persistent
        digests.of_code = self._code_digest
        self._looks: weakref.WeakKeyDictionary[nn.Module, tuple[Look, Parts, bytes]] = weakref.WeakKeyDictionary()
        self._large: dict[int, tuple[weakref.ref[Any], _Digest]] = {}
        self._objects: dict[int, tuple[Any, bytes]] = {}
        self._codes: OrderedDict[int, Code] = OrderedDict()
        self._replaced: tuple[list[tuple[str, Any]], list[Any] | None] = [], None
        self.inside = _Inside()
        self._serial = 0

    def parts(self, block: nn.Module) -> Parts:
        """Everything that a block computes with, by module and attribute.

        Raises:
            NoDigest: it holds something that cannot be told apart.
        """
        found: Parts = {}
        known: dict[int, Any] = {}  # models hold their config in each of their modules
        modules = list(block.modules())
        books = {kind: bookkeeping_of(kind) for kind in {type(module) for module in modules}}
        with self.inside.of({id(module) for module in modules}):
            size = sum([tensor.numel() * tensor.element_size() for tensor in (*block.parameters(), *block.buffers())])
            for index, module in enumerate(modules):
                kind, own = type(module), module.__dict__
                found[index, "class"] = name_of(kind)
                if (_EVERYWHERE, name_of(kind)) not in found:
                    self._code(kind, name_of(kind), found)
                unread = () if is_looked_at(module) else books[kind]
                for name, value in own.items():
                    if name in _SKIPPED or name in _OWN or (name in unread and is_book(value)):
                        continue
                    if type(value) in PLAIN:
                        found[index, name] = value
                    elif isinstance(value, _FUNCTIONS):
                        self._function(value, 0, index, name, found)
                    elif name.endswith("_hooks") and isinstance(value, Mapping):
                        for number, (key, hook) in enumerate(value.items()):
                            found[index, f"{name}.{number} takes keywords"] = key in own.get(f"{name}_with_kwargs", ())
                            self._function(hook, 0, index, f"{name}.{number}", found)
                    else:
                        if id(value) not in known:
                            known[id(value)] = self.attribute(value, 0)
                        found[index, name] = known[id(value)]
                for name in ("_parameters", "_buffers"):
                    for key, tensor in own.get(name, {}).items():
                        found[index, key] = None if tensor is None else self._weight(tensor, size > _LARGE)
                found[index, "modules"] = tuple(own["_modules"])
        return found

    def digest(self, parts: Parts) -> bytes:
        """One digest of all parts."""
        return hashlib.blake2b(repr(list(parts.items())).encode("utf-8", "surrogatepass"), digest_size=20).digest()

    def of(self, block: nn.Module) -> tuple[Parts, bytes]:
        """The parts of a block, and one digest of them; told anew where a look at it finds something else than at the last one.

        Raises:
            NoDigest: it holds something that cannot be told apart.
        """
        known = self._looks.get(block)
        if known is None or not known[0].holds(self):
            look = Look(self, block, _SKIPPED | set(_OWN) | {"_forward_hooks", "_forward_pre_hooks"})
            known = self._looks[block] = (look, parts := self.parts(block), self.digest(parts))
        return known[1:]

    def modes(self, block: nn.Module) -> bytes:
        """Which modules of a block are in train; empty where none is. To be asked after :meth:`of`."""
        return self._looks[block][0].modes()

    def replaced(self) -> list[Any]:
        """What somebody has put in place of what installed packages hold; to be asked before :meth:`of`."""
        found = replacements().found()
        if found is not self._replaced[0]:
            self._codes.clear()  # code was told with what it read of packages then
            self._replaced = found, None
        if (told := self._replaced[1]) is None:
            told = [(where, self._replacement(where, value)) for where, value in found]
            if not any(is_foreign(value) for _, value in found):  # what packages replace themselves stays as it is
                self._replaced = found, told
        return told

    # --- private steps ------------------------------------------------------------------------------------------------

    def _replacement(self, where: str, value: Any) -> Any:
        try:
            return self.attribute(unwrapped(value), 0)
        except NoDigest as error:
            raise NoDigest(f"{where} of an installed package was replaced, and nothing tells by what: {error}") from error

    def code(self, root: Any) -> Code:
        """The code of a class or function, walked through again where a name in it stands for something else."""
        known = self._codes.get(id(root))
        if known is None or known.root is not root or not known.holds():
            known = self._codes[id(root)] = Code(root, self.persistent)
            while len(self._codes) > _CODES:
                self._codes.popitem(last=False)
        return known

    def _code(self, root: Any, where: str, found: Parts) -> None:
        code = self.code(root)
        found[_EVERYWHERE, where] = code.digest
        if code.reads_environment:
            found[_EVERYWHERE, "environment"] = environment()
        self.inside.roots.append(id(root))
        try:
            for name, value in code.values.items():
                if (_EVERYWHERE, name) not in found:
                    found[_EVERYWHERE, name] = None  # which ends what refers to itself
                    found[_EVERYWHERE, name] = self.attribute(value, 1)
        finally:
            self.inside.roots.pop()

    def _code_digest(self, root: Any) -> bytes | None:
        """Of a function or class that an object holds; None where its name tells it."""
        if is_installed(getattr(root, "__module__", None) or "builtins"):
            return None
        if id(root) in self.inside.roots:  # a class whose own objects are among what it holds, as members of an enumeration are
            return name_of(root).encode()
        found: Parts = {}
        self._code(root, name_of(root), found)
        return self.digest(found)

    def _weight(self, tensor: Tensor, is_large: bool) -> _Weight:
        """What tells one weight from another: its content, or, of so many that a cache in memory does not read them, which one it is."""
        digest = _Weight(self.digests.of_tensor(tensor, is_weight=True, is_read=self.persistent or not is_large))
        digest.mark = (id(tensor), None if tensor.is_inference() else tensor._version)
        return digest

    def attribute(self, value: Any, depth: int) -> Any:
        """A digest of an attribute that is neither plain, nor a tensor of the module's own, nor a module."""
        kind = type(value)
        if kind in PLAIN:
            return value
        if isinstance(value, Tensor):
            return _Weight(self.digests.of_tensor(value))
        if isinstance(value, nn.Module):  # one that is held beside the tree of modules
            modes = [module.training for module in value.modules()]  # which no run sets
            return name_of(kind) if id(value) in self.inside.modules else (self.digest(self.parts(value)), modes)
        if isinstance(value, _FUNCTIONS):
            found: Parts = {}
            self._function(value, depth, 0, "", found)
            return list(found.items())
        if isinstance(value, type):
            return self._code_digest(value) or name_of(value)
        if kind in NESTED and is_plain(value):
            return _Digest(self.digests.of(value))
        if depth >= _DEEP:
            raise NoDigest(f"{name_of(kind)} lies inside of more than {depth} others, or of itself")
        if isinstance(value, (list, tuple, set, frozenset, Mapping)):
            about = [self._code_digest(kind) or name_of(kind), getattr(value, "default_factory", None), getattr(value, "__dict__", None)]
            pairs = [pair for entry in value.items() for pair in entry] if isinstance(value, Mapping) else value
            items = [self.attribute(item, depth + 1) for item in (*about[1:], *pairs)]
            return (about[0], sorted(map(repr, items)) if isinstance(value, (set, frozenset)) else items)
        if isinstance(value, (weakref.ref, contextvars.ContextVar)):
            return (kind.__name__, self.attribute(value() if isinstance(value, weakref.ref) else value.get(None), depth + 1))
        large = self._large.get(id(value))
        if large is not None and large[0]() is value:
            return large[1]
        before = self.digests.pickled_bytes
        try:
            digest = _Digest(self.digests.of(value))
        except NoDigest:
            return self._as_object(value, depth)
        if self.digests.pickled_bytes - before > _LARGE_OBJECT and not hasattr(value, "__array_interface__"):
            with contextlib.suppress(TypeError):  # not every class can be referred to weakly
                self._large[id(value)] = (weakref.ref(value), digest)
        return digest

    def _as_object(self, value: Any, depth: int = 0) -> Any:
        """An object whose content nothing tells: its own attributes, and, in this process, which object it is.

        Raises:
            NoDigest: it is an iterator, which goes on whenever it is used, or scripted, or would have to be told in other processes.
        """
        name = name_of(type(value))
        if hasattr(type(value), "__next__"):
            raise NoDigest(f"{name} goes on whenever it is asked, and nothing tells how far it is")
        if isinstance(value, torch._C.ScriptModule):
            raise NoDigest(f"{name} is scripted, and nothing tells what its code and attributes are")
        if isinstance(value, types.ModuleType):
            return (name, value.__name__)
        own = dict(attributes_of(value))
        if own or hasattr(value, "__dict__"):
            return (name, [(key, self.attribute(item, depth + 1)) for key, item in own.items()])
        if self.persistent:
            if type(value).__module__ not in _EMPTY:
                raise NoDigest(f"{name} has no content that can be told in other processes")
            return name
        known = self._objects.get(id(value))
        if known is None or known[0] is not value:
            self._serial += 1
            known = self._objects[id(value)] = (value, b"object %d" % self._serial)
        return (name, known[1])

    def _function(self, function: Any, depth: int, index: int, name: str, found: Parts) -> None:
        """Parts of a function: its code, and each thing that it reads."""
        if isinstance(function, types.MethodType):
            found[index, f"{name}.self"] = self.attribute(function.__self__, depth + 1)
            function = function.__func__
        if isinstance(function, functools.partial):
            found[index, f"{name}.arguments"] = self.attribute([function.args, function.keywords], depth + 1)
            function = function.func
        if isinstance(function, (staticmethod, classmethod)):
            function = function.__func__
        if isinstance(function, types.FunctionType):
            self._code(function, f"{index} {name}", found)
        elif isinstance(function, _FUNCTIONS):
            self._function(function, depth + 1, index, name, found)
        else:
            found[index, name] = self.attribute(function, depth + 1)


def changed_by_call(before: Parts, after: Parts) -> list[str]:
    """Names of what a call changed, by the parts before and after it. A weight that only lies elsewhere by now did not change."""
    names = []
    for part in before.keys() | after.keys():
        first, second = before.get(part, _Weight), after.get(part, _Weight)
        if isinstance(first, _Weight) and isinstance(second, _Weight) and first.mark and first.mark == second.mark:
            continue
        if first != second:
            names.append(part[1])
    return sorted(set(names))


def is_looked_at(module: nn.Module) -> bool:
    """True where other code than its class's may read what the calls of a module write."""
    own = module.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own)


class _Inside(threading.local):
    """Modules whose parts are being told in this thread: who refers to one of them need not tell it again."""

    def __init__(self) -> None:
        self.modules: Set[int] = frozenset()
        self.roots: list[int] = []  # classes and functions that are

    @contextlib.contextmanager
    def of(self, modules: Set[int]) -> Iterator[None]:
        """While it lasts, these are, by their ids."""
        before = self.modules
        self.modules = before | modules
        try:
            yield
        finally:
            self.modules = before


class _Digest(bytes):
    """The digest of an attribute; no plain value."""


class _Weight(bytes):
    """The digest of a tensor.

    Attributes:
        mark: which tensor, and its version; None where that is not asked.
    """

    mark: tuple[int, int | None] | None = None
