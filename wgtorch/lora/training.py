"""Adapters in training: what trains must be in the optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from wgtorch.core.errors import TrainingError
from wgtorch.core.tree import levels
from wgtorch.lora.adapted_module import tensors_of
from wgtorch.lora.places import places_of, unique_models
from wgtorch.lora.selection import names_of

_SHOWN = 8


def adapters_learning(target: Any, learned: Iterable[nn.Parameter]) -> tuple[list[str], list[str]]:
    """Adapters with parameters that require gradients, in words: those of which some learn, and those of which none do.

    Args:
        target: a level or a block.
        learned: the parameters that learn.
    """
    held = {id(parameter) for parameter in learned}
    learning: list[str] = []
    idle: list[str] = []
    for place in unique_models(places_of(target)):
        for name in place.adapters:
            wanted = [parameter for parameter in tensors_of(place.block, name).values() if parameter.requires_grad]
            if wanted:
                learns = any(id(parameter) in held for parameter in wanted)
                (learning if learns else idle).append(f"adapter {name!r} of {place.path}")
    return learning, idle


def check_optimizer(target: Any, optimizer: Any, learned: Iterable[nn.Parameter] | None = None) -> None:
    """Makes sure that every adapter that trains below a target is in an optimizer.

    An adapter trains when some place selects it, its parameters require gradients and the block trains at some place. Those of
    a block that was given alone count as selected.

    Args:
        target: what is to be trained.
        optimizer: a ``torch.optim.Optimizer``, or several.
        learned: the parameters that learn, where that is known; all that the target's places allow where left out.

    Raises:
        TrainingError: parameters are missing; names the blocks, adapters and layers.
    """
    optimizers = optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]
    held = {id(parameter) for each in optimizers for group in each.param_groups for parameter in group["params"]}
    trained = {id(parameter) for parameter in (target.trainable_parameters() if learned is None else learned)}
    selected = {name for level in levels(target) for place in level.node_specs.values() for name in names_of(place.adapter)}
    missing = {
        f"{place.path}: adapter {name!r}: {key}"
        for place in places_of(target)
        for name in place.adapters
        if place.level is None or name in selected
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
