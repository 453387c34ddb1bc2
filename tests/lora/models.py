"""Small blocks with layers of all kinds, and adapters with values that matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.blocks_for_tests import Affine, chain
from wgtorch.core.block import Block, register_block
from wgtorch.graph import Graph
from wgtorch.lora.active_adapters import preserve_adapter_context
from wgtorch.lora.adapted_module import adapters_on, tensors_of
from wgtorch.lora.places import places_of, unique_models


@register_block("test_lora/body")
class Body(Block):
    """Two linear layers around a tanh; ``again`` computes them a second time in backward: not at all, kept or raw."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, width: int = 4, seed: int = 0, again: str = "") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.again = again
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def body(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))

    def forward(self, x: Tensor) -> Tensor:
        if not self.again:
            return self.body(x)
        return checkpoint(preserve_adapter_context(self.body) if self.again == "kept" else self.body, x, use_reentrant=False)


class Layers(Block):
    """One layer of each kind that takes adapters: ids [B, L] to [B, 4]."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.wide = nn.Conv1d(6, 8, 3, padding=1)
        self.image = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.solid = nn.Conv3d(8, 4, 1)
        self.out = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wide(self.embed(ids).mT)  # [B, 8, L]
        x = self.image(torch.tanh(x).unsqueeze(2).expand(-1, -1, 4, -1))  # [B, 8, 2, L / 2]
        x = self.solid(x.unsqueeze(2)).mean((2, 3, 4))
        return self.norm(self.out(x))


ALL_KINDS = ["embed", "wide", "image", "solid", "out"]


def fill(target: Any, seed: int = 0) -> None:
    """Gives all adapters below values that differ from each other and from nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for place in unique_models(places_of(target)):
            for name in sorted(adapters_on(place.block)):
                for parameter in tensors_of(place.block, name).values():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)


def snapshot(module: nn.Module) -> tuple[list[str], dict[str, Tensor], list[tuple[str, str]], dict[str, bool]]:
    """All that must be as before when the last adapter goes: names in order, values, module types, what trains."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    kinds = [(name, type(part).__name__) for name, part in module.named_modules()]
    return list(state), state, kinds, {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def twice(block: Block) -> Graph:
    """A layer, the block, another layer, the block again."""
    return chain(Affine(seed=1), block, Affine(seed=2), block, name="twice")


def linear(x: Tensor, weights: Mapping[str, Tensor], layer: str, adapters: Mapping[str, float], scaling: float = 1.0) -> Tensor:
    """``x W' + b + sum_k w_k s x A_k' B_k'``, by hand."""
    y = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    for name, weight in adapters.items():
        y = y + weight * scaling * (x @ weights[f"{layer}.lora_A.{name}"].T) @ weights[f"{layer}.lora_B.{name}"].T
    return y


def leaves(block: Body) -> dict[str, Tensor]:
    """The block's weights and adapters as leaves of their own, named as :func:`linear` reads them."""
    found = {}
    for layer in ("first", "second"):
        module: Any = getattr(block, layer)
        base = module.base_layer if hasattr(module, "base_layer") else module
        found |= {f"{layer}.weight": base.weight, f"{layer}.bias": base.bias}
        for name in getattr(module, "scaling", {}):
            found |= {f"{layer}.lora_{half}.{name}": getattr(module, f"lora_{half}")[name].weight for half in "AB"}
    return {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in found.items()}


def by_hand(x: Tensor, weights: Mapping[str, Tensor], adapters: Mapping[str, float], scaling: float = 1.0) -> Tensor:
    """What :class:`Body` computes."""
    return linear(torch.tanh(linear(x, weights, "first", adapters, scaling)), weights, "second", adapters, scaling)


def gradients(block: Body) -> dict[str, Tensor | None]:
    """Gradients under the names of :func:`leaves`."""
    found: dict[str, Tensor | None] = {}
    for layer in ("first", "second"):
        module: Any = getattr(block, layer)
        base = module.base_layer if hasattr(module, "base_layer") else module
        found |= {f"{layer}.weight": base.weight.grad, f"{layer}.bias": base.bias.grad}
        for name in getattr(module, "scaling", {}):
            found |= {f"{layer}.lora_{half}.{name}": getattr(module, f"lora_{half}")[name].weight.grad for half in "AB"}
    return found
