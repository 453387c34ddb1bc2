"""From prompts to what a backbone is conditioned on, joined once before the loop."""

from __future__ import annotations

from typing import Any

from wgtorch.integrations.diffusers.assembly import Parts, add, join


def encoders(parts: Parts, which: str = "", **config: Any) -> None:
    """CLIP's tokenizer and text encoder, for the prompt and for what is not wanted; ``which`` is the end of their names."""
    graph, source = parts.graph, parts.source
    tokenizer, encoder = source.tokenizer(f"tokenizer{which}"), source.model(f"text_encoder{which}", "conditioner/clip_text", **config)
    for prefix in ("", "negative_"):
        words, text = f"{prefix}tokenizer{which}", f"{prefix}text_encoder{which}"
        add(graph, words, tokenizer, inputs={"text": ""} if prefix and not which else {})
        add(graph, text, encoder)
        join(graph, (f"{words}.tokens", f"{text}.tokens"), (f"{words}.attention_mask", f"{text}.attention_mask"))
        if not which:
            graph.expose_input(words, "text", f"{prefix}prompt")
    graph.expose_input(f"text_encoder{which}", "clip_skip")


def t5_encoders(parts: Parts, which: str, **config: Any) -> None:
    """T5's tokenizer and text encoder, likewise; ``config`` is the tokenizer's."""
    graph, source = parts.graph, parts.source
    tokenizer = source.tokenizer(f"tokenizer{which}", "tokenizer/t5", **config)
    encoder = source.model(f"text_encoder{which}", "conditioner/t5_text")
    for prefix in ("", "negative_"):
        words, text = f"{prefix}tokenizer{which}", f"{prefix}text_encoder{which}"
        add(graph, words, tokenizer)
        add(graph, text, encoder)
        join(graph, (f"{words}.tokens", f"{text}.tokens"))
        graph.expose_input(words, "max_sequence_length")


def second_prompt(parts: Parts, which: str) -> None:
    """The text for another tokenizer: one of its own, else that of the first."""
    graph = parts.graph
    for prefix in ("", "negative_"):
        second = f"{prefix}prompt{which}"
        add(graph, second, "diffusers/second_prompt", inputs={"text": ""} if prefix else {})
        join(graph, (f"{second}.text", f"{prefix}tokenizer{which}.text"))
        graph.expose_input(second, "text", f"{prefix}prompt")
        graph.expose_input(second, "second", second)


def conditions(parts: Parts, embedding: str, pooled: str = "", *, scale: str = "guidance_scale", **config: Any) -> None:
    """What the backbone is conditioned on in a whole run.

    Args:
        parts: with encoders.
        embedding: where the embedding comes from, node and port.
        pooled: where the pooled text comes from.
        scale: how the call of the pipeline names the scale of classifier-free guidance.
        config: further settings of the node.
    """
    graph = parts.graph
    add(graph, "conditions", "diffusers/guided_condition", {"scale": parts.defaults.guidance_scale, "batched": parts.batched, **config})
    for prefix in ("", "negative_"):
        join(graph, (f"{prefix}{embedding}", f"conditions.{prefix}embedding"))
        if pooled:
            join(graph, (f"{prefix}{pooled}", f"conditions.{prefix}pooled"))
    if parts.defaults.distilled_scale is None or scale != "guidance_scale":
        graph.expose_input("conditions", "guidance_scale", scale)
