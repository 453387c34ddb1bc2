"""Guidance away from a prediction that was made worse on purpose: PAG and SAG.

What makes it worse - identity for self-attention, a blur where attention looks - is the backbone's affair; here the predictions
are combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance.cfg import cfg
from wgtorch.blocks.diffusion.guidance.interval_and_rescale import (
    IntervalArguments,
    IntervalGuidance,
    check_interval,
    is_outside,
    per_sample,
    within,
)
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port


def perturbed_guidance(
    pred_cond: Tensor, pred_uncond: Tensor | None, pred_perturbed: Tensor, scale: float | Tensor, perturbed_scale: float | Tensor
) -> Tensor:
    """PAG: cfg + perturbed_scale (cond - perturbed) (Ahn et al. 2024, https://arxiv.org/abs/2403.17377).

    Args:
        pred_cond: prediction with the condition, [B, C, ...].
        pred_uncond: without it, like it; None leaves classifier-free guidance out.
        pred_perturbed: with the condition and perturbed attention, like it.
        scale: strength of classifier-free guidance.
        perturbed_scale: strength of this.
    """
    base = pred_cond if pred_uncond is None else cfg(pred_cond, pred_uncond, scale)
    return base + perturbed_scale * (pred_cond - pred_perturbed)


def self_attention_guidance(
    pred_cond: Tensor, pred_uncond: Tensor | None, pred_degraded: Tensor, scale: float | Tensor, degraded_scale: float | Tensor
) -> Tensor:
    """SAG: cfg + degraded_scale (uncond - degraded) (Hong et al. 2022, https://arxiv.org/abs/2210.00939).

    Args:
        pred_cond: prediction with the condition, [B, C, ...].
        pred_uncond: without it, like it; None leaves classifier-free guidance out, and ``pred_cond`` stands in its place.
        pred_degraded: without the condition, of a latent that is blurred where attention looks, like it.
        scale: strength of classifier-free guidance.
        degraded_scale: strength of this.
    """
    if pred_uncond is None:
        return pred_cond + degraded_scale * (pred_cond - pred_degraded)
    return cfg(pred_cond, pred_uncond, scale) + degraded_scale * (pred_uncond - pred_degraded)


class _ThirdPrediction(IntervalGuidance):
    """Guidance away from a worse prediction, beside classifier-free guidance or alone."""

    def __init__(self, *, scale: float, other_scale: float, **rest: Unpack[IntervalArguments]) -> None:
        super().__init__(scale=scale, **rest)
        self.other_scale = other_scale

    def other(self, scale: float | Tensor | None, like: Tensor) -> float | Tensor:
        return self.other_scale if scale is None else per_sample(scale, like)


@register_block("guidance/pag")
class PerturbedAttention(_ThirdPrediction):
    """Perturbed-attention guidance, with or without classifier-free guidance; see :func:`perturbed_guidance`.

    The third prediction comes from the same backbone at one more place, which is told there what to perturb (with ``batched=False`` for
    the prompt alone, at a quarter less of the work)::

        graph = Graph.from_diffusers(folder, batched=False)
        graph.replace_node("guidance", PerturbedAttention(scale=7.5, perturbed_scale=3.0))
        graph.add_node(graph.nodes["backbone"], "perturbed", auto_connect=False, inputs={"perturbed": ["mid"]})
        for edge in graph.edges:
            if edge.target_node == "backbone":
                graph.add_edge(edge.source_node, edge.source_port, "perturbed", edge.target_port)
        graph.add_edge("perturbed.pred", "guidance.pred_perturbed")

    Of Stable Diffusion 3 whole layers are left out there instead, ``inputs={"skip_layers": [7, 8, 9]}``, in the first fifth of the
    steps: skip-layer guidance.

    Args:
        scale: strength of classifier-free guidance where the input ``scale`` is not fed.
        perturbed_scale: strength of this, where the input of the name is not fed.
        perturbed_interval: [low, high] of the timesteps in which this guides beside the other; all of ``interval`` when left out.
    """

    inputs: Mapping[str, Any] = {
        "pred_perturbed": Port(dtype="latent", description="the prediction with perturbed attentions; all rows of a guided batch"),
        "perturbed_scale": Port(dtype="number", description="strength of the guidance away from it"),
    }

    def __init__(
        self,
        *,
        scale: float = 5.0,
        perturbed_scale: float = 3.0,
        perturbed_interval: list[float] | None = None,
        **rest: Unpack[IntervalArguments],
    ) -> None:
        super().__init__(scale=scale, other_scale=perturbed_scale, **rest)
        check_interval(perturbed_interval, "PerturbedAttention.perturbed_interval")
        self.perturbed_interval = perturbed_interval

    def forward(
        self,
        pred_cond: Tensor,
        pred_perturbed: Tensor,
        pred_uncond: Tensor | None = None,
        scale: float | Tensor | None = None,
        perturbed_scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred_guided``, of the shape of the predictions [B, C, ...]; scales are numbers or one for each sample [B].

        Where guidance runs as one batch, so does the third prediction, [2 B, C, ...], of which the prompt's half counts.

        Raises:
            PortError: the third prediction has another number of rows.
        """
        rows, found = pred_cond.shape[0], pred_perturbed.shape[0]
        if found == 2 * rows:  # of a guided batch, which holds what is not wanted first
            pred_perturbed = pred_perturbed[rows:]
        elif found != rows:
            raise PortError(
                f"{self.block_id}.pred_perturbed: got {found} rows for {rows}; expected as many, or a guided batch of twice that"
            )
        if self.is_off(timestep):
            return {"pred_guided": pred_cond}
        strength, other = self.strength(scale, pred_cond), self.other(perturbed_scale, pred_cond)
        if is_outside(self.perturbed_interval, timestep):
            other = 0.0
        elif self.perturbed_interval is not None:
            known = torch.as_tensor(other, dtype=pred_cond.dtype, device=pred_cond.device)
            other = within(self.perturbed_interval, timestep, known, torch.zeros_like(known))
        return self.finished(perturbed_guidance(pred_cond, pred_uncond, pred_perturbed, strength, other), pred_cond, timestep)


@register_block("guidance/sag")
class SelfAttention(_ThirdPrediction):
    """Self-attention guidance, with or without classifier-free guidance; see :func:`self_attention_guidance`.

    Args:
        scale: strength of classifier-free guidance where the input ``scale`` is not fed.
        degraded_scale: strength of this, where the input of the name is not fed.
    """

    inputs: Mapping[str, Any] = {
        "pred_degraded": Port(dtype="latent", description="the prediction for latents blurred where the model attends"),
        "degraded_scale": Port(dtype="number", description="strength of the guidance away from it"),
    }

    def __init__(self, *, scale: float = 7.5, degraded_scale: float = 0.75, **rest: Unpack[IntervalArguments]) -> None:
        super().__init__(scale=scale, other_scale=degraded_scale, **rest)

    def forward(
        self,
        pred_cond: Tensor,
        pred_degraded: Tensor,
        pred_uncond: Tensor | None = None,
        scale: float | Tensor | None = None,
        degraded_scale: float | Tensor | None = None,
        timestep: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred_guided``, of the shape of the predictions [B, C, ...]; scales are numbers or one for each sample [B]."""
        if self.is_off(timestep):
            return {"pred_guided": pred_cond}
        strengths = self.strength(scale, pred_cond), self.other(degraded_scale, pred_cond)
        return self.finished(self_attention_guidance(pred_cond, pred_uncond, pred_degraded, *strengths), pred_cond, timestep)
