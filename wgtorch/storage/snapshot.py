"""What a world is at one moment, and what a commit changed of it.

A snapshot is plain data that is never changed: a new one shares with the one before it all that stayed the same. A change is a
list ``[path, word, value]``:

======  =====================================================
set     the value at the path is this one now
del     what was at the path is gone
add     a text or list goes on with this
cut     a list ends after so many items
drop    a list has lost so many items at its front
order   a mapping's keys, in their new order
======  =====================================================

So a story that grows by a page is kept as that page, however long it is.
"""

from __future__ import annotations

import marshal
import math
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

from torch import Tensor

from wgtorch.core.encoding import MAX_DEPTH, StoredValue, cannot_be_stored, stored_type_of, value_of
from wgtorch.core.errors import StorageError

_LONG = 64
LEAVES = frozenset((type(None), bool, int, float, str))
"""Types of values that hold no others and never change."""
Change = list[Any]  # [path, word, value]
Path = tuple[str | int, ...]


class TensorRef:
    """A tensor in a snapshot.

    Args:
        tensor: the tensor itself; None where it lies in a file.
        digest: its content's hash, where the storage names tensors so.
    """

    __slots__ = ("_version", "digest", "tensor")

    def __init__(self, tensor: Tensor | None, digest: str | None = None) -> None:
        self.tensor, self.digest = tensor, digest
        self._version = version_of(tensor)

    def holds(self, tensor: Tensor) -> bool:
        """True when it is this very tensor, unchanged since."""
        return self.tensor is tensor and self._version is not None and self._version == version_of(tensor)

    def __repr__(self) -> str:
        return f"TensorRef({self.digest or self.tensor!r})"


def version_of(tensor: Tensor | None) -> int | None:
    """PyTorch's count of the changes in place; None where it keeps none (tensors made in inference mode)."""
    return None if tensor is None or tensor.is_inference() else tensor._version


Take = Callable[[Tensor, str], TensorRef]
"""Keeps a tensor that stands at a path, and says how the snapshot names it; equal digests are the same tensor."""
KnownLists = dict[Path, tuple[list[Any], list[Any]]]
"""By path, the items of a long list, and its snapshot."""


class Evolution:
    """Makes the snapshot after from the snapshot before and new values, and notes what changed.

    Args:
        take: keeps a tensor that was not there before.
        lists: what is known of long lists, and is added to: the very items that were compared once are not compared again.
    """

    def __init__(self, take: Take, lists: KnownLists | None = None) -> None:
        self.take = take
        self.lists = {} if lists is None else lists
        self.changes: list[Change] = []

    def evolve(self, before: Any, value: Any, at: Path = ()) -> Any:
        """The snapshot of a value at a path; ``before`` itself where nothing differs.

        Raises:
            StorageError: something in it cannot be stored; names its path.
        """
        if type(value) in LEAVES:
            return self._leaf(before, value, at)
        if at in self.lists and self._is_known(before, value, at):
            return self._gone_on(before, value, at)
        if len(at) > 1 and is_same_plain(before, value):  # the world as a whole is rarely the same
            return before
        if isinstance(value, Tensor):
            return self._tensor(before, value, at)
        if isinstance(value, Mapping) and isinstance(before, dict) and stored_type_of(value) is None:
            return self._mapping(before, value, at)
        if type(value) is list and type(before) is list:
            return self._list(before, value, at)
        after = self.fresh(value, at)
        if isinstance(after, (tuple, StoredValue)) and self.is_same(before, after):
            return before
        return self._leaf(before, after, at)

    def _leaf(self, before: Any, after: Any, at: Path) -> Any:
        if before is after or _is_same_leaf(before, after):
            return before
        if type(after) is str and type(before) is str and before and after.startswith(before):
            self.changes.append([list(at), "add", after[len(before) :]])
        else:
            self.changes.append([list(at), "set", after])
        return after

    def fresh(self, value: Any, at: Path) -> Any:
        """The snapshot of a value that nothing is known of: plain data of its own.

        Raises:
            StorageError: something in it cannot be stored.
        """
        if type(value) in LEAVES:
            return value
        if isinstance(value, (bool, int, float, str)):
            return _exact(value)
        if isinstance(value, Tensor):
            return self.take(value, _text(at))
        if isinstance(value, (TensorRef, StoredValue)):  # of a snapshot
            return value
        if (stored := stored_type_of(value)) is not None:
            return StoredValue(stored.name, self.fresh(stored.to_plain(value), at))
        if len(at) > MAX_DEPTH:
            raise StorageError(f"{_text(at)[:200]}...: lists and mappings lie more than {MAX_DEPTH} deep in each other; store it flatter")
        if isinstance(value, Mapping):
            return {_plain_key(key, at): item if type(item) in LEAVES else self.fresh(item, (*at, key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [item if type(item) in LEAVES else self.fresh(item, (*at, index)) for index, item in enumerate(value)]
            return tuple(items) if isinstance(value, tuple) else items
        raise cannot_be_stored(value, _text(at))

    # --- private steps ------------------------------------------------------------------------------------------------

    def _tensor(self, before: Any, value: Tensor, at: Path) -> TensorRef:
        if isinstance(before, TensorRef) and before.holds(value):
            return before
        after = self.take(value, _text(at))
        if isinstance(before, TensorRef) and before.digest is not None and before.digest == after.digest:
            return after  # with the new tensor, by which it is known again at once
        self.changes.append([list(at), "set", after])
        return after

    def _mapping(self, before: dict[str, Any], value: Mapping[str, Any], at: Path) -> dict[str, Any]:
        start = len(self.changes)
        gone = [key for key in before if key not in value]
        self.changes += [[[*at, key], "del", None] for key in gone]
        after: dict[str, Any] = {}
        is_same = not gone
        for key, item in value.items():
            key = _plain_key(key, at)
            if key in before:
                held = before[key]
                after[key] = held if held is item and type(item) in LEAVES else self.evolve(held, item, (*at, key))
                is_same = is_same and after[key] is held
            else:
                after[key] = self.fresh(item, (*at, key))
                self.changes.append([[*at, key], "set", after[key]])
        if list(before) != list(after):
            order = [*[key for key in before if key in value], *[key for key in value if key not in before]]
            if order != list(after):
                self.changes.append([list(at), "order", list(after)])
        return before if is_same and len(self.changes) == start else after

    def _list(self, before: list[Any], value: list[Any], at: Path) -> list[Any]:
        shared = min(len(before), len(value))
        if len(before) > _LONG and len(before) <= len(value) and self._begins_with(before, value):
            return self._gone_on(before, value, at)
        same = next((index for index in range(shared) if not self.is_same(before[index], value[index])), shared)
        if same == len(before):
            return self._added(before, value, at)
        if same == 0 and (lost := self._lost(before, value)):
            self.changes.append([list(at), "drop", lost])
            return self._added(before[lost:], value, at)
        start = len(self.changes)
        after = [*before[:same], *(self.evolve(before[index], value[index], (*at, index)) for index in range(same, shared))]
        whole = sum(len(change[0]) == len(at) + 1 and change[1] == "set" for change in self.changes[start:])
        if whole > 1 and 2 * whole >= shared:  # most of it is another
            del self.changes[start:]
            after += [self.fresh(item, (*at, index)) for index, item in enumerate(value[shared:], shared)]
            self.changes.append([list(at), "set", after])
            return after
        if len(before) > shared:
            self.changes.append([list(at), "cut", shared])
        return self._added(after, value, at)

    def _is_known(self, before: Any, value: Any, at: Path) -> bool:
        """True where a list begins with the very items that were compared before."""
        known, snapshot = self.lists[at]
        return snapshot is before and type(value) is list and len(known) == len(before) <= len(value) and all(map(is_, known, value))

    def _begins_with(self, before: list[Any], value: list[Any]) -> bool:
        """True where a long list goes on with what it was. All of it is compared as Python compares, the newest part bit for bit.

        So a past of any length costs next to nothing; that an old item was put in place of an equal one of another type (1 and 1.0)
        is seen when it is among the newest.
        """
        recent = len(before) - _LONG
        try:
            is_start = before == value[: len(before)]
        except (RuntimeError, TypeError, ValueError):  # tensors
            return False
        return is_start and is_same_plain(before[recent:], value[recent : len(before)])

    def _gone_on(self, before: list[Any], value: list[Any], at: Path) -> list[Any]:
        after = before if len(before) == len(value) else self._added(before, value, at)
        self.lists[at] = (value.copy(), after)
        return after

    def _added(self, before: list[Any], value: list[Any], at: Path) -> list[Any]:
        added = [self.fresh(item, (*at, index)) for index, item in enumerate(value[len(before) :], len(before))]
        if added:
            self.changes.append([list(at), "add", added])
        return [*before, *added]

    def _lost(self, before: list[Any], value: list[Any]) -> int:
        """How many items went at the front, the rest being the start of the value; 0 where that is not so."""
        if not value:
            return 0
        first = next((index for index in range(1, len(before)) if self.is_same(before[index], value[0])), 0)
        rest = before[first:]
        is_start = first and len(rest) <= len(value) and all(map(self.is_same, rest, value))
        return first if is_start else 0

    def is_same(self, before: Any, value: Any) -> bool:
        """True for equal values of equal types, bit for bit."""
        if is_same_plain(before, value):
            return True
        if isinstance(before, TensorRef):
            if isinstance(value, TensorRef):
                return before is value or (before.digest is not None and before.digest == value.digest)
            if not isinstance(value, Tensor):
                return False
            return before.holds(value) or (before.digest is not None and self.take(value, "").digest == before.digest)
        if isinstance(before, StoredValue) or stored_type_of(value) is not None:
            if not isinstance(before, StoredValue):
                return False
            other = value if isinstance(value, StoredValue) else self.fresh(value, ())
            return isinstance(other, StoredValue) and before.name == other.name and self.is_same(before.plain, other.plain)
        if isinstance(before, dict):
            return isinstance(value, Mapping) and list(before) == list(value) and all(map(self.is_same, before.values(), value.values()))
        if type(before) in (list, tuple):
            return type(value) is type(before) and len(before) == len(value) and all(map(self.is_same, before, value))
        return _is_same_leaf(before, value)


def apply(snapshot: Any, changes: Sequence[Change]) -> Any:
    """The snapshot after changes; what they do not touch is shared.

    Raises:
        StorageError: they do not fit.
    """
    for change in changes:
        try:
            at, word, value = change
            snapshot = _changed(snapshot, at, word, value)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StorageError(f"a change {str(change)[:80]} does not fit what it is to change: {str(error)[:80]}") from error
    return snapshot


def _changed(held: Any, at: Sequence[Any], word: str, value: Any) -> Any:
    if at and not (len(at) == 1 and word == "del"):
        copy = dict(held) if isinstance(held, dict) else list(held)
        key = at[0]
        if len(at) == 1 and word == "set" and isinstance(copy, dict):
            copy[key] = value
        else:
            copy[key] = _changed(copy[key], at[1:], word, value)
        return copy
    if word == "del":
        copy = dict(held)
        del copy[at[0]]
        return copy
    if word == "set":
        return value
    if word == "add":
        if type(held) is not type(value) or not isinstance(value, (str, list)):
            raise TypeError(f"{type(value).__name__} cannot be added to {type(held).__name__}")
        return held + value
    if word == "order":
        if sorted(value) != sorted(held):
            raise ValueError("the keys are others")
        return {key: held[key] for key in value}
    if word not in ("cut", "drop") or type(value) is not int or not isinstance(held, list) or not 0 <= value <= len(held):
        raise ValueError(f"no change of this kind is known: {word!r}")
    return held[:value] if word == "cut" else held[value:]


def materialise(value: Any, get: Callable[[TensorRef], Tensor]) -> Any:
    """A snapshot as values of the caller's own; ``get`` gives the tensors."""
    kind = type(value)
    if kind is dict:
        return {key: materialise(item, get) for key, item in value.items()}
    if kind is list:
        return [materialise(item, get) for item in value]
    if kind is tuple:
        return tuple([materialise(item, get) for item in value])
    if kind is StoredValue:
        return value_of(value.name, materialise(value.plain, get))
    return get(value) if kind is TensorRef else value


def refs_in(value: Any) -> list[TensorRef]:
    """The tensors of a snapshot."""
    found: list[TensorRef] = []
    stack = [value]
    while stack:
        held = stack.pop()
        if isinstance(held, TensorRef):
            found.append(held)
        elif isinstance(held, StoredValue):
            stack.append(held.plain)
        elif isinstance(held, dict):
            stack += held.values()
        elif isinstance(held, (list, tuple)):
            stack += held
    return found


def count_leaves(value: Any) -> int:
    """How large a snapshot is: its values, and the containers that hold them."""
    if type(value) in LEAVES:
        return 1
    count, stack = 0, [value]
    while stack:
        held = stack.pop()
        count += 1
        if isinstance(held, dict):
            stack += held.values()
        elif isinstance(held, (list, tuple)):
            stack += held
    return count


def is_same_plain(before: Any, value: Any) -> bool:
    """True for the same plain data, types and signs of zeros too. Told in C: a long past is compared at every commit."""
    if before is value:
        return not isinstance(value, Tensor)
    if type(before) is not type(value) or type(value) not in (dict, list, tuple):
        return False
    if len(before) != len(value):
        return False
    try:
        return marshal.dumps(before, 2) == marshal.dumps(value, 2)  # version 2 writes the same for equal values
    except ValueError:  # tensors, or what is no plain data
        return False


def _is_same_leaf(before: Any, value: Any) -> bool:
    if type(before) is not type(value) or isinstance(value, (dict, list, tuple, TensorRef)):
        return False
    if isinstance(value, float):
        return (before == value and math.copysign(1.0, before) == math.copysign(1.0, value)) or (before != before and value != value)
    return bool(before == value)


def _exact(value: Any) -> Any:
    """A number or text without a class of its own around it."""
    if isinstance(value, str):
        return "".join((value,))
    return float(value) if isinstance(value, float) else int(value)


def _plain_key(key: Any, at: Path) -> str:
    if type(key) is str:
        return key
    if not isinstance(key, str):
        raise StorageError(f"{_text(at)}: key {key!r} is {type(key).__name__}; expected str")
    return "".join((key,))


def _text(at: Path) -> str:
    """A path as people write it. The State's slots stand by their own names, as do the content's fields."""
    names = [str(part) for part in at]
    for outer in ("complete", "slots"):
        names = names[1:] if names[:1] == [outer] else names
    return ".".join(names)
