"""Adapters in training: what trains must be in the optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from wgtorch.core.errors import TrainingError
from wgtorch.core.tree import is_level, levels
from wgtorch.lora.context import adapters_on, cell, names_of
from wgtorch.lora.peft_model import tensors_of
from wgtorch.lora.places import places_of
from wgtorch.lora.wear import wearing

_SHOWN = 8


def check_optimizer(target: Any, optimizer: Any) -> None:
    """Makes sure that every adapter that trains below a target is in an optimizer.

    An adapter trains when some place wears it, its parameters require gradients and the block trains at some place. Those of
    a block that was given alone count as worn.

    Args:
        target: what is to be trained.
        optimizer: a ``torch.optim.Optimizer``, or several.

    Raises:
        TrainingError: parameters are missing; names the blocks, adapters and layers.
    """
    optimizers = optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]
    held = {id(parameter) for each in optimizers for group in each.param_groups for parameter in group["params"]}
    trained = {id(parameter) for parameter in target.trainable_parameters()}
    worn = {name for level in levels(target) for place in level.places.values() for name in names_of(place.adapter)}
    missing = {
        f"{place.path}: adapter {name!r}: {key}"
        for place in places_of(target)
        for name in _known(place.block, worn if is_level(target) else None)
        for key, parameter in tensors_of(place.block, name).items()
        if parameter.requires_grad and id(parameter) in trained and id(parameter) not in held
    }
    if missing:
        shown = sorted(missing)
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise TrainingError(
            f"{len(shown)} adapter parameters are in no optimizer: {'; '.join(shown[:_SHOWN])}{more}. Make the optimizer after adding "
            "adapters, from target.trainable_parameters(); or stop these from training with requires_grad_(False)"
        )


def worn_alone(target: Any) -> AbstractContextManager[None]:
    """What a block wears that is trained by itself, at no place that could say it: those of its adapters that train.

    A level, a block without adapters, and a block of which ``with wgtorch.lora.wearing(...)`` says something are left as they are.
    """
    if is_level(target) or cell.worn or cell.around:
        return nullcontext()
    names = [name for name in adapters_on(target) if any(tensor.requires_grad for tensor in tensors_of(target, name).values())]
    return wearing(target, dict.fromkeys(names, 1.0)) if names else nullcontext()


def _known(block: Any, worn: set[str] | None) -> Iterable[str]:
    return [name for name in adapters_on(block) if worn is None or name in worn]
