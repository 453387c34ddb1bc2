"""The transformer of Qwen-Image, its guidance and its autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance.cfg import ClassifierFreeGuidance, cfg
from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.foreign_backbone import DistilledTransformer, moments
from wgtorch.integrations.diffusers.patches import pack, unpack

PATCH = 2
TRAINED_STEPS = 1000


@register_block("backbone/qwen_image_transformer")
class QwenImageTransformer(DistilledTransformer):
    """``QwenImageTransformer2DModel`` of diffusers, which predicts a flow (https://arxiv.org/abs/2508.02324)."""

    model_class = "QwenImageTransformer2DModel"
    patch = PATCH
    is_packed = True

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        pred = self.model(
            hidden_states=pack(latent, PATCH),
            timestep=moment.float().to(latent.dtype) / TRAINED_STEPS,
            encoder_hidden_states=condition,
            encoder_hidden_states_mask=None if attention_mask is None or bool(attention_mask.all()) else attention_mask,
            img_shapes=[[(1, latent.shape[2] // PATCH, latent.shape[3] // PATCH)]] * latent.shape[0],
            guidance=moments(guidance, latent).float() if self.model.config.guidance_embeds and guidance is not None else None,
            return_dict=False,
        )[0]
        return unpack(pred, latent.shape[2:], PATCH)


@register_block("guidance/qwen_image")
class QwenImageGuidance(ClassifierFreeGuidance):
    """Classifier-free guidance whose result is as long, patch by patch, as the prediction with the prompt (Qwen-Image).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
    """

    def __init__(self, *, scale: float = 4.0) -> None:
        super().__init__(scale=scale)

    def guided(self, pred_cond: Tensor, pred_uncond: Tensor, strength: float | Tensor) -> Tensor:
        if pred_cond is pred_uncond:
            return pred_cond
        guided = pack(cfg(pred_cond, pred_uncond, strength), PATCH)
        lengths = torch.norm(pack(pred_cond, PATCH), dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True)
        return unpack(guided * lengths, pred_cond.shape[2:], PATCH)


@register_block("codec/autoencoder_kl_qwen_image")
class AutoencoderKLQwenImage(AutoencoderKL):
    """``AutoencoderKLQwenImage`` of diffusers: a video's autoencoder on one frame."""

    model_class = "AutoencoderKLQwenImage"

    @property
    def factor(self) -> int:
        return 2 ** len(self.model.config.temperal_downsample)

    @property
    def channels(self) -> int:
        return self.model.config.z_dim

    def decode(self, latent: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The image of a latent [B, C, h, w]; its size is the latent's."""
        mean, deviation = self._normal(latent)
        decoded = self.model.decode((latent.to(self.weights_dtype) * deviation + mean)[:, :, None], return_dict=False)[0][:, :, 0]
        return (decoded / 2 + 0.5).clamp(0, 1)

    def _as_latent(self, z: Tensor, *, is_deviation: bool = False) -> Tensor:
        mean, deviation = self._normal(z)
        return (z[:, :, 0] if is_deviation else z[:, :, 0] - mean) / deviation

    def _posterior(self, image: Tensor) -> Any:
        batch = image if image.dim() == 4 else image.unsqueeze(0)
        return self.model.encode(batch[:, :, None].to(self.weights_dtype) * 2 - 1, return_dict=False)[0]
