"""Tiny pipelines of the families whose pipelines prepare prompts in a way of their own, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.integrations.diffusers.tiny import autoencoder, t5_encoder, t5_tokenizer, tokenizer

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


def _flux2_parts(guided: bool, width: int) -> dict[str, Any]:
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_size=16,
    ).eval()  # fmt: skip
    vae.bn.running_mean.copy_(torch.linspace(-0.3, 0.3, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 16))
    return {
        "transformer": Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=width,
            timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guided,
        ).eval(),
        "vae": vae,
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }  # fmt: skip


def flux2_klein(**settings: Any) -> Any:
    """A pipeline of FLUX.2 klein."""
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    parts = _flux2_parts(False, 3 * 16)
    config = Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        vocab_size=120, max_position_embeddings=512,
    )  # fmt: skip
    return Flux2KleinPipeline(**parts, text_encoder=Qwen3ForCausalLM(config).eval(), tokenizer=letters(), **settings)


def flux2_distilled() -> Any:
    """The same, distilled to few steps without guidance."""
    return flux2_klein(is_distilled=True)


def flux2() -> Any:
    """A pipeline of FLUX.2 without text encoder, for embeddings."""
    from diffusers import Flux2Pipeline

    return Flux2Pipeline(**_flux2_parts(True, 16), text_encoder=None, tokenizer=None)


def chroma() -> Any:
    """A pipeline of Chroma."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8), approximator_num_channels=16, approximator_hidden_dim=16, approximator_layers=1,
        ).eval(),
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.9),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64),
        text_encoder=t5_encoder(16),
        tokenizer=t5_tokenizer(),
    )  # fmt: skip


def hunyuan_video() -> Any:
    """A pipeline of HunyuanVideo."""
    import tempfile
    from pathlib import Path

    from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    torch.manual_seed(0)
    words, other = letters(), tokenizer(Path(tempfile.mkdtemp()) / "words")
    other.model_max_length = 77
    clip = CLIPTextConfig(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, vocab_size=120, max_position_embeddings=512,
        pad_token_id=0,
    )  # fmt: skip
    return HunyuanVideoPipeline(
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
            num_refiner_layers=1, patch_size=1, text_embed_dim=16, pooled_projection_dim=16, rope_axes_dim=(2, 4, 4),
        ).eval(),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, mid_block_add_attention=True,
            down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=LlamaModel(config).eval(),
        tokenizer=words,
        text_encoder_2=CLIPTextModel(clip).eval(),
        tokenizer_2=other,
    )  # fmt: skip


def lumina2() -> Any:
    """A pipeline of Lumina-Image 2."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    config = Gemma2Config(
        head_dim=8, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, num_key_value_heads=2, vocab_size=120,
        max_position_embeddings=4096,
    )  # fmt: skip
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=4, patch_size=2, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1, num_attention_heads=1,
            num_kv_heads=1, multiple_of=2, axes_dim_rope=(8, 8, 8), axes_lens=(300, 8, 8), cap_feat_dim=8,
        ).eval(),
        vae=autoencoder(
            block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.9,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=2, max_image_seq_len=64),
        text_encoder=Gemma2Model(config).eval(),
        tokenizer=letters(),
    )  # fmt: skip
