"""Parts of diffusion graphs: schedules, noise, solvers, guidance, codecs."""

from wgtorch.blocks.diffusion.codec import PixelCodec, PixelEncoder
from wgtorch.blocks.diffusion.guidance import (
    ClassifierFreeGuidance,
    GradientGuidance,
    PerpendicularNegative,
    PerturbedAttention,
    Preview,
    SelfAttention,
    add_preview,
    steer,
)
from wgtorch.blocks.diffusion.noise import GaussianNoise, ImageNoise
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule
from wgtorch.blocks.diffusion.solvers import (
    DDIM,
    DDPM,
    LCM,
    DPMpp2M,
    DPMpp2MSDE,
    Euler,
    EulerAncestral,
    FlowEuler,
    FlowHeun,
    Heun,
    UniPC,
)

__all__ = [
    "DDIM",
    "DDPM",
    "LCM",
    "ClassifierFreeGuidance",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DiffusionSchedule",
    "Euler",
    "EulerAncestral",
    "FlowEuler",
    "FlowHeun",
    "FlowSchedule",
    "GaussianNoise",
    "GradientGuidance",
    "Heun",
    "ImageNoise",
    "PerpendicularNegative",
    "PerturbedAttention",
    "PixelCodec",
    "PixelEncoder",
    "Preview",
    "SelfAttention",
    "UniPC",
    "add_preview",
    "steer",
]
