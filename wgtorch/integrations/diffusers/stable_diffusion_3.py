"""Graphs of Stable Diffusion 3."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.stable_diffusion import Defaults, Parts, add, conditions, encoders, finished, join, sampling

STABLE_DIFFUSION_3 = {"text_to_image": Defaults(7.0, steps=28)}


def stable_diffusion_3(source: Source, task: str, batched: bool) -> Graph:
    """Stable Diffusion 3 as a graph.

    Raises:
        ConfigError: its shift depends on the size of the picture.
    """
    if source.scheduler()[1].get("use_dynamic_shifting"):
        raise ConfigError(f"from_diffusers: {source.name!r} shifts its sigmas by the size of the picture; not supported")
    parts = Parts(Graph(task, metadata={"from_diffusers": source.pipeline_class}), source, task, batched, STABLE_DIFFUSION_3[task])
    parts.unet = source.model("transformer", "backbone/sd3_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    _prompts(parts)
    conditions(parts, "text_encoders.embedding")
    for prefix in ("", "negative_"):
        join(parts.graph, (f"{prefix}text_encoders.pooled", f"conditions.{prefix}pooled"))
    sampling(parts, {"text_embeds": "conditions"})
    return finished(parts)


def _prompts(parts: Parts) -> None:
    """Three tokenizers and text encoders; the third, T5, may be missing."""
    graph, source = parts.graph, parts.source
    encoders(parts, layer="penultimate", projection=True)
    encoders(parts, "_2", layer="penultimate", projection=True)
    has_t5 = "text_encoder_3" in source.classes
    if has_t5:
        tokenizer, encoder = source.tokenizer("tokenizer_3", "tokenizer/t5"), source.model("text_encoder_3", "conditioner/t5_text")
    for prefix in ("", "negative_"):
        both = f"{prefix}text_encoders"
        add(graph, both, "diffusers/sd3_conditions", {"width": parts.unet.model.config.joint_attention_dim})
        if has_t5:
            add(graph, f"{prefix}tokenizer_3", tokenizer)
            add(graph, f"{prefix}text_encoder_3", encoder)
            join(
                graph,
                (f"{prefix}tokenizer_3.tokens", f"{prefix}text_encoder_3.tokens"),
                (f"{prefix}text_encoder_3.embedding", f"{both}.third_embedding"),
            )
        graph.expose_input(f"{prefix}tokenizer_3" if has_t5 else both, "max_sequence_length")
        for which in ("_2", "_3") if has_t5 else ("_2",):
            second = f"{prefix}prompt{which}"
            add(graph, second, "diffusers/second_prompt", inputs={"text": ""} if prefix else {})
            join(graph, (f"{second}.text", f"{prefix}tokenizer{which}.text"))
            graph.expose_input(second, "text", f"{prefix}prompt")
            graph.expose_input(second, "second", second)
        join(
            graph,
            (f"{prefix}text_encoder.embedding", f"{both}.embedding"),
            (f"{prefix}text_encoder_2.embedding", f"{both}.second_embedding"),
            (f"{prefix}text_encoder.pooled", f"{both}.pooled"),
            (f"{prefix}text_encoder_2.pooled", f"{both}.second_pooled"),
        )
