"""What the code of a class reads and writes of itself, as its source tells: which attributes are bookkeeping, as a count of calls is.

``self.calls += 1`` and ``self.seen.append(x)`` write; ``x + self.calls`` and ``len(self.seen)`` read. An attribute that is written and
never read by what ``forward`` comes to changes no output. Where the source is not to be had, or ``self`` is handed on, all is read.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wgtorch.core.run.installed import is_installed

_STARTS = ("forward", "__call__", "precompute_invariants")
_GROWS = frozenset(("append", "appendleft", "extend", "insert", "add", "update", "clear"))
"""Methods of lists, sets, mappings and counters that return nothing, and do nothing to what they are given."""
_BOOKS = (type(None), bool, int, float, str, bytes, list, dict, set)


@dataclass(slots=True)
class Uses:
    """What one function does with attributes of its first argument, and with names outside of it.

    Args:
        reads, writes: attributes of ``self``.
        names_read, names_written: of globals and of functions around it.
        is_handed_on: ``self`` itself goes somewhere.
    """

    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    names_read: set[str] = field(default_factory=set)
    names_written: set[str] = field(default_factory=set)
    is_handed_on: bool = False


def _uses(function: Any, own: str | None) -> Uses:
    found = Uses()
    nodes: list[Any] = [node for part in function.body for node in ast.walk(part)]
    written = {id(place) for node in nodes for place in _written_by(node, own)}
    selves = {id(node.value) for node in nodes if _attribute(node, own)}
    for node in nodes:
        if name := _attribute(node, own):
            (found.writes if id(node) in written else found.reads).add(name)
        elif isinstance(node, ast.Name) and node.id != own:
            (found.names_written if id(node) in written else found.names_read).add(node.id)
        elif isinstance(node, ast.Name) and id(node) not in selves:
            found.is_handed_on = True
    return found


def _written_by(node: Any, own: str | None) -> Iterator[ast.AST]:
    """Attributes of ``self``, and names, that are written to in one step of the code and not read by it."""
    if isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
        yield _place(node, own)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(called := node.value.func, ast.Attribute):
        if called.attr in _GROWS:
            yield _place(called.value, own)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and (name := _attribute(node.targets[0], own)):
        parts = list(ast.walk(node.value))
        if not any(isinstance(part, (ast.NamedExpr, ast.Call)) for part in parts):
            yield from [part for part in parts if _attribute(part, own) == name]  # self.calls = self.calls + 1


def _place(node: Any, own: str | None) -> Any:
    """The attribute of ``self``, or the name, inside of which something is."""
    while isinstance(node, (ast.Attribute, ast.Subscript)) and not _attribute(node, own):
        node = node.value
    return node


def _attribute(node: Any, own: str | None) -> str:
    """The name, where it is an attribute of ``self``."""
    found = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == own
    return node.attr if found else ""


@functools.lru_cache(maxsize=4096)
def uses_of(code: types.CodeType) -> Uses | None:
    """What a function does with attributes and names; None where its source is not to be had."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    function = next((node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))), None)
    if function is None or function.name != code.co_name:
        return None
    return _uses(function, function.args.args[0].arg if function.args.args else None)


_known: weakref.WeakKeyDictionary[type, tuple[tuple[Any, ...], frozenset[str]]] = weakref.WeakKeyDictionary()


def bookkeeping_of(kind: type) -> frozenset[str]:
    """Attributes that calls of a class of the user's own write and never read."""
    if is_installed(kind.__module__):
        return frozenset()
    own = [base for base in _bases(kind) if not is_installed(base.__module__)]
    entries = tuple([entry for base in own for entry in base.__dict__.values() if isinstance(entry, _METHODS)])
    known = _known.get(kind)
    if known is None or len(known[0]) != len(entries) or any(a is not b for a, b in zip(known[0], entries, strict=True)):
        known = _known[kind] = (entries, _bookkeeping(kind))
    return known[1]


def is_book(value: Any) -> bool:
    """True for values that may be bookkeeping: plain ones, and lists, sets and mappings."""
    return isinstance(value, _BOOKS)


def _bases(kind: type) -> Iterator[type]:
    return (base for base in kind.__mro__ if base is not object and not base.__module__.startswith("torch."))


_METHODS = (types.FunctionType, property, functools.cached_property, staticmethod, classmethod)


def _bookkeeping(kind: type) -> frozenset[str]:
    reads: set[str] = set()
    writes: set[str] = set()
    seen, todo = set(_STARTS), list(_STARTS)
    while todo:
        for method in _methods(kind, todo.pop()):
            code = getattr(inspect.unwrap(method), "__code__", None)
            uses = None if code is None else uses_of(code)
            if uses is None or uses.is_handed_on:
                return frozenset()
            reads |= uses.reads
            writes |= uses.writes
            todo += uses.reads - seen
            seen |= uses.reads
    return frozenset(writes - reads)


def _methods(kind: type, name: str) -> Iterator[Any]:
    """The functions of this name that a class and its bases outside of PyTorch have; any of them may be called by way of ``super``."""
    for base in _bases(kind):
        entry = base.__dict__.get(name)
        entry = entry.fget if isinstance(entry, property) else entry.func if isinstance(entry, functools.cached_property) else entry
        entry = entry.__func__ if isinstance(entry, (staticmethod, classmethod)) else entry
        if callable(entry) and not isinstance(entry, type):
            yield entry
