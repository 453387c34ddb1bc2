"""An image generator: pictures made of words, or of another picture and words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.core.trust import check_no_keys
from wgtorch.integrations.models.model_block import ModelBlock, per_row, rows_of, seed_of
from wgtorch.integrations.models.requests import ImageRequest
from wgtorch.integrations.models.vlm import pictures_of
from wgtorch.ports import HEIGHT, USAGE, WIDTH


@register_block("image_generator")
class ImageGenerator(ModelBlock):
    """Paints ``image`` float [B, 3, H, W] in [0, 1], one picture for each prompt.

    With an ``image`` [B, 3, H, W] that picture is edited, and where there is a ``mask`` [B, 1, H, W] too, only where it is 1.

    Args:
        checkpoint_ref: folder of a local diffusion model.
        width, height: of the pictures, in pixels; the model's own where left out.
        options: what else the model takes (``quality``, ``background``, ``num_inference_steps``, ...).

    Raises:
        ApiError: the API gave no answer; its subclasses say why.
    """

    kind = "image_generator"
    inputs = {
        "prompt": Port(dtype="text", description="what to paint: one text, or a list with one for each picture"),
        "image": Port(dtype="image", description="pictures [B, 3, H, W], or one [3, H, W], in [0, 1], to edit"),
        "mask": Port(dtype="tensor", description="where the picture is edited, as 1 [B, 1, H, W]"),
        "width": WIDTH,
        "height": HEIGHT,
    }
    outputs = {
        "image": Port(dtype="image", shape=("B", 3, "H", "W"), description="one picture for each prompt, float in [0, 1]"),
        "usage": USAGE,
    }

    def __init__(
        self,
        *,
        backend: str | None = None,
        provider: str | None = None,
        model_id: str | None = None,
        endpoint_url: str | None = None,
        checkpoint_ref: str | None = None,
        width: int | None = None,
        height: int | None = None,
        options: Mapping[str, Any] | None = None,
        **source: Any,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("height", height)):
            if value is not None and value < 1:
                raise ValueError(f"{type(self).__name__}.{name}: found {value}, expected at least 1")
        if (width is None) != (height is None):
            raise ValueError(f"{type(self).__name__}: width {width} and height {height}; give both or neither")
        check_no_keys(options, f"{type(self).__name__}.options")
        self.width, self.height, self.options = width, height, dict(options or {})
        self._take(backend, provider, model_id=model_id, endpoint_url=endpoint_url, checkpoint_ref=checkpoint_ref, **source)

    def forward(
        self,
        prompt: str | list[str],
        image: Tensor | list[Tensor] | None = None,
        mask: Tensor | None = None,
        width: int | None = None,
        height: int | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """One picture for each prompt; pictures of one call have one size."""
        prompts, listed = rows_of(prompt)
        pictures = per_row(None if image is None else pictures_of(image, self.block_id), len(prompts), f"{self.block_id}.image")
        masks = per_row(None if mask is None else _masks_of(mask, self.block_id), len(prompts), f"{self.block_id}.mask")
        size = (int(width or self.width or 0) or None, int(height or self.height or 0) or None)
        if mask is not None and image is None:
            raise PortError(f"{self.block_id}.mask: there is no image that it could belong to; feed one, or leave the mask out")
        requests = [
            ImageRequest(text, picture, where, *size, seed_of(rng, index), self.options)
            for index, (text, picture, where) in enumerate(zip(prompts, pictures, masks, strict=True))
        ]
        painted = self.backend.paint(requests)
        usage = [dict(entry.usage) for entry in painted]
        return {"image": _stacked([entry.image for entry in painted]), "usage": usage if listed else usage[0]}

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs; the size is known only where the config or the call states it."""
        size = (int(inputs.get("height") or self.height or 64), int(inputs.get("width") or self.width or 64))
        return {"image": torch.zeros(len(rows_of(inputs.get("prompt", ""))[0]), 3, *size), "usage": {}}


def _masks_of(mask: Tensor, where: str) -> list[Tensor]:
    while mask.dim() < 4:
        mask = mask.unsqueeze(0)
    if mask.dim() != 4 or mask.shape[1] not in (1, 3):
        raise PortError(f"{where}.mask: found a tensor {list(mask.shape)}, expected [B, 1, H, W]")
    return list(mask)


def _stacked(pictures: list[Tensor]) -> Tensor:
    """One tensor [B, 3, H, W]; a model that answers in several sizes has them brought to the first one's."""
    if not pictures:
        return torch.empty(0, 3, 0, 0)
    size = pictures[0].shape[-2:]
    same = [
        entry if entry.shape[-2:] == size else F.interpolate(entry[None], size, mode="bilinear", antialias=True)[0] for entry in pictures
    ]
    return torch.stack(same)


@register_block("image_generator/api")
class ApiImageGenerator(ImageGenerator):
    """An image generator behind an API."""


@register_block("image_generator/local")
class LocalImageGenerator(ImageGenerator):
    """An image generator whose weights are here."""

    default_backend = "local"
