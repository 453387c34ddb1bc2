"""Pipeline: a graph of graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.config.serialization import LevelRegistry
from wgtorch.graph import Graph


class Pipeline(Composite):
    """A combined task - text -> image -> upscale -> video - as a DAG of graphs.

    Example:
        >>> p = Pipeline("p")
        >>> p.add_graph(g, "first"); p.add_graph(g, "again")   # one instance in two places
        >>> p.add_edge("first.y", "again.x")
        >>> p.infer_exposed_ports()
    """

    level: ClassVar[str] = "pipeline"
    id_key: ClassVar[str] = "pipeline_id"
    child_class: ClassVar[type[Block]] = Graph

    def __init__(self, pipeline_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(pipeline_id, metadata=metadata)

    @property
    def pipeline_id(self) -> str:
        """The pipeline's id."""
        return self.block_id

    def add_graph(self, graph: Graph | Mapping[str, Any] | str | os.PathLike[str], node_id: str | None = None, **place: Any) -> str:
        """Adds a graph, its config, a path to one, or a template's name.

        Args:
            graph: what stands at the node.
            node_id: made from the graph's id when left out.
            place: ``trainable``, ``adapter``, ``inputs``, ``map``, ``timeout``.

        Returns:
            The node's id.
        """
        return self.add_child(graph, node_id, **place)


LevelRegistry.register("pipeline", Pipeline)
