"""Latents as patches in a row, as transformers take them (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pack(latent: Tensor, patch: int) -> Tensor:
    """[B, h w / patch^2, C patch^2] of [B, C, h, w]: patches row by row, each with its channels first; frames one after the other."""
    if latent.dim() == 5:
        return torch.cat([pack(frame, patch) for frame in latent.unbind(2)], dim=1)
    rows, channels, height, width = latent.shape
    split = latent.reshape(rows, channels, height // patch, patch, width // patch, patch)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(rows, (height // patch) * (width // patch), channels * patch * patch)


def unpack(patches: Tensor, size: Sequence[int], patch: int) -> Tensor:
    """[B, C, h, w] of [B, h w / patch^2, C patch^2] and (h, w): undoes :func:`pack`."""
    rows, _, width = patches.shape
    split = patches.reshape(rows, size[0] // patch, size[1] // patch, width // patch**2, patch, patch)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(rows, width // patch**2, *size)


def packed_shape(shape: Sequence[int], patch: int) -> tuple[int, ...]:
    """The shape that :func:`pack` gives of one (B, C, h, w)."""
    rows, channels, height, width = shape
    return (rows, (height // patch) * (width // patch), channels * patch * patch)
