"""The painter: a small flow model of 64x64 pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wgtorch.blocks.scenes.hybrid import HybridBackbone
from wgtorch.blocks.scenes.scene import ATTRIBUTES
from wgtorch.core.block import register_block
from wgtorch.core.port import Port

_NAMES = tuple(ATTRIBUTES)
_CROSSES_EVERYWHERE = (("landmark", "color"), ("landmark", "place"), ("time", "weather"), ("terrain", "weather"), ("time", "terrain"))
_CROSSES_ON_MAP = (("landmark", "place", "color"), ("traveller", "place"), ("time", "weather"), ("terrain",))


@register_block("backbone/scene")
class SceneBackbone(HybridBackbone):
    """Predicts the clean picture x0 from a noisy one: a :class:`~wgtorch.blocks.scenes.hybrid.HybridBackbone`.

    The condition [B, 7, 8] is that of :class:`~wgtorch.blocks.scenes.text.SceneTextEncoder`. Its attributes and their
    crosses (landmark x place x colour, ...) modulate every block and are laid out on the 8x8 map of tokens.

    Args:
        image_size: side of the pictures; a multiple of 8.
        width, depth, heads, conv_width, condition_width, sigma_data: as in :class:`~wgtorch.blocks.scenes.hybrid.HybridBackbone`.
        map_width: channels of the condition's map.
    """

    rows_are_samples = True
    inputs = {"condition": Port(dtype="embedding", description="distributions of attributes [B, 7, 8], or [1, 7, 8] for all")}

    def __init__(
        self,
        *,
        image_size: int = 64,
        width: int = 192,
        depth: int = 5,
        heads: int = 6,
        conv_width: int = 80,
        map_width: int = 16,
        condition_width: int = 64,
        sigma_data: float = 0.5,
    ):
        if image_size < 8 or image_size % 8:
            raise ValueError(f"SceneBackbone.image_size: found {image_size}, expected a multiple of 8")
        super().__init__(
            image_size // 8,
            width=width,
            depth=depth,
            heads=heads,
            conv_width=conv_width,
            condition_width=condition_width,
            sigma_data=sigma_data,
            fine_blocks=2,
        )
        self.condition = _Condition(self.side**2, condition_width, map_width, width)

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """The picture x0 behind a noisy one."""
        everywhere, on_map = self.condition(condition.to(latent.dtype).expand(len(latent), -1, -1))
        return {"pred": self.denoised(latent, timestep, everywhere, on_tokens=on_map)}


class _Condition(nn.Module):
    """Attribute distributions [B, 7, 8] to a vector [B, C] and a map [B, places, width]."""

    def __init__(self, places: int, vector_width: int, map_width: int, width: int):
        super().__init__()
        self.sizes = {name: len(values) + 1 for name, values in ATTRIBUTES.items()}
        everywhere = sum(self.sizes.values()) + sum(self._size(cross) for cross in _CROSSES_EVERYWHERE)
        self.vector = nn.Sequential(nn.Linear(everywhere, vector_width), nn.SiLU(), nn.Linear(vector_width, vector_width))
        self.map = nn.Linear(sum(self._size(cross) for cross in _CROSSES_ON_MAP), places * map_width, bias=False)
        self.project = nn.Linear(map_width, width)
        self.places = places
        nn.init.normal_(self.map.weight, std=0.3)

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        p = {name: condition[:, k, :size] for k, (name, size) in enumerate(self.sizes.items())}
        everywhere = torch.cat([*p.values(), *(self._cross(p, names) for names in _CROSSES_EVERYWHERE)], dim=-1)
        on_map = torch.cat([self._cross(p, names) for names in _CROSSES_ON_MAP], dim=-1)
        return self.vector(everywhere), self.project(self.map(on_map).unflatten(-1, (self.places, -1)))

    def _size(self, names: tuple[str, ...]) -> int:
        size = 1
        for name in names:
            size *= self.sizes[name]
        return size

    @staticmethod
    def _cross(p: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
        """Joint distribution [B, product of sizes] of attributes taken as independent."""
        joint = p[names[0]]
        for name in names[1:]:
            joint = (joint.unsqueeze(-1) * p[name].unsqueeze(-2)).flatten(-2)
        return joint
