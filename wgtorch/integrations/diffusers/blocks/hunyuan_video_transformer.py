"""The transformer of HunyuanVideo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments
from wgtorch.ports import ATTENTION_MASK, GUIDANCE, TEXT_EMBEDS, VIDEO_LATENT

TRAINED_STEPS = 1000.0


@register_block("backbone/hunyuan_video_transformer")
class HunyuanVideoTransformer(ForeignBackbone):
    """``HunyuanVideoTransformer3DModel`` of diffusers, which predicts the flow of a video (https://arxiv.org/abs/2412.03603)."""

    model_class = "HunyuanVideoTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {"text_embeds": TEXT_EMBEDS, "attention_mask": ATTENTION_MASK, "guidance": GUIDANCE, "latent": VIDEO_LATENT}

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        text_embeds: Tensor,
        attention_mask: Tensor | None = None,
        guidance: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, T, H, W].

        Raises:
            PortError: the latent or the condition does not fit the model, or a distilled model is not told its scale.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels, (own.patch_size_t, own.patch_size, own.patch_size))
        if own.guidance_embeds and guidance is None:
            raise PortError(f"{self.block_id}.guidance: this model was distilled with a guidance scale; feed one, such as 6")
        scale = moments(guidance, latent).to(latent.dtype) * TRAINED_STEPS if own.guidance_embeds and guidance is not None else None
        mask = condition.new_ones(condition.shape[:2]) if attention_mask is None else attention_mask.to(condition.dtype)
        pred = self.model(
            hidden_states=latent,
            timestep=moments(timestep, latent).to(latent.dtype),
            encoder_hidden_states=condition,
            encoder_attention_mask=mask,
            pooled_projections=text_embeds,
            guidance=scale,
            return_dict=False,
        )[0]
        return {"pred": pred}
