"""Registries: names that configs may use, found in this package and through entry points.

A config never names code to import. It names what was registered here, so nothing loaded from disk can choose a class.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from wgtorch.core.errors import PluginError, StructureError, UnknownNameError, WgtorchError, suggest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginFault:
    """What is wrong with an entry point of an installed package. The names that others bring are not touched by it.

    Args:
        what: what the entry point was to bring, in words (``block type``).
        name: of the entry point.
        value: where it points, as ``package.module:attribute``.
        package: the distribution that declares it; empty where nobody says.
        reason: what went wrong, and how to mend it.
    """

    what: str
    name: str
    value: str
    package: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} {self.name!r}{f' of {self.package}' if self.package else ''} ({self.value}): {self.reason}"


class Registry(Generic[T]):
    """A mapping from names to registered things.

    Args:
        what: the things in words, for messages (``block type``).
        group: entry point group that other packages extend. An entry point leads to the thing of its name
            (``"mine/scale" = "mine.blocks:Scale"``), or to a module that registers one or several when imported
            (``mine = "mine.blocks"``).
        extras: names, or prefixes ending in ``/``, that a known extra of wgtorch would supply.
        accept: makes an entry of what an entry point led to, or raises a TypeError or ValueError that says what is expected.
    """

    def __init__(
        self,
        what: str,
        *,
        group: str | None = None,
        extras: dict[str, str] | None = None,
        accept: Callable[[str, Any], T] | None = None,
    ) -> None:
        self.what = what
        self.group = group
        self.extras = extras or {}
        self.accept = accept
        self._entries: dict[str, T] = {}
        self._waiting: dict[str, EntryPoint] | None = None
        self._loaded_modules: set[str] = set()  # entry points that led to a module, by name
        self._faults: dict[str, PluginFault] = {}
        self._lock = threading.RLock()

    def register(self, name: str, entry: T) -> T:
        """Adds an entry. A name that another definition holds is an error; the same definition again replaces itself."""
        with self._lock:
            known = self._entries.get(name)
            if name in self._provided() and not _origin(entry).startswith("wgtorch."):
                raise StructureError(f"{self.what} {name!r} is wgtorch's own; choose another name for {_origin(entry)}")
            if known is not None and _origin(known) != _origin(entry):  # a cell that is run again defines the same
                raise StructureError(
                    f"{self.what} {name!r} is already registered by {_origin(known)}; choose another name for {_origin(entry)}"
                )
            self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """The entry of a name; loads what provides it when it is first asked for.

        Raises:
            UnknownNameError: no such name; the message holds the nearest ones, and the pip line where an extra has it.
            PluginError: an installed package announces the name and fails to bring it; the fault is its ``__cause__``.
        """
        if name not in self._entries:
            self._load(name)
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self._unknown(name)) from None

    def names(self) -> list[str]:
        """All names, sorted, without loading what provides them; modules of other packages that bring several are loaded."""
        self._load_modules()
        waiting = [name for name, point in self._entry_points().items() if point.attr]
        return sorted({*self._entries, *self._provided(), *waiting} - set(self._faults))

    def faults(self) -> tuple[PluginFault, ...]:
        """What is wrong with entry points of installed packages, all of which are loaded."""
        self._load_points(list(self._entry_points()))
        return tuple(self._faults.values())

    def origin(self, name: str) -> str:
        """The package that brings a name: the one whose entry point leads to it, else the one that its module belongs to."""
        if name in self._entry_points() and name not in self._provided():
            return _package(self._entry_points()[name])
        if name in self._entries:
            return _origin(self._entries[name]).partition(".")[0]
        return "wgtorch"

    def __contains__(self, name: object) -> bool:
        if name in self._entries or name in self._provided():
            return True
        return name in self._entry_points() or name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load(self, name: str) -> None:
        with self._lock:
            if name in self._provided():
                import_module(self._provided()[name])
            elif name in self._entry_points():
                self._load_point(name)
            else:
                self._load_modules()

    def _load_modules(self) -> None:
        """Imports the modules that entry points name as a whole, whose names nobody knows before."""
        self._load_points([name for name, point in self._entry_points().items() if not point.attr])

    def _load_points(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._loaded_modules and name not in self._faults:
                with suppress(WgtorchError):
                    self._load_point(name)

    def _load_point(self, name: str) -> None:
        """Loads one entry point; what is wrong with it is kept, and raised when its name is asked for again."""
        point = self._entry_points()[name]
        if name in self._faults:
            raise PluginError(str(self._faults[name]))
        try:
            with self._lock:
                if name in self._provided():
                    raise StructureError("the name is wgtorch's own; choose another one")
                loaded: Any = point.load()
                if isinstance(loaded, ModuleType):
                    self._loaded_modules.add(name)
                    package = loaded.__name__.partition(".")[0]
                    if not any(_origin(entry).partition(".")[0] == package for entry in self._entries.values()):
                        raise StructureError(f"the module registers no {self.what} when it is imported")
                else:
                    self.register(name, self.accept(name, loaded) if self.accept is not None else loaded)
        except (Exception, SystemExit) as error:  # a module that is a script ends by sys.exit
            reason = str(error) if isinstance(error, StructureError) else f"{type(error).__name__}: {error}"
            self._faults[name] = PluginFault(self.what, name, point.value, _package(point), reason)
            raise PluginError(str(self._faults[name])) from error

    def _provided(self) -> Mapping[str, str]:
        return _PROVIDED.get(self.group or "", {})

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
        if self._faults:
            text += f"{'' if text.endswith('?') else '.'} Not loaded: {'; '.join(map(str, self._faults.values()))}"
        return text


_PROVIDED: dict[str, dict[str, str]] = {}
"""By group: the module of this package that registers a name when it is imported."""


def provide_modules(group: str, modules: Mapping[str, Iterable[str]]) -> None:
    """Says which module of this package registers which names of a group; nothing is imported.

    Args:
        group: of the registry.
        modules: names by module.
    """
    _PROVIDED.setdefault(group, {}).update({name: module for module, names in modules.items() for name in names})


def announced(group: str) -> list[str]:
    """Names of a group that are known without importing anything: this package's own, and those of entry points."""
    return sorted({*_PROVIDED.get(group, {}), *(point.name for point in entry_points(group=group) if point.attr)})


LevelRegistry: Registry[type[Any]] = Registry("level", group="wgtorch.levels")
"""Level classes by kind; each level's file adds its own."""

RemoteRegistry: Registry[Callable[..., Any]] = Registry("kind of endpoint", group="wgtorch.endpoints")
"""What makes the child of a node at another endpoint, from its config and the class that may stand there; serving adds it."""


def _origin(entry: object) -> str:
    entry = getattr(entry, "build", getattr(entry, "func", entry))  # a template, and a partial, are where their function is
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', entry)}"


def _package(point: EntryPoint) -> str:
    return getattr(getattr(point, "dist", None), "name", None) or ""
