"""What places wear, for many places at once; and what calls outside of any place wear."""

from __future__ import annotations

from typing import Any

from wgtorch.core.adapter_hook import Adapter
from wgtorch.core.errors import StructureError
from wgtorch.core.tree import is_level, levels
from wgtorch.lora.context import adapters_on, as_worn, canonical, cell, missing_here, names_of, worn_as
from wgtorch.lora.peft_model import adopt_below
from wgtorch.lora.places import places_of


def wear(target: Any, adapter: Adapter | None) -> list[str]:
    """Every place below whose block has the adapter wears it from now on; a run that goes on meanwhile, from its next node.

    Args:
        target: a level.
        adapter: as for :meth:`Level.set_adapter`; of several, a block wears what it has. None: no place wears anything.

    Returns:
        Paths of the places.

    Raises:
        StructureError: the target is a block, or no block below has one of the adapters.
    """
    if not is_level(target):
        raise StructureError(
            f"{target.block_id}: is a block; what it wears is said by its place, or with wgtorch.lora.wearing(block, name)"
        )
    adapter = canonical(adapter, target.block_id)
    if (wrong := missing_here(target, adapter)) is not None:
        raise StructureError(f"{target.block_id}: {wrong}")
    if adapter is None:
        for level in levels(target):
            for node_id, place in level.places.items():
                if place.adapter is not None:
                    level.set_adapter(node_id, None)
        return []
    changed = []
    for place in places_of(target):
        own = _part_of(adapter, set(adapters_on(place.block)))
        if own is not None:
            place.level.set_adapter(place.node_id, own)
            changed.append(place.path)
    return changed


def wearing(target: Any, adapter: Adapter | None) -> worn_as:
    """Says what blocks wear in calls of this thread inside a ``with``, whatever their places say.

    It holds for every block that is called inside and has the adapter.

    Args:
        target: what is to be called: a block, or a level.
        adapter: as for :meth:`Level.set_adapter`; None for the base alone.

    Raises:
        StructureError: the target has no such adapter.

    Example:
        >>> with wgtorch.lora.wearing(block, "style"):
        ...     block(x)
    """
    adapter = canonical(adapter, target.block_id)
    if (wrong := missing_here(target, adapter)) is not None:
        raise StructureError(f"{target.block_id}: {wrong}")
    adopt_below(target)
    worn = as_worn(adapter) or ()
    return worn_as(worn, (worn, *cell.around))


def adapters(target: Any) -> dict[str, list[str]]:
    """Adapters below, each with the paths of all places whose block has it, worn there or not."""
    found: dict[str, list[str]] = {}
    for place in places_of(target):
        for name in adapters_on(place.block):
            found.setdefault(name, []).append(place.path)
    return found


def without(target: Any, name: str) -> None:
    """No place below wears an adapter any more, alone or among others."""
    for level in levels(target):
        for node_id, place in level.places.items():
            if name in names_of(place.adapter):
                level.set_adapter(node_id, _part_of(place.adapter, set(names_of(place.adapter)) - {name}))


def _part_of(adapter: Any, names: set[str]) -> Any:
    """What of an adapter's words concerns these names; None when nothing does."""
    if isinstance(adapter, str):
        return adapter if adapter in names else None
    if isinstance(adapter, tuple):
        kept = tuple(name if name in names else None for name in adapter)
        return kept if any(kept) else None
    return {name: weight for name, weight in adapter.items() if name in names} or None
