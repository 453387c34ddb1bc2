"""Values as JSON with the tensors apart, and pictures for people to look at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from wgtorch.core.encoding import decode, encode
from wgtorch.core.pictures import unit_range

__all__ = ["decode", "encode", "images_in", "write_png"]


def images_in(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Pictures [3, H, W] or [1, H, W] inside a value, in [0, 1] or of uint8, each with a file's name made from its path."""
    if isinstance(value, Tensor):
        is_picture = (value.is_floating_point() or value.dtype == torch.uint8) and value.dim() in (3, 4)
        if not is_picture or value.shape[-3] not in (1, 3) or min(value.shape[-2:]) < 2:
            return
        if value.dim() == 4:
            for index, image in enumerate(value):
                yield from images_in(image, f"{path}.{index}" if len(value) > 1 else path)
        else:
            yield re.sub(r"[^A-Za-z0-9-]", "_", path)[:100], unit_range(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from images_in(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from images_in(item, f"{path}.{index}")


def write_png(image: Tensor, path: Path | BinaryIO, *, scale: int = 1, notes: Mapping[str, str] | None = None) -> None:
    """Writes a picture [3, H, W], [1, H, W] or, with its opacity, [4, H, W] in [0, 1] as PNG, to a file or an open one.

    Args:
        image: the picture.
        path: the file.
        scale: enlarges it by whole pixels.
        notes: texts that the file carries beside the picture, by name.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    levels = unit_range(image.detach()).float().cpu().mul(255).round_().clamp_(0, 255).to(torch.uint8)
    rows = (levels.expand(3, -1, -1) if len(levels) == 1 else levels).permute(1, 2, 0).contiguous()
    picture = Image.fromarray(rows.numpy())
    height, width = rows.shape[:2]
    if scale > 1:
        picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    info = PngInfo()
    for name, text in (notes or {}).items():
        info.add_text(name, text)
    picture.save(path, format="PNG", pnginfo=info, compress_level=1)  # photographs come out as small, in a third of the time
