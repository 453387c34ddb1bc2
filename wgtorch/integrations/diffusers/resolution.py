"""Sizes that a model was trained at, of which pipelines take the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError, require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.assembly import Parts, add, join
from wgtorch.integrations.diffusers.sampling import sized_by
from wgtorch.ports import HEIGHT, WIDTH


@register_block("diffusers/trained_size")
class TrainedSize(Block):
    """A size in pixels that is one of those a model was trained at.

    Where ``use_resolution_binning`` is said, as pipelines do by default, the nearest such size is painted, and the picture resized and cut
    to what was asked for.

    Args:
        pipeline: class of diffusers whose sizes count.
        side: of the latents that the model was trained at; sizes of others are not known.
        height: in pixels, where the input is not fed.
        width: likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "height": HEIGHT,
        "width": WIDTH,
        "use_resolution_binning": Port(description="paint at the nearest size of training; True where left out"),
    }
    outputs: Mapping[str, Any] = {
        "height": HEIGHT,
        "width": WIDTH,
        "size": Port(dtype="list", description="(height, width) in pixels that were asked for"),
    }

    def __init__(self, *, pipeline: str, side: int, height: int, width: int) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.side = side
        self.height = height
        self.width = width

    def forward(self, height: int | None = None, width: int | None = None, use_resolution_binning: bool | None = None) -> dict[str, Any]:
        """``height`` and ``width`` in pixels to paint, and the ``size`` (height, width) that is wanted.

        Raises:
            PortError: the sizes that the model was trained at are not known.
        """
        size = (self.height if height is None else int(height), self.width if width is None else int(width))
        if use_resolution_binning is None or use_resolution_binning:
            nearest = self._nearest(*size)
            return {"height": nearest[0], "width": nearest[1], "size": size}
        return {"height": size[0], "width": size[1], "size": size}

    def _nearest(self, height: int, width: int) -> tuple[int, int]:
        sigma: Any = require("diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma", "diffusers")
        alpha: Any = require("diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha", "diffusers")
        bins = {32: alpha.ASPECT_RATIO_256_BIN, 64: alpha.ASPECT_RATIO_512_BIN, 128: alpha.ASPECT_RATIO_1024_BIN}
        if self.pipeline == "PixArtSigmaPipeline":
            bins[256] = sigma.ASPECT_RATIO_2048_BIN
        if self.pipeline == "SanaPipeline":
            sana: Any = require("diffusers.pipelines.sana.pipeline_sana", "diffusers")
            bins = {
                16: sana.ASPECT_RATIO_512_BIN,
                32: sana.ASPECT_RATIO_1024_BIN,
                64: sana.ASPECT_RATIO_2048_BIN,
                128: sana.ASPECT_RATIO_4096_BIN,
            }
        if self.side not in bins:
            raise PortError(
                f"{self.block_id}: sizes of training are known for models of {sorted(bins)} latents to a side, and this one has "
                f"{self.side}; give use_resolution_binning=False"
            )
        processor: Any = require("diffusers.image_processor", "diffusers")
        found = processor.PixArtImageProcessor.classify_height_width_bin(height, width, ratios=bins[self.side])
        return int(found[0]), int(found[1])


def expose_bins(parts: Parts, pipeline: str) -> None:
    """Sizes go through those of training before they reach the noise."""
    graph, (height, width) = parts.graph, parts.sides
    side = parts.backbone.model.config.sample_size
    add(graph, "size", "diffusers/trained_size", {"pipeline": pipeline, "side": side, "height": height, "width": width})
    sized_by(parts, "size", "noise")
    graph.expose_input("size", "use_resolution_binning")
    join(graph, ("size.size", "codec.size"))
