"""Numbers that are none stop a training, before they get into its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.block import Block
from wgtorch.core.errors import TrainingError
from wgtorch.train.patterns import names_of

_SHOWN = 4


def check_finite(numbers: Mapping[str, Tensor], where: str, beside: Mapping[str, Any] | None = None) -> None:
    """Refuses numbers that are infinite or not a number.

    Args:
        numbers: scalars by what they are.
        where: in words.
        beside: other values that help to understand it.

    Raises:
        TrainingError: one is; weights are as they were before.
    """
    if not numbers or bool(torch.stack([value.float() for value in numbers.values()]).isfinite().all()):
        return
    wrong = [f"{name} is {float(value)}" for name, value in numbers.items() if not math.isfinite(float(value))]
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    others = {name: float(value.detach()) for name, value in (beside or {}).items() if isinstance(value, Tensor) and value.dim() == 0}
    told = f" ({', '.join(f'{name} {value:.4g}' for name, value in others.items())})" if others else ""
    raise TrainingError(
        f"{where}: {', '.join(wrong[:_SHOWN])}{more}{told}. The weights are as they were before this step, and so is the last checkpoint. "
        "Lower optimizer.lr, set trainer.gradient_clip_val, take trainer.precision=32-true, or look at the data of this batch"
    )


def gradient_norms(target: Block, parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Norms of gradients: one number for all where they are finite, else those that are not, by the parameter's place and name."""
    held = [parameter for parameter in parameters if parameter.grad is not None and not parameter.grad.is_sparse]
    if not held:
        return {}
    norms = torch._foreach_norm([parameter.grad for parameter in held if parameter.grad is not None])
    total = torch.stack([norm.float() for norm in norms]).sum()
    if bool(total.isfinite()):
        return {}
    names = names_of(target)
    labels = [names.get(id(parameter), [f"objective[{index}]"])[0] for index, parameter in enumerate(held)]
    return {f"gradient of {label}": norm for label, norm in zip(labels, norms, strict=True) if not bool(norm.isfinite())}
