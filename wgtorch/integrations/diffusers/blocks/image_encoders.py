"""CLIP's image encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.errors import require
from wgtorch.core.pictures import rgb_of, upright
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.integrations.diffusers.blocks.pictures import batch_of, size_of
from wgtorch.ports import IMAGE
from wgtorch.roles import Conditioner, Embedder

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training pictures


@register_block("embedder/clip_image")
class CLIPImage(ForeignModel, Embedder):
    """``CLIPVisionModelWithProjection`` of transformers: pictures to vectors in the space of CLIP's texts.

    Pictures are brought to the model's size, cut to a square and normalised here, with operations that let gradients through.
    """

    library = "transformers"
    model_class = "CLIPVisionModelWithProjection"
    inputs: Mapping[str, Any] = {"image": IMAGE}

    def forward(self, image: Any) -> dict[str, Any]:
        """``embedding`` [B, P] of ``image`` [B, 3, H, W] or [3, H, W] in [0, 1]."""
        return {"embedding": self.model(self.pixels(image)).image_embeds}

    def hidden(self, pixels: Tensor) -> Tensor:
        """Tokens before the last layer, [B, L, D], of what :meth:`pixels` gives."""
        return self.model(pixels, output_hidden_states=True).hidden_states[-2]

    def pixels(self, image: Any) -> Tensor:
        """What the model sees: the shorter side at its size, the middle square, normalised; [B, 3, S, S].

        Pictures of Pillow are resized in their 8 bits, as ``CLIPImageProcessor`` does it.
        """
        size = self.model.config.image_size
        if not isinstance(image, Tensor):
            image = [_resized(one, size) for one in (image if isinstance(image, (list, tuple)) else [image])]
        image = batch_of(image, f"{self.block_id}.image")
        height, width = image.shape[2:]
        if min(height, width) != size:
            factor = size / min(height, width)
            wanted = (max(size, round(height * factor)), max(size, round(width * factor)))
            image = F.interpolate(image, size=wanted, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (image.shape[2] - size) // 2, (image.shape[3] - size) // 2
        image = image[:, :, top : top + size, left : left + size].to(self.model.dtype)
        mean, std = (torch.tensor(values, dtype=image.dtype, device=image.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return (image - mean) / std


def _resized(image: Any, size: int) -> Any:
    """A picture of Pillow whose shorter side has so many pixels; of a tensor the tensor."""
    if isinstance(image, Tensor):
        return image
    pictures: Any = require("PIL.Image", "diffusers")
    opened = image if isinstance(image, pictures.Image) else upright(pictures.open(image))
    height, width = size_of(opened)
    wide, high = (int(side * size / min(height, width)) for side in (width, height))
    return rgb_of(opened)[0].resize((wide, high), resample=pictures.Resampling.BICUBIC)


class VisionModel(ForeignModel, Conditioner):
    """CLIP's model of pictures in transformers, and what its processor does before.

    Args:
        processor: settings of ``CLIPImageProcessor``: size, mean, deviation; that class's own where left out.
    """

    library = "transformers"

    def __init__(self, *, processor: dict[str, Any] | None = None, **source: Unpack[ModelSource]) -> None:
        super().__init__(**source)
        library: Any = require("transformers", "diffusers")
        self.processor = library.CLIPImageProcessor(**(processor or {}))


@register_block("conditioner/wan_image")
class WanImage(VisionModel):
    """``CLIPVisionModel`` of transformers and its processor: pictures to what the last layer but one makes of them.

    Pictures are rounded to 8 bits first, as files have them; so no gradient reaches them.
    """

    model_class = "CLIPVisionModel"
    inputs: Mapping[str, Any] = {
        "image": IMAGE,
        "last_image": Port(dtype="image", raw=True, description="a second picture, or several, as image"),
    }

    def forward(self, image: Any, last_image: Any = None) -> dict[str, Any]:
        """``embedding`` [B, L, D]; with ``last_image`` its tokens follow, [B, 2 L, D]."""
        found = [self._seen(picture) for picture in (image, last_image) if picture is not None]
        return {"embedding": torch.cat([one.expand(len(found[0]), -1, -1) for one in found], dim=1)}

    def _seen(self, image: Any) -> Tensor:
        pictures: Any = require("PIL.Image", "diffusers")
        batch = batch_of(image, f"{self.block_id}.image")
        bytes_ = (batch.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
        pixels = self.processor([pictures.fromarray(one.numpy()) for one in bytes_], return_tensors="pt").pixel_values
        return self.model(pixels.to(self.model.device, self.model.dtype), output_hidden_states=True).hidden_states[-2]
