"""The network that the painters of small pictures share: convolutions around a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.scenes.layers import ConvBlock, Fourier, TransformerBlock
from wgtorch.core.port import Port
from wgtorch.roles import Backbone

PATCH = 4  # pixels that a cell of the finer map has on each side


class HybridBackbone(Backbone):
    """Predicts the clean picture x0 from a noisy one; how a condition enters is a subclass's.

    ::

        latent --unshuffle 4--> fine map --conv--+--unshuffle 2--> transformer --shuffle 2--+--conv--> shuffle 4 --> pred
                                                 +------------------ skip -------------------+

    The path of the noise is the straight one (rectified flow, Liu et al. 2022, https://arxiv.org/abs/2209.03003):
    ``x_t = (1 - t) x0 + t noise`` with t = sigma in [0, 1], so t = 1 is pure noise, and ``velocity = noise - x0 =
    (x_t - pred) / t``. `pred` is an x0-prediction. Inside, the network's input and output are scaled to unit variance and
    the part of x0 that is linear in x_t is added outside of it (Karras et al. 2022, https://arxiv.org/abs/2206.00364,
    section 5, with the straight path's constants). A vector modulates every block (adaLN-zero, Peebles & Xie 2022,
    https://arxiv.org/abs/2212.09748).

    Args:
        side: tokens in a row.
        width: channels of the transformer.
        depth: its blocks.
        heads: its attention heads.
        conv_width: channels of the fine map.
        condition_width: channels of the vector that modulates the blocks.
        sigma_data: standard deviation of the pictures, which are in [-1, 1].
        fine_blocks: convolutional blocks after the transformer.
    """

    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", shape=("B", 3, "S", "S"), description="x_t, pictures with noise"),
        "timestep": Port(dtype="number", description="t in [0, 1], from data to noise; one for all, or [B]"),
    }
    outputs = {"pred": Port(dtype="tensor", shape=("B", 3, "S", "S"), description="the pictures x0, about in [-1, 1], not clamped")}
    uses_global_rng = False
    colour_layers = ("enter", "leave")
    """Where colours come in and go out: convolutions whose channels are those of red, green and blue, one after the other."""

    def __init__(
        self, side: int, *, width: int, depth: int, heads: int, conv_width: int, condition_width: int, sigma_data: float, fine_blocks: int
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{type(self).__name__}.heads: width {width} is not divisible by {heads}")
        if conv_width % 8:
            raise ValueError(f"{type(self).__name__}.conv_width: found {conv_width}, expected a multiple of 8")
        self.side = side
        self.sigma_data = sigma_data
        self.timestep = nn.Sequential(Fourier(64), nn.Linear(64, condition_width), nn.SiLU(), nn.Linear(condition_width, condition_width))
        self.enter = nn.Conv2d(3 * PATCH**2, conv_width, 3, padding=1)
        self.fine_in = ConvBlock(conv_width, condition_width)
        self.to_tokens = nn.Linear(4 * conv_width, width)
        self.position = nn.Parameter(0.02 * torch.randn(side**2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, condition_width) for _ in range(depth))
        self.from_tokens = nn.Linear(width, 4 * conv_width)
        self.merge = nn.Conv2d(2 * conv_width, conv_width, 1)
        self.fine_out = nn.ModuleList(ConvBlock(conv_width, condition_width) for _ in range(fine_blocks))
        self.norm = nn.GroupNorm(8, conv_width)
        self.leave = nn.Conv2d(conv_width, 3 * PATCH**2, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def denoised(
        self,
        latent: Tensor,
        timestep: Tensor,
        condition: Tensor,
        *,
        entering: Tensor | float = 0.0,
        on_tokens: Tensor | float = 0.0,
        leaving: Tensor | float = 0.0,
    ) -> Tensor:
        """The picture x0 behind a noisy one, [B, 3, S, S]; not clamped.

        Args:
            latent: x_t [B, 3, S, S] with S = 8 * side.
            timestep: t in [0, 1], [B] or a scalar.
            condition: what modulates every block [B, condition_width], before the timestep is added.
            entering, leaving: added to the fine map [B, conv_width, 2 * side, 2 * side] before and after the transformer.
            on_tokens: added to the tokens [B, side^2, width].
        """
        batch = latent.shape[0]
        t = torch.as_tensor(timestep, dtype=latent.dtype, device=latent.device).expand(batch)
        skip, scale_in, scale_out = self._scales(t.view(batch, 1, 1, 1))
        modulation = F.silu(condition + self.timestep(t))
        fine = self.fine_in(self.enter(F.pixel_unshuffle(scale_in * latent, PATCH)) + entering, modulation)
        tokens = self.to_tokens(F.pixel_unshuffle(fine, 2).flatten(2).mT) + self.position + on_tokens
        for block in self.blocks:
            tokens = block(tokens, modulation)
        coarse = F.pixel_shuffle(self.from_tokens(tokens).mT.unflatten(2, (self.side, self.side)), 2)
        fine = self.merge(torch.cat([fine, coarse], dim=1)) + leaving
        for conv in self.fine_out:
            fine = conv(fine, modulation)
        return skip * latent + scale_out * F.pixel_shuffle(self.leave(F.silu(self.norm(fine))), PATCH)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_in, c_out: var(x_t) is (1 - t)^2 s^2 + t^2, and c_skip x_t the linear estimate of x0 of least error."""
        s = self.sigma_data
        variance = ((1 - t) * s) ** 2 + t**2
        return (1 - t) * s**2 / variance, variance.rsqrt(), s * t * variance.rsqrt()
