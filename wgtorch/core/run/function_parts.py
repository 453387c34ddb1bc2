"""What functions and classes are made of, read without calling anything: names and imports in code, what wraps a function, whose it is."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Mapping
from importlib.util import resolve_name
from typing import Any

from wgtorch.core.port import MISSING
from wgtorch.core.run.installed import is_installed

_TABLE = 1000
"""Functions in a mapping of a module that is watched as well."""


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


def is_installed_code(value: Any) -> bool:
    """True for a function or class of an installed package, which its name tells."""
    value = innermost(value)
    return issubclass(type(value), (types.FunctionType, type)) and not is_foreign(value)


def innermost(value: Any) -> Any:
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
    value = innermost(value)
    kind = type(value)
    if kind is types.FunctionType:
        module, file = value.__globals__.get("__name__"), value.__globals__.get("__file__")
        if file is not None and file != value.__code__.co_filename and not value.__code__.co_filename.startswith("<"):
            return True
    else:
        module = (value if issubclass(kind, type) else kind).__module__
    root = sys.modules.get(module.partition(".")[0]) if isinstance(module, str) else None
    return root is not None and (getattr(root, "__file__", None) is not None or module == "__main__") and not is_installed(module)


def inside(function: types.FunctionType) -> tuple[Any, ...]:
    """Code, defaults and what the cells of a function hold."""
    cells = [content(cell) for cell in function.__closure__ or ()]
    return (function.__code__, function.__defaults__, *(function.__kwdefaults__ or {}).values(), *cells)


def tables_in(value: Any) -> list[dict[Any, Any]]:
    """A mapping of functions, or those inside of a registry of a package's own, such as that of kinds of attention."""
    kind = type(value)
    if kind is dict:
        return [value] if len(value) < _TABLE and any(type(item) is types.FunctionType for item in value.values()) else []
    if not issubclass(kind, Mapping) or kind.__module__.partition(".")[0] in sys.stdlib_module_names:
        return []
    held = [*getattr(value, "__dict__", {}).values(), *vars(kind).values()]
    return [item for item in held if type(item) is dict and len(item) < _TABLE]


def own_globals(entries: Mapping[str, Any]) -> set[str]:
    """Names that functions of a module say are ``global``, which so are its state and not its code."""
    functions = [unwrapped(value) for value in dict(entries).values()]
    functions += [unwrapped(entry) for kind in functions if issubclass(type(kind), type) for entry in dict(vars(kind)).values()]
    codes = {f.__code__ for f in functions if type(f) is types.FunctionType and f.__globals__ is entries}
    return {name for code in codes for name in _globals_in(code)}


@functools.lru_cache(maxsize=4096)
def _globals_in(code: types.CodeType) -> frozenset[str]:
    found = [step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"] if _has("STORE_GLOBAL", code) else []
    return frozenset(found).union(*[_globals_in(part) for part in code.co_consts if isinstance(part, types.CodeType)])


def _has(operation: str, code: types.CodeType) -> bool:
    return dis.opmap[operation] in code.co_code[::2]
