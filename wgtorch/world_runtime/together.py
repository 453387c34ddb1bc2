"""Several worlds that live beside each other: their calls of local models join, and those over a network overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from wgtorch.core.errors import PortTypeError
from wgtorch.core.run.events import Callback, callbacks_of, told_of_item
from wgtorch.core.run.joined_runs import run_items
from wgtorch.world_runtime.state import State


def run_together(
    worlds: Sequence[Any],
    states: Sequence[State | None],
    action: Any,
    where: str,
    *,
    callbacks: Callback | Iterable[Callback] | None = None,
    apart: bool = False,
    **options: Any,
) -> list[Any]:
    """What ``run`` gives for each world; its exception where it failed.

    Args:
        worlds: none twice.
        states: for each world where it starts; None goes on where it is.
        action: one for all worlds, or a list with one for each, of which each may be a list with one for each pass.
        where: who asks, for messages.
        callbacks: told of every world's events; ``event.item`` is its number.
        apart: every world makes its own calls.
        options: of :meth:`World.run`, the same for all.

    Raises:
        PortTypeError: there are more or fewer actions than worlds.
    """
    told = () if callbacks is None else callbacks_of(callbacks, where)
    for world in worlds[:1]:
        world.check_options(options, "run")
    actions = list(action) if isinstance(action, (list, tuple)) else [action] * len(worlds)
    if len(actions) != len(worlds):
        raise PortTypeError(
            f"{where}: {len(actions)} actions for {len(worlds)} worlds; give one for all, or a list with one for each (which may be a "
            "list with one for each pass)"
        )
    runs: list[Callable[[], Any]] = [
        partial(world.run, state, action=own, callbacks=[told_of_item(index, told)] if told else None, **options)
        for index, (world, state, own) in enumerate(zip(worlds, states, actions, strict=True))
    ]
    return run_items(runs, joins=True, apart=apart)
