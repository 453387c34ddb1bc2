"""ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import ConfigError, PortError, require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.integrations.diffusers.blocks.pictures import batch_of
from wgtorch.ports import CONDITION, CONDITIONING_SCALE, LATENT, PARTS, PROGRESS, TEXT_EMBEDS, TIME_IDS, TIMESTEP
from wgtorch.roles import Adapter


@register_block("adapter/controlnet")
class ControlNet(ForeignModel, Adapter):
    """``ControlNetModel`` of diffusers (Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models").

    One call adds it to a built graph; the picture becomes the graph's input ``control_image``::

        graph.add_node("adapter/controlnet", "controlnet", config={"checkpoint_ref": "controlnet-canny"})
        graph.run({"prompt": "a house", "control_image": edges})

    Args:
        scale: of what it contributes, where the input ``conditioning_scale`` is not fed.
        start: share of the steps after which it begins to contribute, in [0, 1].
        end: share of the steps after which it no longer does, in [0, 1].
    """

    model_class = "ControlNetModel"
    inputs: Mapping[str, Any] = {
        "latent": LATENT,
        "timestep": TIMESTEP,
        "condition": CONDITION,
        "image": Port(
            dtype="image",
            raw=True,
            description="control pictures [1 or P, 3, H, W] or [3, H, W] in [0, 1], or of Pillow; resized",
        ),
        "conditioning_scale": CONDITIONING_SCALE,
        "text_embeds": TEXT_EMBEDS,
        "time_ids": TIME_IDS,
        "progress": PROGRESS,
        "parts": PARTS,
        "guess_mode": Port(description="the negative half sees no picture, and residuals grow from the first layer to the last"),
    }
    exposes: Mapping[str, str] = {
        "image": "control_image",
        "conditioning_scale": "controlnet_conditioning_scale",
        "guess_mode": "guess_mode",
    }

    def __init__(self, *, scale: float = 1.0, start: float = 0.0, end: float = 1.0, **source: Unpack[ModelSource]) -> None:
        if not 0 <= start < end <= 1:
            raise ConfigError(f"ControlNet: start {start} and end {end}; expected 0 <= start < end <= 1, shares of the steps")
        super().__init__(**source)
        self.scale = scale
        self.start = start
        self.end = end

    @classmethod
    def of(cls, unet: Any, *, side: int = 8) -> Self:
        """A new one to train: layers of a UNet, copied, whose contribution begins at zero.

        Args:
            unet: ``UNet2DConditionModel`` of diffusers.
            side: pixels of a picture to the side of a latent: 2, 4 or 8.

        Raises:
            ConfigError: it is another model.
        """
        library: Any = require("diffusers", "diffusers")
        if not isinstance(unet, library.UNet2DConditionModel):
            raise ConfigError(f"ControlNet: got a {type(unet).__name__}; expected a UNet2DConditionModel (Stable Diffusion 1, 2, XL)")
        channels = (16, 32, 96, 256)[: side.bit_length()]
        return cls.around(library.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels))

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        image: Any,
        condition: Tensor | None = None,
        conditioning_scale: float | None = None,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        progress: Any = None,
        parts: int | None = None,
        guess_mode: bool | None = None,
    ) -> dict[str, Any]:
        """``adapted``: residuals of the skip connections and of the middle block.

        Raises:
            PortError: the batch cannot be divided among the pictures, or the condition is not fed: with guidance in two calls
                (``batched=False``) there are two, and the ControlNet has to stand at two places.
        """
        if condition is None:
            raise PortError(
                f"{self.block_id}.condition: is not fed. Where guidance makes two calls (batched=False), each wants the ControlNet beside "
                "it: wgtorch.integrations.diffusers.add_adapter(graph, controlnet, node_id)"
            )
        rows = latent.shape[0]
        if guess_mode:
            own = rows // (1 if parts is None else int(parts))
            latent, condition = latent[-own:], condition[-own:]
            text_embeds, time_ids = (None if value is None else value[-own:] for value in (text_embeds, time_ids))
        added = {name: value for name, value in (("text_embeds", text_embeds), ("time_ids", time_ids)) if value is not None}
        down, mid = self.model(
            latent,
            timestep,
            guess_mode=bool(guess_mode),
            encoder_hidden_states=condition,
            controlnet_cond=self._picture(image, latent),
            conditioning_scale=self._scale(self.scale if conditioning_scale is None else float(conditioning_scale), progress),
            added_cond_kwargs=added or None,
            return_dict=False,
        )
        if latent.shape[0] < rows:
            *down, mid = (torch.cat([torch.zeros_like(one), one]) for one in (*down, mid))
        return {"adapted": Contribution(down=tuple(down), mid=mid)}

    def _picture(self, image: Any, latent: Tensor) -> Tensor:
        reduced = 2 ** (len(self.model.config.conditioning_embedding_out_channels) - 1)  # pixels to a latent's side
        batch = batch_of(image, f"{self.block_id}.image", (latent.shape[2] * reduced, latent.shape[3] * reduced))
        return rows_for(batch, latent.shape[0], f"{self.block_id}.image").to(latent)

    def _scale(self, scale: float, progress: Any) -> float:
        if progress is None or (self.start == 0 and self.end == 1):
            return scale
        return scale if is_within(progress, self.start, self.end) else 0.0


def is_within(progress: Any, start: float, end: float) -> bool:
    """An iteration of a loop lies between two shares of all of them, as pipelines of diffusers count."""
    if hasattr(progress, "scheduler"):
        count = len(progress.scheduler.timesteps)
    else:  # a solver of two stages makes more iterations than its grid has steps, which it says from the second one on
        count = len(progress.grid) if progress.coefficients is None else progress.coefficients.count
    return progress.iteration / count >= start and (progress.iteration + 1) / count <= end


def scale_within(scale: float | None, start: float | None, end: float | None, progress: Any) -> float:
    """The scale of a contribution, 1 where left out; 0 outside two shares of a loop's iterations."""
    if progress is None or is_within(progress, start or 0.0, 1.0 if end is None else end):
        return 1.0 if scale is None else float(scale)
    return 0.0


def rows_for(value: Tensor, rows: int, where: str) -> Tensor:
    """Rows of a condition repeated to a batch that holds each part of a guided batch, one part after the other.

    Args:
        value: [P, ...]: one for all, or one for each picture.
        rows: B, a multiple of P.
        where: for messages.

    Raises:
        PortError: B is no multiple of P.
    """
    if rows % value.shape[0]:
        raise PortError(f"{where}: got {value.shape[0]} rows for a batch of {rows}; expected one, or one for each picture")
    return value.repeat(rows // value.shape[0], *([1] * (value.dim() - 1)))
