"""The frozen head of a graph: text encoders that do not learn and see nothing but the prompt, computed once for each prompt."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wgtorch.core import adapter_hook
from wgtorch.core.block import Block
from wgtorch.core.plan import upstream
from wgtorch.core.tree import is_level
from wgtorch.graph import Graph
from wgtorch.train.frozen_outputs import FrozenOutputs, content_hash, tensors_of

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class FrozenHead:
    """A graph cut in two: what is frozen, and the rest.

    Args:
        head: from inputs that a sample brings to the outputs that the rest takes.
        rest: takes those outputs under their names, beside the other inputs.
        config: of the head, as text: part of what its outputs are kept by.
        is_local: the head has no config, as around a pipeline's own tokenizer; its outputs are known by it alone, and to no other process.
    """

    head: Graph
    rest: Graph
    config: str
    is_local: bool = False
    of_rest: Set[str] = field(init=False)
    _is_known: bool = True

    def __post_init__(self) -> None:
        self.of_rest = set(self.rest.get_input_spec()) - set(self.head.get_output_spec())

    def outputs(self, values: Mapping[str, Any], rows: int, cache: FrozenOutputs) -> dict[str, Tensor] | None:
        """The head's outputs for a batch, each sample's from the cache; None where they are not one tensor for each sample.

        Args:
            values: inputs by name; a list, or a tensor, of as many entries as there are samples has one for each.
            rows: samples of the batch.
            cache: where they are kept.
        """
        tensors = tensors_of(self.head.nodes.values())
        if not self._is_known or (self.is_local and cache.folder is not None) or any(tensor.requires_grad for tensor in tensors):
            return None
        spec = self.head.get_input_spec()
        given = {name: values[name] for name in spec if name in values}
        if any(name not in given and not port.optional for name, port in spec.items()):
            return None  # the call itself says what is missing
        weights, device = cache.weights_of(tensors), tensors[0].device if tensors else torch.device("cpu")
        found = []
        for row in range(rows):
            own = {name: _row(value, row, rows) for name, value in given.items()}
            key = content_hash("head", self.config, weights, *(part for name in sorted(own) for part in (name, own[name])))
            try:
                found.append(cache.get(key, lambda own=own: self._computed(own), device))  # type: ignore[misc]
            except _NotPerSample as error:
                self._is_known = False
                _log.info("%s: computed in every step, since %s", ", ".join(self.head.nodes), error)
                return None
        shapes = {tuple((name, value.shape) for name, value in row.items()) for row in found}
        if len(shapes) != 1:  # a tokenizer that pads to the longest of a batch
            return None
        return {name: torch.cat([row[name] for row in found]) for name in found[0]}

    def _computed(self, own: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {name: value for name, value in self.head(**own).items() if value is not None}
        for name, value in found.items():
            if not isinstance(value, Tensor) or value.shape[:1] != (1,):
                raise _NotPerSample(f"{name} of one sample is no tensor [1, ...]")
        return found


class _NotPerSample(Exception):
    """What is computed of one sample does not belong to it alone."""


def frozen_head(part: Graph, learned: Set[int], varying: Set[str]) -> FrozenHead | None:
    """Cuts the frozen head off a graph.

    Args:
        part: a graph without loops, and an output ``pred``.
        learned: ``id`` of the parameters that learn.
        varying: inputs that are new in every step.
    """
    structure = part._structure()
    changing = {entry.node_id for entry in part.exposed_inputs if entry.name in varying}
    same = {node: not (upstream(structure, {node}) & changing) for node in part.nodes}
    still = {node for node, child in part.nodes.items() if same[node] and _is_still(child, learned, part.node_specs[node])}
    models = [node for node in part.nodes if any(True for _ in part.nodes[node].parameters()) and upstream(structure, {node}) <= still]
    head = upstream(structure, models) if models else set()
    leaving = [edge for edge in part.edges if edge.source_node in head and edge.target_node not in head]
    if not leaving:
        return None
    rest = part.select(outputs=["pred"])
    names: dict[tuple[str, str], str] = {}
    for edge in leaving:
        name = names.setdefault((edge.source_node, edge.source_port), f"{edge.source_node}__{edge.source_port}")
        rest.remove_edge(edge.source_node, edge.source_port, edge.target_node, edge.target_port)
        rest.expose_input(edge.target_node, edge.target_port, name)
    first = part.select(outputs=[f"{node}.{port}" for node, port in names])
    for name in {entry.name for entry in first.exposed_outputs}:
        first.hide_output(name)
    for (node, port), name in names.items():
        first.expose_output(node, port, name)
    try:
        config, is_local = repr(first.to_config()), False
    except Exception:  # of a block that has no config nothing tells it from another
        config, is_local = uuid.uuid4().hex, True
    return FrozenHead(first, rest.select(outputs=["pred"]), config, is_local)


def _is_still(child: Any, learned: Set[int], spec: Any) -> bool:
    """True for what gives the same for the same inputs, in every step."""
    if is_level(child) or not isinstance(child, Block) or child.uses_global_rng or child.wants_rng or child.is_async:
        return False
    if spec.adapter is not None or adapter_hook.hook.names(child):
        return False
    parameters = list(child.parameters())
    moves = any(module.training for module in child.modules()) if parameters else False
    return not moves and not any(id(parameter) in learned or parameter.requires_grad for parameter in parameters)


def _row(value: Any, row: int, rows: int) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == rows:
        return [value[row]]
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == rows:
        return value[row : row + 1]
    return value
