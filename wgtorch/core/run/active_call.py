"""The call of a node that a thread is in: what runs inside it take after, and whose draws are served."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

import torch

from wgtorch.core.run.cached_call import note_draw
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.foreign_draws import active, serving
from wgtorch.core.run.recomputed_draws import draw_again_in, hooks_here
from wgtorch.core.run.rng import Rng, key_of_draw


class ActiveCall:
    """The call of a node that goes on: what a run inside it takes after, and whose draws are served.

    Args:
        run: of the level whose node is called.
        step: of the plan, whose node is called; the walk moves it on from node to node. None where the run is that of one block.
        item: its place in a mapped list.
    """

    __slots__ = ("around", "draws", "item", "run", "step")

    def __init__(self, run: RunContext, step: Any = None, item: int | None = None) -> None:
        self.run, self.step, self.item = run, step, item
        self.draws = 0
        self.around = None if torch.compiler.is_compiling() else hooks_here()

    def child(self) -> RunContext:
        """The run as a level that is called inside the node sees it: all of it is wanted, nothing is given."""
        inner = replace(self.run) if self.step is None else self.run.child(self.step.node, item=self.item)
        inner.feeds, inner.wanted, inner.num_loop_steps = None, None, None
        return inner

    def next_draw(self) -> Rng | None:
        """Draws of the next operator that draws in this call; None where the run has no seed."""
        note_draw()
        if self.run.key is None:
            return None
        if self.step is None:
            rng = Rng.of(self.run.key, self.run.sample)
        else:
            rng = self.run.rng(self.step.node, item=self.item)
        draw_again_in(partial(self._again, self.run, self.step, self.item, self.draws), self.around)
        rng.key = key_of_draw(rng.key, self.draws)  # type: ignore[arg-type]
        self.draws += 1
        return rng

    @staticmethod
    def _again(run: RunContext, step: Any, item: int | None, draws: int) -> serve_call:
        """Serves the draws from the ``draws``-th on, for what is computed a second time."""
        call = ActiveCall(run, step, item)
        call.draws = draws
        return serve_call(call)

    def where(self) -> str:
        """The node's path."""
        return "/".join(self.run.path) if self.step is None else self.run.where(self.step.node)


class serve_call:
    """While it lasts, operators of this thread that draw are served from ``call``; felt by no other thread."""

    __slots__ = ("_serving", "_token", "call")

    def __init__(self, call: ActiveCall) -> None:
        self.call = call

    def __enter__(self) -> None:
        self._token = enter_call(self.call)
        self._serving = serving(self.call.run.key is not None)
        self._serving.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._serving.__exit__(kind, error, traceback)
        leave_call(self._token)


def drawing_from(rng: Rng) -> serve_call:
    """While it lasts, operators of this thread that draw without naming a generator draw from ``rng``; felt by no other thread.

    Example:
        >>> with drawing_from(Rng(7)):
        ...     torch.randn(3)
    """
    return serve_call(ActiveCall(RunContext(RunOptions(""), key=rng.key, sample=rng.sample)))


active_call = active.get
"""The call of a node that goes on here, if one does."""
enter_call, leave_call = active.set, active.reset
