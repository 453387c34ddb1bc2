"""Train and eval for the time of one run, felt by nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

_changed = threading.Condition()


@dataclass(slots=True)
class _Hold:
    """Who needs a module in a mode: the runs that share it, and what the mode was before them."""

    module: nn.Module
    mode: bool
    before: bool
    thread: int
    count: int = 1


_held: dict[int, _Hold] = {}


@contextmanager
def mode_for_run(root: nn.Module, training: bool) -> Iterator[None]:
    """Puts all modules under ``root`` into train or eval and gives each its own mode back after.

    Modules are shared between runs of several threads. Runs that want the same mode share it; one that wants the other
    mode of a module waits until those are through. Frozen blocks stay in eval.
    """
    wanted = _wanted_modes(root, training)
    me = threading.get_ident()
    with _changed:
        while any((hold := _held.get(id(module))) and hold.mode is not mode and hold.thread != me for module, mode in wanted):
            _changed.wait()
        taken, nested = [], []
        for module, mode in wanted:
            hold = _held.get(id(module))
            if hold is None:
                _held[id(module)] = _Hold(module, mode, module.training, me)
                module.training = mode
                taken.append(module)
            elif hold.mode is mode:
                hold.count += 1
                taken.append(module)
            else:  # a run inside a run of the same thread
                nested.append((module, module.training))
                module.training = mode
    try:
        yield
    finally:
        with _changed:
            for module, before in nested:
                module.training = before
            for module in taken:
                hold = _held[id(module)]
                hold.count -= 1
                if not hold.count:
                    module.training = hold.before
                    del _held[id(module)]
            _changed.notify_all()


def _wanted_modes(root: nn.Module, training: bool) -> list[tuple[nn.Module, bool]]:
    seen: set[int] = set()
    wanted: list[tuple[nn.Module, bool]] = []
    todo: list[tuple[nn.Module, bool]] = [(root, training)]
    while todo:
        module, mode = todo.pop()
        mode = mode and not getattr(module, "_frozen", False)
        if id(module) in seen:
            continue
        seen.add(id(module))
        wanted.append((module, mode))
        todo += [(child, mode) for child in module._modules.values() if child is not None]
    return wanted
