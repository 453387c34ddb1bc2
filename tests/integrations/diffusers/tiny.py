"""Tiny models of every family with random weights, written as diffusers writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SIDE = 8  # of latents
PIXELS = 16  # the autoencoder halves once

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {**BETAS, "clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {**BETAS, "timestep_spacing": "leading"}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {**BETAS, "timestep_spacing": "trailing"}),
    "heun": ("HeunDiscreteScheduler", BETAS),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {**BETAS, "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", BETAS),
    "pndm": ("PNDMScheduler", {**BETAS, "skip_prk_steps": True}),
}


def scheduler(name: str, **more: Any) -> Any:
    """One of diffusers' schedulers with the settings of Stable Diffusion."""
    import diffusers

    kind, config = SCHEDULERS[name]
    return getattr(diffusers, kind)(**config, **more)


def tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer that knows single letters, at most 77 at once."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "th", "the</w>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=16)


def text_encoder(width: int = 16, projected: bool = False, **more: Any) -> Any:
    """CLIP's text encoder of three layers."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=60, hidden_size=width, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=12, **more,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def unet(**more: Any) -> Any:
    """A UNet of two levels."""
    from diffusers import UNet2DConditionModel

    settings = {
        "sample_size": SIDE, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16, "attention_head_dim": 4, "norm_num_groups": 4,
    }  # fmt: skip
    return UNet2DConditionModel(**{**settings, **more}).eval()


def autoencoder(**more: Any) -> Any:
    """An autoencoder of two levels."""
    from diffusers import AutoencoderKL

    settings = {
        "block_out_channels": (8, 16), "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": PIXELS,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }  # fmt: skip
    return AutoencoderKL(**{**settings, **more}).eval()


def stable_diffusion(folder: Path, *, schedule: str = "ddim", in_channels: int = 4, **scheduling: Any) -> Any:
    """A pipeline of Stable Diffusion."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(folder / "words"),
        unet=unet(in_channels=in_channels),
        scheduler=scheduler(schedule, **scheduling),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(folder: Path, *, schedule: str = "euler", in_channels: int = 4) -> Any:
    """A pipeline of Stable Diffusion XL."""
    from diffusers import StableDiffusionXLPipeline

    torch.manual_seed(0)
    sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 12 + 6 * 4}
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(16),
        text_encoder_2=text_encoder(20, projected=True),
        tokenizer=tokenizer(folder / "words"),
        tokenizer_2=tokenizer(folder / "words_2"),
        unet=unet(in_channels=in_channels, cross_attention_dim=36, **sizes),
        scheduler=scheduler(schedule),
        add_watermarker=False,
    )


def t5_tokenizer() -> Any:
    """T5's tokenizer that knows single letters."""
    from transformers import T5TokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((letter, -2.5) for letter in letters)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0)


def stable_diffusion_3(folder: Path, *, t5: bool = True, shift: float = 3.0) -> Any:
    """A pipeline of Stable Diffusion 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    width = 40
    transformer = SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=width, caption_projection_dim=16, pooled_projection_dim=24, pos_embed_max_size=16,
    ).eval()  # fmt: skip
    config = T5Config(vocab_size=40, d_model=width, d_kv=4, d_ff=24, num_layers=2, num_heads=2)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=text_encoder(16, projected=True),
        tokenizer=tokenizer(folder / "words"),
        text_encoder_2=text_encoder(20, projected=True),
        tokenizer_2=tokenizer(folder / "words_2"),
        text_encoder_3=T5EncoderModel(config).eval() if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )
