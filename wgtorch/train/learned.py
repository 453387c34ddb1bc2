"""What learns: the parameters that a gradient of an objective can reach, computed once from the places of a target.

The optimizer, the averages, the processes that wait for one another, the count that is shown and the checkpoints all use it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import nn

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.errors import TrainingError
from wgtorch.core.plan import upstream
from wgtorch.core.tree import is_level, split_path
from wgtorch.lora.training import adapters_learning
from wgtorch.train.patterns import blocks_at

_log = logging.getLogger(__name__)
_SHOWN = 6


def learned_parameters(target: Block, objective: Any = None) -> list[nn.Parameter]:
    """Parameters of a target that a gradient can reach, each once.

    A place that is set not to train, an adapter that no place selects, and a block that the objective does not need add nothing.

    Args:
        target: what is trained.
        objective: an :class:`~wgtorch.train.objective.Objective`, which knows the places its loss depends on; without one, all count.

    Raises:
        TrainingError: there are none, or none of the adapters that were added to learn; says why.
    """
    reached = None if objective is None else objective.reached(target)
    found = list(target.trainable_parameters(reached))
    learning, idle = adapters_learning(target, found)
    if idle and not learning:
        nothing = "" if found else "the loss depends on no weight that trains, since "
        raise TrainingError(
            f"{target.block_id}: {nothing}no adapter learns: {'; '.join(idle[:_SHOWN])}. Have a place that trains, and that the objective "
            "needs, select it (set_adapter, set_trainable), or stop it from training with requires_grad_(False)"
        )
    if not found:
        raise TrainingError(f"{target.block_id}: nothing to train: {_reason(target, reached)}")
    return found


def say_what_is_left_out(target: Block, learned: Iterable[nn.Parameter]) -> None:
    """Logs which adapters do not learn, though others do."""
    if idle := adapters_learning(target, learned)[1]:
        _log.info("%s: left out, since no gradient reaches it: %s", target.block_id, "; ".join(idle))


def _reason(target: Block, reached: Collection[str] | None) -> str:
    every = list(target.parameters())
    waiting = [path or block.block_id for path, block in blocks_at(target) if block.is_async]
    if any(True for _ in target.trainable_parameters()):
        return f"the objective needs {', '.join(sorted(reached or ())[:_SHOWN])}, and all of these are frozen; unfreeze one of them"
    if every:
        return f"all {len(every)} parameters are frozen; unfreeze places with set_trainable or take them out of freeze"
    if waiting:
        return f"{', '.join(waiting[:4])} wait on a network and have no weights here; add a block with parameters before or after"
    return "no block has parameters; choose a target that has"


def places_needed(target: Block, outputs: Iterable[str]) -> set[str] | None:
    """Paths of the places that some outputs, or ports by path, depend on; None where that cannot be told (a world, a bare block)."""
    if not isinstance(target, Composite):
        return None
    spec, exposed = target.get_output_spec(), {entry.name: [entry.node_id] for entry in target.exposed_outputs}
    found: set[str] = set()
    for name in outputs:
        if name not in spec and "." not in name:
            return None
        found |= _before(target, exposed[name] if name in spec else list(split_path(name)[0]))
    return found


def _before(level: Composite, path: Sequence[str]) -> set[str]:
    """Nodes that the one at a path depends on, with what is needed of it."""
    node, below = path[0], path[1:]
    found = upstream(level._structure(), {node}) - {node}
    child = level.nodes[node]
    if not below or not isinstance(child, Composite):
        return {*found, node}
    return found | {f"{node}/{place}" for place in _before(child, below)}


def places_below(prefix: str, level: Block) -> set[str]:
    """Paths of a level's nodes, as they are written where the level stands at a path; the path itself for a block."""
    if not is_level(level):
        return {prefix}
    return {f"{prefix}/{node}".strip("/") for node in level.nodes}  # type: ignore[union-attr]
