"""What code says, as digests: of functions and classes of the user's own, and of all that they read of their modules, however deep.

Walking through it takes time, so it is done once: what is looked at the next time is whether every name still stands for the same thing.
Values that may change in place - lists, tensors, objects - are told anew each time.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import types
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.port import MISSING
from wgtorch.core.run.attribute_uses import is_book, uses_of
from wgtorch.core.run.content_digest import digest_of
from wgtorch.core.run.function_parts import content, imported_by, is_foreign, name_of, names_in, unwrapped
from wgtorch.core.run.held_values import Referents
from wgtorch.core.run.installed import is_installed, version_of
from wgtorch.core.run.installed_code import installed_code

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_SHOWN = frozenset(("__repr__", "__str__", "__format__"))
"""Methods of tensors that are called where code names none of them, as by an f-string."""
_ENVIRONMENT = frozenset(("environ", "environb", "getenv", "getenvb", "expandvars"))
_SHELLS = frozenset(("_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"))
"""Variables that shells and tests write of themselves, and nothing computes with."""
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)


class Code:
    """A class or function with all that it reads, as it is now.

    Args:
        root: the class or function.
        is_persistent: the digest has to tell versions of installed packages apart.

    Attributes:
        digest: of code, and of values that cannot change in place.
        values: by where they are read, values that can.
        parts: of installed packages, that it comes to.
        reads_environment: it reads variables of the environment, whichever they are.
    """

    __slots__ = (
        "_installed",
        "_names",
        "_persistent",
        "_referents",
        "_seen",
        "_static",
        "_watched",
        "digest",
        "parts",
        "reads_environment",
        "root",
        "values",
    )

    def __init__(self, root: Any, is_persistent: bool) -> None:
        self.root, self._persistent = root, is_persistent
        self.values: dict[str, Any] = {}
        self._static: list[Any] = []
        self._watched: list[tuple[Mapping[str, Any], str, Any]] = []
        self._referents = Referents()
        self._seen: set[Any] = set()
        self._installed: list[tuple[Any, bool]] = [(Tensor, False)]
        self._names: set[str] = set()
        self.reads_environment = False
        self._value("", root, frozenset())
        self.digest = digest_of(repr(self._static).encode("utf-8", "surrogatepass"))
        self._referents.remember()
        found = [(value, () if is_called else self._names | (_SHOWN if value is Tensor else set())) for value, is_called in self._installed]
        self.parts = frozenset().union(*[installed_code().reach(value, names) for value, names in found])
        self._seen.clear()
        self._installed.clear()

    @property
    def is_fixed(self) -> bool:
        """True where all of it is code of installed packages."""
        return not (self.values or self._watched or len(self._referents))

    def holds(self) -> bool:
        """False once a name stands for something else, or a function was given other code."""
        return all(space.get(name, MISSING) is value for space, name, value in self._watched) and self._referents.hold()

    # --- walking ------------------------------------------------------------------------------------------------------

    def _value(self, where: str, value: Any, names: frozenset[str]) -> None:
        """Whatever a name stands for; ``names`` are those that are read of it, where it is a module."""
        value = unwrapped(value)
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            self._module(value, names)
        elif isinstance(value, _DESCRIPTORS):
            return
        elif type(value) in _PLAIN:
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
            self._installed.append((function, False))
            return
        code = function.__code__
        self._referents.add(function, function.__dict__, function.__kwdefaults__, *(function.__closure__ or ()))
        self._static.append((where, code_of(code)))
        for name, value in function.__dict__.items():
            self._value(f"{where} {name}", value, frozenset())
        for index, value in enumerate(function.__defaults__ or ()):
            self._value(f"{where} default {index}", value, frozenset())
        for name, value in (function.__kwdefaults__ or {}).items():
            self._value(f"{where} default {name}", value, frozenset())
        names, uses = names_in(code), uses_of(code)
        self._names |= names
        self.reads_environment |= not _ENVIRONMENT.isdisjoint(names)
        unread = frozenset() if uses is None else frozenset(uses.names_written - uses.names_read)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._read(f"{where} {name}", content(cell), names, is_unread=name in unread)
        for name in imported_by(function):
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
        for base in kind.__mro__:
            if id(base) in self._seen:
                continue
            self._seen.add(id(base))
            if is_installed(base.__module__):
                self._static.append((name_of(base), version_of(base.__module__.partition(".")[0]) if self._persistent else None))
                if self._persistent:
                    self._static += [code_of(entry.__code__) for entry in vars(base).values() if isinstance(entry, types.FunctionType)]
                self._installed.append((base, kind is self.root))
                continue
            self._static.append(name_of(base))
            self._referents.add(gc.get_referents(vars(base))[0])
            for name, entry in base.__dict__.items():
                if name == "_abc_impl" or (name.startswith("__") and not callable(entry)):
                    continue
                self._static.append(name)
                self._value(f"{name_of(base)}.{name}", entry, frozenset())

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        """What is read of a module: all that has one of the names."""
        if is_its_packages := is_installed(module.__name__):
            self._installed.append((module, False))
        for name in sorted(names):
            if (id(module), name) in self._seen:
                continue
            self._seen.add((id(module), name))
            value = module.__dict__.get(name, MISSING)
            if not is_its_packages:
                self._watched.append((module.__dict__, name, value))
            elif not (isinstance(value, types.ModuleType) or type(value) in _PLAIN or is_foreign(value)):
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
