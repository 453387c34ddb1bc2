"""Graphs around a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import register_template
from wgtorch.graph import Graph


@register_template("chat", level="graph")
def chat(*, llm: Mapping[str, Any] | None = None, system: str | None = None) -> Graph:
    """Answers a prompt, after a conversation and a context where they are given.

    Args:
        llm: config of the language model: ``{"provider": "openai", "model_id": ...}``, ``{"backend": "local", "checkpoint_ref": ...}``,
            or ``{"block_type": ..., "config": ...}``.
        system: what the model is told first, where the input is not fed.
    """
    config = {"provider": "openai", "model_id": "gpt-4.1-mini"} if llm is None else dict(llm)
    block = BlockRegistry.build(config if "block_type" in config else {"block_type": "llm", "config": config})
    graph = Graph("chat")
    graph.add_node(block, "llm", inputs={} if system is None else {"system": system})
    for port in block.get_input_spec():
        graph.expose_input("llm", port)
    for port in block.get_output_spec():
        graph.expose_output("llm", port)
    return graph
