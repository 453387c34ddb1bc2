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

import torch
from torch import Tensor, nn

from wgtorch.core.errors import PortError, PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.run.port_checks import named_outputs
from wgtorch.core.run.rng import Key, check_seed

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
            fitting = next((group for group in known if _can_join(group[0], arrival)), None)
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
        join, part = (_listed, _items_of) if child.batched else (_stacked, _rows_of)
        try:
            values, sizes = join([arrival.values for arrival in group])
            result = first.make(values, replace(first.run, key=_joined_key([arrival.run.key for arrival in group])))
            outputs = named_outputs(result, tuple(child.get_output_spec().values()), child.block_id)
            parts = part(outputs, sizes)
        except Exception:  # whatever it was, each item makes its own call, and has its own error
            return
        for arrival, own in zip(group, parts, strict=True):
            arrival.outputs = own


meeting: ContextVar[tuple[JoinedCalls, int] | None] = ContextVar("batch of runs", default=None)
"""The batch that a run belongs to, and the number of its item."""


def takes_several(child: Any) -> bool:
    """True for a block that may be called once for several samples."""
    return bool(child.batched or child.rows_are_samples)


def run_items(
    runs: Sequence[Callable[[], Any]], start: Callable[[Callable[[], Any]], Any], joins: bool, *, apart: bool = False
) -> list[Any]:
    """Results of runs that go on beside each other; where one failed, its exception.

    Args:
        runs: one for each item.
        start: begins one in a thread, and gives its future.
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

    futures = [start(partial(one, index, run)) for index, run in enumerate(runs)]
    return [future.result() for future in futures]


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


# --- putting inputs together ------------------------------------------------------------------------------------------


def _can_join(first: Arrival, other: Arrival) -> bool:
    child: Any = first.child
    if type(first.run.key) is not type(other.run.key) or first.values.keys() != other.values.keys():
        return False
    pairs = [(first.values[name], other.values[name]) for name in first.values]
    if child.batched:
        ports = child.get_input_spec()
        return all(_is_equal(*pair) for name, pair in zip(first.values, pairs, strict=True) if ports[name].dtype == "number")
    return all(_can_stack(*pair) for pair in pairs) and _rows(first.values) is not None and _rows(first.values) == _rows(other.values)


def _can_stack(first: Any, other: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(other, Tensor):
        if first.dim() and other.dim():
            return first.shape == other.shape and first.dtype == other.dtype and first.device == other.device
        return _is_equal(first, other)
    if type(first) is not type(other):
        return False
    if isinstance(first, (list, tuple)):
        return len(first) == len(other) and all(map(_can_stack, first, other))
    if isinstance(first, Mapping):
        return first.keys() == other.keys() and all(_can_stack(first[key], other[key]) for key in first)
    return _is_equal(first, other)


def _is_equal(first: Any, other: Any) -> bool:
    if first is other:
        return True
    if isinstance(first, Tensor) or isinstance(other, Tensor):
        return isinstance(first, Tensor) and isinstance(other, Tensor) and first.shape == other.shape and torch.equal(first, other)
    try:
        return type(first) is type(other) and bool(first == other)
    except Exception:  # whatever a foreign class does when compared, it is not known to be the same
        return False


def _rows(values: Any) -> int | None:
    """Rows of the tensors among the inputs of one item; None where they differ, or there are none."""
    found = {tensor.shape[0] for tensor in _tensors(values)}
    return found.pop() if len(found) == 1 else None


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.dim() else []
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _stacked(items: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[int]]:
    """Inputs whose rows are those of all items one after the other, and how many each has."""
    return _concatenated(items), [_rows(values) or 0 for values in items]


def _concatenated(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values)) if first.dim() else first
    if isinstance(first, Mapping):
        return {key: _concatenated([value[key] for value in values]) for key in first}
    if isinstance(first, (list, tuple)):
        joined = [_concatenated(each) for each in zip(*values, strict=True)]
        return joined if isinstance(first, list) else type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return first


def _rows_of(outputs: Any, sizes: Sequence[int]) -> list[Any]:
    """Each item's rows of what a joined call gave.

    Raises:
        PortError: it gave other rows than it was given.
    """
    if isinstance(outputs, Tensor) and outputs.dim():
        if outputs.shape[0] != sum(sizes):
            raise PortError(f"a call for {sum(sizes)} rows gave {describe(outputs)}; expected as many rows")
        return list(outputs.split(list(sizes)))
    if isinstance(outputs, Mapping):
        parts = {key: _rows_of(value, sizes) for key, value in outputs.items()}
        return [{key: part[index] for key, part in parts.items()} for index in range(len(sizes))]
    if isinstance(outputs, list) and len(outputs) == sum(sizes) and not _tensors(outputs):  # one of each sample, such as texts
        return [outputs[sum(sizes[:index]) : sum(sizes[: index + 1])] for index in range(len(sizes))]
    if isinstance(outputs, (list, tuple)):
        columns = [_rows_of(value, sizes) for value in outputs]
        rows = [[column[index] for column in columns] for index in range(len(sizes))]
        made: Any = list if isinstance(outputs, list) else (lambda row: type(outputs)(*row)) if hasattr(outputs, "_fields") else tuple
        return [made(row) for row in rows]
    return [outputs] * len(sizes)


def _listed(items: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[int]]:
    """Inputs with a list of all items' values where they differ."""
    differ = [name for name in items[0] if not all(_is_equal(items[0][name], values[name]) for values in items[1:])]
    if not differ:
        raise PortError("the items' inputs are the same, so nothing says which of them would be a list")
    if any(isinstance(values[name], (list, tuple)) for values in items for name in differ):
        raise PortError("an item brings a list already")
    return {name: [values[name] for values in items] if name in differ else value for name, value in items[0].items()}, [1] * len(items)


def _items_of(outputs: Mapping[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    columns = {name: list(value.split(1)) if isinstance(value, Tensor) else value for name, value in outputs.items()}
    for name, value in columns.items():
        if not isinstance(value, (list, tuple)) or len(value) != len(sizes):
            raise PortError(f"{name}: a call for {len(sizes)} items gave {describe(value)}; expected one output for each")
    return [{name: value[index] for name, value in columns.items()} for index in range(len(sizes))]


def _joined_key(keys: Sequence[Key | None]) -> Key | None:
    """What the draws of a joined call are keyed by: each item's own key, or all of an item that has one for each sample."""
    if keys[0] is None:
        return None
    return tuple([part for key in keys for part in (key if isinstance(key, tuple) else (key,))])  # type: ignore[misc]
