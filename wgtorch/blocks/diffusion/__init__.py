"""Parts of diffusion graphs: noise, solvers, guidance, codecs."""

from wgtorch.blocks.diffusion.codec import PixelCodec
from wgtorch.blocks.diffusion.guidance import ClassifierFreeGuidance
from wgtorch.blocks.diffusion.noise import GaussianNoise
from wgtorch.blocks.diffusion.solver import FlowEuler

__all__ = ["ClassifierFreeGuidance", "FlowEuler", "GaussianNoise", "PixelCodec"]
