"""CLIP's image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.errors import require
from wgtorch.core.pictures import rgb_of, upright
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.integrations.diffusers.blocks.pictures import batch_of, size_of
from wgtorch.ports import IMAGE
from wgtorch.roles import Embedder

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
