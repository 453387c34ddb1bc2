"""Colours of a style: a painter's adapter that begins with the map of colours from what the base paints to the pictures of the data."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, TrainingError
from wgtorch.core.run.modes import training_mode
from wgtorch.train.data.base import Data
from wgtorch.train.objective import Objective, Step
from wgtorch.train.patterns import blocks_at
from wgtorch.train.randomness import kept_generators

_NO_WAY_BACK = 1e3
SQUARE = 8
"""Sides of the squares in whose mean colours two pictures of one scene are compared: they do not agree in every pixel."""


@torch.no_grad()
def begin_with_colours(target: Block, name: str, objective: Objective, data: Data, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Has an adapter's copies of a painter's first and last layer take the base's colours to those of the data's pictures.

    What the base paints of the data's first ``count`` samples is compared with their pictures; the affine map of colours that fits best
    comes behind the last layer, and its inverse before the first. What lies between then sees the colours that it was trained with, so
    that of a style, inverted colours say, only what is no matter of colours is left to learn.

    Args:
        target: has the adapter, with copies (``modules_to_save``) of the layers that the painter's ``colour_layers`` names.
        name: the adapter's.
        objective: makes pictures of a batch (``samples``).
        data: with ``image`` [B, 3, H, W] in [0, 1].
        count: samples that are looked at.
        seed: of the data's order and of the pictures.

    Returns:
        M [3, 3] and b [3]: what a colour in [-1, 1] of the base became.

    Raises:
        TrainingError: no painter has such copies, or the objective makes no pictures.
        ConfigError: the data has none, or their colours allow no way back.
    """
    painters = _painters(target, name)
    batches = data.loaders(seed=seed)[0]
    painted, wanted = [], []
    with kept_generators(seed), training_mode(target, training=False):
        for index, batch in enumerate(islice(batches, -(-count // data.batch_size))):
            if not isinstance(batch, dict) or "image" not in batch:
                raise ConfigError("lora.colours: the data gives no 'image'; expected pictures [B, 3, H, W] in [0, 1]")
            found = objective.samples(target, batch, Step(index, torch.Generator().manual_seed(seed + index), training=False))
            pictures = [value for value in found.values() if isinstance(value, Tensor) and value.shape == batch["image"].shape]
            if not pictures:
                raise TrainingError(
                    f"lora.colours: {target.block_id} makes no pictures like those of the data from a batch; its colours are unknown"
                )
            painted.append(pictures[0].float())
            wanted.append(batch["image"].float())
    colours, offset = colour_map(torch.cat(painted) * 2 - 1, torch.cat(wanted) * 2 - 1)
    for painter in painters:
        _recolour(painter, name, colours, offset)
    return colours, offset


def colour_map(painted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """M [3, 3] and b [3] with which M colour + b is nearest to what is wanted, by least squares over squares of pictures [B, 3, H, W].

    Raises:
        ConfigError: the colours that are wanted lie so near to one another that there is no way back.
    """
    x, y = (F.avg_pool2d(each, SQUARE).movedim(1, -1).flatten(0, -2).double() for each in (painted, wanted))
    found = torch.linalg.lstsq(torch.cat([x, x.new_ones(len(x), 1)], dim=1), y).solution  # [4, 3]
    colours, offset = found[:3].T, found[3]
    if not torch.isfinite(found).all() or torch.linalg.cond(colours) > _NO_WAY_BACK:
        raise ConfigError(
            "lora.colours: the pictures of the data do not tell three colours apart, as those in black and white do not; "
            "leave lora.colours out"
        )
    return colours.to(painted), offset.to(painted)


def _painters(target: Block, name: str) -> list[Any]:
    """Blocks below that have an adapter's copies of their first and their last layer."""
    found: dict[int, Any] = {}
    for _, block in blocks_at(target):
        layers: Collection[str] = getattr(block, "colour_layers", ())
        if layers and all(name in getattr(block.get_submodule(layer), "modules_to_save", ()) for layer in layers):
            found[id(block)] = block
    if not found:
        raise TrainingError(
            f"lora.colours: no painter below {target.block_id} has copies of the layers that its pictures enter and leave by in {name!r}; "
            "expected lora.modules_to_save=[enter, leave] on backbone/scene or backbone/pixel_scene"
        )
    return list(found.values())


def _recolour(painter: Any, name: str, colours: Tensor, offset: Tensor) -> None:
    """M^-1 enters, M leaves: convolutions whose channels are those of three colours, one after the other."""
    enter, leave = (painter.get_submodule(layer).modules_to_save[name] for layer in painter.colour_layers)
    assert isinstance(enter, nn.Conv2d)
    assert isinstance(leave, nn.Conv2d)
    assert leave.bias is not None
    colours, offset = colours.to(leave.weight), offset.to(leave.weight)
    weight = enter.weight.unflatten(1, (3, -1))  # [out, 3, k, h, w]
    enter.weight.copy_(torch.einsum("odkhw,dc->ockhw", weight, torch.linalg.inv(colours)).flatten(1, 2))
    leave.weight.copy_(torch.einsum("cd,dkihw->ckihw", colours, leave.weight.unflatten(0, (3, -1))).flatten(0, 1))
    leave.bias.copy_((colours @ leave.bias.unflatten(0, (3, -1)) + offset.unsqueeze(1)).flatten())
