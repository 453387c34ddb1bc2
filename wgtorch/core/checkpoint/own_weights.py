"""What a checkpoint stores of a level: its blocks, and the tensors of its own that a subclass gave it."""

from __future__ import annotations

from typing import Any

from torch import nn

from wgtorch.core.errors import CheckpointError
from wgtorch.core.tree import UniqueBlock, is_level, levels, unique_blocks

OWN = "@level"
"""The path of a level's own tensors; no node can have it."""


def parts_of(target: Any) -> dict[str, UniqueBlock]:
    """Blocks below, each once, by path; and what the level itself holds beside its nodes, where that is anything."""
    parts = unique_blocks(target)
    if is_level(target) and (own := _own_part(target)).state_dict():
        parts[OWN] = UniqueBlock(own, [OWN])
    return parts


def check_levels(target: Any) -> None:
    """Refuses levels below that hold tensors of their own: a config builds them as what their kind is, without.

    Raises:
        CheckpointError: names the level and its tensors.
    """
    for level in levels(target)[1:]:
        if found := list(_own_part(level).state_dict()):
            raise CheckpointError(
                f"{level.block_id}: this {level.level} holds tensors of its own ({', '.join(found[:4])}), which no config of the "
                f"{target.level} above it builds; put them into a block that is one of its nodes"
            )


def _own_part(level: Any) -> nn.Module:
    """A view of a level without its nodes: setting a tensor here sets it there."""
    part = nn.Module()
    part.__dict__.update({name: level.__dict__[name] for name in ("_parameters", "_buffers", "_non_persistent_buffers_set")})
    part._modules.update({name: module for name, module in level._modules.items() if name != "nodes"})
    return part
