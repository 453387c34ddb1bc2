"""ControlNets beside transformers: FLUX.1 and Stable Diffusion 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution
from wgtorch.integrations.diffusers.blocks.controlnet import rows_for, scale_within
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH, TRAINED_STEPS, places
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.integrations.diffusers.blocks.foreign_backbone import moments
from wgtorch.integrations.diffusers.patches import pack
from wgtorch.ports import CONDITION, CONDITIONING_SCALE, GUIDANCE, LATENT, PARTS, PICTURES, PROGRESS, ROWS, TEXT_EMBEDS, TIMESTEP
from wgtorch.roles import Adapter


class TransformerControlNet(ForeignModel, Adapter):
    """A control picture beside a transformer, whose blocks it adds to (Zhang et al. 2023, https://arxiv.org/abs/2302.05543)."""

    inputs: Mapping[str, Any] = {
        "latent": LATENT,
        "timestep": TIMESTEP,
        "condition": CONDITION,
        "text_embeds": TEXT_EMBEDS,
        "image": Port(description="the control picture's latents [n, C, h, w], or for some models pixels in [-1, 1]; n divides B"),
        "conditioning_scale": CONDITIONING_SCALE,
        "start": Port(dtype="number", optional=True, description="share of the steps, in [0, 1], before which nothing is added"),
        "end": Port(dtype="number", optional=True, description="share of the steps, in [0, 1], after which nothing is added"),
        "progress": PROGRESS,
    }


@register_block("adapter/flux_controlnet")
class FluxControlNet(TransformerControlNet):
    """``FluxControlNetModel`` of diffusers: a control picture beside a FLUX.1.

    It sees the prompt alone; what it gives is for both sides of a guided batch.
    """

    model_class = "FluxControlNetModel"
    inputs: Mapping[str, Any] = {
        "guidance": GUIDANCE,
        "control_mode": Port(dtype="number", description="which kind of control picture it is, from 0, for a union of ControlNets"),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        image: Tensor,
        conditioning_scale: float | None = None,
        guidance: float | Tensor | None = None,
        control_mode: int | None = None,
        start: float | None = None,
        end: float | None = None,
        progress: Any = None,
    ) -> dict[str, Any]:
        """``adapted``: residuals of the transformer's blocks.

        Raises:
            PortError: a union is not told the mode, or the latent has another number of channels.
        """
        own = self.model.config
        if self.model.union and control_mode is None:
            raise PortError(f"{self.block_id}.control_mode: this is a union of {own.num_mode} ControlNets; say which, from 0 on")
        if latent.shape[1] * PATCH**2 != own.in_channels:
            raise PortError(f"{self.block_id}.latent: got {latent.shape[1]} channels; expected {own.in_channels // PATCH**2}")
        seen = rows_for(image, latent.shape[0], f"{self.block_id}.image").to(latent)
        blocks, single = self.model(
            hidden_states=pack(latent, PATCH),
            controlnet_cond=seen if self.sees_pixels else pack(seen, PATCH),
            controlnet_mode=None if control_mode is None else torch.full((latent.shape[0], 1), int(control_mode), device=latent.device),
            conditioning_scale=scale_within(conditioning_scale, start, end, progress),
            encoder_hidden_states=condition,
            pooled_projections=text_embeds,
            timestep=moments(timestep, latent).float().to(latent.dtype) / TRAINED_STEPS,
            img_ids=places(latent),
            txt_ids=condition.new_zeros(condition.shape[1], 3),
            guidance=moments(guidance, latent).float() if own.guidance_embeds and guidance is not None else None,
            return_dict=False,
        )
        return {"adapted": Contribution(down=tuple(blocks or ()), single=tuple(single or ()), repeats=self.sees_pixels)}

    @property
    def sees_pixels(self) -> bool:
        """It embeds the picture itself."""
        return self.model.input_hint_block is not None


@register_block("diffusers/rows")
class Rows(Block):
    """A picture for each of the prompts: one is repeated for all, several for the pictures of each prompt."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [n, 3, H, W]; n divides B"),
        "condition": ROWS,
        "parts": PARTS,
    }
    outputs: Mapping[str, Any] = {"image": Port(dtype="image", description="a picture for each row [parts B, 3, H, W]")}

    def forward(self, image: Tensor, condition: Tensor, parts: int | None = None) -> dict[str, Any]:
        """``image`` [parts B, 3, H, W] of [n, 3, H, W], and ``condition`` [B, ...]; one part where left out."""
        rows = condition.shape[0]
        if rows % image.shape[0]:
            raise PortError(f"{self.block_id}.image: got {image.shape[0]} pictures for {rows} rows; expected one, or one for each prompt")
        return {"image": image.repeat_interleave(rows // image.shape[0], dim=0).repeat(parts or 1, 1, 1, 1)}


@register_block("diffusers/signed")
class Signed(Block):
    """Pictures in [-1, 1], as models take them that look at pixels."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"image": PICTURES}
    outputs: Mapping[str, Any] = {"image": Port(dtype="image", description="pictures [B, 3, H, W] in [-1, 1]")}

    def forward(self, image: Tensor) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [-1, 1] of one in [0, 1]."""
        return {"image": image * 2 - 1}


@register_block("adapter/sd3_controlnet")
class SD3ControlNet(TransformerControlNet):
    """``SD3ControlNetModel`` of diffusers: a control picture beside a Stable Diffusion 3."""

    model_class = "SD3ControlNetModel"

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        image: Tensor,
        conditioning_scale: float | None = None,
        start: float | None = None,
        end: float | None = None,
        progress: Any = None,
    ) -> dict[str, Any]:
        """``adapted``: residuals of the transformer's blocks."""
        own = self.model.config
        found = self.model(
            hidden_states=latent,
            controlnet_cond=rows_for(image, latent.shape[0], f"{self.block_id}.image").to(latent),
            conditioning_scale=scale_within(conditioning_scale, start, end, progress),
            encoder_hidden_states=None if own.joint_attention_dim is None else condition,
            pooled_projections=torch.zeros_like(text_embeds) if own.force_zeros_for_pooled_projection else text_embeds,
            timestep=moments(timestep, latent).float(),
            return_dict=False,
        )[0]
        return {"adapted": Contribution(down=tuple(found))}
