"""FLUX.1 Kontext, which changes a picture as a prompt says: the picture's patches stand behind those that are painted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError, require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.blocks.pictures import batch_of, size_of
from wgtorch.integrations.diffusers.families.family import Family
from wgtorch.integrations.diffusers.families.flux import FLUX_MODELS
from wgtorch.integrations.diffusers.sampling import sized_by
from wgtorch.ports import HEIGHT, IMAGE, WIDTH


@register_block("diffusers/kontext_sizes")
class KontextSizes(Block):
    """The size that is painted, of a given area, and the picture at a size that the model was trained at.

    Args:
        multiple: of pixels, for both.
        height: in pixels, where the input is not fed; says the shape.
        width: likewise.
        max_area: pixels that are painted.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": IMAGE,
        "height": Port(dtype="number", description="height in pixels; with the width the shape that is painted"),
        "width": Port(dtype="number", description="width in pixels; with the height the shape that is painted"),
        "max_area": Port(dtype="number", description="pixels that are painted"),
        "auto_resize": Port(description="resize the picture to the nearest size the model was trained at; True where left out"),
    }
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [B, 3, h, w] in [0, 1] for the model to look at"),
        "height": HEIGHT,
        "width": WIDTH,
    }

    def __init__(self, *, multiple: int, height: int, width: int, max_area: int = 1024**2) -> None:
        super().__init__()
        self.multiple = multiple
        self.height = height
        self.width = width
        self.max_area = max_area

    def forward(
        self,
        image: Any,
        height: int | None = None,
        width: int | None = None,
        max_area: int | None = None,
        auto_resize: bool | None = None,
    ) -> dict[str, Any]:
        """``image`` [B, 3, h, w] in [0, 1] to look at, ``height`` and ``width`` in pixels to paint.

        Raises:
            PortError: a side is less than the multiple.
        """
        shape = (self.width if width is None else width) / (self.height if height is None else height)
        area = self.max_area if max_area is None else max_area
        painted = [round(side) // self.multiple * self.multiple for side in ((area / shape) ** 0.5, (area * shape) ** 0.5)]
        sides = [side // self.multiple * self.multiple for side in size_of(image)]
        if auto_resize is None or auto_resize:
            kontext: Any = require("diffusers.pipelines.flux.pipeline_flux_kontext", "diffusers")
            own = sides[1] / sides[0]
            _, wide, high = min((abs(own - w / h), w, h) for w, h in kontext.PREFERRED_KONTEXT_RESOLUTIONS)
            sides = [side // self.multiple * self.multiple for side in (high, wide)]
        if min(*painted, *sides) < self.multiple:
            raise PortError(f"{self.block_id}: {painted[0]} x {painted[1]} pixels of a picture of {sides[0]} x {sides[1]}; expected more")
        batch = batch_of(image, f"{self.block_id}.image", (sides[0], sides[1]))
        return {"image": batch, "height": painted[0], "width": painted[1]}


def _finish(parts: Parts) -> None:
    graph, (height, width) = parts.graph, parts.sides
    add(graph, "sizes", "diffusers/kontext_sizes", {"multiple": parts.vae.factor * PATCH, "height": height, "width": width})
    add(graph, "encoder", parts.vae, inputs={"draws": False})
    join(graph, ("sizes.image", "encoder.image"))
    sized_by(parts, "sizes", "noise", "tokens")
    for name, shown in (("image", "image"), ("max_area", "max_area"), ("auto_resize", "_auto_resize")):
        graph.expose_input("sizes", name, shown)
    for node in parts.backbones:
        join(graph, ("encoder.latent", f"{node}.image_condition"))


FLUX_KONTEXT = Family(
    "FLUX.1 Kontext",
    {"FluxKontextPipeline": ("image_to_image",)},
    {"image_to_image": Defaults(1.0, steps=28, distilled_scale=3.5)},
    **FLUX_MODELS,
    starts="text_to_image",
    finish=_finish,
    ignored=("image_encoder",),
    marks="sizes",
)
