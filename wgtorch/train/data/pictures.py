"""Picture files as training needs them: upright, in RGB, of the size of a bucket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError
from wgtorch.core.pictures import rgb_of, upright

_GAP = 2  # pixels between pictures
_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange the sides."""
_ORIENTATION = 0x0112


class BrokenPicture(ConfigError):
    """A file that is taken for a picture and cannot be read."""


def picture_size(path: Path, *, decode: bool = False) -> tuple[int, int]:
    """(height, width) of a picture as it is seen.

    Args:
        path: the file.
        decode: read all of it, to be sure that it can be.

    Raises:
        BrokenPicture: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if opened.mode == "F":
                raise ValueError("its pixels are floating-point numbers, whose range it does not say")
            turned = opened.getexif().get(_ORIENTATION) in _TRANSPOSED
            if decode:
                opened.load()
    except Exception as error:  # Pillow's plugins raise what they like
        raise BrokenPicture(f"{path}: is no picture that can be read: {error}") from error
    return (width, height) if turned else (height, width)


def has_frames(path: Path) -> bool:
    """Whether a file holds several pictures: an animation, or pages. What cannot be read has none."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return getattr(opened, "n_frames", 1) > 1
    except Exception:  # as in picture_size
        return False


def open_picture(path: Path, background: Sequence[int] = (255, 255, 255)) -> Any:
    """A picture as a PIL image in RGB, upright, and how opaque it is.

    Args:
        path: the file.
        background: what shows through where the picture is transparent, (red, green, blue) in 0 to 255.

    Returns:
        (the image, its opacity as an image of mode ``L``, or None where all of it is opaque).

    Raises:
        BrokenPicture: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return rgb_of(upright(opened), background)
    except Exception as error:
        raise BrokenPicture(f"{path}: is no picture that can be read: {error}") from error


def scaled_size(height: int, width: int, into: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture scaled so that it just covers a bucket."""
    scale = max(into[0] / height, into[1] / width)
    return max(into[0], round(height * scale)), max(into[1], round(width * scale))


def as_tensor(picture: Any) -> Tensor:
    """A PIL image as [C, H, W] in [0, 1]."""
    import numpy as np

    pixels = torch.from_numpy(np.array(picture))
    return (pixels.unsqueeze(0) if pixels.dim() == 2 else pixels.permute(2, 0, 1)).float().div(255).contiguous()


def grid(pictures: Tensor, *, columns: int | None = None) -> Tensor:
    """Pictures [B, C, H, W] in [0, 1] beside one another in one [C, H', W'], on white.

    Args:
        pictures: what to lay out, row by row.
        columns: pictures in a row; about the root of B where left out.
    """
    batch, channels, height, width = pictures.shape
    columns = min(columns or max(1, round(batch**0.5 + 0.49)), batch)
    rows = -(-batch // columns)
    sheet = torch.ones(channels, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    for index, picture in enumerate(pictures.clamp(0, 1)):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet
