"""Models of diffusers and transformers as blocks, and the small parts that stand between them."""

from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from wgtorch.integrations.diffusers.blocks.autoencoder_kl_wan import AutoencoderKLWan
from wgtorch.integrations.diffusers.blocks.batching import GuidedCondition, JoinedConditions, Repeat, SplitPrediction
from wgtorch.integrations.diffusers.blocks.chroma_transformer import ChromaTransformer
from wgtorch.integrations.diffusers.blocks.clip_image import CLIPImage
from wgtorch.integrations.diffusers.blocks.clip_text import CLIPText
from wgtorch.integrations.diffusers.blocks.clip_tokenizer import CLIPTokens
from wgtorch.integrations.diffusers.blocks.cogvideox_transformer import CogVideoXTransformer
from wgtorch.integrations.diffusers.blocks.controlnet import ControlNet
from wgtorch.integrations.diffusers.blocks.flow_start import FlowSettings, PatchCount, Strength
from wgtorch.integrations.diffusers.blocks.flux2_transformer import AutoencoderKLFlux2, Flux2Pictures, Flux2Shift, Flux2Transformer
from wgtorch.integrations.diffusers.blocks.flux_controlnet import FluxControlNet, Rows, Signed
from wgtorch.integrations.diffusers.blocks.flux_transformer import FluxTransformer
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.integrations.diffusers.blocks.foreign_backbone import ForeignBackbone
from wgtorch.integrations.diffusers.blocks.hunyuan_video_transformer import HunyuanVideoTransformer
from wgtorch.integrations.diffusers.blocks.inpainting import Blend, InpaintChannels, LatentMask, MaskedImage, MaskPatches, WithoutShift
from wgtorch.integrations.diffusers.blocks.ip_adapter import IPAdapter
from wgtorch.integrations.diffusers.blocks.known_frames import FramesCondition, KnownFrames
from wgtorch.integrations.diffusers.blocks.latent_noise import LatentNoise
from wgtorch.integrations.diffusers.blocks.ltx_transformer import LTXTransformer
from wgtorch.integrations.diffusers.blocks.lumina2_transformer import Lumina2Guidance, Lumina2Transformer
from wgtorch.integrations.diffusers.blocks.motion import CLIPPicture, FrameGuidance, Motion, NoisedPicture
from wgtorch.integrations.diffusers.blocks.noise_stages import Either, FirstFrame, NoiseStage
from wgtorch.integrations.diffusers.blocks.pictures import FitPicture, SizedPicture
from wgtorch.integrations.diffusers.blocks.pipeline_prompt import PipelinePrompt
from wgtorch.integrations.diffusers.blocks.pixart_transformer import PixArtTransformer
from wgtorch.integrations.diffusers.blocks.qwen_image_transformer import AutoencoderKLQwenImage, QwenImageGuidance, QwenImageTransformer
from wgtorch.integrations.diffusers.blocks.sana_transformer import SanaTransformer
from wgtorch.integrations.diffusers.blocks.sd3_controlnet import SD3ControlNet
from wgtorch.integrations.diffusers.blocks.sd3_transformer import SD3Conditions, SD3Transformer
from wgtorch.integrations.diffusers.blocks.t2i_adapter import T2IAdapter
from wgtorch.integrations.diffusers.blocks.t5_text import T5Text
from wgtorch.integrations.diffusers.blocks.t5_tokenizer import T5Tokens
from wgtorch.integrations.diffusers.blocks.umt5_text import UMT5Text
from wgtorch.integrations.diffusers.blocks.unet_2d import UNet2D
from wgtorch.integrations.diffusers.blocks.unet_2d_condition import UNet2DCondition
from wgtorch.integrations.diffusers.blocks.unet_video import UNet3DCondition, UNetMotion, UNetSpatioTemporal
from wgtorch.integrations.diffusers.blocks.video_autoencoders import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLTemporalDecoder,
    FrameAutoencoder,
)
from wgtorch.integrations.diffusers.blocks.video_noise import VideoNoise
from wgtorch.integrations.diffusers.blocks.wan_image import WanImage
from wgtorch.integrations.diffusers.blocks.wan_transformer import WanTransformer
from wgtorch.integrations.diffusers.blocks.xl_conditions import PictureSizes, SecondPrompt
from wgtorch.integrations.diffusers.blocks.z_image_transformer import ZImageGuidance, ZImageTransformer

__all__ = [
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLCogVideoX",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLQwenImage",
    "AutoencoderKLTemporalDecoder",
    "AutoencoderKLWan",
    "AutoencoderTiny",
    "Blend",
    "CLIPImage",
    "CLIPPicture",
    "CLIPText",
    "CLIPTokens",
    "ChromaTransformer",
    "CogVideoXTransformer",
    "ControlNet",
    "Either",
    "FirstFrame",
    "FitPicture",
    "FlowSettings",
    "Flux2Pictures",
    "Flux2Shift",
    "Flux2Transformer",
    "FluxControlNet",
    "FluxTransformer",
    "ForeignBackbone",
    "ForeignModel",
    "FrameAutoencoder",
    "FrameGuidance",
    "FramesCondition",
    "GuidedCondition",
    "HunyuanVideoTransformer",
    "IPAdapter",
    "InpaintChannels",
    "JoinedConditions",
    "KnownFrames",
    "LTXTransformer",
    "LatentMask",
    "LatentNoise",
    "Lumina2Guidance",
    "Lumina2Transformer",
    "MaskPatches",
    "MaskedImage",
    "Motion",
    "NoiseStage",
    "NoisedPicture",
    "PatchCount",
    "PictureSizes",
    "PipelinePrompt",
    "PixArtTransformer",
    "QwenImageGuidance",
    "QwenImageTransformer",
    "Repeat",
    "Rows",
    "SD3Conditions",
    "SD3ControlNet",
    "SD3Transformer",
    "SanaTransformer",
    "SecondPrompt",
    "Signed",
    "SizedPicture",
    "SplitPrediction",
    "Strength",
    "T2IAdapter",
    "T5Text",
    "T5Tokens",
    "UMT5Text",
    "UNet2D",
    "UNet2DCondition",
    "UNet3DCondition",
    "UNetMotion",
    "UNetSpatioTemporal",
    "VideoNoise",
    "WanImage",
    "WanTransformer",
    "WithoutShift",
    "ZImageGuidance",
    "ZImageTransformer",
]
