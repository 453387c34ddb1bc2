"""Events: what callbacks and streams are told of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import brief, describe


@dataclass(slots=True, repr=False)
class Event:
    """What a callback is told.

    Args:
        kind: ``start``, ``end``, ``skip``, ``loop`` or ``error``; ``chunk`` where a block tells of an output that is not whole yet,
            ``retry`` where a call failed that is made again.
        path: the node's path below the level that runs (``architect/plan/first/a``); empty for that level itself.
        level: ``world``, ``stage``, ``pipeline``, ``graph`` or ``block``.
        inputs: values the node was called with.
        outputs: values it gave.
        step: iteration of the loop, or pass of the world, from 0.
        total: how many iterations or passes there will be, where that is known.
        elapsed: seconds since the node started.
        reason: why a node was skipped.
        error: the exception a node ended with.
        root: id of the level that runs.
        item: number of the item, in a batch of runs.
    """

    kind: str
    path: str
    level: str
    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    step: int | None = None
    total: int | None = None
    elapsed: float | None = None
    reason: str | None = None
    error: BaseException | None = None
    root: str = ""
    item: int | None = None

    __repr__ = brief


Callback = Callable[[Event], None]


def callbacks_of(callbacks: Any, root: str) -> tuple[Callback, ...]:
    """What is called with events: one function, or several.

    Raises:
        PortTypeError: it is something else.
    """
    if callable(callbacks) and not isinstance(callbacks, (list, tuple)):
        return (callbacks,)
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, (str, bytes, Mapping)):
        raise PortTypeError(f"{root}: callbacks is {describe(callbacks)}; expected functions of an event, as callbacks=[f]")
    found = tuple(callbacks)
    for callback in found:
        if not callable(callback):
            raise PortTypeError(f"{root}: a callback is {describe(callback)}; expected a function of an event, as callbacks=[f]")
    return found


def told_of_item(item: int, callbacks: tuple[Callback, ...]) -> Callback:
    """A callback that tells others which item of a batch an event is of."""

    def tell(event: Event) -> None:
        event.item = item
        for callback in callbacks:
            callback(event)

    return tell
