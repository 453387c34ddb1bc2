"""Train and eval for the time of one run, felt by nobody else."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from torch import nn

from wgtorch.core.nodes import Nodes
from wgtorch.core.structure import Node

Own = dict[str, Any]
"""A module's own ``__dict__``, which stands for it: ``nn.Module.__setattr__`` looks for parameters first, at ten times the cost."""
Wanted = tuple[list[Own], dict[int, Own]]
"""Modules that are to be in eval, some perhaps twice or among the others as well; and by id those that are to be in train."""
_NONE: frozenset[str] = frozenset()
_lock = threading.Lock()
_changed = threading.Condition(_lock)
_active: list[training_mode] = []
_waiting: list[training_mode] = []
_outer: ContextVar[tuple[training_mode, ...]] = ContextVar("outer runs", default=())
"""Runs that the current one runs inside of, in whatever thread."""


class training_mode:
    """Puts all modules under ``root`` into train or eval and gives each its own mode back after.

    Modules are shared between runs of several threads. Runs that want the same mode share it; one that wants the other
    mode of a module waits until those are through, unless it runs inside them. Frozen blocks stay in eval.
    """

    __slots__ = ("_modes", "_token", "from_eval", "from_train", "root", "training")

    def __init__(self, root: nn.Module, training: bool) -> None:
        self.root = root
        self.training = training
        # What this run found in train and put into eval, and the other way; one module may come twice.
        self.from_train: list[Own] = []
        self.from_eval: list[Own] = []
        self._modes: dict[int, bool] | None = None

    def __enter__(self) -> None:
        around = _outer.get()
        with _lock:
            while _active and any(self._conflicts(other) for other in _active if other not in around):
                _waiting.append(self)
                _changed.wait()
                _waiting.remove(self)
            if self.training:
                idle, trained = self._wanted()
                self.from_train = [own for own in idle if own["training"] and id(own) not in trained]
                self.from_eval = [own for own in trained.values() if not own["training"]]
            else:
                self.from_train = _in_train(self.root)
            for own in self.from_train:
                own["training"] = False
            for own in self.from_eval:
                own["training"] = True
            _active.append(self)
        self._token = _outer.set((*around, self))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _outer.reset(self._token)
        with _lock:
            _active.remove(self)
            if _active:
                self._hand_over()
            for own in self.from_train:
                own["training"] = True
            for own in self.from_eval:
                own["training"] = False
            if _waiting:
                _changed.notify_all()

    def _all_modes(self) -> dict[int, bool]:
        """Wanted mode by the id of a module's own dict; only built when two runs meet."""
        if self._modes is None:
            idle, trained = self._wanted()
            self._modes = {**{id(own): False for own in idle}, **dict.fromkeys(trained, True)}
        return self._modes

    def _wanted(self) -> Wanted:
        return _wanted_modes(self.root, self.training)

    def _conflicts(self, other: training_mode) -> bool:
        """True when the two want one module in different modes."""
        if not (self.training or other.training):
            return False
        theirs = other._all_modes()
        return any(theirs.get(key, mode) is not mode for key, mode in self._all_modes().items())

    def _hand_over(self) -> None:
        """Leaves modules that another run still needs as they are to that run, which gives them back in its turn."""
        for name, mode in (("from_train", False), ("from_eval", True)):
            own_list: list[Own] = []
            for own in getattr(self, name):
                heir = next((other for other in _active if other._all_modes().get(id(own)) is mode), None)
                (own_list if heir is None else getattr(heir, name)).append(own)
            setattr(self, name, own_list)


class restore_modes(training_mode):
    """Gives modules the modes back that they had at another time, for as long as it lasts.

    Args:
        root: what they belong to.
        modes: each module with its mode.
    """

    __slots__ = ("_had",)

    def __init__(self, root: Any, modes: list[tuple[nn.Module, bool]]) -> None:
        super().__init__(root, training=True)  # each has its own: all have to be looked at
        self._had = modes

    def _wanted(self) -> Wanted:
        own = [(_own(module), mode) for module, mode in self._had]
        return [each for each, mode in own if not mode], {id(each): each for each, mode in own if mode}


def _in_train(root: nn.Module) -> list[Own]:
    """What is in train under ``root``; one that stands at several places may come several times."""
    own = _own(root)
    found = [own] if own["training"] else []
    todo, seen = [root._modules], {id(root)}
    while todo:
        for child in todo.pop().values():
            if child is not None:
                own = child.__dict__
                try:
                    if own["training"]:
                        found.append(own)
                except KeyError:
                    if child.training:
                        found.append(_Scripted(child))
                if own["_modules"] and id(child) not in seen:
                    seen.add(id(child))
                    todo.append(own["_modules"])
    return found


class _Scripted(dict[str, Any]):
    """Stands for the own dict of a ScriptModule, which keeps its mode outside Python."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(training=module.training)
        self.module = module

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.module, name, value)


def _own(module: nn.Module) -> Own:
    return module.__dict__ if "training" in module.__dict__ else _Scripted(module)


def _wanted_modes(root: nn.Module, training: bool) -> Wanted:
    """Each module under ``root`` with its mode. What stands at several places is in train when one of them trains it."""
    idle: list[Own] = []
    trained: dict[int, Own] = {}
    seen: set[int] = set()
    # A level's children hang one module below it, in its Nodes; those that train nowhere in it stay in eval.
    todo: list[tuple[Mapping[str, Any], bool, frozenset[str], frozenset[str]]] = [({"": root}, training, _NONE, _NONE)]
    while todo:
        modules, mode, excluded, excluded_below = todo.pop()
        for key, module in modules.items():
            if module is None:
                continue
            own = held = module.__dict__  # which costs as much as ten looks into it
            if "training" not in held:
                own = _Scripted(module)
            trains = mode and not held.get("_frozen", False) and key not in excluded
            if not trains:
                idle.append(own)
            elif id(own) in trained:
                continue
            else:
                trained[id(own)] = own
            if (inside := held["_modules"]) and (trains or id(module) not in seen):
                seen.add(id(module))
                below = _frozen_keys(held) if trains and "_node_specs" in held else _NONE
                todo.append((inside, trains, excluded_below, below))
    return idle, trained


def _frozen_keys(level: Own) -> frozenset[str]:
    """What the children at frozen places are called in a level's Nodes; kept until the level changes."""
    known: frozenset[str] | None = level.get("_frozen_keys")
    if known is None:
        places: Mapping[str, Node] = level["_node_specs"]
        known = level["_frozen_keys"] = frozenset([Nodes.key(node_id) for node_id, place in places.items() if not place.trainable])
    return known
