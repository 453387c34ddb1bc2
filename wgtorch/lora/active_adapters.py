"""The adapter context: which adapters are active during a call. A place says it, every adapted layer inside the call reads it.

PEFT marks the active adapter in each layer, so changing it walks all of them and is felt by every use of the model. Here
layers read one thread-local value that belongs to the call: changing place is one assignment. What a level's place selects
holds for all blocks below that have the adapter, whatever their own places say; among nested levels the outermost decides.

Gradient checkpointing calls layers again in the backward pass, when the call that set the context is long over.
:func:`preserve_adapter_context` takes it along; a layer that is called again without it raises an error, since it cannot know.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from wgtorch.core.errors import StructureError, suggest
from wgtorch.core.tree import is_level, walk
from wgtorch.lora.adapted_module import adapted_module, adapters_on, merged_into
from wgtorch.lora.call_gate import CallGate
from wgtorch.lora.selection import Active, Canonical, PerSample, Weighted, as_active, names_of

current_graph_task: Callable[[], int] = torch._C._current_graph_task_id
"""Number of the backward pass that runs in this thread; -1 outside of one."""


class _Current(threading.local):
    """The context of this thread.

    Attributes:
        active: what layers read.
        outer: what the places of levels around the call select, outermost first.
        graph_task: the backward pass in which it was set.
        gates: of the models whose calls run.
    """

    def __init__(self) -> None:  # in each thread; on the instance, since compiled code is guarded by what its dict holds
        self.active: Active = None
        self.outer: tuple[Weighted | PerSample, ...] = ()
        self.graph_task = -1
        self.gates: tuple[CallGate, ...] = ()


current = _Current()


class AdapterContext:
    """Sets the context for the time of one call.

    Args:
        active: what layers read.
        outer: what levels around select.
        gate: of the model that is called.
    """

    __slots__ = ("active", "before", "gate", "outer")

    def __init__(self, active: Active, outer: tuple[Weighted | PerSample, ...] = (), gate: CallGate | None = None) -> None:
        self.active = active
        self.outer = outer
        self.gate = gate

    def __enter__(self) -> None:
        self.before = (current.active, current.outer, current.graph_task, current.gates)
        if torch.compiler.is_compiling():  # nothing is computed again there by calling layers again
            self.gate = None
        else:
            current.graph_task = current_graph_task()
            if self.gate is not None:
                self.gate.enter(nested=self.gate in current.gates)
                current.gates = (*current.gates, self.gate)
        current.active = self.active
        current.outer = self.outer

    def __exit__(self, *exception: object) -> None:
        if self.gate is not None:
            self.gate.leave()
        current.active, current.outer, current.graph_task, current.gates = self.before


def preserve_adapter_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it would run here, under the adapters that are active now, whenever and in whatever thread it is called.

    For what is computed again in the backward pass: ``checkpoint(preserve_adapter_context(self.body), x)``.
    """
    active, outer = current.active, current.outer

    @functools.wraps(function, assigned=(), updated=())
    def preserved(*args: Any, **kwargs: Any) -> Any:
        with AdapterContext(active, outer):
            return function(*args, **kwargs)

    return preserved


@contextmanager
def changing(block: nn.Module) -> Iterator[None]:
    """Waits until no call of a block's model runs, and lets none begin while its adapters are changed.

    Raises:
        StructureError: the caller is itself inside such a call.
    """
    gate = _gate_of(adapted_module(block))
    if gate in current.gates:
        raise StructureError("adapters of a model cannot be changed from inside its own call; change them between calls")
    with gate.change():
        yield


def missing(child: Any, adapter: Canonical) -> str | None:
    """What is wrong with an adapter at a place of this child, in words; None when the child has all that is named."""
    wanted = names_of(adapter)
    known: set[str] = set()
    for _, block, _ in walk(child, repeats=0):
        if not is_level(block):
            known.update(adapters_on(block))
            if known.issuperset(wanted):
                return None
    name = next((name for name in wanted if name not in known), None)
    if name is None:
        return None
    what = f"{type(child).__name__} {child.block_id!r}"
    if not known:
        return f"no adapter {name!r}: {what} has no adapters; leave adapter out, or add it first with wgtorch.lora.add or load"
    return f"no adapter {name!r} on {what}; {suggest(name, sorted(known))}"


def context_at(adapter: Canonical, child: Any, where: str, item: int | None = None) -> AdapterContext | None:
    """The context for a call of a child at a place; None where no adapter matters.

    Args:
        adapter: what the place selects.
        child: a block or level.
        where: the node, for messages.
        item: its index in a mapped list; of names for each sample it takes its own.

    Raises:
        StructureError: the child does not have what the place selects.
    """
    if is_level(child):
        if adapter is None:
            return None
        if not torch.compiler.is_compiling() and (wrong := missing(child, adapter)) is not None:
            raise StructureError(f"{where}: {wrong}")
        return AdapterContext(current.active, (*current.outer, _of_item(as_active(adapter), item, where)))
    has = adapters_on(child)
    if adapter is not None and not has.keys() >= set(names_of(adapter)):
        raise StructureError(f"{where}: {missing(child, adapter)}")
    if not has:
        return None
    active = as_active(adapter)
    for outer in current.outer:
        if (known := _known(outer, has)) is not None:
            active = known
            break
    active, merged = _of_item(active, item, where), merged_into(child)
    if merged is not None and (active or ()) != merged:
        raise StructureError(
            f"{where}: {dict(merged)} is merged into {child.block_id!r}, and this place selects {adapter!r}; unmerge it first"
        )
    return AdapterContext(active, current.outer, None if torch.compiler.is_compiling() else _gate_of(adapted_module(child)))


def selection_at(adapter: Canonical) -> AdapterContext | None:
    """What a level's place selects, for asking which adapters are active below it; None where it selects nothing."""
    return None if adapter is None else AdapterContext(current.active, (*current.outer, as_active(adapter)))  # type: ignore[arg-type]


def active_names(adapter: Canonical, block: nn.Module) -> set[str]:
    """Adapters of a block that are active at a place that selects this, for some sample at least."""
    has = adapters_on(block)
    active = next((known for outer in current.outer if (known := _known(outer, has)) is not None), as_active(adapter))
    if isinstance(active, PerSample):
        return {name for name in active.names if name in has and name is not None}
    return {name for name, _ in active or () if name in has}


def _known(selected: Weighted | PerSample, has: Collection[str]) -> Active:
    """What of it a block has; None when it has nothing of it, so that it says nothing of the block."""
    if isinstance(selected, PerSample):
        names = tuple(name if name in has else None for name in selected.names)
        return PerSample(names) if any(names) else None
    return (tuple((name, weight) for name, weight in selected if name in has) or None) if selected else ()


def _of_item(active: Any, item: int | None, where: str) -> Any:
    """What is active for one item of a mapped list."""
    if item is None or not isinstance(active, PerSample):
        return active
    if item >= len(active.names):
        raise StructureError(f"{where}: item {item} of a mapped list, and adapters for {len(active.names)} samples; give one for each")
    name = active.names[item]
    return () if name is None else ((name, 1.0),)


def _gate_of(module: nn.Module) -> CallGate:
    gate = module.__dict__.get("_adapter_gate")
    return module.__dict__.setdefault("_adapter_gate", CallGate()) if gate is None else gate
