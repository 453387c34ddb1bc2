"""Stable Diffusion 3."""

from __future__ import annotations

from typing import Any

from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL, AutoencoderTiny
from wgtorch.integrations.diffusers.blocks.sd3_transformer import SD3Transformer
from wgtorch.integrations.diffusers.families.family import CLIP_PROJECTED, Family, tasks_of, text_part, trained_side
from wgtorch.integrations.diffusers.families.stable_diffusion import check_channels
from wgtorch.integrations.diffusers.text import encoders, is_told, second_prompt, t5_encoders
from wgtorch.lora.formats.foreign_layer_names import AdapterNames


def _prepare(parts: Parts) -> None:
    check_channels(parts, parts.vae.model.config.latent_channels)
    parts.patch, parts.skips_shift = parts.backbone.model.config.patch_size, parts.task == "inpaint"


def _finish(parts: Parts) -> None:
    if "tokens" in parts.graph.nodes:
        parts.graph.expose_input("settings" if "settings" in parts.graph.nodes else "schedule", "mu")


def sd3_prompts(parts: Parts) -> bool:
    """Three tokenizers and text encoders; the third, T5, may be missing."""
    if not is_told(parts, "", "_2"):
        return False
    graph, has_t5 = parts.graph, "text_encoder_3" in parts.source.classes
    encoders(parts, layer="penultimate", projection=True)
    encoders(parts, "_2", layer="penultimate", projection=True)
    second_prompt(parts, "_2")
    if has_t5:
        t5_encoders(parts, "_3")
        second_prompt(parts, "_3")
    for prefix in ("", "negative_"):
        both = f"{prefix}text_encoders"
        add(graph, both, "diffusers/sd3_conditions", {"width": parts.backbone.model.config.joint_attention_dim})
        if has_t5:
            join(graph, (f"{prefix}text_encoder_3.embedding", f"{both}.third_embedding"))
        else:
            graph.expose_input(both, "max_sequence_length")
        join(
            graph,
            (f"{prefix}text_encoder.embedding", f"{both}.embedding"),
            (f"{prefix}text_encoder_2.embedding", f"{both}.second_embedding"),
            (f"{prefix}text_encoder.pooled", f"{both}.pooled"),
            (f"{prefix}text_encoder_2.pooled", f"{both}.second_pooled"),
        )
    return True


def _names() -> dict[str, tuple[str, ...]]:
    """Layers of the transformer by their names in its first code (``joint_blocks.0.x_block.attn.qkv``)."""
    found: dict[str, tuple[str, ...]] = {}
    for there, added, out, end in (("x_block", "to_{}", "to_out.0", ""), ("context_block", "add_{}_proj", "to_add_out", "_context")):
        block = "transformer_blocks.{}"
        found |= {
            f"joint_blocks.{{}}.{there}.attn.qkv": tuple(f"{block}.attn.{added.format(letter)}" for letter in "qkv"),
            f"joint_blocks.{{}}.{there}.attn.proj": (f"{block}.attn.{out}",),
            f"joint_blocks.{{}}.{there}.mlp.fc1": (f"{block}.ff{end}.net.0.proj",),
            f"joint_blocks.{{}}.{there}.mlp.fc2": (f"{block}.ff{end}.net.2",),
            f"joint_blocks.{{}}.{there}.adaLN_modulation.1": (f"{block}.norm1{end}.linear",),
        }
    return {
        **found,
        "joint_blocks.{}.x_block.attn2.qkv": tuple(f"transformer_blocks.{{}}.attn2.to_{letter}" for letter in "qkv"),
        "joint_blocks.{}.x_block.attn2.proj": ("transformer_blocks.{}.attn2.to_out.0",),
        "x_embedder.proj": ("pos_embed.proj",),
        "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
        "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
        "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    }


SD3_MODELS: dict[str, Any] = {
    "backbone": SD3Transformer,
    "codec": (AutoencoderKL, AutoencoderTiny),
    "prompts": sd3_prompts,
    "others": {**text_part("", *CLIP_PROJECTED), **text_part("_2", *CLIP_PROJECTED), **text_part("_3", "T5EncoderModel")},
    "condition": {"embedding": "text_encoders.embedding", "pooled": "text_encoders.pooled"},
    "settings": {"is_flow": True},
    "size": trained_side,
    "prepare": _prepare,
    "adapters": AdapterNames(
        "transformer",
        ("transformer", "text_encoder", "text_encoder_2"),
        first=_names(),
        t5="text_encoder_3",
        loader="SD3LoraLoaderMixin",
    ),
}
"""What families of this transformer share."""
STABLE_DIFFUSION_3 = Family(
    "Stable Diffusion 3",
    tasks_of("StableDiffusion3"),
    {"text_to_image": Defaults(7.0, steps=28), "image_to_image": Defaults(7.0, 0.6), "inpaint": Defaults(7.0, 0.6)},
    **SD3_MODELS,
    finish=_finish,
)
