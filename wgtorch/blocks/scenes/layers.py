"""Layers that the small painters share: convolutions and attention, modulated by a vector, and an embedding of time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fourier(nn.Module):
    """Sines and cosines of t at frequencies from 1/4 to 64 turns."""

    frequencies: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("frequencies", 2 * torch.pi * torch.logspace(-0.6, 1.8, width // 2), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.unsqueeze(-1) * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ConvBlock(nn.Module):
    """Two convolutions beside the identity, the second modulated: [B, C, H, W] to the same."""

    def __init__(self, width: int, condition_width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(condition_width, 2 * width)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale, shift = self.modulation(modulation)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


class TransformerBlock(nn.Module):
    """Attention and a perceptron beside the identity, both modulated (adaLN-zero): [B, T, C] to the same."""

    def __init__(self, width: int, heads: int, condition_width: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.attend = nn.Linear(width, width)
        self.expand = nn.Linear(width, 3 * width)
        self.contract = nn.Linear(3 * width, width)
        self.modulation = nn.Linear(condition_width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(modulation)[:, None].chunk(6, dim=-1)
        q, k, v = self.qkv(self.norm(x) * (1 + scale1) + shift1).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # written out, as the derivative of PyTorch's fused attention takes 5 times as long on a CPU for 64 tokens in bfloat16
        scores = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
        x = x + gate1 * self.attend((scores.to(v.dtype) @ v).transpose(1, 2).flatten(2))
        return x + gate2 * self.contract(F.gelu(self.expand(self.norm(x) * (1 + scale2) + shift2), approximate="tanh"))


class Residual(nn.Module):
    """Two convolutions beside the picture as it is, or as its stride makes it: [B, inner, H, W] to [B, outer, H / stride, W / stride]."""

    def __init__(self, inner: int, outer: int, *, stride: int = 1):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inner), nn.GroupNorm(8, outer)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.pass_on = nn.Identity() if inner == outer and stride == 1 else nn.Conv2d(inner, outer, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.pass_on(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
