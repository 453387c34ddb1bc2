"""Tiny pipelines of the families whose pipelines prepare prompts in a way of their own, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.integrations.diffusers.tiny import autoencoder, t5_encoder, t5_tokenizer

CHAT = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"


def letters() -> Any:
    """A tokenizer that knows single characters, and a chat template."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<unk>", "<bos>", *(chr(code) for code in range(32, 127)), "\n"]
    made = Tokenizer(models.WordLevel({name: index for index, name in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>")
    tokenizer.chat_template = CHAT
    return tokenizer


def _settled(*modules: nn.Module) -> None:
    """No weight is left as memory happened to be."""
    for module in modules:
        for parameter in module.parameters():
            if not bool(torch.isfinite(parameter).all()) or parameter.abs().max() > 1e3:
                nn.init.normal_(parameter, std=0.1)


def qwen_image() -> Any:
    """A pipeline of Qwen-Image."""
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(text_config={**sizes, "vocab_size": 120, "rope_scaling": rope, "pad_token_id": 0}, vision_config=vision)
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
        ).eval(),
        vae=AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.2, 0.8, 1.0, 1.5],
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=letters(),
    )  # fmt: skip


def z_image() -> Any:
    """A pipeline of Z-Image."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        norm_eps=1e-5, qk_norm=True, cap_feat_dim=16, rope_theta=256.0, t_scale=1000.0, axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    ).eval()  # fmt: skip
    for name in ("x_pad_token", "cap_pad_token"):
        nn.init.normal_(getattr(transformer, name), std=0.1)
    _settled(transformer)
    config = Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        vocab_size=120, max_position_embeddings=512,
    )  # fmt: skip
    return ZImagePipeline(
        transformer=transformer,
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.9),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=Qwen3Model(config).eval(),
        tokenizer=letters(),
    )


def sana() -> Any:
    """A pipeline of Sana."""
    from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    blocks = ("ResBlock", "EfficientViTBlock")
    config = Gemma2Config(
        head_dim=8, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, num_key_value_heads=2, vocab_size=120,
        max_position_embeddings=4096,
    )  # fmt: skip
    return SanaPipeline(
        transformer=SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
            num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8, sample_size=32,
        ).eval(),
        vae=AutoencoderDC(
            in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1), decoder_layers_per_block=[1, 1],
            downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu",
            scaling_factor=0.41407,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=Gemma2Model(config).eval(),
        tokenizer=letters(),
    )  # fmt: skip


def pixart(kind: str = "PixArtSigmaPipeline") -> Any:
    """A pipeline of PixArt."""
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=16, in_channels=4,
        cross_attention_dim=24, out_channels=8, use_additional_conditions=False,
    ).eval()  # fmt: skip
    return getattr(diffusers, kind)(
        transformer=transformer,
        vae=autoencoder(),
        scheduler=diffusers.DDIMScheduler(),
        text_encoder=t5_encoder(16),
        tokenizer=t5_tokenizer(),
    )


def ltx(schedule: dict[str, Any] | None = None) -> Any:
    """A pipeline of LTX-Video."""
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1), spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, timestep_conditioning=False, patch_size=1, patch_size_t=1,
        encoder_causal=True, decoder_causal=False,
    ).eval()  # fmt: skip
    return LTXPipeline(
        transformer=LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
            cross_attention_dim=32, num_layers=1, caption_channels=16,
        ).eval(),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(**(schedule or {})),
        text_encoder=t5_encoder(16),
        tokenizer=t5_tokenizer(),
    )  # fmt: skip


def ltx_dynamic() -> Any:
    """The same with the scheduler that it is published with."""
    return ltx({"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64, "shift_terminal": 0.1})


def cogvideox() -> Any:
    """A pipeline of CogVideoX."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel

    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4, temporal_compression_ratio=4,
    ).eval()  # fmt: skip
    return CogVideoXPipeline(
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=16,
            num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
            max_text_seq_length=16,
        ).eval(),
        vae=vae,
        scheduler=CogVideoXDDIMScheduler(),
        text_encoder=t5_encoder(16),
        tokenizer=t5_tokenizer(),
    )  # fmt: skip
