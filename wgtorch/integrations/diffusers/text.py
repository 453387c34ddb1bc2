"""From prompts to what a backbone is conditioned on, joined once before the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wgtorch.integrations.diffusers.assembly import Parts, add, join


def is_told(parts: Parts, *which: str) -> bool:
    """All these text encoders are there, with their tokenizers; else a call gives embeddings.

    Args:
        parts: of the graph.
        which: ends of their names (``""``, ``"_2"``).
    """
    return all(f"{part}{end}" in parts.source.classes for end in which for part in ("text_encoder", "tokenizer"))


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


def asked(pipeline: str, *options: str, tells_apart: bool = False, **config: Any) -> Callable[[Parts], bool]:
    """Adds the text encoder of a pipeline that prepares prompts in a way of its own, for the prompt and for what is not wanted.

    Args:
        pipeline: class of diffusers whose ``encode_prompt`` is asked.
        options: further inputs of the node that a call of the pipeline has.
        tells_apart: the pipeline prepares what is not wanted in another way than the prompt.
        config: of the node.
    """

    def prompts(parts: Parts) -> bool:
        graph, encoder = parts.graph, parts.source.prompt(pipeline=pipeline, **config)
        for prefix in ("", "negative_"):
            node = f"{prefix}text_encoder"
            add(graph, node, encoder, inputs={"text": "", **({"is_unwanted": True} if tells_apart else {})} if prefix else {})
            graph.expose_input(node, "text", f"{prefix}prompt")
            for option in ("max_sequence_length", *options):
                graph.expose_input(node, option)
        return True

    return prompts


def conditions(parts: Parts, embedding: str | None, pooled: str = "", *, scale: str = "guidance_scale", **config: Any) -> None:
    """What the backbone is conditioned on in a whole run.

    Embeddings may be given under the names of diffusers (``prompt_embeds``, ...) in place of prompts.

    Args:
        parts: with encoders.
        embedding: where the embedding comes from, node and port; None where there are no encoders, so that a call gives embeddings.
        pooled: where the pooled text comes from; its name matters only where there are encoders.
        scale: how the call of the pipeline names the scale of classifier-free guidance.
        config: further settings of the node; ``masked`` where the encoder says where texts end, with ``mask_name`` as the pipeline calls
            that, ``negated=False`` where nothing says what is not wanted.
    """
    graph = parts.graph
    aliases: dict[str, str] = {}
    masked, sides = bool(config.pop("masked", False)), ("", "negative_") if config.pop("negated", True) else ("",)
    mask_name = config.pop("mask_name", "prompt_attention_mask")
    add(graph, "conditions", "diffusers/guided_condition", {"scale": parts.defaults.guidance_scale, "batched": parts.batched, **config})
    for prefix in sides if masked and embedding is not None else ():
        join(graph, (f"{prefix}text_encoder.attention_mask", f"conditions.{prefix}attention_mask"))
        aliases[f"{prefix}{mask_name}"] = f"{prefix}text_encoder.attention_mask"
    for prefix in sides:
        names = {"embedding": f"{prefix}prompt_embeds", "pooled": f"{prefix}pooled_prompt_embeds"}
        for port, source in (("embedding", embedding), ("pooled", pooled)):
            if source is None or (embedding is None and source):
                graph.expose_input("conditions", f"{prefix}{port}", names[port])
            elif source:
                join(graph, (f"{prefix}{source}", f"conditions.{prefix}{port}"))
                aliases[names[port]] = f"{prefix}{source}"
    if "negative_" in sides:
        graph.expose_input("conditions", "negative_given", "negative_prompt_embeds")
    if aliases:
        graph.metadata["input_aliases"] = aliases
    if parts.defaults.distilled_scale is None or scale != "guidance_scale":
        graph.expose_input("conditions", "guidance_scale", scale)
