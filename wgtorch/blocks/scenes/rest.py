"""What a prompt leaves open, taken from another description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.scenes.scene import ATTRIBUTES
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port


@register_block("conditioner/scene_rest")
class SceneRest(Block):
    """Fills what one embedding leaves open with what another says: "at night" of a picture of a castle by day is the castle at night.

    The probability of "unspecified" in each token is spread as the same token of ``rest`` is, so gradients pass through both.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", 7, 8), description="the scene that leaves something open"),
        "rest": Port(dtype="embedding", description="the scene that says what is left open [B or 1, 7, 8]"),
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", 7, 8), description="the first scene, what it left open filled from the second")
    }

    def forward(self, embedding: Tensor, rest: Tensor) -> Tensor:
        """``embedding`` [B, 7, 8] of ``embedding`` and ``rest``, each [B or 1, 7, 8]."""
        places = torch.tensor([len(values) for values in ATTRIBUTES.values()], device=embedding.device).view(1, -1, 1)
        open_share = embedding.gather(-1, places.expand(embedding.shape[0], -1, -1))
        said = torch.scatter(embedding, -1, places.expand(embedding.shape[0], -1, -1), 0.0)
        return said + open_share * rest
