"""The transformer of HunyuanVideo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone, moments

TRAINED_STEPS = 1000.0


@register_block("backbone/hunyuan_video_transformer")
class HunyuanVideoTransformer(ForeignBackbone):
    """``HunyuanVideoTransformer3DModel`` of diffusers, which predicts the flow of a video (https://arxiv.org/abs/2412.03603).

    Args:
        model: its config.
        checkpoint_ref: its folder.
        dtype: of its weights.
    """

    model_class = "HunyuanVideoTransformer3DModel"
    axes = ("T", "H", "W")
    inputs: Mapping[str, Any] = {
        "condition": "embedding",
        "text_embeds": "embedding",
        "attention_mask": Port(dtype="tokens", optional=True),
        "guidance": Port(dtype="number", optional=True),
    }

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

        Args:
            latent: [B, C, T, H, W]; sides are multiples of the patches'.
            timestep: of training, in [0, 1000], a number or [B].
            condition: [B, L, D].
            text_embeds: pooled text, [B, P].
            attention_mask: [B, L], 0 where a text has ended.
            guidance: the scale that a distilled model takes, a number or [B].

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
