"""Train and eval for the time of one run, felt by nobody else."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from wgtorch.core.structure import Node

_changed = threading.Condition()
_active: list[_Session] = []
_outer: ContextVar[tuple[_Session, ...]] = ContextVar("outer sessions", default=())
"""Runs that the current one runs inside of, in whatever thread."""


class _Session:
    """One run's hold on its modules: the mode each is to be in, and those that this run had to change."""

    __slots__ = ("_by_id", "flipped", "outer", "wanted")

    def __init__(self, wanted: list[tuple[nn.Module, bool]]) -> None:
        self.wanted = wanted
        self.outer = _outer.get()
        self.flipped: list[tuple[nn.Module, bool]] = []
        self._by_id: dict[int, bool] | None = None

    @property
    def modes(self) -> dict[int, bool]:
        """Wanted mode by module id; only built when two runs meet."""
        if self._by_id is None:
            self._by_id = {id(module): mode for module, mode in self.wanted}
        return self._by_id

    def conflicts(self, other: _Session) -> bool:
        """True when the two want one module in different modes and this one does not run inside the other."""
        return other not in self.outer and any(other.modes.get(key, mode) is not mode for key, mode in self.modes.items())


@contextmanager
def mode_for_run(root: nn.Module, training: bool) -> Iterator[None]:
    """Puts all modules under ``root`` into train or eval and gives each its own mode back after.

    Modules are shared between runs of several threads. Runs that want the same mode share it; one that wants the other
    mode of a module waits until those are through. Frozen blocks stay in eval.
    """
    session = _Session(_wanted_modes(root, training))
    with _changed:
        while any(session.conflicts(other) for other in _active):
            _changed.wait()
        for module, mode in session.wanted:
            if module.training is not mode:
                session.flipped.append((module, module.training))
                module.__dict__["training"] = mode  # nn.Module.__setattr__ looks for parameters first, at ten times the cost
        _active.append(session)
    token = _outer.set((*session.outer, session))
    try:
        yield
    finally:
        _outer.reset(token)
        with _changed:
            _active.remove(session)
            for module, before in session.flipped:
                heir = next(
                    (other for other in _active if other not in session.outer and other.modes.get(id(module)) is module.training), None
                )
                if heir is None:
                    module.__dict__["training"] = before
                else:  # another run still needs the module in this mode, and gives it back in its turn
                    heir.flipped.append((module, before))
            _changed.notify_all()


def _wanted_modes(root: nn.Module, training: bool) -> list[tuple[nn.Module, bool]]:
    """Each module under ``root`` with its mode. What stands at several places is in train when one of them trains it."""
    found: dict[int, tuple[nn.Module, bool]] = {}
    todo: list[tuple[nn.Module, bool, Collection[int]]] = [(root, training, ())]
    while todo:
        module, mode, idle = todo.pop()
        own = module.__dict__
        mode = mode and not own.get("_frozen", False)
        before = found.get(id(module))
        if before is not None and (before[1] or not mode):
            continue
        found[id(module)] = (module, mode)
        if module._modules:
            # A level's children hang one module below it, in its Nodes; those that train nowhere in it stay in eval.
            below = _idle_children(own["_places"], module._modules["nodes"]) if mode and "_places" in own else ()
            todo += [(child, mode and id(child) not in idle, below) for child in module._modules.values() if child is not None]
    return list(found.values())


def _idle_children(places: Mapping[str, Node], nodes: Any) -> Collection[int]:
    """Children that train at none of their places."""
    if all(place.trainable for place in places.values()):
        return ()
    trained = {id(nodes[node_id]) for node_id, place in places.items() if place.trainable}
    return {id(nodes[node_id]) for node_id in places} - trained
