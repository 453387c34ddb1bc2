"""The palette of the pictures, and pictures in nothing but its colours."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_HEX = (
    "13101a 1a1a1f 142823 181c3d 23232f 203421 392720 202f38 2b4122 5e1820 382c37 1e2957 25403a 46223a 42372f 3b4c23 "
    "593623 2c5239 2c3e4f 395b2a 3e3b48 4b4830 2e3964 193381 8a2528 87381b 384f55 634931 4c484d 515938 3d6d38 4d2274 "
    "47435e 5a652d 7c4a2c 3d4d6a 5e4c4a 3b497c 477f3b 66603e 643670 4a6a58 ba2f2b 9c5625 525c6e 655565 73743b 44568b "
    "c04720 785956 5d7754 4e9942 7a684a 7e4868 692d99 916345 706962 648c4c 556189 2d4fc4 3e64a3 d33c3a 9c535a 698662 "
    "9e7c3e a38c30 716e81 b66d41 4077b1 887f62 b26257 75a05e 997665 d47234 827a81 946c82 74b65a 9540b2 7d9674 6c79a5 "
    "42a3a6 9b8082 ac866d 518bc6 c2855b 8d829b 808d9e ae8181 d6914a f4902d d66477 8b9a93 7391b7 89b182 e3aa37 c38b7a "
    "c1a16a 9a93a1 5490eb a9a392 8788d0 99a2ae 939cbd 97aeaa eec53d d7a27d c69e9a 86aace a3bda7 dcb978 b6acb2 80afee "
    "b8a9ca d6bc9e c1d0a0 aabbd3 c4bcbb eed579 97bfea fbe36b dfbbb8 cfbbcd c6d4cb bacce3 e0dcd7 efd7e5 f9f2cc f4f6f7 "
)
PALETTE: tuple[tuple[int, int, int], ...] = tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in _HEX.split())
"""128 colours, from dark to light: those that stand for all that the drawings have (k-means of 4000 of them in Oklab)."""
_CUBE = 64  # steps of a channel in the table of nearest colours


def snap(image: Tensor) -> Tensor:
    """Pictures in the nearest colours of the palette.

    Near is what looks near: distances are taken in Oklab (Ottosson 2020, https://bottosson.github.io/posts/oklab).

    Args:
        image: [..., 3, H, W] in [0, 1]; values outside are clamped.

    Returns:
        The same shape, every pixel one of :data:`PALETTE`.
    """
    colors = torch.tensor(PALETTE, dtype=image.dtype, device=image.device) / 255
    found = colors[nearest(image)]  # [..., H, W, 3]
    return found.movedim(-1, -3)


def nearest(image: Tensor) -> Tensor:
    """The index in :data:`PALETTE` of every pixel, [..., H, W] of [..., 3, H, W] in [0, 1]."""
    steps = (image.movedim(-3, -1).clamp(0, 1) * (_CUBE - 1)).round().long()
    return _table().to(image.device)[steps[..., 0], steps[..., 1], steps[..., 2]]


@functools.cache
def _table() -> Tensor:
    """The nearest colour of every corner of a cube of colours, [64, 64, 64]."""
    side = torch.linspace(0, 1, _CUBE)
    cube = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1).flatten(0, 2)
    palette = _oklab(torch.tensor(PALETTE) / 255)
    parts = [torch.cdist(_oklab(part), palette).argmin(dim=1) for part in cube.split(32768)]
    return torch.cat(parts).unflatten(0, (_CUBE, _CUBE, _CUBE))


def _oklab(rgb: Tensor) -> Tensor:
    """sRGB [N, 3] in [0, 1] to Oklab, with hue weighing 1.6 times what lightness weighs."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    cones = torch.tensor(
        [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
    )
    lab = torch.tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return (linear @ cones.T).clamp(min=0) ** (1 / 3) @ lab.T * torch.tensor([1.0, 1.6, 1.6])
