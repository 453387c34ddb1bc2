"""Batches of runs: each item runs by itself, and where a block takes several samples in one call the items' calls become one.

Every item of a batch walks the plan in a thread of its own, so conditions, loops of other lengths and errors are its own affair. At a
block that takes several samples (``Block.batched`` lists, ``Block.rows_are_samples`` tensors) an item waits until all others wait
too or are through; calls of one place with inputs that can be put together are then made as one, and each item goes on with its part.

    item 0   encode --. .-- backbone --. .-- ...          one call of encode, one of the backbone in each iteration,
    item 1   encode --+-+-- backbone --+-+-- ...          and two of what does not say that it takes several samples
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from wgtorch.core.errors import PortError, PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.run import background
from wgtorch.core.run.events import Callback, told_of_item
from wgtorch.core.run.joined_inputs import can_join, items_of, joined_key, listed, rows_of, stacked
from wgtorch.core.run.port_checks import named_outputs
from wgtorch.core.run.rng import check_seed
from wgtorch.core.run.thread_context import in_this_context
from wgtorch.core.tree import is_level, walk

PerItem = Callable[[dict[str, Any], Any], Any]
"""Makes the call of a block, with inputs by name and the run whose draws are its own."""


@dataclass(eq=False, slots=True)
class Arrival:
    """An item that waits at a block.

    Args:
        item: its number in the batch.
        child: the block.
        place: path of the place, with whatever else must be the same for calls to be one.
        values: inputs by name.
        run: the item's run, whose key its draws follow.
        make: makes a call, in the surroundings of this item's place.
    """

    item: int
    child: nn.Module
    place: Any
    values: dict[str, Any]
    run: Any
    make: PerItem
    is_over: threading.Event = field(default_factory=threading.Event)
    group: list[Arrival] | None = None
    outputs: dict[str, Any] | None = None


class JoinedCalls:
    """Where the items of a batch meet.

    Args:
        count: how many items there are.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._going = count
        self._waiting: list[Arrival] = []

    def call(self, arrival: Arrival) -> Any:
        """The block's outputs for one item, from a call for as many items as can be put together."""
        with self._lock:
            self._waiting.append(arrival)
            self._go_on()
        arrival.is_over.wait()
        if arrival.group is not None:  # it makes the call for all of the group
            group, arrival.group = arrival.group, None
            try:
                self._call_as_one(group)
            finally:
                for other in group:
                    if other is not arrival:
                        other.is_over.set()
        if arrival.outputs is None:  # alone, or the joined call failed and each has to hear of its own failure
            return arrival.make(arrival.values, arrival.run)
        return arrival.outputs

    def leave(self) -> None:
        """An item is through, one way or the other."""
        with self._lock:
            self._going -= 1
            self._go_on()

    def _go_on(self) -> None:
        """Lets items go on once every one that is not through waits."""
        if not self._waiting or len({arrival.item for arrival in self._waiting}) < self._going:
            return
        groups: dict[Any, list[list[Arrival]]] = {}
        for arrival in sorted(self._waiting, key=lambda arrival: arrival.item):
            known = groups.setdefault((id(arrival.child), arrival.place), [])
            fitting = next((group for group in known if _fits(group[0], arrival)), None)
            if fitting is None:
                known.append([arrival])
            else:
                fitting.append(arrival)
        self._waiting = []
        for group in (group for known in groups.values() for group in known):
            if len(group) > 1:
                group[0].group = group
            group[0].is_over.set()

    def _call_as_one(self, group: list[Arrival]) -> None:
        first = group[0]
        child: Any = first.child
        try:
            values, sizes = (listed if child.batched else stacked)([arrival.values for arrival in group])
            result = first.make(values, replace(first.run, key=joined_key([arrival.run.key for arrival in group])))
            outputs = named_outputs(result, tuple(child.get_output_spec().values()), child.block_id)
            parts = items_of(outputs, len(group), child.block_id) if child.batched else rows_of(outputs, sizes)
        except Exception:  # whatever it was, each item makes its own call, and has its own error
            return
        for arrival, own in zip(group, parts, strict=True):
            arrival.outputs = own


def _fits(first: Arrival, other: Arrival) -> bool:
    return type(first.run.key) is type(other.run.key) and can_join(first.child, first.values, other.values)


meeting: ContextVar[tuple[JoinedCalls, int] | None] = ContextVar("batch of runs", default=None)
"""The batch that a run belongs to, and the number of its item."""


def takes_several(child: Any) -> bool:
    """True for a block that may be called once for several samples."""
    return bool(child.batched or child.rows_are_samples)


def shares_calls(level: Any) -> bool:
    """True for a level in which some block may be called once for several samples."""
    return any(takes_several(child) for _, child, _ in walk(level, repeats=0) if not is_level(child))


def run_items(runs: Sequence[Callable[[], Any]], joins: bool, *, apart: bool = False) -> list[Any]:
    """Results of runs that go on beside each other; where one failed, its exception.

    Args:
        runs: one for each item.
        joins: some of their blocks take several samples, or wait; else they run one after the other.
        apart: each makes its own calls.
    """
    if not joins or len(runs) == 1:
        return [_result_of(run) for run in runs]
    calls = JoinedCalls(len(runs))

    def one(index: int, run: Callable[[], Any]) -> Any:
        token = meeting.set(None if apart else (calls, index))
        try:
            return _result_of(run)
        finally:
            meeting.reset(token)
            calls.leave()

    futures = [background.start(in_this_context(partial(one, index, run))) for index, run in enumerate(runs)]
    return [future.result() for future in futures]


def run_batch(level: Any, inputs: Any, seed: Any, batch_size: int, told: tuple[Callback, ...], options: Mapping[str, Any]) -> list[Any]:
    """What ``run`` of a composite gives for each item; see :meth:`wgtorch.core.composite.Composite.batch`."""
    items = check_items(inputs, level.block_id)
    seeds = seeds_of(seed, len(items), level.block_id)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise PortTypeError(f"{level.block_id}: batch_size is {batch_size!r}; expected how many items go on at once, from 1")
    runs = [
        partial(level.run, item, seed=own, callbacks=[told_of_item(index, told)] if told else None, **options)
        for index, (item, own) in enumerate(zip(items, seeds, strict=True))
    ]
    joins = level.is_async or shares_calls(level)
    return [result for first in range(0, len(runs), batch_size) for result in run_items(runs[first : first + batch_size], joins)]


def _result_of(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception as error:
        return error


def seeds_of(seed: Any, count: int, where: str) -> list[Any]:
    """A seed for each item: one for all, or a list with one for each.

    Raises:
        PortError: there are more or fewer seeds than items.
        PortTypeError: one is no seed.
    """
    seeds = list(seed) if isinstance(seed, (list, tuple)) else [seed] * count
    if len(seeds) != count:
        raise PortError(f"{where}: {len(seeds)} seeds for a batch of {count}; give one for each item, or a single one for all")
    for own in seeds:
        check_seed(own, where)
    return seeds


def check_items(inputs: Any, where: str) -> list[Any]:
    """The items of a batch.

    Raises:
        PortTypeError: it is no list.
    """
    if isinstance(inputs, (str, bytes, Mapping)) or not hasattr(inputs, "__iter__"):
        raise PortTypeError(f"{where}: batch() got {describe(inputs)}; expected a list with the inputs of each item")
    return list(inputs)
