"""Edges and exposed ports in the order they were added, found by node and port at a cost that does not grow with their number."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from wgtorch.core.port import Port
from wgtorch.core.structure import Edge, Exposed

T = TypeVar("T", bound=Hashable)


class _Indexed(Generic[T]):
    """An ordered set whose members are found by any of their keys."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items: dict[T, None] = {}
        self._by_key: dict[Hashable, dict[T, None]] = {}
        for item in items:
            self.add(item)

    @staticmethod
    def keys(item: T) -> tuple[Hashable, ...]:
        """What a member is found by."""
        raise NotImplementedError

    def add(self, item: T) -> None:
        """Puts a member at the end, unless it is there."""
        if item not in self._items:
            self._items[item] = None
            for key in self.keys(item):
                self._by_key.setdefault(key, {})[item] = None

    def remove(self, items: Iterable[T]) -> None:
        """Takes members out."""
        for item in tuple(items):
            del self._items[item]
            for key in self.keys(item):
                found = self._by_key[key]
                found.pop(item, None)
                if not found:
                    del self._by_key[key]

    def find(self, *key: Hashable) -> Iterable[T]:
        """Members with a key, in order."""
        return self._by_key.get(key, ())

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Edges(_Indexed[Edge]):
    """Edges: ``find("node", id)``, ``find("into", node, port)``."""

    @staticmethod
    def keys(item: Edge) -> tuple[Hashable, ...]:
        ends = dict.fromkeys((("node", item.source_node), ("node", item.target_node)))
        return (*ends, ("into", item.target_node, item.target_port))


class ExposedPorts(_Indexed[Exposed]):
    """Exposed ports: ``find("node", id)``, ``find("name", name)``.

    ``kinds`` is for whoever exposes: by name, what the ports that it is given to take. It is forgotten when a member leaves.
    """

    def __init__(self, items: Iterable[Exposed] = ()) -> None:
        self.kinds: dict[str, dict[str, Port]] = {}
        super().__init__(items)

    def remove(self, items: Iterable[Exposed]) -> None:
        super().remove(items)
        self.kinds.clear()

    @staticmethod
    def keys(item: Exposed) -> tuple[Hashable, ...]:
        return ("node", item.node_id), ("name", item.name)
