"""Several sources of one port, combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.plan import Combine
from wgtorch.core.port import MISSING


def combine(step: Combine, slots: list[Any]) -> Any:
    """Combines what several sources brought to one port; sources without a value are left out."""
    there = [(key, slot) for key, slot in zip(step.keys, step.sources, strict=True) if slots[slot] is not MISSING]
    present = [part for key, slot in there for part in _parts(step, key, slot, slots[slot])]
    values = [value for _, value in present]
    if not there:
        return MISSING
    if step.how == "dict":
        return dict(present)
    if step.how == "list":
        return values
    if step.how == "first":
        return values[0]
    try:
        return _concat(values) if step.how == "concat" else sum(values[1:], start=values[0])
    except (TypeError, RuntimeError) as error:
        kinds = ", ".join(f"{key}: {describe(value)}" for key, value in present)
        raise PortError(f"{step.node}.{step.port}: cannot {step.how} {kinds} ({error})") from error


def _parts(step: Combine, key: str, slot: int, value: Any) -> list[tuple[str, Any]]:
    """What one source brings: itself, or from outside all of a list or mapping that the port combines to."""
    if slot in step.outside and step.how == "list" and isinstance(value, (list, tuple)):
        return [(key, item) for item in value]
    if slot in step.outside and step.how == "dict" and isinstance(value, Mapping):
        return list(value.items())
    return [(key, value)]


def _concat(values: list[Any]) -> Any:
    """Joins tensors along dim 1 (features, tokens or channels; dim 0 for vectors), lists and texts end to end."""
    if isinstance(values[0], Tensor):
        return torch.cat(values, dim=min(1, values[0].dim() - 1))
    if isinstance(values[0], str):
        return "\n".join(values)
    return [item for value in values for item in value]
