"""What objects, modules and classes held when they were first looked at, and whether they still do."""

from __future__ import annotations

import builtins
import gc
from collections.abc import Iterator
from typing import Any

from wgtorch.core.port import MISSING
from wgtorch.core.run.dict_versions import addresses_of, dict_version
from wgtorch.core.run.function_parts import is_foreign, own_globals

_REPORTS: dict[str, frozenset[str]] = {
    "builtins": frozenset(("_",)),
    "sys": frozenset(("stdin", "stdout", "stderr", "displayhook", "excepthook", "last_exc", "last_type", "last_value", "last_traceback")),
    "warnings": frozenset(("filters", "showwarning", "_showwarnmsg_impl")),
}
"""Names of where a process writes what it has to say, which nothing computes with."""


class Referents:
    """What objects refer to: entries of mappings, code and defaults of functions, contents of cells, bases of classes."""

    __slots__ = ("_addresses", "_found", "_mappings", "_objects", "_versions")

    def __init__(self) -> None:
        self._mappings: dict[int, dict[Any, Any]] = {}
        self._objects: dict[int, Any] = {}
        self._versions: list[int] = []  # of the mappings: every change of one gives it a number that no other one ever had
        self._found, self._addresses = list[Any](), b""  # while what was found is held, nothing else gets its address

    def __len__(self) -> int:
        return len(self._mappings) + len(self._objects)

    def add(self, *values: Any) -> None:
        """Looks at these as well, from the next :meth:`remember` on."""
        for value in values:
            if value is not None:
                (self._mappings if isinstance(value, dict) else self._objects)[id(value)] = value

    def remember(self) -> None:
        """What they refer to now is what they are to refer to."""
        self._versions = list(map(dict_version, self._mappings.values()))
        self._found = gc.get_referents(*self._objects.values())
        self._addresses = addresses_of(self._found)

    def hold(self) -> bool:
        """False once one of them refers to something else."""
        if list(map(dict_version, self._mappings.values())) != self._versions:
            return False
        return not self._objects or addresses_of(gc.get_referents(*self._objects.values())) == self._addresses


class Namespace:
    """What a module, a class or a table of functions held when it was first come to.

    Args:
        where: its name.
        owner: the module or class; None for a table.
        entries: what it holds now.
    """

    def __init__(self, where: str, owner: Any, entries: dict[str, Any]) -> None:
        self.where, self.owner, self.entries, self.first = where, owner, entries, dict(entries)
        self.is_table = owner is None and "__name__" not in entries
        self.replaced: list[tuple[str, Any]] = []
        self._version: Any = None
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
            return is_foreign(value) or ("__builtins__" in self.entries and hasattr(builtins, name))  # of code that finds it here first
        return name not in own_globals(self.entries)
