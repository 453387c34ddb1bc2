"""Pictures as CLIP sees them, for Wan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.ports import IMAGE
from wgtorch.roles import Conditioner


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
