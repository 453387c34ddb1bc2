"""The painter: a small flow model of 64x64 pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.scenes.layers import ConvBlock, Fourier, TransformerBlock
from wgtorch.blocks.scenes.scene import ATTRIBUTES
from wgtorch.core.block import register_block
from wgtorch.roles import Backbone

_NAMES = tuple(ATTRIBUTES)
_CROSSES_EVERYWHERE = (("landmark", "color"), ("landmark", "place"), ("time", "weather"), ("terrain", "weather"), ("time", "terrain"))
_CROSSES_ON_MAP = (("landmark", "place", "color"), ("traveller", "place"), ("time", "weather"), ("terrain",))


@register_block("backbone/scene")
class SceneBackbone(Backbone):
    """Predicts the clean picture x0 from a noisy one: convolutions at 16x16 around a transformer at 8x8.

    ::

        latent --unshuffle 4--> 16x16 --conv--+--unshuffle 2--> 8x8 --transformer--> 8x8 --shuffle 2--+--conv--> shuffle 4 --> pred
                                              +---------------------------- skip ----------------------+

    The path of the noise is the straight one (rectified flow, Liu et al. 2022, https://arxiv.org/abs/2209.03003):
    ``x_t = (1 - t) x0 + t noise`` with t = sigma in [0, 1], so t = 1 is pure noise, and ``velocity = noise - x0 =
    (x_t - pred) / t``. `pred` is an x0-prediction. Inside, the network's input and output are scaled to unit variance and
    the part of x0 that is linear in x_t is added outside of it (Karras et al. 2022, https://arxiv.org/abs/2206.00364,
    section 5, with the straight path's constants).

    The condition [B, 7, 8] is that of :class:`~wgtorch.blocks.scenes.text.SceneTextEncoder`. Its attributes and their
    crosses (landmark x place x colour, ...) modulate every block (adaLN-zero, Peebles & Xie 2022,
    https://arxiv.org/abs/2212.09748) and are laid out on the 8x8 map of tokens.

    Args:
        image_size: side of the pictures; a multiple of 8.
        width: channels of the transformer.
        depth: its blocks.
        heads: its attention heads.
        conv_width: channels at 16x16.
        map_width: channels of the condition's map.
        condition_width: channels of the vector that modulates the blocks.
        sigma_data: standard deviation of the pictures, which are in [-1, 1].
    """

    inputs = {"latent": "latent", "condition": "embedding"}
    outputs = {"pred": "tensor"}
    uses_global_rng = False
    rows_are_samples = True

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
        super().__init__()
        if image_size < 8 or image_size % 8:
            raise ValueError(f"SceneBackbone.image_size: found {image_size}, expected a multiple of 8")
        if width % heads:
            raise ValueError(f"SceneBackbone.heads: width {width} is not divisible by {heads}")
        self.side = image_size // 8
        self.sigma_data = sigma_data
        self.condition = _Condition(self.side**2, condition_width, map_width, width)
        self.timestep = nn.Sequential(Fourier(64), nn.Linear(64, condition_width), nn.SiLU(), nn.Linear(condition_width, condition_width))

        self.enter = nn.Conv2d(3 * 16, conv_width, 3, padding=1)
        self.fine_in = ConvBlock(conv_width, condition_width)
        self.to_tokens = nn.Linear(4 * conv_width, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.side**2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, condition_width) for _ in range(depth))
        self.from_tokens = nn.Linear(width, 4 * conv_width)
        self.merge = nn.Conv2d(2 * conv_width, conv_width, 1)
        self.fine_out = nn.ModuleList(ConvBlock(conv_width, condition_width) for _ in range(2))
        self.norm = nn.GroupNorm(8, conv_width)
        self.leave = nn.Conv2d(conv_width, 3 * 16, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> dict:
        """The picture x0 behind a noisy one.

        Args:
            latent: x_t [B, 3, S, S].
            timestep: t in [0, 1], [B] or a scalar.
            condition: attribute distributions [B, 7, 8] (or [1, 7, 8] for all).

        Returns:
            `pred`: x0, [B, 3, S, S], in [-1, 1] where the model is right; it is not clamped.
        """
        batch = latent.shape[0]
        t = torch.as_tensor(timestep, dtype=latent.dtype, device=latent.device).expand(batch)
        skip, scale_in, scale_out = self._scales(t.view(batch, 1, 1, 1))
        everywhere, on_map = self.condition(condition.to(latent.dtype).expand(batch, -1, -1))
        modulation = F.silu(everywhere + self.timestep(t))  # [B, condition_width]

        fine = self.fine_in(self.enter(F.pixel_unshuffle(scale_in * latent, 4)), modulation)
        tokens = self.to_tokens(F.pixel_unshuffle(fine, 2).flatten(2).mT) + self.position + on_map  # [B, side^2, width]
        for block in self.blocks:
            tokens = block(tokens, modulation)
        coarse = F.pixel_shuffle(self.from_tokens(tokens).mT.unflatten(2, (self.side, self.side)), 2)
        fine = self.merge(torch.cat([fine, coarse], dim=1))
        for block in self.fine_out:
            fine = block(fine, modulation)
        network = F.pixel_shuffle(self.leave(F.silu(self.norm(fine))), 4)
        return {"pred": skip * latent + scale_out * network}

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_in, c_out: var(x_t) is (1 - t)^2 s^2 + t^2, and c_skip x_t the linear estimate of x0 of least error."""
        s = self.sigma_data
        variance = ((1 - t) * s) ** 2 + t**2
        return (1 - t) * s**2 / variance, variance.rsqrt(), s * t * variance.rsqrt()


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
