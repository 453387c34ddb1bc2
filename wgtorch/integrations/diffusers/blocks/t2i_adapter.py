"""T2I-Adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution
from wgtorch.integrations.diffusers.blocks.controlnet import rows_for
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.ports import CONDITIONING_SCALE, ROWS
from wgtorch.roles import Adapter


@register_block("adapter/t2i")
class T2IAdapter(ForeignModel, Adapter):
    """``T2IAdapter`` of diffusers (Mou et al. 2023, "T2I-Adapter"): features of a picture, the same in every step.

    One call adds it to a built graph; the picture becomes the graph's input ``adapter_image``::

        graph.add_node("adapter/t2i", "sketch", config={"checkpoint_ref": "t2iadapter_sketch"})

    Args:
        scale: of what it contributes, where the input ``conditioning_scale`` is not fed.
    """

    model_class = "T2IAdapter"
    inputs: Mapping[str, Any] = {
        "image": Port(
            dtype="image",
            raw=True,
            description="pictures [1 or P, 1 or 3, H, W] or [1 or 3, H, W] in [0, 1], or of Pillow, as painted",
        ),
        "condition": ROWS,
        "conditioning_scale": CONDITIONING_SCALE,
    }
    exposes: Mapping[str, str] = {"image": "adapter_image", "conditioning_scale": "adapter_conditioning_scale"}

    def __init__(self, *, scale: float = 1.0, **source: Unpack[ModelSource]) -> None:
        super().__init__(**source)
        self.scale = scale

    def forward(self, image: Any, condition: Tensor | None = None, conditioning_scale: float | None = None) -> dict[str, Any]:
        """``adapted``: residuals inside the down blocks."""
        mode = "L" if self.model.config.in_channels == 1 else "RGB"
        batch = batch_of(image, f"{self.block_id}.image", mode=mode).to(self.weights_dtype)
        factor = self.model.total_downscale_factor
        size = tuple(side - side % factor for side in batch.shape[2:])
        if tuple(batch.shape[2:]) != size:
            batch = F.interpolate(batch, size=size)
        scale = self.scale if conditioning_scale is None else float(conditioning_scale)
        rows = batch.shape[0] if condition is None else condition.shape[0]
        inside = tuple(rows_for(features * scale, rows, f"{self.block_id}.image") for features in self.model(batch))
        return {"adapted": Contribution(inside=inside)}
