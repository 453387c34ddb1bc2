"""Several sources of one port, combined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.plan import Combine
from wgtorch.core.port import ABSENT


def combine(step: Combine, slots: list[Any]) -> Any:
    """Combines what several sources brought to one port; sources without a value are left out."""
    present = [(key, slots[slot]) for key, slot in zip(step.keys, step.sources, strict=True) if slots[slot] is not ABSENT]
    values = [value for _, value in present]
    if not values:
        return ABSENT
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


def _concat(values: list[Any]) -> Any:
    """Joins tensors along dim 1 (features, tokens or channels; dim 0 for vectors), lists and texts end to end."""
    if isinstance(values[0], Tensor):
        return torch.cat(values, dim=min(1, values[0].dim() - 1))
    if isinstance(values[0], str):
        return "\n".join(values)
    return [item for value in values for item in value]
