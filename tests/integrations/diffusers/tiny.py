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


FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow_dynamic": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}),
    "flow_karras": ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_karras_sigmas": True, "shift_terminal": 0.1}),
    "flow_linear": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "time_shift_type": "linear"}),
    "flow_heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}),
    "flow_unipc": ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
    "flow_unipc_dynamic": (
        "UniPCMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "use_dynamic_shifting": True},
    ),
    "flow_stochastic": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "flow_lcm": ("FlowMatchLCMScheduler", {"shift": 2.0}),
    "flow_dpmpp_2m": ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 2.0}),
}


def flow_scheduler(name: str) -> Any:
    """One of diffusers' schedulers for flows."""
    import diffusers

    kind, config = FLOWS[name]
    return getattr(diffusers, kind)(**config)


def t5_encoder(width: int) -> Any:
    """T5's text encoder of two layers."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=40, d_model=width, d_kv=4, d_ff=24, num_layers=2, num_heads=2)).eval()


def stable_diffusion_3(folder: Path, *, t5: bool = True, shift: float = 3.0, channels: int = 4, in_channels: int | None = None) -> Any:
    """A pipeline of Stable Diffusion 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    width = 40
    transformer = SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=in_channels or channels, out_channels=channels, num_layers=2,
        attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=width, caption_projection_dim=16, pooled_projection_dim=24, pos_embed_max_size=16,
    ).eval()  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=autoencoder(latent_channels=channels, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=text_encoder(16, projected=True),
        tokenizer=tokenizer(folder / "words"),
        text_encoder_2=text_encoder(20, projected=True),
        tokenizer_2=tokenizer(folder / "words_2"),
        text_encoder_3=t5_encoder(width) if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )


def flux(folder: Path, *, guided: bool = True, schedule: str = "flow_dynamic", fill: bool = False) -> Any:
    """A pipeline of FLUX.1; ``guided`` is one that was distilled with a guidance scale, ``fill`` one that was trained to inpaint."""
    from diffusers import FluxFillPipeline, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    width = 24
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4 * (4 + 4 + 4) if fill else 16, out_channels=16,
        num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=width, pooled_projection_dim=16, guidance_embeds=guided, axes_dims_rope=(2, 2, 4),
    ).eval()  # fmt: skip
    return (FluxFillPipeline if fill else FluxPipeline)(
        transformer=transformer,
        scheduler=flow_scheduler(schedule),
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.9),
        text_encoder=text_encoder(16),
        tokenizer=tokenizer(folder / "words"),
        text_encoder_2=t5_encoder(width),
        tokenizer_2=t5_tokenizer(),
    )


def video_autoencoder() -> Any:
    """Wan's autoencoder, four pixels and four frames to one."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[True, True], scale_factor_spatial=4,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.2, 0.8, 1.0, 1.5],
    ).eval()  # fmt: skip


def video_transformer(in_channels: int = 4, **more: Any) -> Any:
    """Wan's transformer of two layers."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=in_channels, out_channels=4, text_dim=24, freq_dim=16, ffn_dim=24,
        num_layers=2, rope_max_seq_len=32, **more,
    ).eval()  # fmt: skip


def wan(*, from_image: bool = False, clip: bool = False, both_ends: bool = False, schedule: str = "flow_unipc") -> Any:
    """A pipeline of Wan 2.1: from text, or from a picture, which CLIP may see too; ``both_ends`` is one between two pictures."""
    from diffusers import WanImageToVideoPipeline, WanPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    config = UMT5Config(vocab_size=40, d_model=24, d_kv=4, d_ff=24, num_layers=2, num_heads=2)
    parts = {
        "vae": video_autoencoder(),
        "text_encoder": UMT5EncoderModel(config).eval(),
        "tokenizer": t5_tokenizer(),
        "scheduler": flow_scheduler(schedule),
    }
    if not from_image:
        return WanPipeline(**parts, transformer=video_transformer())
    more: dict[str, Any] = {}
    if clip:
        vision = {
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        }
        parts["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**vision)).eval()
        parts["image_processor"] = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
        more = {"image_dim": 8, "added_kv_proj_dim": 24, "pos_embed_seq_len": 2 * 5 if both_ends else None}
    return WanImageToVideoPipeline(**parts, transformer=video_transformer(2 * 4 + 4, **more))
