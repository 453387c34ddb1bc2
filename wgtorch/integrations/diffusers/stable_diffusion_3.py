"""Graphs of Stable Diffusion 3."""

from __future__ import annotations

from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, begin, finished, join
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.stable_diffusion import check_channels
from wgtorch.integrations.diffusers.text import conditions, encoders, second_prompt, t5_encoders

STABLE_DIFFUSION_3 = {
    "text_to_image": Defaults(7.0, steps=28),
    "image_to_image": Defaults(7.0, 0.6),
    "inpaint": Defaults(7.0, 0.6),
}


def stable_diffusion_3(source: Source, task: str, batched: bool) -> Graph:
    """Stable Diffusion 3 as a graph.

    Raises:
        ConfigError: the transformer is not for the task.
    """
    parts = begin(source, task, batched, STABLE_DIFFUSION_3[task], is_flow=True, skips_shift=task == "inpaint")
    parts.backbone = source.model("transformer", "backbone/sd3_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    own = parts.backbone.model.config
    check_channels(parts, parts.vae.model.config.latent_channels)
    parts.patch, parts.sides = own.patch_size, (own.sample_size * parts.vae.factor,) * 2
    _prompts(parts)
    conditions(parts, "text_encoders.embedding", "text_encoders.pooled")
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts, {"text_embeds": "conditions"})
    if "tokens" in parts.graph.nodes:
        parts.graph.expose_input("settings" if "settings" in parts.graph.nodes else "schedule", "mu")
    return finished(parts)


def _prompts(parts: Parts) -> None:
    """Three tokenizers and text encoders; the third, T5, may be missing."""
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
