"""Transformers of pictures that are told a text, each with its guidance: Chroma, Lumina-Image 2, PixArt, Qwen-Image, Sana and Z-Image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance.cfg import ClassifierFreeGuidance, cfg
from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalGuidance
from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.controlnet import is_within
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH, TRAINED_STEPS, places
from wgtorch.integrations.diffusers.blocks.foreign_backbone import (
    DistilledTransformer,
    ForeignBackbone,
    TextTransformer,
    moments,
    prediction_of,
)
from wgtorch.integrations.diffusers.patches import pack, unpack
from wgtorch.ports import ATTENTION_MASK, PROGRESS


@register_block("backbone/chroma_transformer")
class ChromaTransformer(TextTransformer):
    """``ChromaTransformer2DModel`` of diffusers, which predicts a flow (Chroma, https://huggingface.co/lodestones/Chroma)."""

    model_class = "ChromaTransformer2DModel"
    patch = PATCH
    is_packed = True

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        patches, mask = pack(latent, PATCH), None
        if attention_mask is not None:
            mask = torch.cat([attention_mask.to(latent.dtype), latent.new_ones(patches.shape[:2])], dim=1)
        pred = self.model(
            hidden_states=patches,
            timestep=moment.float().to(latent.dtype) / TRAINED_STEPS,
            encoder_hidden_states=condition,
            txt_ids=condition.new_zeros(condition.shape[1], 3),
            img_ids=places(latent),
            attention_mask=mask,
            return_dict=False,
        )[0]
        return unpack(pred, latent.shape[2:], PATCH)


@register_block("backbone/lumina2_transformer")
class Lumina2Transformer(TextTransformer):
    """``Lumina2Transformer2DModel`` of diffusers, which predicts a flow (Lumina-Image 2, https://arxiv.org/abs/2503.21758).

    The model counts time the other way round, and so predicts the flow with the other sign; here both are as of other flows.
    """

    model_class = "Lumina2Transformer2DModel"

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        mask = condition.new_ones(condition.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
        return -self.model(
            hidden_states=latent,
            timestep=1 - moment / TRAINED_STEPS,
            encoder_hidden_states=condition,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]


@register_block("guidance/lumina2")
class Lumina2Guidance(IntervalGuidance):
    """Classifier-free guidance that may end early, and whose rows of latents are as long as those with the prompt (Lumina-Image 2).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
    """

    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "timestep": Port(dtype="number", description="not read; progress says where the loop is"),
        "cfg_normalization": Port(description="keep each row of the result, along W, as long as pred_cond's; True where left out"),
        "cfg_trunc_ratio": Port(dtype="number", description="share of the steps, in [0, 1], after which nothing is guided"),
        "progress": PROGRESS,
    }

    def __init__(self, *, scale: float = 4.0) -> None:
        super().__init__(scale=scale)

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
        cfg_normalization: bool | None = None,
        cfg_trunc_ratio: float | None = None,
        progress: Any = None,
    ) -> dict[str, Any]:
        """``pred_guided`` [B, C, H, W] of predictions like it."""
        ends = cfg_trunc_ratio is not None and progress is not None and not is_within(progress, 0.0, float(cfg_trunc_ratio))
        if pred_cond is pred_uncond or ends:
            return {"pred_guided": pred_cond}
        guided = cfg(pred_cond, pred_uncond, self.strength(scale, pred_cond))
        if cfg_normalization is None or cfg_normalization:
            guided = guided * (pred_cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return {"pred_guided": guided}


@register_block("backbone/pixart_transformer")
class PixArtTransformer(ForeignBackbone):
    """``PixArtTransformer2DModel`` of diffusers, which predicts noise (PixArt-alpha, https://arxiv.org/abs/2310.00426, and sigma)."""

    model_class = "PixArtTransformer2DModel"
    inputs: Mapping[str, Any] = {
        "attention_mask": ATTENTION_MASK,
        "resolution": Port(dtype="tensor", description="height and width in pixels [B, 2], for models of 1024 pixels, which are told them"),
        "aspect_ratio": Port(dtype="tensor", description="height / width [B, 1], for the same models"),
    }

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Tensor,
        attention_mask: Tensor | None = None,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W], without the variance that the model gives beside it.

        Raises:
            PortError: the latent has not as many channels as the model takes, its sides are no multiples, or the condition has
                another number of rows.
        """
        own = self.model.config
        self.check(latent, condition, own.in_channels, (own.patch_size, own.patch_size))
        output = self.model(
            latent,
            encoder_hidden_states=condition,
            encoder_attention_mask=attention_mask,
            timestep=moments(timestep, latent),
            added_cond_kwargs={"resolution": resolution, "aspect_ratio": aspect_ratio},
            return_dict=False,
        )[0]
        return {"pred": prediction_of(output, own.in_channels)}


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


@register_block("backbone/sana_transformer")
class SanaTransformer(DistilledTransformer):
    """``SanaTransformer2DModel`` of diffusers, which predicts a flow with linear attention (https://arxiv.org/abs/2410.10629)."""

    model_class = "SanaTransformer2DModel"

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        own = self.model.config
        output = self.model(
            latent,
            encoder_hidden_states=condition,
            encoder_attention_mask=attention_mask,
            timestep=moment * own.timestep_scale,
            guidance=moments(guidance, latent).to(latent.dtype) if own.guidance_embeds and guidance is not None else None,
            return_dict=False,
        )[0]
        return prediction_of(output, own.in_channels)


@register_block("backbone/z_image_transformer")
class ZImageTransformer(TextTransformer):
    """``ZImageTransformer2DModel`` of diffusers, which predicts a flow (https://github.com/Tongyi-MAI/Z-Image).

    The model counts time the other way round, and so predicts the flow with the other sign; here both are as of other flows.
    """

    model_class = "ZImageTransformer2DModel"
    patch = PATCH

    def predict(self, latent: Tensor, moment: Tensor, condition: Tensor, attention_mask: Tensor | None, guidance: Any = None) -> Tensor:
        texts = list(condition)
        if attention_mask is not None:
            texts = [text[: int(mask.sum())] for text, mask in zip(condition, attention_mask, strict=True)]
        pictures = list(latent.to(self.weights_dtype).unsqueeze(2).unbind(dim=0))
        found = self.model(pictures, (TRAINED_STEPS - moment) / TRAINED_STEPS, texts, return_dict=False)[0]
        return -torch.stack([one.float() for one in found]).squeeze(2)


@register_block("guidance/z_image")
class ZImageGuidance(IntervalGuidance):
    """Classifier-free guidance that may end early, and whose result may be kept from growing (Z-Image).

    Args:
        scale: strength where the input ``scale`` is not fed; 1 is no guidance.
    """

    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "cfg_normalization": Port(description="most length of a sample's result, in lengths of its pred_cond; 0 is no limit"),
        "cfg_truncation": Port(dtype="number", description="share of the way to the data, in [0, 1], after which nothing is guided"),
    }

    def __init__(self, *, scale: float = 6.0) -> None:
        super().__init__(scale=scale)

    def forward(
        self,
        pred_cond: Tensor,
        pred_uncond: Tensor,
        scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
        cfg_normalization: float | bool | None = None,
        cfg_truncation: float | None = None,
    ) -> dict[str, Any]:
        """``pred_guided`` [B, C, H, W] of predictions like it."""
        done = 0.0 if timestep is None else (TRAINED_STEPS - float(torch.as_tensor(timestep).flatten()[0])) / TRAINED_STEPS
        if pred_cond is pred_uncond or (cfg_truncation is not None and cfg_truncation <= 1 and done > cfg_truncation):
            return {"pred_guided": pred_cond}
        guided = cfg(pred_cond, pred_uncond, self.strength(scale, pred_cond))
        if cfg_normalization and float(cfg_normalization) > 0:
            sides = (-1, *[1] * (guided.dim() - 1))
            most = pred_cond.flatten(1).norm(dim=1) * float(cfg_normalization)
            guided = guided * (most / guided.flatten(1).norm(dim=1)).clamp(max=1).view(sides)
        return {"pred_guided": guided}
