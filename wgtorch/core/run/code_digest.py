"""What code says, as digests: of functions and classes of the user's own, and of all that they read of their modules, however deep.

Walking through it takes time, so it is done once: what is looked at the next time is whether every name still stands for the same thing.
Values that may change in place - lists, tensors, objects - are told anew each time.
"""

from __future__ import annotations

import dis
import functools
import gc
import operator
import os
import sys
import types
from collections.abc import Mapping
from importlib.util import resolve_name
from itertools import chain
from typing import Any

from wgtorch.core.port import MISSING
from wgtorch.core.run.attribute_uses import is_book, uses_of
from wgtorch.core.run.content_digest import PLAIN, digest_of, is_plain
from wgtorch.core.run.installed import entries_of, is_installed, version_of

_ENVIRONMENT = frozenset(("environ", "environb", "getenv", "getenvb", "expandvars"))
_SHELLS = frozenset(("_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"))
"""Variables that shells and tests write of themselves, and nothing computes with."""
_HELD = frozenset((types.FunctionType, types.MethodType, functools.partial, type, dict, list))
_OF_PYTHON = frozenset(("_abc_impl", "__annotations__", "__slotnames__"))
"""Attributes that Python sets of itself, when a class is first asked for them or an object of it is copied."""
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)


class Code:
    """A class or function with all that it reads, as it is now.

    Args:
        root: the class or function.
        is_persistent: the digest has to tell versions of installed packages apart.

    Attributes:
        digest: of code, and of values that cannot change in place.
        values: by where they are read, values that can.
        reads_environment: it reads variables of the environment, whichever they are.
    """

    __slots__ = ("_found", "_parts", "_persistent", "_seen", "_static", "_watched", "digest", "reads_environment", "root", "values")

    def __init__(self, root: Any, is_persistent: bool) -> None:
        self.root, self._persistent = root, is_persistent
        self.values: dict[str, Any] = {}
        self._static: list[Any] = []
        self._watched: list[tuple[Mapping[str, Any], str, Any]] = []
        self._parts: list[Any] = []  # classes, functions, cells, and mappings of attributes and defaults
        self._seen: set[Any] = set()
        self.reads_environment = False
        self._value("", root, frozenset())
        self.digest = digest_of(repr(self._static).encode("utf-8", "surrogatepass"))
        self._found = self._referents()
        self._seen.clear()

    @property
    def is_fixed(self) -> bool:
        """True where all of it is code of installed packages."""
        return not (self.values or self._watched or self._parts)

    def holds(self) -> bool:
        """False once a name stands for something else, or a function was given other code."""
        if not all(space.get(name, MISSING) is value for space, name, value in self._watched):
            return False
        return len(found := self._referents()) == len(self._found) and all(map(operator.is_, found, self._found))

    def _referents(self) -> list[Any]:
        """Bases of classes; code, defaults and cells of functions; contents of cells; entries of mappings."""
        return [*gc.get_referents(*self._parts), *chain.from_iterable(part for part in self._parts if isinstance(part, dict))]

    # --- walking ------------------------------------------------------------------------------------------------------

    def _value(self, where: str, value: Any, names: frozenset[str]) -> None:
        """Whatever a name stands for; ``names`` are those that are read of it, where it is a module."""
        if type(value) is property:
            for part in (value.fset, value.fdel):
                self._value(where, part, names)
        value = unwrapped(value)
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            self._module(value, names)
        elif isinstance(value, _DESCRIPTORS):
            return
        elif type(value) in PLAIN:
            self._static.append((where, type(value), value))
        else:
            self.values[where] = value

    def _function(self, function: types.FunctionType) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        module = function.__globals__.get("__name__") or "builtins"  # __module__ is another's under functools.wraps
        where = f"{module}.{function.__qualname__}:{function.__code__.co_firstlineno}"
        if is_installed(module):
            self._static.append(f"{module}.{function.__qualname__}")
            self._parts += function.__closure__ or ()
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                if type(held := _content(cell)) in _HELD or not is_installed(type(held).__module__):  # as decorators hold a function
                    self._value(f"{where} {name}", held, frozenset())
            return
        code = function.__code__
        self._parts += [function, function.__dict__, function.__kwdefaults__ or {}, *(function.__closure__ or ())]
        self._static.append((where, code_of(code), function.__name__, function.__doc__))
        for name, value in function.__dict__.items():
            self._value(f"{where} {name}", value, frozenset())
        for index, value in enumerate(function.__defaults__ or ()):
            self._value(f"{where} default {index}", value, frozenset())
        for name, value in (function.__kwdefaults__ or {}).items():
            self._value(f"{where} default {name}", value, frozenset())
        names, uses = _names_in(code), uses_of(code)
        self.reads_environment |= not _ENVIRONMENT.isdisjoint(names)
        unread = frozenset() if uses is None else frozenset(uses.names_written - uses.names_read)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._read(f"{where} {name}", _content(cell), names, is_unread=name in unread)
        for name in (*_imported_by(function), *[name for name in names if name in sys.modules and not is_installed(name)]):
            self._watched.append((sys.modules, name, module := sys.modules.get(name, MISSING)))
            self._read(f"{where} {name}", module, names, is_unread=False)
        for name in sorted(names):
            value = function.__globals__.get(name, MISSING)
            if value is MISSING or not (name in unread and is_book(value)):
                self._watched.append((function.__globals__, name, value))
            self._read(f"{where} {name}", value, names, is_unread=name in unread)

    def _read(self, where: str, value: Any, names: frozenset[str], *, is_unread: bool) -> None:
        if value is not MISSING and not (is_unread and is_book(value)):
            self._value(where, value, names)

    def _class(self, kind: type) -> None:
        for base in (*kind.__mro__, *type.mro(type(kind))[:-2]):  # the latter are metaclasses, up to type itself
            if id(base) in self._seen:
                continue
            self._seen.add(id(base))
            if is_installed(base.__module__):
                self._static.append((name_of(base), version_of(base.__module__.partition(".")[0]) if self._persistent else None))
                if self._persistent:
                    self._static += [code_of(entry.__code__) for entry in vars(base).values() if isinstance(entry, types.FunctionType)]
                continue
            self._static.append(name_of(base))
            self._parts += [base, entries_of(base)]
            for name, entry in base.__dict__.items():
                if name in _OF_PYTHON or (name.startswith("__") and not (callable(unwrapped(entry)) or is_plain(entry))):
                    continue
                self._static.append(name)
                self._value(f"{name_of(base)}.{name}", entry, frozenset())

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        """What is read of a module: all that has one of the names."""
        is_its_packages = is_installed(module.__name__)
        for name in sorted(names):
            if (id(module), name) in self._seen:
                continue
            self._seen.add((id(module), name))
            value = module.__dict__.get(name, MISSING)
            if not is_its_packages:
                self._watched.append((module.__dict__, name, value))
            elif not (isinstance(value, types.ModuleType) or type(value) in PLAIN):
                self._static.append((module.__name__, name, getattr(value, "__module__", None), getattr(value, "__qualname__", None)))
                continue
            if value is not MISSING:
                self._value(f"{module.__name__}.{name}", value, names)


def environment() -> bytes:
    """A digest of the variables of the environment."""
    return digest_of(
        *[f"{name}={value}".encode("utf-8", "surrogatepass") for name, value in sorted(os.environ.items()) if name not in _SHELLS]
    )


@functools.lru_cache(maxsize=4096)
def code_of(code: types.CodeType) -> bytes:
    """A digest of compiled code."""
    constants = [code_of(constant) if isinstance(constant, types.CodeType) else _constant(constant) for constant in code.co_consts]
    names = repr((code.co_names, code.co_varnames, code.co_argcount, code.co_kwonlyargcount, code.co_flags)).encode()
    return digest_of(code.co_code, names, *constants)


def _constant(constant: Any) -> bytes:
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode("utf-8", "surrogatepass")


# --- what functions and classes are made of, read without calling anything ---------------------------------------------


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


def _content(cell: Any) -> Any:
    """What a function around another one holds for it."""
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return MISSING


@functools.lru_cache(maxsize=4096)
def _names_in(code: types.CodeType) -> frozenset[str]:
    """Names of globals, attributes and modules in code, and in the functions that it makes, as words of a text as well."""
    words = [part for part in code.co_consts if isinstance(part, str) and part.replace(".", "_").isidentifier()]
    return frozenset([*code.co_names, *words]).union(*[_names_in(part) for part in code.co_consts if isinstance(part, types.CodeType)])


def _imported_by(function: types.FunctionType) -> list[str]:
    """Modules that a function imports when it is called."""
    package = function.__globals__.get("__package__") or ""
    found = []
    for level, name in steps_of("IMPORT_NAME", function.__code__):
        if not level:
            found.append(name)
        elif package.count(".") + 1 >= level:
            found.append(resolve_name("." * level + name, package))
    return found


@functools.lru_cache(maxsize=4096)
def steps_of(operation: str, code: types.CodeType) -> tuple[tuple[Any, str], ...]:
    """Names that an operation is done with in code, and in the functions that it makes; and what was loaded two steps before."""
    has_it = dis.opmap[operation] in code.co_code[::2]
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"] if has_it else []
    found = [(steps[index - 2].argval, step.argval) for index, step in enumerate(steps) if step.opname == operation]
    return (*found, *[each for part in code.co_consts if isinstance(part, types.CodeType) for each in steps_of(operation, part)])
