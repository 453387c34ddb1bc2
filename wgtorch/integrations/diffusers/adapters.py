"""Adapters beside the backbones of a graph, one or two of them."""

from __future__ import annotations

from wgtorch.core.block import Block
from wgtorch.graph import Graph

_SEEN = ("latent", "timestep", "condition", "text_embeds", "time_ids")


def add_adapter(graph: Graph, adapter: Block, node_id: str) -> list[str]:
    """Puts a ControlNet, a T2I-Adapter or an IP-Adapter beside the backbone; returns its nodes.

    That is ``graph.add_node(adapter, node_id)`` where guidance is one batch. Where it makes two calls (``from_diffusers(batched=False)``)
    there are two backbones, so the adapter stands at two places, ``node_id`` and ``negative_<node_id>``, and sees at each what the backbone
    sees.

    Example:
        >>> graph = Graph.from_diffusers("models/sd", batched=False)
        >>> add_adapter(graph, ControlNet(checkpoint_ref="models/canny"), "controlnet")
        >>> graph.run({"prompt": "a cat", "control_image": edges})

    Args:
        graph: as from_diffusers makes it.
        adapter: the block.
        node_id: of the new node.
    """
    if "negative_backbone" not in graph.nodes:
        return [graph.add_node(adapter, node_id)]
    taken = adapter.get_input_spec()
    nodes = []
    for prefix in ("", "negative_"):
        node, backbone = f"{prefix}{node_id}", f"{prefix}backbone"
        nodes.append(graph.add_node(adapter, node, auto_connect=False))
        for edge in [edge for edge in graph.edges if edge.target_node == backbone and edge.target_port in set(_SEEN) & set(taken)]:
            graph.add_edge(f"{edge.source_node}.{edge.source_port}", f"{node}.{edge.target_port}")
        if "progress" in taken:
            for edge in [edge for edge in graph.edges if (edge.target_node, edge.target_port) == ("solver", "progress")]:
                graph.add_edge(f"{edge.source_node}.{edge.source_port}", f"{node}.progress")
        graph.add_edge(f"{node}.adapted", f"{backbone}.adapted")
        for port, name in getattr(adapter, "exposes", {}).items():
            if port != "guess_mode":  # which is about the halves of one batch
                graph.expose_input(node, port, name)
    return nodes
