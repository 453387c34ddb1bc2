"""Pictures made to fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError, require, suggest
from wgtorch.ports import HEIGHT, IMAGE, PICTURES, WIDTH


@register_block("diffusers/fit_picture")
class FitPicture(Block):
    """A picture at a size that the model can work at: what is asked for, else its own, rounded down to a multiple.

    Where that is another size, pixels are taken as the nearest ones, as diffusers does with tensors.

    Args:
        multiple: of pixels that sides must have.
        height: pixels where the input is not fed; the picture's own where left out.
        width: likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"image": IMAGE, "height": HEIGHT, "width": WIDTH}
    outputs: Mapping[str, Any] = {"image": PICTURES}

    def __init__(self, *, multiple: int, height: int | None = None, width: int | None = None) -> None:
        super().__init__()
        self.multiple = multiple
        self.height = height
        self.width = width

    def forward(self, image: Tensor, height: int | None = None, width: int | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of [B, 3, h, w] or [3, h, w]."""
        batch = image if image.dim() == 4 else image.unsqueeze(0)
        wanted = (height or self.height or batch.shape[2], width or self.width or batch.shape[3])
        size = tuple(int(side) - int(side) % self.multiple for side in wanted)
        return {"image": batch if tuple(batch.shape[2:]) == size else F.interpolate(batch, size=size)}


@register_block("diffusers/sized_picture")
class SizedPicture(FitPicture):
    """The same, which also tells the size that it has come to.

    Args:
        multiple: of pixels that sides must have.
        height: pixels where the input is not fed; the picture's own where left out.
        width: likewise.
    """

    outputs: Mapping[str, Any] = {"height": HEIGHT, "width": WIDTH}

    def forward(self, image: Tensor, height: int | None = None, width: int | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1] of [B, 3, h, w] or [3, h, w], its ``height`` H and ``width`` W."""
        fitted = super().forward(image, height, width)["image"]
        return {"image": fitted, "height": fitted.shape[2], "width": fitted.shape[3]}


OUTPUT_TYPES = ("pt", "np", "pil", "latent")


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
