"""Guidance: predictions with and without the condition, combined."""

from wgtorch.blocks.diffusion.guidance.cfg import ClassifierFreeGuidance, cfg
from wgtorch.blocks.diffusion.guidance.gradient import GradientGuidance, Preview, add_preview, steer
from wgtorch.blocks.diffusion.guidance.interval_and_rescale import IntervalGuidance, rescale_to
from wgtorch.blocks.diffusion.guidance.perp_neg import PerpendicularNegative, perp_neg, perpendicular
from wgtorch.blocks.diffusion.guidance.perturbed import (
    PerturbedAttention,
    SelfAttention,
    perturbed_guidance,
    self_attention_guidance,
)

__all__ = [
    "ClassifierFreeGuidance",
    "GradientGuidance",
    "IntervalGuidance",
    "PerpendicularNegative",
    "PerturbedAttention",
    "Preview",
    "SelfAttention",
    "add_preview",
    "cfg",
    "perp_neg",
    "perpendicular",
    "perturbed_guidance",
    "rescale_to",
    "self_attention_guidance",
    "steer",
]
