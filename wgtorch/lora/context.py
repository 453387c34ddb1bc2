"""Which adapters are worn during a call: a place says it, every adapted layer that runs inside the call reads it.

PEFT marks the active adapter in each layer, so that changing it walks all of them and is felt by every use of the model.
Here layers read one cell that belongs to the thread and to the call: changing place is one assignment. What a level's
place wears holds for all blocks below that have the adapter, whatever their own places say; among nested levels the
outermost decides.

Gradient checkpointing calls layers again in the backward pass, when the call that set the cell is long over.
:func:`keeping` takes the cell along; a layer that is called again without it raises an error, since it cannot know.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import torch
from torch import nn

from wgtorch.core.errors import StructureError, suggest
from wgtorch.core.tree import is_level, walk


@dataclass(frozen=True, slots=True)
class PerSample:
    """One adapter, or none, for each sample of the batch."""

    names: tuple[str | None, ...]


Weighted = tuple[tuple[str, float], ...]
Worn = Weighted | PerSample | None
"""What layers read: adapters with their weights, for all samples or for each."""

current_task: Callable[[], int] = torch._C._current_graph_task_id
"""Number of the backward pass that runs in this thread; -1 outside of one."""


class _Cell(threading.local):
    """What is worn now, in this thread.

    Attributes:
        worn: what layers read.
        around: what the places of levels around the call wear, outermost first.
        task: the backward pass in which it was set.
        inside: gates of the blocks whose calls run.
    """

    def __init__(self) -> None:  # in each thread; on the instance, since compiled code is guarded by what its dict holds
        self.worn: Worn = None
        self.around: tuple[Weighted | PerSample, ...] = ()
        self.task = -1
        self.inside: tuple[Gate, ...] = ()


class Gate:
    """Lets calls of one model through together, and a change of its adapters only when none runs."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._calls = 0
        self._changing = False

    def enter(self) -> None:
        """A call begins; waits while a change is made."""
        with self._free:
            while self._changing and self not in cell.inside:
                self._free.wait()
            self._calls += 1

    def leave(self) -> None:
        """A call is through."""
        with self._free:
            self._calls -= 1
            if not self._calls:
                self._free.notify_all()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Waits until no call runs, and lets none begin meanwhile.

        Raises:
            StructureError: the caller is itself inside such a call.
        """
        if self in cell.inside:
            raise StructureError("adapters of a model cannot be changed from inside its own call; change them between calls")
        with self._free:
            while self._calls or self._changing:
                self._free.wait()
            self._changing = True
        try:
            yield
        finally:
            with self._free:
                self._changing = False
                self._free.notify_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> Gate:
        return Gate()

    def __reduce__(self) -> tuple[type[Gate], tuple[()]]:
        return Gate, ()


cell = _Cell()


class worn_as:
    """Sets the cell for the time of one call.

    Args:
        worn: what layers read.
        around: what levels around wear.
        gate: of the block that is called.
    """

    __slots__ = ("around", "before", "gate", "worn")

    def __init__(self, worn: Worn, around: tuple[Weighted | PerSample, ...] = (), gate: Gate | None = None) -> None:
        self.worn = worn
        self.around = around
        self.gate = gate

    def __enter__(self) -> None:
        self.before = (cell.worn, cell.around, cell.task, cell.inside)
        if torch.compiler.is_compiling():  # nothing is computed again there by calling layers again
            self.gate = None
        else:
            cell.task = current_task()
            if self.gate is not None:
                self.gate.enter()
                cell.inside = (*cell.inside, self.gate)
        cell.worn = self.worn
        cell.around = self.around

    def __exit__(self, *exception: object) -> None:
        if self.gate is not None:
            self.gate.leave()
        cell.worn, cell.around, cell.task, cell.inside = self.before


def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it would run here, with the adapters that are worn now, whenever and in whatever thread it is called.

    For what is computed again in the backward pass: ``checkpoint(keeping(self.body), x)``.
    """
    worn, around = cell.worn, cell.around

    @functools.wraps(function, assigned=(), updated=())
    def kept(*args: Any, **kwargs: Any) -> Any:
        with worn_as(worn, around):
            return function(*args, **kwargs)

    return kept


# --- what users write -------------------------------------------------------------------------------------------------


def canonical(adapter: Any, where: str) -> str | dict[str, float] | tuple[str | None, ...] | None:
    """What a place wears in its plain form: None, a name, weights by name, or a tuple of names.

    Raises:
        StructureError: it is something else, or a weight is no finite number.
    """
    if adapter is None or isinstance(adapter, str):
        return adapter or None
    if isinstance(adapter, Mapping):
        for name, weight in adapter.items():
            number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
            if not isinstance(name, str) or not number or not math.isfinite(weight):
                raise StructureError(f"{where}: adapter {name!r}: {weight!r}; expected a name and a finite number, its weight")
        return {name: float(weight) for name, weight in adapter.items()} or None
    if isinstance(adapter, Sequence) and adapter and all(entry is None or isinstance(entry, str) for entry in adapter):
        return tuple(adapter)
    raise StructureError(
        f"{where}: adapter is {adapter!r}; expected a name, {{name: weight}}, a list with a name or None for each sample, or None"
    )


def names_of(adapter: Any) -> tuple[str, ...]:
    """The adapters that a place names, each once."""
    if adapter is None:
        return ()
    if isinstance(adapter, str):
        return (adapter,)
    return tuple(dict.fromkeys(name for name in adapter if name is not None))


def as_worn(adapter: Any) -> Worn:
    """What layers read of what a place wears."""
    if adapter is None:
        return None
    if type(adapter) is str:
        return ((adapter, 1.0),)
    if isinstance(adapter, Mapping):
        return tuple(adapter.items())
    return PerSample(tuple(adapter))


# --- adapters that blocks have ----------------------------------------------------------------------------------------


def wearer_of(block: nn.Module) -> nn.Module:
    """The module whose layers are adapted: the model that a block stands for (``ref_module``), or the block itself."""
    name = getattr(type(block), "ref_module", "")
    return cast(nn.Module, block._modules[name]) if name and name in block._modules else block


def adapters_on(block: nn.Module) -> Mapping[str, Any]:
    """PEFT's configs of a block's adapters, by name."""
    return wearer_of(block).__dict__.get("peft_config") or {}


def is_merged(block: nn.Module) -> bool:
    """True while adapters are counted into a block's base weights."""
    return "_merged_adapters" in wearer_of(block).__dict__


def gate_of(wearer: nn.Module) -> Gate:
    """The gate of a model that has adapters."""
    gate = wearer.__dict__.get("_adapter_gate")
    return wearer.__dict__.setdefault("_adapter_gate", Gate()) if gate is None else gate


def missing_here(child: Any, adapter: Any) -> str | None:
    """What is wrong with an adapter at a place of this child, in words; None when the child has all that is named."""
    wanted = names_of(adapter)
    known: set[str] = set()
    for _, block, _ in walk(child, repeats=0):
        known.update({} if is_level(block) else adapters_on(block))
        if known.issuperset(wanted):
            return None
    for name in wanted:
        if name not in known:
            there = f"{type(child).__name__} {child.block_id!r}"
            if not known:
                return f"no adapter {name!r}: {there} has none to wear; leave adapter out, or add it first with wgtorch.lora.add or load"
            return f"no adapter {name!r} on {there}; {suggest(name, sorted(known))}"
    return None


# --- calls ------------------------------------------------------------------------------------------------------------


def worn_at(own: Any, child: Any, where: str, item: int | None = None) -> worn_as | None:
    """The cell for a call of a child at a place; None where no adapter matters.

    Args:
        own: what the place wears.
        child: a block or level.
        where: the node, for messages.
        item: its place in a mapped list; of names for each sample it takes its own.

    Raises:
        StructureError: the child does not have what the place wears.
    """
    if is_level(child):
        if own is None:
            return None
        if not torch.compiler.is_compiling() and (wrong := missing_here(child, own)) is not None:
            raise StructureError(f"{where}: {wrong}")
        return worn_as(cell.worn, (*cell.around, _of_item(as_worn(own), item, where)))
    has = adapters_on(child)
    if not has:
        if own is not None:
            raise StructureError(f"{where}: {missing_here(child, own)}")
        return None
    if own is not None and not has.keys() >= set(names_of(own)):
        raise StructureError(f"{where}: {missing_here(child, own)}")
    worn = as_worn(own)
    for outer in cell.around:
        if (known := _known(outer, has)) is not None:
            worn = known
            break
    worn, wearer = _of_item(worn, item, where), wearer_of(child)
    merged = wearer.__dict__.get("_merged_adapters")
    if merged is not None and (worn or ()) != merged:
        raise StructureError(f"{where}: {dict(merged)} is merged into {child.block_id!r}, and this place wears {own!r}; unmerge it first")
    return worn_as(worn, cell.around, None if torch.compiler.is_compiling() else gate_of(wearer))


def _known(worn: Any, has: Mapping[str, Any]) -> Worn:
    """What of it a block has; None when it has nothing of it, so that it says nothing of the block."""
    if isinstance(worn, PerSample):
        names = tuple(name if name in has else None for name in worn.names)
        return PerSample(names) if any(names) else None
    return (tuple((name, weight) for name, weight in worn if name in has) or None) if worn else ()


def _of_item(worn: Any, item: int | None, where: str) -> Any:
    """What one item of a mapped list wears."""
    if item is None or not isinstance(worn, PerSample):
        return worn
    if item >= len(worn.names):
        raise StructureError(f"{where}: item {item} of a mapped list, and adapters for {len(worn.names)} samples; give one for each")
    name = worn.names[item]
    return () if name is None else ((name, 1.0),)


def unknown_again() -> NoReturn:
    """What a layer says that is called in a backward pass and cannot know what it wore in the forward pass."""
    raise StructureError(
        "an adapted layer is computed again in the backward pass (gradient checkpointing), and nothing says which adapter it wore. "
        "Wrap what is checkpointed: checkpoint(wgtorch.lora.keeping(function), ...)"
    )
