"""Places of blocks below a target, with what adapters need to know of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from wgtorch.core.errors import StructureError, suggest
from wgtorch.core.tree import is_level, levels, walk
from wgtorch.lora.adapted_module import adapted_module, adapters_on
from wgtorch.lora.selection import Canonical


@dataclass(frozen=True, slots=True)
class Place:
    """A block at a node; ``level`` is None for a block that was given alone."""

    level: Any
    node_id: str
    path: str
    block: Any

    @property
    def module(self) -> nn.Module:
        """The module whose layers are adapted."""
        return adapted_module(self.block)

    @property
    def adapters(self) -> Mapping[str, Any]:
        """PEFT's configs of the block's adapters, by name."""
        return adapters_on(self.block)

    @property
    def selected(self) -> Canonical:
        """What the place selects."""
        return None if self.level is None else self.level.node_specs[self.node_id].adapter

    def select(self, adapter: Canonical) -> None:
        """Has the place select an adapter; a block that was given alone has no place that could."""
        if self.level is not None:
            self.level.set_adapter(self.node_id, adapter)


def places_of(target: Any, nodes: Iterable[str] | None = None) -> list[Place]:
    """Places of blocks, each once: at or below ``nodes``, all of the target's by default; or the block that the target is.

    Raises:
        UnknownNameError: there is no such node.
        StructureError: nodes of a block, which has none.
    """
    if not is_level(target):
        if nodes is not None:
            raise StructureError(f"{target.block_id}: is a block and has no nodes {list(nodes)}; leave nodes out")
        return [Place(None, "", target.block_id, target)]
    found: dict[tuple[int, str], Place] = {}
    for start in ("",) if nodes is None else [nodes] if isinstance(nodes, str) else nodes:
        above = start.rpartition("/")[0]
        for below, child, level in walk(target.find(start) if start else target, repeats=0):
            path = f"{start}/{below}".strip("/")
            level, node_id = level or (target.find(above) if above else target), path.rpartition("/")[2]
            if not is_level(child):
                found.setdefault((id(level), node_id), Place(level, node_id, path, child))
    return list(found.values())


def unique_models(places: Iterable[Place]) -> list[Place]:
    """The first place of every adapted module; blocks that stand around one model count once."""
    return list({id(place.module): place for place in reversed(list(places))}.values())[::-1]


def holders_of(target: Any, name: str) -> list[Place]:
    """The first place of every model below that has an adapter.

    Raises:
        StructureError: there is none.
    """
    places = places_of(target)
    if holders := [place for place in unique_models(places) if name in place.adapters]:
        return holders
    known = {other for place in places for other in place.adapters}
    raise StructureError(f"{target.block_id}: no block below has an adapter {name!r}; {suggest(name, sorted(known))}")


def refresh_plans(target: Any) -> None:
    """Has levels plan anew where blocks got their first adapter or lost their last."""
    for level in levels(target):
        level.refresh_plan()
