"""Registries: names that configs may use, found in this package and through entry points.

A config never names code to import. It names what was registered here, so nothing loaded from disk can choose a class.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from wgtorch.core.errors import StructureError, UnknownNameError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to registered things.

    Args:
        what: the things in words, for messages (``block type``).
        group: entry point group that other packages extend; an entry point's name is the registered name, or a
            module that registers several when imported.
        extras: names, or prefixes ending in ``/``, that a known extra of wgtorch would supply.
    """

    def __init__(self, what: str, *, group: str | None = None, extras: dict[str, str] | None = None) -> None:
        self.what = what
        self.group = group
        self.extras = extras or {}
        self._entries: dict[str, T] = {}
        self._lazy: dict[str, Callable[[], object]] = {}
        self._waiting: dict[str, EntryPoint] | None = None
        self._lock = threading.RLock()

    def register(self, name: str, entry: T) -> T:
        """Adds an entry. A name that another definition holds is an error; the same definition again replaces itself."""
        with self._lock:
            known = self._entries.get(name)
            if known is not None and known is not entry and not _same_definition(known, entry):
                raise StructureError(
                    f"{self.what} {name!r} is already registered by {_origin(known)}; choose another name for {_origin(entry)}"
                )
            self._entries[name] = entry
        return entry

    def provide(self, load: Callable[[], object], *names: str) -> None:
        """Says that calling ``load`` (an import) registers ``names``; it is called when one of them is asked for."""
        self._lazy.update(dict.fromkeys(names, load))

    def get(self, name: str) -> T:
        """The entry of a name; loads what provides it when it is first asked for.

        Raises:
            UnknownNameError: no such name; the message holds the nearest ones, and the pip line where an extra has it.
        """
        if name not in self._entries:
            self._load(name)
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self._unknown(name)) from None

    def names(self) -> list[str]:
        """All names, sorted, without loading what provides them."""
        return sorted({*self._entries, *self._lazy, *self._entry_points()})

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._lazy or name in self._entry_points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load(self, name: str) -> None:
        with self._lock:
            if name in self._lazy:
                self._lazy[name]()
            elif name in self._entry_points():
                loaded: Any = self._entry_points()[name].load()
                if name not in self._entries and not isinstance(loaded, ModuleType):
                    self.register(name, loaded)

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._waiting is None:
            found = entry_points(group=self.group) if self.group else ()
            self._waiting = {point.name: point for point in found}
        return self._waiting

    def _unknown(self, name: str) -> str:
        text = f"unknown {self.what} {name!r}; {suggest(name, self.names())}"
        for prefix, extra in self.extras.items():
            if name == prefix or (prefix.endswith("/") and name.startswith(prefix)):
                text += f"{'' if text.endswith('?') else '.'} It comes with: pip install 'wgtorch[{extra}]'."
        return text


LevelRegistry: Registry[type[Any]] = Registry("level")
"""Level classes by kind; each level's file adds its own."""

RemoteRegistry: Registry[Callable[..., Any]] = Registry("kind of endpoint")
"""What makes the child of a node at another endpoint, from its config and the class that may stand there; serving adds it."""


def _origin(entry: object) -> str:
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', entry)}"


def _same_definition(first: object, second: object) -> bool:
    """True when a notebook cell or a reloaded module defines the same thing again."""
    return _origin(first) == _origin(second)
