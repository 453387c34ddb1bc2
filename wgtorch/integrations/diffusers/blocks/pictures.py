"""Pictures made to fit a model, and given out as pipelines of diffusers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError, require, suggest
from wgtorch.core.kinds import image_to_tensor
from wgtorch.core.pictures import eight_bits, rgb_of, upright
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.patches import pack
from wgtorch.ports import HEIGHT, IMAGE, PICTURES, WIDTH


def batch_of(image: Any, where: str, size: tuple[int, int] | None = None, mode: str = "RGB") -> Tensor:
    """Pictures [B, C, H, W] in [0, 1] of a tensor [B, C, H, W] or [C, H, W], a picture of Pillow, the path of one, or a list of such.

    Args:
        image: what a call gives.
        where: for messages.
        size: (height, width) that they are to have; as in diffusers Pillow's by Lanczos' window, tensors by the nearest pixels.
        mode: of Pillow, whose bands are the channels.

    Raises:
        PortError: pictures of a list are not of one size.
    """
    if isinstance(image, (list, tuple)):
        found = [batch_of(one, where, size, mode) for one in image]
        if len({one.shape[1:] for one in found}) > 1:
            shapes = [list(one.shape[1:]) for one in found]
            raise PortError(f"{where}: got a list of pictures of shapes {shapes}; expected one shape, or a size for all")
        return torch.cat(found)
    if not isinstance(image, Tensor):
        pictures: Any = require("PIL.Image", "diffusers")
        opened = image if isinstance(image, pictures.Image) else upright(pictures.open(image))
        own = rgb_of(opened)[0] if mode == "RGB" else eight_bits(opened).convert(mode)
        image = image_to_tensor(own if size is None else own.resize(size[::-1], resample=pictures.Resampling.LANCZOS))
        image = image if mode == "RGB" else image[:1]
    batch = image_to_tensor(image if image.dim() == 4 else image.unsqueeze(0))
    return batch if size is None or tuple(batch.shape[2:]) == tuple(size) else F.interpolate(batch, size=tuple(size))


def size_of(image: Any) -> tuple[int, int]:
    """(height, width) of pictures as :func:`batch_of` takes them; of a list those of the first."""
    if isinstance(image, (list, tuple)):
        return size_of(image[0])
    if isinstance(image, Tensor):
        return int(image.shape[-2]), int(image.shape[-1])
    if hasattr(image, "getbands"):
        return image.height, image.width
    with require("PIL.Image", "diffusers").open(image) as opened:  # type: ignore[attr-defined]
        seen = upright(opened)
        return seen.height, seen.width


@register_block("diffusers/fit_picture")
class FitPicture(Block):
    """A picture at a size that the model can work at: what is asked for, else its own, rounded down to a multiple.

    Where that is another size, tensors are resized to the nearest pixels and pictures of Pillow by Lanczos' window, as diffusers does it.
    What has the channels of latents is passed on as such.

    Args:
        multiple: of pixels that sides must have.
        height: pixels where the input is not fed; the picture's own where left out.
        width: likewise.
        latent_channels: C of latents that may come in place of pictures.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"image": IMAGE, "height": HEIGHT, "width": WIDTH}
    outputs: Mapping[str, Any] = {"image": PICTURES}

    def __init__(self, *, multiple: int, height: int | None = None, width: int | None = None, latent_channels: int | None = None) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.multiple = multiple
        self.height = height
        self.width = width

    def forward(self, image: Any, height: int | None = None, width: int | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of [B, 3, h, w] or [3, h, w]."""
        if isinstance(image, Tensor) and image.dim() == 4 and image.shape[1] == self.latent_channels:
            return {"image": image}
        if isinstance(image, Tensor) and image.shape[-3] != 3:
            known = f"3, or [B, {self.latent_channels}, h, w] of latents" if self.latent_channels else "3"
            raise PortError(f"{self.block_id}.image: got shape {list(image.shape)}; expected channels {known}")
        own = size_of(image)
        high, wide = (int(side) - int(side) % self.multiple for side in (height or self.height or own[0], width or self.width or own[1]))
        return {"image": batch_of(image, f"{self.block_id}.image", (high, wide))}


@register_block("diffusers/sized_picture")
class SizedPicture(FitPicture):
    """The same, which also tells the size that it has come to."""

    outputs: Mapping[str, Any] = {"height": HEIGHT, "width": WIDTH}

    def forward(self, image: Any, height: int | None = None, width: int | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of [B, 3, h, w] or [3, h, w], its ``height`` H and ``width`` W."""
        fitted = super().forward(image, height, width)["image"]
        return {"image": fitted, "height": fitted.shape[2], "width": fitted.shape[3]}


OUTPUT_TYPES = ("pt", "np", "pil", "latent")
OUTPUT_INPUTS: dict[str, Any] = {
    "output_type": Port(description="of what is decoded, as diffusers has it: pt, np, pil, or latent, which decodes nothing"),
    "latent_form": Port(description="of latents that are not decoded: patches of such a side in a row, or frames_first"),
}
"""Inputs of a codec that gives out as pipelines do."""


def given_latent(latent: Tensor, form: int | str | None) -> Tensor:
    """A latent as a pipeline keeps it.

    Args:
        latent: [B, C, h, w], or [B, C, T, h, w] of a video.
        form: patches of a side of so many in a row, [B, N, D]; or ``frames_first``, [B, T, C, h, w]; as it is where left out.
    """
    if form is None:
        return latent
    return latent.transpose(1, 2) if form == "frames_first" else pack(latent, int(form))


def as_output(pictures: Tensor, output_type: str | None, where: str) -> Any:
    """Pictures [B, 3, H, W], or videos [B, T, 3, H, W], in [0, 1], as pipelines of diffusers give them out.

    Args:
        pictures: as tensors, ``pt``, which is also what is meant where nothing is said.
        output_type: or ``np``, an array with channels last; ``pil``, a list of pictures of Pillow, of videos a list of such lists.
        where: for messages.

    Raises:
        PortError: there is no such type.
    """
    if output_type in (None, "pt"):
        return pictures
    if output_type not in OUTPUT_TYPES:
        raise PortError(f"{where}.output_type: got {output_type!r}; {suggest(str(output_type), OUTPUT_TYPES)}")
    array = pictures.detach().movedim(-3, -1).float().cpu().numpy()
    if output_type == "np":
        return array
    processors: Any = require("diffusers.image_processor", "diffusers")
    as_pil = processors.VaeImageProcessor.numpy_to_pil
    return [as_pil(video) for video in array] if pictures.dim() == 5 else as_pil(array)
