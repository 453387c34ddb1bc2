"""Where gradients stop: blocks that answer over a network have no derivative."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable

from torch import nn

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.errors import TrainingError
from wgtorch.core.level import Level
from wgtorch.core.plan import upstream
from wgtorch.train.patterns import blocks_at

_SHOWN = 8


def borders_in(target: Block) -> list[str]:
    """Paths of blocks that wait on a network and have no weights here: what comes before them gets no gradient."""
    return [path or block.block_id for path, block in blocks_at(target) if block.is_async and not any(True for _ in block.parameters())]


def places_before(target: Block, border: str) -> set[str]:
    """Paths of blocks from which values flow into the one at ``border``."""
    found: set[str] = set()
    level, way = target, ""
    for part in border.split("/"):
        if isinstance(level, Composite):
            before = upstream(level._structure(), {part}) - {part}
        elif isinstance(level, Level):
            before = set(level.nodes) - {part}  # a cycle: every stage is before every other
        else:
            break
        for node_id in before:
            path = f"{way}{node_id}"
            found |= {path, *(f"{path}/{below}".rstrip("/") for below, _ in blocks_at(level.nodes[node_id]))}
        way, level = f"{way}{part}/", level.nodes[part]
    return found


def what_trains(target: Block, learned: Iterable[nn.Parameter]) -> str:
    """Which parameters train, by the place they are at, and where gradients stop: a line for a log."""
    left = {id(parameter): parameter.numel() for parameter in learned}
    total, places = sum(left.values()), []
    for path, block in blocks_at(target):
        if count := sum(left.pop(id(parameter), 0) for parameter in block.parameters()):
            places.append(f"{path or block.block_id} ({count:,})")
    more = f" and {len(places) - _SHOWN} more places" if len(places) > _SHOWN else ""
    text = f"{target.block_id}: {total:,} parameters train: {', '.join(places[:_SHOWN])}{more}"
    if borders := borders_in(target):
        more = f" and {len(borders) - _SHOWN} more" if len(borders) > _SHOWN else ""
        text += f"; gradients stop at {', '.join(borders[:_SHOWN])}{more}"
    return text


def unreachable_reason(target: Block) -> str:
    """Words for why a loss may depend on nothing that trains."""
    borders = borders_in(target)
    if not borders:
        return "; check that the objective looks at values that trained blocks make, and that no block works under no_grad"
    return (
        f": gradients stop at {', '.join(borders[:4])}, which answers over a network. What comes before trains by reward "
        "(objective 'reward' with log_prob), what comes after by a loss on its own outputs"
    )


def check_gradients(target: Block, trained: Collection[int]) -> None:
    """Looks, after a first backward pass, for places that train and were not reached.

    Raises:
        TrainingError: a place stands before a border, where no gradient comes.
    """
    missed = {}
    for path, block in blocks_at(target):
        mine = [parameter for parameter in block.parameters() if id(parameter) in trained]
        if mine and all(parameter.grad is None for parameter in mine):
            missed[path or block.block_id] = block
    if not missed:
        return
    for border in borders_in(target):
        before = sorted(places_before(target, border) & set(missed))
        if before:
            raise TrainingError(
                f"{', '.join(before)}: no gradient arrives, since {border} answers over a network and gradients stop there. "
                "Freeze what comes before it, or train that by reward (objective 'reward' with log_prob)"
            )
    names = ", ".join(sorted(missed)[:6])
    warnings.warn(f"{target.block_id}: {names} train, but the first loss did not depend on them", stacklevel=2)
