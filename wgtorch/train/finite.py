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


def check_gradients_finite(target: Block, parameters: Sequence[nn.Parameter], where: str) -> Tensor | None:
    """Refuses gradients that are infinite or not a number, by the parameter's place and name.

    Returns:
        The norm of all together, as ``torch.nn.utils.get_total_norm`` gives it; None where there are none, or sparse ones.

    Raises:
        TrainingError: one is; weights are as they were before.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None and not parameter.grad.is_sparse]
    if not held:
        return None
    norms = torch._foreach_norm([parameter.grad for parameter in held if parameter.grad is not None])
    total = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
    if not bool(total.isfinite()):
        names = names_of(target)
        labels = [names.get(id(parameter), [f"objective[{index}]"])[0] for index, parameter in enumerate(held)]
        check_finite({f"gradient of {label}": norm for label, norm in zip(labels, norms, strict=True) if not bool(norm.isfinite())}, where)
    return total if len(held) == sum(parameter.grad is not None for parameter in parameters) else None
