"""Gradient checkpointing of loops: what a turn computed is thrown away, and computed again when backward needs it.

(Chen et al. 2016, https://arxiv.org/abs/1604.06174.) A turn keeps what it was given - a latent - so memory hardly grows with the
number of turns, at the price of a second forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from wgtorch.core import adapter_hook
from wgtorch.core.plan import Loop, Step
from wgtorch.core.port import MISSING
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.foreign_draws import serving
from wgtorch.core.run.loop_compiler import Walk
from wgtorch.core.run.modes import restore_modes
from wgtorch.core.run.node_call import ExecutorHost


class Recomputed:
    """Goes through turns of a loop so that backward computes them again.

    The second time is as the first: the same places, adapters, draws and train or eval modes, whatever the modules are set to
    by then. Callbacks hear of the first only, and no time limit stops the second.

    Args:
        composite: whose loop it is.
        loop: the step of its plan.
        take: goes through one turn.
    """

    def __init__(self, composite: ExecutorHost, loop: Loop, take: Walk) -> None:
        self.take = take
        self.reads = tuple(sorted({slot for step in loop.body for slot in step.reads} - set(loop.writes)))
        self.writes = loop.writes
        self.frees = tuple(slot for step in loop.body for slot in step.frees)
        self.root = composite
        # A composite that is being compiled keeps its modes: what they are is compiled in.
        self.modes = None if torch.compiler.is_compiling() else _modes(composite, loop)

    def __call__(self, composite: ExecutorHost, steps: Sequence[Step], slots: list[Any], run: RunContext | None) -> None:
        size = len(slots)

        def turn(run: RunContext | None, *values: Any) -> tuple[Any, ...]:
            own: list[Any] = [MISSING] * size
            for slot, value in zip(self.reads, values, strict=True):
                own[slot] = value
            self.take(composite, steps, own, run)
            return tuple([own[slot] for slot in self.writes])

        traced = self.modes is None
        results = checkpoint(turn if traced else self._told_apart(turn), run, *[slots[slot] for slot in self.reads], use_reentrant=False)
        for slot in self.frees:
            slots[slot] = MISSING
        for slot, value in zip(self.writes, results, strict=True):
            slots[slot] = value

    def _told_apart(self, turn: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        """A turn that knows whether it is computed for the first time."""
        times = count()

        def told(run: RunContext | None, *values: Any) -> tuple[Any, ...]:
            if next(times) == 0:
                return turn(run, *values)
            assert self.modes is not None
            with restore_modes(self.root, self.modes), serving(run is not None and run.key is not None), _same_buffers(self.modes):
                return turn(None if run is None else _again(run), *values)

        return adapter_hook.hook.preserve(told)


def _modes(composite: ExecutorHost, loop: Loop) -> list[tuple[Any, bool]]:
    children = {id(child): child for child in (composite.nodes[node] for node in loop.nodes)}
    return [(module, module.training) for child in children.values() for module in child.modules()]


@contextmanager
def _same_buffers(modes: Sequence[tuple[Any, bool]]) -> Iterator[None]:
    """Leaves buffers of what trains as they were: statistics of a BatchNorm, and counters, were moved by the first time already."""
    held = [
        (module, name, buffer, buffer.detach().clone())
        for module, is_training in modes
        if is_training
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in held:
            buffer.data.copy_(value)  # past the version counter: what backward saved of it stays good
            module._buffers[name] = buffer


def _again(run: RunContext) -> RunContext:
    quiet = replace(run.options, callbacks=(), cancelled=None, deadline=None, debug=False, results=None, taken=None)
    return replace(run, options=quiet)
