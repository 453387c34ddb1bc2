"""Which adapters are active: selected at many places at once, or for the calls inside a ``with``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from wgtorch.core.adapter_hook import Adapter
from wgtorch.core.errors import StructureError
from wgtorch.core.tree import is_level, levels
from wgtorch.lora.active_adapters import AdapterContext, current, missing
from wgtorch.lora.adapted_module import adapters_on, tensors_of
from wgtorch.lora.injection import convert_layers
from wgtorch.lora.places import places_of
from wgtorch.lora.selection import Canonical, as_active, canonical, names_of, restricted


def set_adapter(target: Any, adapter: Adapter | None) -> list[str]:
    """Has every place below whose block has the adapter select it; a run that goes on meanwhile takes it from its next node.

    Args:
        target: a level.
        adapter: as for :meth:`Level.set_adapter`; of several, a place selects what its block has. None: no place selects any.

    Returns:
        Paths of the places.

    Raises:
        StructureError: the target is a block, or no block below has one of the adapters.
    """
    if not is_level(target):
        raise StructureError(
            f"{target.block_id}: is a block; which adapter it uses is said by its place, or with wgtorch.lora.use_adapter(block, name)"
        )
    chosen = _checked(target, adapter)
    if chosen is None:
        for level in levels(target):
            for node_id, place in level.node_specs.items():
                if place.adapter is not None:
                    level.set_adapter(node_id, None)
        return []
    changed = []
    for place in places_of(target):
        if (own := restricted(chosen, place.adapters)) is not None:
            place.select(own)
            changed.append(place.path)
    return changed


def use_adapter(target: Any, adapter: Adapter | None) -> AdapterContext:
    """Makes adapters active in calls of this thread inside a ``with``, whatever places select.

    It holds for every block that is called inside and has the adapter.

    Args:
        target: what is to be called: a block, or a level.
        adapter: as for :meth:`Level.set_adapter`; None for the base alone.

    Raises:
        StructureError: the target has no such adapter.

    Example:
        >>> with wgtorch.lora.use_adapter(block, "style"):
        ...     block(x)
    """
    active = as_active(_checked(target, adapter)) or ()
    convert_layers(target)
    return AdapterContext(active, (active, *current.outer))


def adapters(target: Any) -> dict[str, list[str]]:
    """Adapters below, each with the paths of all places whose block has it, selected there or not."""
    found: dict[str, list[str]] = {}
    for place in places_of(target):
        for name in place.adapters:
            found.setdefault(name, []).append(place.path)
    return found


def deselect(target: Any, name: str) -> None:
    """No place below selects an adapter any more, alone or among others."""
    for level in levels(target):
        for node_id, place in level.node_specs.items():
            if name in (names := names_of(place.adapter)):
                level.set_adapter(node_id, restricted(place.adapter, set(names) - {name}))


def trained_adapters_active(target: Any) -> AbstractContextManager[None]:
    """For a block that is trained alone, at no place that could select: those of its adapters that train are active.

    A level, a block without adapters, and a block inside ``with wgtorch.lora.use_adapter(...)`` are left as they are.
    """
    if is_level(target) or current.active or current.outer:
        return nullcontext()
    names = [name for name in adapters_on(target) if any(tensor.requires_grad for tensor in tensors_of(target, name).values())]
    return use_adapter(target, dict.fromkeys(names, 1.0)) if names else nullcontext()


def _checked(target: Any, adapter: Adapter | None) -> Canonical:
    chosen = canonical(adapter, target.block_id)
    if (wrong := missing(target, chosen)) is not None:
        raise StructureError(f"{target.block_id}: {wrong}")
    return chosen
