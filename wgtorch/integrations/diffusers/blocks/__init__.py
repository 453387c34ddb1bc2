"""Models of diffusers and transformers as blocks, and the small parts that stand between them."""

from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.batching import GuidedCondition, JoinedConditions, Repeat, SplitPrediction
from wgtorch.integrations.diffusers.blocks.clip_text import CLIPText
from wgtorch.integrations.diffusers.blocks.clip_tokenizer import CLIPTokens
from wgtorch.integrations.diffusers.blocks.controlnet import ControlNet
from wgtorch.integrations.diffusers.blocks.flow_start import FlowSettings, PatchCount, Strength
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.integrations.diffusers.blocks.inpainting import Blend, InpaintChannels, LatentMask, MaskedImage, WithoutShift
from wgtorch.integrations.diffusers.blocks.latent_noise import LatentNoise
from wgtorch.integrations.diffusers.blocks.pictures import FitPicture
from wgtorch.integrations.diffusers.blocks.sd3_transformer import SD3Conditions, SD3Transformer
from wgtorch.integrations.diffusers.blocks.t2i_adapter import T2IAdapter
from wgtorch.integrations.diffusers.blocks.t5_text import T5Text
from wgtorch.integrations.diffusers.blocks.t5_tokenizer import T5Tokens
from wgtorch.integrations.diffusers.blocks.unet_2d_condition import UNet2DCondition
from wgtorch.integrations.diffusers.blocks.xl_conditions import PictureSizes, SecondPrompt

__all__ = [
    "AutoencoderKL",
    "Blend",
    "CLIPText",
    "CLIPTokens",
    "ControlNet",
    "FitPicture",
    "FlowSettings",
    "ForeignModel",
    "GuidedCondition",
    "InpaintChannels",
    "JoinedConditions",
    "LatentMask",
    "LatentNoise",
    "MaskedImage",
    "PatchCount",
    "PictureSizes",
    "Repeat",
    "SD3Conditions",
    "SD3Transformer",
    "SecondPrompt",
    "SplitPrediction",
    "T2IAdapter",
    "Strength",
    "T5Text",
    "T5Tokens",
    "UNet2DCondition",
    "WithoutShift",
]
