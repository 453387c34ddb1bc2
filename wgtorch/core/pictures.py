"""Pictures of Pillow as people see them, and tensors of pictures and sound in the range that their dtype says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortTypeError

_WITH_OPACITY = ("RGBA", "LA", "PA", "La", "RGBa")
_FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535, torch.bool: 1}


def upright(opened: Any) -> Any:
    """A file's picture, turned as its EXIF data says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(opened)


def eight_bits(picture: Any) -> Any:
    """A picture whose channels have 8 bits: Pillow's ``convert`` cuts deeper ones at 255 instead of scaling them.

    Raises:
        PortTypeError: its pixels are floating-point numbers.
    """
    if picture.mode == "F":
        raise PortTypeError("a picture of Pillow in mode 'F', whose range it does not say; expected 'RGB', or a tensor in [0, 1]")
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(picture).astype("float32") / 257).round().clip(0, 255).astype("uint8"))


def rgb_of(picture: Any, background: Sequence[int] = (255, 255, 255)) -> tuple[Any, Any]:
    """(a picture in RGB with what is transparent laid on a background, its opacity in mode ``L`` or None where all is opaque)."""
    from PIL import Image

    picture = eight_bits(picture)
    if picture.mode not in _WITH_OPACITY and "transparency" not in picture.info:
        return picture.convert("RGB"), None
    picture = picture.convert("RGBA")
    base = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(base, picture).convert("RGB"), picture.getchannel("A")


def unit_range(picture: Tensor) -> Tensor:
    """Pixels in [0, 1]: floating-point numbers as they are, uint8, uint16 and bool by their largest value.

    Raises:
        PortTypeError: of another dtype, which does not say what is white.
    """
    if picture.is_floating_point():
        return picture
    scale = _FULL_SCALE.get(picture.dtype)
    if scale is None:
        dtype = str(picture.dtype).removeprefix("torch.")
        raise PortTypeError(
            f"pixels of {dtype}, which does not say what is white; expected floating-point numbers in [0, 1], or uint8 "
            "(.to(torch.uint8) where they go from 0 to 255)"
        )
    return picture.to(torch.float32) / scale


def unit_sound(sound: Tensor) -> Tensor:
    """Samples in [-1, 1]: floating-point numbers as they are, int16 and int32 by their range, uint8 around 128."""
    if sound.dtype in (torch.int16, torch.int32):
        return sound.to(torch.float32) / (2**15 if sound.dtype == torch.int16 else 2**31)
    if sound.dtype == torch.uint8:
        return (sound.to(torch.float32) - 128) / 128
    if not sound.is_floating_point():
        dtype = str(sound.dtype).removeprefix("torch.")
        raise PortTypeError(f"samples of {dtype}, whose range it does not say; expected floating-point numbers in [-1, 1], or int16")
    return sound
