"""Draws of what PyTorch's gradient checkpointing computes again: the second time they are those of the first.

``torch.utils.checkpoint`` keeps the state of the global generators for its second forward, which comes during backward, when the
run is over. Draws that a run serves are no business of those generators, so the region takes the run's call along
(https://github.com/pytorch/pytorch/issues/14253 tells what other draws would do to gradients). Regions are found by the hooks on
saved tensors that they set; those of ``use_reentrant=True``, which set none, by their frames on the stack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointFunction, _CheckpointFrame

from wgtorch.core.errors import StructureError

_top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # not there before PyTorch 2.7


def hooks_here() -> Any:
    """The innermost hooks on saved tensors of this thread, or None."""
    return None if _top is None else _top(True)


def draw_again_in(again: Callable[[], AbstractContextManager[Any]], around: Any) -> None:
    """Has the checkpointed regions that a call is in computed again inside ``again()``, unless that is settled already.

    Args:
        again: serves the draws that come next.
        around: :func:`hooks_here` when the call began; what is around it begins the call anew.
    """
    if not torch.is_grad_enabled():  # as it is inside of use_reentrant=True
        for context in _reentrant_regions():
            if not isinstance(context.run_function, _Again):
                context.run_function = _Again(context.run_function, again)
    elif _top is None:
        _refuse_hidden_regions()
    if (top := hooks_here()) is None or top == around or ((region := _region(top)) is not None and _is_settled(region)):
        return
    for region in filter(None, map(_region, _hooks(around))):
        if not _is_settled(region):
            region.recompute_fn = _Again(region.recompute_fn, again)


class _Again:
    """The second forward of a region, with the draws of the first."""

    def __init__(self, compute: Callable[..., Any], again: Callable[[], AbstractContextManager[Any]]) -> None:
        self.compute, self.again = compute, again

    def __call__(self, *args: Any) -> Any:
        with self.again():
            return self.compute(*args)


def _reentrant_regions() -> Iterator[Any]:
    """What regions with ``use_reentrant=True`` keep for backward, the innermost first, up to the walk that made the call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("wgtorch.core.run.") and module not in _DRAWING:
            return
        if frame.f_code is CheckpointFunction.forward.__code__:
            yield frame.f_locals["ctx"]
        frame = frame.f_back


def _refuse_hidden_regions() -> None:
    """Refuses draws in a region that cannot be found, whose gradients would be those of other draws."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("wgtorch.core.run.") and module not in _DRAWING:
            return
        if module == "torch.utils.checkpoint" and frame.f_code.co_name == "checkpoint":
            raise StructureError("a seeded run draws inside torch.utils.checkpoint(use_reentrant=False), which wants PyTorch 2.7 or newer")
        frame = frame.f_back


_DRAWING = {__name__, "wgtorch.core.run.active_call", "wgtorch.core.run.foreign_draws"}
"""Modules whose frames are between a draw and the code that draws."""


def _is_settled(region: Any) -> bool:
    return isinstance(region.recompute_fn, _Again)


def _hooks(around: Any) -> list[Any]:
    """Hooks on saved tensors of this thread, the innermost first, up to those around."""
    ends, taken = torch._C._autograd, []
    while (hooks := hooks_here()) is not None and hooks != around:
        taken.append(hooks)
        ends._pop_saved_tensors_default_hooks()
    for hooks in reversed(taken):
        ends._push_saved_tensors_default_hooks(*hooks)
    return taken


def _region(hooks: Any) -> Any:
    """The checkpointed region that set these hooks, or None."""
    cells = getattr(hooks[0], "__closure__", None) if hooks else None
    return next((cell.cell_contents for cell in cells or () if isinstance(cell.cell_contents, _CheckpointFrame)), None)
