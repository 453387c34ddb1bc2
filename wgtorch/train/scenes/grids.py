"""Pictures side by side, for loggers and for people."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from wgtorch.storage.encoding import write_png


def grid_of(pictures: Tensor, *, columns: int = 8, gap: int = 2, scale: int = 1) -> Tensor:
    """One picture [3, H, W] of pictures [B, 3, S, S] in [0, 1], row by row, on white.

    Args:
        pictures: what to lay out.
        columns: pictures in a row; fewer where there are fewer pictures.
        gap: pixels between them.
        scale: whole factor that every pixel grows by.
    """
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    large = pictures.detach().float().cpu().clamp(0, 1).repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    height, width = large.shape[-2] + gap, large.shape[-1] + gap
    grid = torch.ones(3, rows * height - gap, columns * width - gap)
    for index, picture in enumerate(large):
        top, left = index // columns * height, index % columns * width
        grid[:, top : top + height - gap, left : left + width - gap] = picture
    return grid


def save_png(picture: Tensor, path: Path) -> Path:
    """Writes a picture [3, H, W] in [0, 1], and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(picture, path)
    return path
