"""Which adapters a place selects: as users and configs write it, and as layers read it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import StructureError

Canonical = str | dict[str, float] | tuple[str | None, ...] | None
"""As configs hold it: a name, weights by name, a name or None for each sample, or None for the base alone."""
Weighted = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class PerSample:
    """One adapter, or none, for each sample of the batch."""

    names: tuple[str | None, ...]


Active = Weighted | PerSample | None
"""As layers read it: adapters with their weights, the same for all samples or one for each."""


def canonical(adapter: Any, where: str) -> Canonical:
    """A selection as configs hold it.

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


def names_of(adapter: Canonical) -> tuple[str, ...]:
    """The adapters that a selection names, each once."""
    if adapter is None:
        return ()
    return (adapter,) if isinstance(adapter, str) else tuple(dict.fromkeys(name for name in adapter if name is not None))


def as_active(adapter: Canonical) -> Active:
    """What layers read of a selection."""
    if adapter is None:
        return None
    if isinstance(adapter, str):
        return ((adapter, 1.0),)
    return PerSample(adapter) if isinstance(adapter, tuple) else tuple(adapter.items())


def restricted(adapter: Canonical, names: Collection[str]) -> Canonical:
    """What of a selection concerns these adapters; None when nothing does."""
    if adapter is None or isinstance(adapter, str):
        return adapter if adapter in names else None
    if isinstance(adapter, tuple):
        known = tuple(name if name in names else None for name in adapter)
        return known if any(known) else None
    return {name: weight for name, weight in adapter.items() if name in names} or None
