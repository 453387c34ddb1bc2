"""Which code of installed packages blocks come to, and what somebody has put in its place while the process runs.

    forward of the user's --> torch.tanh, package.module.helper --> what those call --> ...
    watched                   all that torch, package.module, nn.GELU, Tensor hold, and the functions themselves

A package is what its version says as long as its modules and classes hold what they held when they were first come to; they are compared by
version and identity, those that some blocks come to all at once. Python's own library and PyTorch's private modules are packages as others
are; what PyTorch's compiler calls, and sympy where PyTorch's own code calls it, is not walked through.
"""

from __future__ import annotations

import builtins
import functools
import gc
import operator
import sys
import threading
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from wgtorch.core.run.dict_versions import dict_version
from wgtorch.core.run.function_parts import imported_by, innermost, inside, name_of, names_in, tables_in
from wgtorch.core.run.held_values import Namespace, Referents
from wgtorch.core.run.installed import is_installed

_STARTS = frozenset(("__init__", "__new__", "forward", "__call__", "__torch_function__", "precompute_invariants"))
_IMMUTABLE = 1 << 8
"""Flag of classes that cannot be changed, as ``int``."""
_COMPILER = ("torch._dynamo", "torch._inductor", "torch._subclasses", "torch._export", "torch.fx.experimental", "torch.utils._sympy")
"""What compiles and traces, and refers to everything: no call of a block that is not compiled comes to what these do."""
_REACHED = 256
"""Groups of blocks of which it is remembered what they come to."""


class Part:
    """A function, or a module or class with the names that are read of it, and the parts that it comes to.

    Args:
        package: that it belongs to.
        watched: what has to stay as it is.
        function: what is called.
        spaces: what has to hold what it held.
        module: name of a module that is imported when it is used.
    """

    __slots__ = ("function", "leads_to", "module", "package", "spaces", "watched")

    def __init__(
        self,
        package: str = "",
        watched: Iterable[Any] = (),
        function: types.FunctionType | None = None,
        spaces: Iterable[Namespace] = (),
        module: str = "",
    ) -> None:
        self.package, self.watched, self.spaces, self.module = package, tuple(watched), tuple(spaces), module
        self.function = None if function is None else (function, inside(function))
        self.leads_to: dict[Part, str] = {}  # and the package that has to be come to as well, where it keeps something of another one's


Parts = frozenset[Part]


class InstalledCode:
    """Functions, modules and classes of installed packages that were come to so far. There is one for the process, as there is of them.

    Attributes:
        version: counts changes of what is replaced.
        joined: counts parts that were found to come to others.
        modules: that functions import when they are called, by name.
    """

    def __init__(self) -> None:
        self.version = self.joined = 0
        self.modules: dict[str, Any] = {}
        self.lock = threading.RLock()
        self._todo: list[tuple[Part, Iterable[Part], str]] = []
        self._reached: OrderedDict[frozenset[Parts], Reached] = OrderedDict()
        self._spaces: dict[int, tuple[Namespace, ...]] = {}  # with the tables in them
        self._functions: dict[int, Part] = {}
        self._reads: defaultdict[int, dict[frozenset[str], Part]] = defaultdict(dict)  # of a module, class or table, by names
        self._imports: defaultdict[str, dict[frozenset[str], Part]] = defaultdict(dict)
        self._called: dict[type, Part] = {}  # classes whose objects are called
        self._read_by: defaultdict[type, set[str]] = defaultdict(set)  # what methods of a class read
        self._packages: set[str] = set()
        self._waiting: defaultdict[str, list[tuple[Part, Any, frozenset[str]]]] = defaultdict(list)  # for a package

    def reach(self, value: Any, names: Iterable[str] = ()) -> Parts:
        """What a function, class or module is, of which ``names`` are read. All that it comes to is found as well."""
        with self.lock:
            found = frozenset(self._parts(value, frozenset(names)))
            self._follow()
            return found

    def reached(self, parts: frozenset[Parts]) -> Reached:
        """All that parts come to."""
        with self.lock:
            found = self._reached.get(parts)
            if found is None:
                found = self._reached[parts] = Reached(self, parts)
            self._reached.move_to_end(parts)
            while len(self._reached) > _REACHED:
                self._reached.popitem(last=False)
            return found

    def is_replaced(self, space: Namespace, name: str) -> None:
        """What reads a name of a module, class or table comes to what it stands for now."""
        for names, part in list(self._reads[id(space.entries)].items()):
            if name in space.entries and (name in names or space.is_table):
                self._entry(part, name, space.entries[name], names)
        self._follow()

    def is_loaded(self, name: str) -> None:
        """What imports a module that was not there before comes to it."""
        self.modules[name] = sys.modules.get(name)
        self._todo += [(part, self._parts(self.modules[name], names), "") for names, part in list(self._imports[name].items())]
        self._follow()

    # --- private steps ------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while self._todo:
            part, parts, package = self._todo.pop()
            for found in parts:
                if part.leads_to.get(found):
                    part.leads_to[found] = package
                elif found not in part.leads_to:
                    part.leads_to[found] = package
                    self.joined += 1

    def _comes_to(self, package: str) -> None:
        if package not in self._packages:
            self._packages.add(package)
            self._todo += [(part, self._parts(value, names), package) for part, value, names in self._waiting.pop(package, ())]

    def _parts(self, value: Any, names: frozenset[str]) -> Iterator[Part]:
        value = innermost(value)
        kind = type(value)
        if kind is types.FunctionType:
            if is_installed(value.__globals__.get("__name__") or "builtins"):
                yield self._function(value)
        elif issubclass(kind, type):
            yield from self._bases(value, names) if names else (self._class(value),)
        elif issubclass(kind, types.ModuleType) and is_installed(vars(value).get("__name__", "")):
            yield self._read(vars(value)["__name__"], value, vars(value), names)

    def _function(self, function: types.FunctionType) -> Part:
        part = self._functions.get(id(function))
        if part is None:
            package = (function.__globals__.get("__name__") or "builtins").partition(".")[0]
            watched = (function, function.__kwdefaults__, *(function.__closure__ or ()))
            part = self._functions[id(function)] = Part(package, watched, function)
            self._comes_to(package)
            self._todo.append((part, self._read_by_function(function), ""))
        return part

    def _read_by_function(self, function: types.FunctionType) -> Iterator[Part]:
        entries, module = function.__globals__, function.__globals__.get("__name__") or "builtins"
        names = names_in(function.__code__)
        for value in inside(function)[1:]:
            for each in value if type(value) is tuple else (value,):
                yield from self._parts(each, names)
        if module.startswith(_COMPILER):
            return
        yield self._read(module, sys.modules.get(module), entries, names)
        for name in imported_by(function):
            if not (name.startswith("sympy") and module.partition(".")[0] == "torch"):  # of sizes that are symbols
                yield self._import(name, names)
        if isinstance(kind := entries.get(function.__qualname__.partition(".")[0]), type):  # a method, and names may be of its own object
            self._read_by[kind] |= names
            if names:
                yield from self._bases(kind, names)
                self._todo += [(part, self._bases(each, names), "") for each, part in self._called.items() if issubclass(each, kind)]

    def _import(self, name: str, names: frozenset[str]) -> Part:
        part = self._imports[name].get(names)
        if part is None:
            part = self._imports[name][names] = Part(module=name)
            self._todo.append((part, self._parts(self.modules.setdefault(name, sys.modules.get(name)), names), ""))
        return part

    def _class(self, kind: type) -> Part:
        part = self._called.get(kind)
        if part is None:
            part = self._called[kind] = Part(package := kind.__module__.partition(".")[0])
            self._comes_to(package)
            names = frozenset().union(*[self._read_by[base] for base in kind.__mro__ if base in self._read_by])
            self._todo.append((part, self._bases(kind, names), ""))
        return part

    def _bases(self, kind: type, names: frozenset[str]) -> Iterator[Part]:
        for base in kind.__mro__:
            if not base.__flags__ & _IMMUTABLE and is_installed(base.__module__):
                yield self._read(name_of(base), base, gc.get_referents(base.__dict__)[0], names | _STARTS)

    def _read(self, where: str, owner: Any, entries: dict[str, Any], names: frozenset[str]) -> Part:
        part = self._reads[id(entries)].get(names)
        if part is None:
            if id(entries) not in self._spaces:
                tables = [Namespace(f"{where}.{name}", None, table) for name, value in dict(entries).items() for table in tables_in(value)]
                self._spaces[id(entries)] = Namespace(where, owner, entries), *tables
            spaces = self._spaces[id(entries)]
            watched = (*[space.entries for space in spaces], owner if isinstance(owner, type) else None)
            part = Part(package := where.partition(".")[0], watched, spaces=spaces)
            for space in spaces:
                self._reads[id(space.entries)][names] = part
            self._comes_to(package)
            if not where.startswith(_COMPILER):
                self._todo.append((part, self._named(part, owner, entries, names), ""))
        return part

    def _named(self, part: Part, owner: Any, entries: dict[str, Any], names: frozenset[str]) -> Iterator[Part]:
        for name in names:
            if name in entries:
                yield from self._parts(entries[name], names)
                for table in tables_in(entries[name]):
                    for key, item in list(table.items()):
                        self._entry(part, key, item, names)
        if isinstance(owner, types.ModuleType) and owner is not builtins:
            yield from self._parts(builtins, names.difference(entries))

    def _entry(self, part: Part, key: Any, item: Any, names: frozenset[str]) -> None:
        """A part comes to an entry of a table; to what copies objects of another package, only where that package is come to."""
        package = key.__module__.partition(".")[0] if isinstance(key, type) else part.package
        if package in self._packages:
            self._todo.append((part, self._parts(item, names), "" if package == part.package else package))
        else:
            self._waiting[package].append((part, item, names))


class Reached:
    """All that some parts come to.

    Args:
        code: what they are parts of.
        parts: to start from.

    Attributes:
        replaced: what stands in place of what modules, classes and functions among it held, by where.
    """

    def __init__(self, code: InstalledCode, parts: frozenset[Parts]) -> None:
        self.replaced: list[tuple[str, Any]] = []
        self._code, self._starts, self._joined = code, frozenset().union(*parts), -1
        self._referents = Referents()
        self._spaces: list[Namespace] = []
        self._functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = []
        self._modules: list[str] = []
        self._moved: list[str] = []
        self._loaded: Any = None

    def add(self, parts: set[Parts]) -> bool:
        """Starts from these as well; False where it did."""
        with self._code.lock:
            new = frozenset().union(*parts) - self._starts
            if new:
                self._starts, self._joined = self._starts | new, -1
            return bool(new)

    def look(self) -> None:
        """Looks again at all of it."""
        with self._code.lock:
            if self._joined != self._code.joined or dict_version(sys.modules) != self._loaded or not self._referents.hold():
                self._compare()

    # --- private steps ------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        while True:
            self._walk()
            self._loaded = dict_version(sys.modules)
            moved = [name for name in self._modules if sys.modules.get(name) is not self._code.modules[name]]
            for name in [name for name in moved if self._code.modules[name] is None]:
                self._code.is_loaded(name)
            for space in [space for space in self._spaces if space.look()]:
                for name in [name for name, value in dict(space.entries).items() if space.first.get(name) is not value]:
                    self._code.is_replaced(space, name)
            if self._joined == self._code.joined:
                break
        replaced = [each for space in self._spaces for each in space.replaced]
        for function, first in self._functions:
            where = f"{function.__module__}.{function.__qualname__} itself"
            replaced += [(where, now) for now, was in zip_longest(inside(function), first) if now is not was]
        replaced += [(f"module {name}", sys.modules.get(name)) for name in moved if self._code.modules[name] is not sys.modules.get(name)]
        replaced.sort(key=operator.itemgetter(0))
        self._code.version += [(where, id(value)) for where, value in replaced] != [(where, id(value)) for where, value in self.replaced]
        self.replaced = replaced
        self._referents.remember()

    def _walk(self) -> None:
        if self._joined == self._code.joined:
            return
        self._joined = self._code.joined
        found: dict[Part, None] = {}
        packages, waiting = {""}, defaultdict[str, list[Part]](list)
        todo = list(self._starts)
        while todo:
            if (part := todo.pop()) in found:
                continue
            found[part] = None
            if part.package not in packages:
                packages.add(part.package)
                todo += waiting.pop(part.package, ())
            for each, package in part.leads_to.items():
                (todo if package in packages else waiting[package]).append(each)
        self._referents = Referents()
        for part in found:
            self._referents.add(*part.watched)
        self._spaces = list(dict.fromkeys([space for part in found for space in part.spaces]))
        self._functions = [part.function for part in found if part.function is not None]
        self._modules = list(dict.fromkeys([part.module for part in found if part.module]))


@functools.cache
def installed_code() -> InstalledCode:
    """That of this process."""
    return InstalledCode()
