"""Draws of what PyTorch's gradient checkpointing computes again: the second time they are those of the first.

``torch.utils.checkpoint`` keeps the state of the global generators for its second forward, which comes during backward, when the
run is over. Draws that a run serves are no business of those generators, so the region takes the run's call along
(https://github.com/pytorch/pytorch/issues/14253 tells what other draws would do to gradients). Regions are found by the hooks on
saved tensors that they set; ``use_reentrant=True`` sets none, and is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.checkpoint import _CheckpointFrame


def hooks_here() -> Any:
    """The innermost hooks on saved tensors of this thread, or None."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def draw_again_in(again: Callable[[], AbstractContextManager[Any]], around: Any) -> None:
    """Has the checkpointed regions that a call is in computed again inside ``again()``, unless that is settled already.

    Args:
        again: serves the draws that come next.
        around: :func:`hooks_here` when the call began; what is around it begins the call anew.
    """
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
