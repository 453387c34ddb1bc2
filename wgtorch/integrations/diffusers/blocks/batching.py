"""Guidance in one batch: conditions joined once before the loop, latents repeated and predictions split in every turn.

::

    conditions ---> guided_condition --condition--> backbone --pred--> split --> guidance --> solver
                                                        ^                                        |
                                            repeat -----+ <------------- next_latent ------------+
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.ports import ATTENTION_MASK, GUIDANCE_SCALE, LATENT, NUM_IMAGES, PARTS, POOLED


@register_block("diffusers/guided_condition")
class GuidedCondition(Block):
    """What the backbone is conditioned on in a whole run: with and without the prompt, in one batch.

    A guidance scale of at most 1 asks for no guidance, and then the prompt's condition is alone in the batch.

    Args:
        scale: guidance scale where the input ``guidance_scale`` is not fed.
        batched: False keeps the two apart, for two calls of the backbone that need half the memory each.
        zero_negative: without a negative prompt, its condition is zeros, as Stable Diffusion XL was trained.
        only_negative: without a negative prompt there is no guidance (Flux).
        offset: added to the scale: 1 where a pipeline counts it from 0 (Z-Image).
        tiled_mask: of several pictures for each prompt masks follow each other by prompts, and embeddings by pictures, as some pipelines
            of diffusers have it (Sana, LTX-Video, Lumina, Qwen-Image), so that of several prompts most pictures see another prompt's mask.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="the prompts' embedding [P, T, D]"),
        "negative_embedding": Port(dtype="embedding", description="the negative prompts' embedding [1 or P, T, D]; needed with guidance"),
        "negative_given": Port(description="the negative embedding where that is given; only whether it is there counts"),
        "attention_mask": ATTENTION_MASK,
        "negative_attention_mask": Port(dtype="tokens", description="the mask of the negative prompts [1 or P, T]"),
        "pooled": POOLED,
        "negative_pooled": Port(dtype="embedding", description="one vector for each negative prompt [1 or P, E]"),
        "guidance_scale": GUIDANCE_SCALE,
        "num_images_per_prompt": NUM_IMAGES,
        "negative_prompt": Port(dtype="text", description="the negative prompt; only whether it is there counts"),
    }
    only_guided = ("negative_embedding", "negative_pooled")
    """Inputs that a call without guidance does not look at."""
    outputs: Mapping[str, Any] = {
        "condition": Port(dtype="embedding", description="negative prompts first [2 B, T, D]; of the prompts alone [B, T, D]"),
        "negative_condition": Port(dtype="embedding", optional=True, description="negative prompts, where kept apart [B, T, D]"),
        "text_embeds": Port(dtype="embedding", optional=True, description="pooled texts, in rows as of the condition"),
        "negative_text_embeds": Port(dtype="embedding", optional=True, description="pooled negative texts, where kept apart [B, E]"),
        "attention_mask": Port(dtype="tokens", optional=True, description="masks, in rows as of the condition"),
        "negative_attention_mask": Port(dtype="tokens", optional=True, description="negative masks, where kept apart [B, T]"),
        "prompt_embeds": Port(dtype="embedding", description="the prompts' embedding, a row for each picture [B, T, D]"),
        "pooled_prompt_embeds": Port(dtype="embedding", optional=True, description="pooled texts, a row for each picture [B, E]"),
        "parts": PARTS,
        "scale": GUIDANCE_SCALE,
    }

    def __init__(
        self,
        *,
        scale: float = 7.5,
        batched: bool = True,
        zero_negative: bool = False,
        only_negative: bool = False,
        offset: float = 0.0,
        tiled_mask: bool = False,
    ) -> None:
        super().__init__()
        self.tiled_mask = tiled_mask
        self.offset = offset
        self.only_negative = only_negative
        self.scale = scale
        self.batched = batched
        self.zero_negative = zero_negative

    def forward(
        self,
        embedding: Tensor,
        negative_embedding: Tensor | None = None,
        pooled: Tensor | None = None,
        negative_pooled: Tensor | None = None,
        guidance_scale: float | Tensor | None = None,
        num_images_per_prompt: int | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_given: Any = None,
        attention_mask: Tensor | None = None,
        negative_attention_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """``condition`` [2 B, T, D], the negative first, with ``parts`` 2 - or [B, T, D] with ``parts`` 1.

        Raises:
            PortError: the negative condition has another number of rows than 1 or P, or is not there and needed.
        """
        scale = self.offset + (self.scale if guidance_scale is None else guidance_scale)
        is_unwanted = negative_prompt is not None or negative_given is not None
        guided = float(scale.max() if isinstance(scale, Tensor) else scale) > 1 and (is_unwanted or not self.only_negative)
        count = 1 if num_images_per_prompt is None else int(num_images_per_prompt)
        rows = embedding.shape[0]
        found: dict[str, Any] = {"parts": 2 if guided and self.batched else 1, "scale": scale}
        zeros = self.zero_negative and not is_unwanted
        if guided and not zeros and negative_embedding is None:
            raise PortError(
                f"{self.block_id}.negative_embedding: is not fed, and guidance needs negative_prompt_embeds beside prompt_embeds; feed it, "
                "or take a guidance scale of 1"
            )
        pairs = {"condition": (embedding, negative_embedding), "text_embeds": (pooled, negative_pooled)}
        for name, (with_prompt, given) in pairs.items():
            if with_prompt is None or (given is None and guided and not zeros):
                continue
            without = with_prompt if given is None else given
            if zeros:
                without = torch.zeros_like(without)
            one = self._rows(with_prompt, rows, name).repeat_interleave(count, dim=0)
            other = self._rows(without, rows, f"negative_{name}").repeat_interleave(count, dim=0) if guided else one
            found[name] = torch.cat([other, one]) if guided and self.batched else one
            if not self.batched:
                found[f"negative_{name}"] = other
            found["prompt_embeds" if name == "condition" else "pooled_prompt_embeds"] = one
        if attention_mask is not None:
            one = self._mask(attention_mask, rows, count, "attention_mask")
            other = one
            if guided and negative_attention_mask is not None:
                other = self._mask(negative_attention_mask, rows, count, "negative_attention_mask")
            found["attention_mask"] = torch.cat([other, one]) if guided and self.batched else one
            if not self.batched:
                found["negative_attention_mask"] = other
        return found

    def _mask(self, value: Tensor, rows: int, count: int, name: str) -> Tensor:
        own = self._rows(value, rows, name)
        return own.repeat(count, 1) if self.tiled_mask else own.repeat_interleave(count, dim=0)

    def _rows(self, value: Tensor, rows: int, name: str) -> Tensor:
        if value.shape[0] not in (1, rows):
            raise PortError(f"{self.block_id}.{name}: got {value.shape[0]} rows for {rows} prompts; expected one, or one for each prompt")
        return value.expand(rows, *value.shape[1:])


@register_block("diffusers/joined_conditions")
class JoinedConditions(Block):
    """Embeddings of two text encoders side by side (Stable Diffusion XL)."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="embedding of the first text encoder [B, T, D1]"),
        "second_embedding": Port(dtype="embedding", description="embedding of the second [B, T, D2]"),
    }
    outputs: Mapping[str, Any] = {"embedding": Port(dtype="embedding", description="both side by side [B, T, D1 + D2]")}

    def forward(self, embedding: Tensor, second_embedding: Tensor) -> dict[str, Any]:
        """``embedding`` [B, T, D1 + D2] of [B, T, D1] and [B, T, D2]."""
        return {"embedding": torch.cat([embedding, second_embedding], dim=-1)}


@register_block("diffusers/repeat")
class Repeat(Block):
    """The latents, once for each part of a guided batch."""

    role = "repeat"
    uses_global_rng = False
    inputs: Mapping[str, Any] = {"latent": LATENT, "parts": PARTS}
    outputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="the latents once for each part [parts B, C, ...]")}

    def forward(self, latent: Tensor, parts: int) -> Tensor:
        """``latent`` [parts B, C, ...] of [B, C, ...]."""
        return latent if parts == 1 else torch.cat([latent] * parts)


@register_block("diffusers/split")
class SplitPrediction(Block):
    """A guided batch of predictions taken apart again; without guidance both are the prompt's."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "pred": Port(dtype="latent", description="the prediction for all parts, the negative first [parts B, C, ...]"),
        "parts": PARTS,
    }
    outputs: Mapping[str, Any] = {
        "pred_cond": Port(dtype="latent", description="the prediction with the prompt [B, C, ...]"),
        "pred_uncond": Port(dtype="latent", description="the prediction without it [B, C, ...]; with one part, the same"),
    }

    def forward(self, pred: Tensor, parts: int) -> dict[str, Any]:
        """``pred_cond`` and ``pred_uncond`` [B, C, ...] of ``pred`` [parts B, C, ...]."""
        if parts == 1:
            return {"pred_cond": pred, "pred_uncond": pred}
        uncond, cond = pred.chunk(2)
        return {"pred_cond": cond, "pred_uncond": uncond}
