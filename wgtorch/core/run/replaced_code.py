"""What somebody has put in place of what installed packages hold, while the process runs, as ``torch.tanh = mine``.

A package is what its version says as long as its modules and classes hold what they held when they were first looked at. All modules
that are loaded are compared, whichever a block comes to, by versions of dictionaries; those of PyTorch's compiler are not.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from wgtorch.core.port import MISSING
from wgtorch.core.run.code_digest import steps_of, unwrapped
from wgtorch.core.run.dict_versions import WatchedDicts, dict_version
from wgtorch.core.run.fork_safe_lock import fork_safe_lock
from wgtorch.core.run.installed import entries_of, file_of, is_installed, module_of

_REPORTS: dict[str, frozenset[str]] = {
    "builtins": frozenset(("_",)),
    "sys": frozenset(("stdin", "stdout", "stderr", "displayhook", "excepthook", "last_exc", "last_type", "last_value", "last_traceback")),
    "warnings": frozenset(("filters", "showwarning", "_showwarnmsg_impl")),
}
"""Names of where a process writes what it has to say, which nothing computes with."""
_COMPILER = ("torch._dynamo", "torch._inductor", "torch._subclasses", "torch._export", "torch.fx", "torch.utils._sympy", "sympy", "mpmath")
_UNWATCHED = (*_COMPILER, "wgtorch.core.run")
"""What compiles and traces, which no call of a block that is not compiled comes to; and what asks here."""
_IMMUTABLE = 1 << 8
"""Flag of classes that cannot be changed, as ``int``."""
_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, tuple, Tensor, Parameter)
_DESCRIPTORS = (property, functools.cached_property, staticmethod, classmethod)
_TABLE = 1000
"""Functions in a mapping of a module that is watched as well."""


class Replacements:
    """What stands in place of what modules and classes of installed packages held. There is one for the process, as there is of them."""

    def __init__(self) -> None:
        self.lock = fork_safe_lock()
        self._loaded: Any = None
        self._unready: list[Any] = []
        self._modules: dict[str, Any] = {}
        self._held: dict[int, Any] = {}
        self._spaces: list[_Namespace] = []
        self._entries = WatchedDicts()
        self._versions: Sequence[Any] = self._entries.versions()
        self._found: list[tuple[str, Any]] = []

    def found(self) -> list[tuple[str, Any]]:
        """Where something was replaced, and by what; the same list as long as it is the same."""
        with self.lock:
            if is_loaded := (loaded := dict_version(sys.modules)) != self._loaded or any(map(_is_ready, self._unready)):
                self._take_in()
                self._loaded = loaded
            versions = self._entries.versions()
            if versions != self._versions or is_loaded:
                for space, now, was in zip_longest(self._spaces, *map(WatchedDicts.each, (versions, self._versions))):
                    if now != was:
                        space.compare()
                self._versions = versions
                found = [each for space in self._spaces for each in space.replaced]
                found += [(f"module {name}", now) for name, was in self._modules.items() if (now := sys.modules.get(name, was)) is not was]
                found.sort(key=lambda each: each[0])
                if [(where, id(value)) for where, value in found] != [(where, id(value)) for where, value in self._found]:
                    self._found = found
            return self._found

    def _take_in(self) -> None:
        """Watches modules that were loaded since, their classes, and tables of functions in them."""
        self._unready.clear()
        for name, module in list(sys.modules.items()):
            if self._modules.get(name) is module or not issubclass(type(module), types.ModuleType) or not _is_watched(name):
                continue
            if not _is_ready(module):
                self._unready.append(module)
                continue
            if id(module) not in self._held:
                self._watch(name, module)
            self._held[id(module)] = module
            self._modules.setdefault(name, module)

    def _watch(self, name: str, module: types.ModuleType) -> None:
        """Watches a module and what it holds: classes, those inside of others, and modules that are loaded under no name, as namespaces."""
        todo: list[tuple[str, Any]] = [(name, module)]
        while todo:
            where, owner = todo.pop()
            entries = entries_of(owner)
            values = list(entries.items())
            tables = [(key, table) for key, value in values for table in _tables_in(value)]
            for space in (_Namespace(where, owner, entries), *[_Namespace(f"{where}.{key}", None, table) for key, table in tables]):
                self._spaces.append(space)
                self._entries.append(space.entries)
            for _, value in values:
                if id(value) not in self._held and (name := _name_of_held(value)):
                    self._held[id(value)] = value
                    todo.append((name, value))


class _Namespace:
    """What a module, a class or a table of functions held when it was first come to.

    Args:
        where: its name.
        owner: the module or class; None for a table.
        entries: what it holds now.
    """

    __slots__ = ("_first", "_foreign", "entries", "owner", "replaced", "where")

    def __init__(self, where: str, owner: Any, entries: dict[Any, Any]) -> None:
        self.where, self.owner, self.entries = where, owner, entries
        self._first = dict(entries)
        self._foreign = {name for name, value in self._first.items() if is_foreign(value)}
        self.replaced: list[tuple[str, Any]] = []

    def compare(self) -> None:
        """Looks for what is not as it was, or never was the package's own."""
        now, self.replaced = dict(self.entries), []
        for name in {**self._first, **now}:
            was, value = self._first.get(name, MISSING), now.get(name, MISSING)
            if name in self._foreign if value is was else self._counts(name, was, value):
                self.replaced.append((f"{self.where}.{name}", None if value is MISSING else value))

    def _counts(self, name: str, was: Any, value: Any) -> bool:
        is_class = isinstance(self.owner, type)
        if name in _REPORTS.get(self.where, ()) or (is_class and str(name).startswith("__") and not (callable(value) or callable(was))):
            return False
        if is_foreign(value):
            return True
        if was is MISSING and not is_class:  # it adds what it loads when it is used, but hides no builtin from code that finds it there
            return "__builtins__" in self.entries and hasattr(builtins, name) and not isinstance(value, types.ModuleType)
        is_code = _is_code(was) or _is_code(value)
        if not is_code and type(value) not in _CONSTANTS:  # a state that a package keeps
            return False
        if not is_class:
            return name not in _written_by(self.entries, "STORE_GLOBAL")
        module = sys.modules.get(module_of(self.owner))
        return is_code or module is None or name not in _written_by(entries_of(module), "STORE_ATTR")  # as a count of its objects is


def _is_watched(name: Any) -> bool:
    """True for a module of installed packages, by its name."""
    return isinstance(name, str) and not name.startswith(_UNWATCHED) and is_installed(name)


def _is_ready(module: Any) -> bool:
    """False for a module that is being imported, or will be when something of it is asked for: what it is to hold is not there yet."""
    is_lazy = type(module).__getattribute__ is not types.ModuleType.__getattribute__
    return not is_lazy and getattr(entries_of(module).get("__spec__"), "_initializing", False) is not True


def _name_of_held(value: Any) -> str:
    """The name of a class that can be changed, or of a module that is not loaded under its own; empty for everything else."""
    if issubclass(type(value), type):
        is_fixed = type.__dict__["__flags__"].__get__(value) & _IMMUTABLE
        module, name = module_of(value), type.__dict__["__qualname__"].__get__(value)
        return "" if is_fixed or not _is_watched(module) else f"{module}.{name}"
    if not issubclass(type(value), types.ModuleType) or not _is_ready(value):
        return ""
    name = str(entries_of(value).get("__name__"))
    return name if _is_watched(name) and sys.modules.get(name) is not value else ""


def _is_code(value: Any) -> bool:
    return callable(value) or type(value) in _DESCRIPTORS or isinstance(value, types.ModuleType) or bool(_tables_in(value))


def is_foreign(value: Any) -> bool:
    """True for a function or an object of the user's own, and for a function with code from elsewhere."""
    value = _innermost(value)
    kind = type(value)
    if kind is types.FunctionType:
        module, file = value.__globals__.get("__name__"), value.__globals__.get("__file__")
        if file is not None and file != value.__code__.co_filename and not value.__code__.co_filename.startswith("<"):
            return True
    else:
        module = module_of(value if issubclass(kind, type) else kind)
    root = sys.modules.get(module.partition(".")[0]) if isinstance(module, str) else None
    return root is not None and (file_of(root) is not None or module == "__main__") and not is_installed(module)


def _innermost(value: Any) -> Any:
    """The function that is called in the end."""
    while (inner := unwrapped(value)) is not value or type(inner) in (types.MethodType, functools.partial):
        value = inner.__func__ if type(inner) is types.MethodType else inner.func if type(inner) is functools.partial else inner
    return value


def _tables_in(value: Any) -> list[dict[Any, Any]]:
    """A mapping of functions, or those inside of a registry of a package's own, such as that of kinds of attention."""
    kind = type(value)
    if kind is dict:
        return [value] if len(value) < _TABLE and any(type(item) is types.FunctionType for item in list(value.values())) else []
    if not any(base is dict or base is Mapping for base in type.__dict__["__mro__"].__get__(kind) or ()):  # some of C have none
        return []
    if str(module_of(kind)).partition(".")[0] in sys.stdlib_module_names:
        return []
    held = [*entries_of(value).values(), *entries_of(kind).values()]
    return [item for item in held if type(item) is dict and len(item) < _TABLE]


def _written_by(entries: Mapping[str, Any], operation: str) -> set[str]:
    """Names that functions of a module write, as ``global`` or as attributes, which so are its state and not its code."""
    functions = [unwrapped(value) for value in dict(entries).values()]
    functions += [unwrapped(entry) for kind in functions if issubclass(type(kind), type) for entry in list(entries_of(kind).values())]
    codes = {f.__code__ for f in functions if type(f) is types.FunctionType and f.__globals__ is entries}
    return {name for code in codes for _, name in steps_of(operation, code)}


@functools.cache
def replacements() -> Replacements:
    """That of this process."""
    return Replacements()
