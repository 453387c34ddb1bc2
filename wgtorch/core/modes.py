"""Train and eval for the time of one run, felt by nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_changed = threading.Condition()
_active: list[_Session] = []


class _Session:
    """One run's hold on its modules: the mode each is to be in, and those that this run had to change."""

    __slots__ = ("_by_id", "flipped", "thread", "wanted")

    def __init__(self, wanted: list[tuple[nn.Module, bool]]) -> None:
        self.wanted = wanted
        self.thread = threading.get_ident()
        self.flipped: list[tuple[nn.Module, bool]] = []
        self._by_id: dict[int, bool] | None = None

    @property
    def modes(self) -> dict[int, bool]:
        """Wanted mode by module id; only built when two runs meet."""
        if self._by_id is None:
            self._by_id = {id(module): mode for module, mode in self.wanted}
        return self._by_id

    def conflicts(self, other: _Session) -> bool:
        """True when the two want one module in different modes and neither runs inside the other."""
        return self.thread != other.thread and any(other.modes.get(key, mode) is not mode for key, mode in self.modes.items())


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
    try:
        yield
    finally:
        with _changed:
            _active.remove(session)
            for module, before in session.flipped:
                heir = next(
                    (other for other in _active if other.thread != session.thread and other.modes.get(id(module)) is module.training), None
                )
                if heir is None:
                    module.__dict__["training"] = before
                else:  # another run still needs the module in this mode, and gives it back in its turn
                    heir.flipped.append((module, before))
            _changed.notify_all()


def _wanted_modes(root: nn.Module, training: bool) -> list[tuple[nn.Module, bool]]:
    seen: set[int] = set()
    wanted: list[tuple[nn.Module, bool]] = []
    todo: list[tuple[nn.Module, bool]] = [(root, training)]
    while todo:
        module, mode = todo.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        mode = mode and not module.__dict__.get("_frozen", False)
        wanted.append((module, mode))
        if module._modules:
            todo += [(child, mode) for child in module._modules.values() if child is not None]
    return wanted
