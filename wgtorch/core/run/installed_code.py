"""Which code of installed packages blocks come to, and what somebody has put in its place while the process runs.

    forward of the user's --> torch.tanh, package.module.helper --> what those call --> ...
    watched                   all that torch, package.module, nn.GELU, Tensor hold, and the functions themselves

A package is what its version says as long as its modules and classes hold what they held when they were first come to; they are compared by
identity, all at once. Python's own library and PyTorch's private modules are packages as others are; what PyTorch's compiler calls is not
walked through.
"""

from __future__ import annotations

import builtins
import dis
import functools
import gc
import operator
import sys
import threading
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import resolve_name
from itertools import zip_longest
from typing import Any

from wgtorch.core.port import MISSING
from wgtorch.core.run.dict_versions import dict_version
from wgtorch.core.run.installed import is_installed

_STARTS = frozenset(("__init__", "__new__", "forward", "__call__", "__torch_function__", "precompute_invariants"))
_IMMUTABLE = 1 << 8
"""Flag of classes that cannot be changed, as ``int``."""
_TABLE = 1000
"""Functions in a mapping of a module that is watched as well."""
_COMPILER = ("torch._dynamo", "torch._inductor", "torch._subclasses", "torch._export", "torch.fx.experimental", "torch.utils._sympy")
"""What compiles and traces, and refers to everything: no call of a block that is not compiled comes to what these do."""
_REPORTS: dict[str, frozenset[str]] = {
    "builtins": frozenset(("_",)),
    "sys": frozenset(("stdin", "stdout", "stderr", "displayhook", "excepthook", "last_exc", "last_type", "last_value", "last_traceback")),
    "warnings": frozenset(("filters", "showwarning", "_showwarnmsg_impl")),
}
"""Names of where a process writes what it has to say, which nothing computes with."""

Read = tuple[Any, frozenset[str]]
"""Something that code comes to, and the names that are read where it is."""


class Referents:
    """What objects refer to: entries of mappings, code and defaults of functions, contents of cells, bases of classes."""

    __slots__ = ("_count", "_found", "_mappings", "_objects", "_places", "_versions")

    def __init__(self) -> None:
        self._mappings: dict[int, dict[Any, Any]] = {}
        self._objects: dict[int, Any] = {}
        self._versions: list[int] = []  # of the mappings: every change of one gives it a number that no other one ever had
        self._count, self._found = 0, list[Any]()
        self._places: list[int] = []  # where among all that the others refer to what may be replaced is

    def add(self, *values: Any) -> None:
        """Looks at these as well, from the next :meth:`remember` on."""
        for value in values:
            if value is not None:
                (self._mappings if isinstance(value, dict) else self._objects)[id(value)] = value

    def remember(self) -> None:
        """What they refer to now is what they are to refer to."""
        self._versions = list(map(dict_version, self._mappings.values()))
        referents = [(owner, value) for owner in self._objects.values() for value in gc.get_referents(owner)]
        self._count = len(referents)
        self._places = [index for index, each in enumerate(referents) if _may_be_replaced(*each)]
        self._found = [referents[index][1] for index in self._places]

    def hold(self) -> bool:
        """False once one of them refers to something else."""
        if list(map(dict_version, self._mappings.values())) != self._versions:
            return False
        now = gc.get_referents(*self._objects.values())
        return len(now) == self._count and all(map(operator.is_, map(now.__getitem__, self._places), self._found))


class Namespace:
    """What a module, a class or a table of functions held when it was first come to.

    Args:
        where: its name.
        owner: the module or class; None for a table.
        entries: what it holds now.
    """

    def __init__(self, where: str, owner: Any, entries: dict[str, Any]) -> None:
        self.where, self.owner, self.entries, self.first = where, owner, entries, dict(entries)
        self.replaced: list[tuple[str, Any]] = []
        self._version: Any = None
        self.reads: set[frozenset[str]] = set()
        self.bases = getattr(owner, "__mro__", None) if isinstance(owner, type) else None
        self.foreign = [name for name, value in self.first.items() if is_foreign(value)]

    def look(self) -> bool:
        """Looks again at what it holds; False where that is what it was the last time."""
        version = dict_version(self.entries), None if self.bases is None else self.owner.__mro__
        if version == self._version:
            return False
        self._version, self.replaced = version, list(self._replaced())
        return True

    def _replaced(self) -> Iterator[tuple[str, Any]]:
        """What is not as it was, or never was the package's own."""
        for name, value in dict(self.entries).items():
            was = self.first.get(name, MISSING)
            if name in self.foreign if value is was else self._counts(name, was, value):
                yield f"{self.where}.{name}", value
        for name in self.first.keys() - self.entries.keys():
            yield f"{self.where}.{name}", None
        if self.bases is not None and self.owner.__mro__ != self.bases:
            yield f"{self.where} bases", self.owner.__mro__

    def _counts(self, name: str, was: Any, value: Any) -> bool:
        if name in _REPORTS.get(self.where, ()):
            return False
        if isinstance(self.owner, type):
            return name != "_abc_impl" and (not name.startswith("__") or callable(value))
        if was is MISSING:  # a package adds to itself what it loads when it is used
            return is_foreign(value) or (self.owner is not None and hasattr(builtins, name))
        return name not in _own_globals(self.entries)


class InstalledCode:
    """Functions, modules and classes of installed packages that were come to so far. There is one for the process, as there is of them.

    Attributes:
        replaced: what stands in place of what they held, by where.
        version: counts changes of it.
    """

    def __init__(self) -> None:
        self.replaced: list[tuple[str, Any]] = []
        self.version = 0
        self._lock = threading.RLock()
        self._moved: list[str] = []
        self._referents, self._is_settled = Referents(), False
        self._spaces: dict[int, Namespace] = {}
        self._functions: dict[int, tuple[types.FunctionType, tuple[Any, ...]]] = {}
        self._called: dict[type, None] = {}  # classes whose objects are called
        self._read_by: defaultdict[type, set[str]] = defaultdict(set)  # what methods of a class read
        self._imports: dict[str, tuple[Any, frozenset[str]]] = {}  # modules that functions import when called, and names read there

    def look(self) -> None:
        """Looks again at all of it."""
        with self._lock:
            moved = [name for name, (module, _) in self._imports.items() if sys.modules.get(name) is not module]
            if moved != self._moved or not self._is_settled or not self._referents.hold():
                self._compare(moved)

    def reach(self, value: Any, names: Iterable[str] = ()) -> None:
        """Comes to a function, class or module, of which ``names`` are read, and to all that it comes to."""
        todo: list[Read] = [(value, frozenset(names))]
        with self._lock:
            while todo:
                value, read = todo.pop()
                value = _innermost(value)
                kind = type(value)
                if kind is types.FunctionType:
                    todo += self._function(value)
                elif issubclass(kind, type):
                    todo += self._class(value, read)
                elif issubclass(kind, types.ModuleType) and is_installed(vars(value).get("__name__", "")):
                    todo += self._namespace(vars(value)["__name__"], value, vars(value), read)

    # --- private steps ------------------------------------------------------------------------------------------------

    def _compare(self, moved: list[str]) -> None:
        changed = [space for space in list(self._spaces.values()) if space.look()]
        replaced = [each for space in list(self._spaces.values()) for each in space.replaced]
        for function, first in self._functions.values():
            where = f"{function.__module__}.{function.__qualname__} itself"
            replaced += [(where, now) for now, was in zip_longest(_inside(function), first) if now is not was]
        for name in moved:
            if self._imports[name][0] is None:
                self._imports[name] = sys.modules.get(name), self._imports[name][1]
                self.reach(*self._imports[name])
            else:
                replaced.append((f"module {name}", sys.modules.get(name)))
        for space in changed:
            for name in [name for name, value in dict(space.entries).items() if space.first.get(name) is not value]:
                for names in [names for names in space.reads if name in names]:
                    self.reach(space.entries[name], names)
        self.version += [(where, id(value)) for where, value in replaced] != [(where, id(value)) for where, value in self.replaced]
        self.replaced, self._moved, self._is_settled = replaced, moved, True
        self._referents.remember()

    def _function(self, function: types.FunctionType) -> Iterator[Read]:
        entries, module = function.__globals__, function.__globals__.get("__name__") or "builtins"
        if id(function) in self._functions or not is_installed(module):
            return
        self._functions[id(function)] = function, _inside(function)
        self._watch(function, function.__kwdefaults__, *(function.__closure__ or ()))
        names = names_in(function.__code__)
        for value in _inside(function)[1:]:
            yield from ((each, names) for each in (value if type(value) is tuple else (value,)))
        if module.startswith(_COMPILER):
            return
        yield from self._namespace(module, sys.modules.get(module), entries, names)
        for name in imported_by(function):
            if module.startswith("torch.") and name.startswith("sympy"):  # of sizes that are symbols
                continue
            imported, before = self._imports.get(name, (sys.modules.get(name), frozenset()))
            self._imports[name] = imported, before | names
            yield imported, names
        if isinstance(kind := entries.get(function.__qualname__.partition(".")[0]), type):  # a method, and names may be of its own object
            self._read_by[kind] |= names
            yield kind, names
            yield from ((each, names) for each in self._called if issubclass(each, kind))

    def _class(self, kind: type, names: frozenset[str]) -> Iterator[Read]:
        if not names and kind not in self._called:
            self._called[kind] = None
            names = frozenset().union(*[self._read_by[base] for base in kind.__mro__ if base in self._read_by])
        for base in kind.__mro__:
            if not base.__flags__ & _IMMUTABLE and is_installed(base.__module__):
                yield from self._namespace(name_of(base), base, gc.get_referents(base.__dict__)[0], names | _STARTS)

    def _namespace(self, where: str, owner: Any, entries: dict[str, Any], names: frozenset[str]) -> Iterator[Read]:
        if id(entries) not in self._spaces:
            self._spaces[id(entries)] = Namespace(where, owner, entries)
            self._watch(entries, owner if isinstance(owner, type) else None)
            for name, value in dict(entries).items():
                for table in _tables_in(value):
                    self._spaces[id(table)] = Namespace(f"{where}.{name}", None, table)
                    self._watch(table)
        if where.startswith(_COMPILER) or names in (reads := self._spaces[id(entries)].reads):
            return
        reads.add(names)
        for name in names:
            if name in entries:
                yield entries[name], names
                yield from ((item, names) for table in _tables_in(entries[name]) for item in list(table.values()))
        if isinstance(owner, types.ModuleType) and owner is not builtins:
            yield builtins, names.difference(entries)

    def _watch(self, *values: Any) -> None:
        self._referents.add(*values)
        self._is_settled = False


@functools.cache
def installed_code() -> InstalledCode:
    """That of this process."""
    return InstalledCode()


def name_of(kind: type[Any]) -> str:
    """A class by its module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def unwrapped(value: Any) -> Any:
    """The function inside of what stands around one, and adds nothing to it."""
    while True:
        kind = type(value)  # isinstance() asks the value, which may warn, load or make something
        if kind in (staticmethod, classmethod) or (kind is types.MethodType and issubclass(type(value.__self__), type)):
            value = value.__func__
        elif kind is property:
            value = value.fget
        elif kind is functools.cached_property:
            value = value.func
        elif kind is functools._lru_cache_wrapper:
            value = value.__wrapped__
        else:
            return value


def _innermost(value: Any) -> Any:
    """The function that is called in the end."""
    while (inner := unwrapped(value)) is not value or type(inner) in (types.MethodType, functools.partial):
        value = inner.__func__ if type(inner) is types.MethodType else inner.func if type(inner) is functools.partial else inner
    return value


def content(cell: Any) -> Any:
    """What a function around another one holds for it."""
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return MISSING


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> frozenset[str]:
    """Names of globals and attributes in code, and in the functions that it makes."""
    return frozenset(code.co_names).union(*[names_in(part) for part in code.co_consts if isinstance(part, types.CodeType)])


def imported_by(function: types.FunctionType) -> list[str]:
    """Modules that a function imports when it is called."""
    package = function.__globals__.get("__package__") or ""
    found = []
    for level, name in _imports_in(function.__code__):
        if not level:
            found.append(name)
        elif package.count(".") + 1 >= level:
            found.append(resolve_name("." * level + name, package))
    return found


@functools.lru_cache(maxsize=4096)
def _imports_in(code: types.CodeType) -> tuple[tuple[int, str], ...]:
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"] if _has("IMPORT_NAME", code) else []
    found = [(steps[index - 2].argval, step.argval) for index, step in enumerate(steps) if step.opname == "IMPORT_NAME"]
    return (*found, *[each for part in code.co_consts if isinstance(part, types.CodeType) for each in _imports_in(part)])


def is_foreign(value: Any) -> bool:
    """True for a function or an object of the user's own, and for a function with code from elsewhere."""
    value = _innermost(value)
    kind = type(value)
    if kind is types.FunctionType:
        module, file = value.__globals__.get("__name__"), value.__globals__.get("__file__")
        if file is not None and file != value.__code__.co_filename and not value.__code__.co_filename.startswith("<"):
            return True
    else:
        module = (value if issubclass(kind, type) else kind).__module__
    root = sys.modules.get(module.partition(".")[0]) if isinstance(module, str) else None
    return root is not None and (getattr(root, "__file__", None) is not None or module == "__main__") and not is_installed(module)


def _inside(function: types.FunctionType) -> tuple[Any, ...]:
    cells = [content(cell) for cell in function.__closure__ or ()]
    return (function.__code__, function.__defaults__, *(function.__kwdefaults__ or {}).values(), *cells)


def _tables_in(value: Any) -> list[dict[Any, Any]]:
    """A mapping of functions, or those inside of a registry of a package's own, such as that of kinds of attention."""
    kind = type(value)
    if kind is dict:
        return [value] if len(value) < _TABLE and any(type(item) is types.FunctionType for item in value.values()) else []
    if not issubclass(kind, Mapping) or kind.__module__.partition(".")[0] in sys.stdlib_module_names:
        return []
    held = [*getattr(value, "__dict__", {}).values(), *vars(kind).values()]
    return [item for item in held if type(item) is dict and len(item) < _TABLE]


def _own_globals(entries: Mapping[str, Any]) -> set[str]:
    """Names that functions of a module say are ``global``, which so are its state and not its code."""
    functions = [unwrapped(value) for value in dict(entries).values()]
    functions += [unwrapped(entry) for kind in functions if issubclass(type(kind), type) for entry in dict(vars(kind)).values()]
    codes = {f.__code__ for f in functions if type(f) is types.FunctionType and f.__globals__ is entries}
    return {name for code in codes for name in _globals_in(code)}


@functools.lru_cache(maxsize=4096)
def _globals_in(code: types.CodeType) -> frozenset[str]:
    found = [step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"] if _has("STORE_GLOBAL", code) else []
    return frozenset(found).union(*[_globals_in(part) for part in code.co_consts if isinstance(part, types.CodeType)])


def _may_be_replaced(owner: Any, value: Any) -> bool:
    """False for names and globals of a function."""
    return type(owner) is not types.FunctionType or not (type(value) is str or (type(value) is dict and "__name__" in value))


def _has(operation: str, code: types.CodeType) -> bool:
    return dis.opmap[operation] in code.co_code[::2]
