"""Modular pipelines of diffusers as graphs: each of their blocks a node, with ports as the block declares them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, StructureError, require, suggest
from wgtorch.core.port import Port
from wgtorch.graph import Graph, GraphReaders

CLOSE = 1e-4
_RUN = "components"  # the port through which the pipeline of one run goes
_RUN_PORT = Port(description="the pipeline of this run")
_START = "pipeline"


def from_modular(pipeline: Any, *, example: Mapping[str, Any]) -> Graph:
    """A graph of a ``ModularPipeline`` of diffusers, whose models are shared.

    Blocks that only hold others in a row are taken apart; what chooses between blocks, and what loops, is one node. Inputs are named as in
    the call of the pipeline, outputs as its last block calls them. What blocks read and write without declaring it is found by a run of
    the example. What is no model - schedulers, guiders, tokenizers - is a run's own, so that two runs may be made at once.

    Such a graph runs, and its nodes may be replaced; it is not saved.

    Example:
        >>> pipeline = diffusers.ModularPipeline.from_pretrained("models/sdxl")
        >>> pipeline.load_components()
        >>> graph = Graph.from_modular(pipeline, example={"prompt": "a cat", "num_inference_steps": 2, "output_type": "pt"})
        >>> graph.run({"prompt": "a lighthouse", "output_type": "pt"}, seed=3)["images"]

    Args:
        pipeline: with its components.
        example: a call of it, by which graph and pipeline are compared; it takes as long as two calls. A model of few weights and the same
            architecture proves as much.

    Raises:
        ConfigError: it is no modular pipeline, or the graph does something else; says which block is the first that does.
    """
    library: Any = require("diffusers.modular_pipelines.modular_pipeline", "diffusers")
    if not isinstance(pipeline, library.ModularPipeline):
        raise ConfigError(f"from_modular: got a {type(pipeline).__name__}; expected a ModularPipeline of diffusers, with its components")
    steps = dict(_flat(pipeline.blocks, library))
    known = {param.name: param for param in pipeline.blocks.inputs if param.name}
    for name in example:
        if name not in known:
            raise ConfigError(f"from_modular: example: {suggest(name, known)}")
    recorded, expected = _recorded(pipeline, steps, example, library)
    graph = _graph(pipeline, steps, recorded, known)
    _check_equal(graph, steps, example, expected)
    return graph


def _flat(blocks: Any, library: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Blocks by name, those that hold others in a row taken apart."""
    if not isinstance(blocks, library.SequentialPipelineBlocks):
        yield name or "pipeline_block", blocks
        return
    for own, inner in blocks.sub_blocks.items():
        yield from _flat(inner, library, f"{name}_{own}".strip("_").replace(".", "_"))


class ModularStep(Block):
    """A block of a modular pipeline.

    Args:
        step: the block.
        modules: models that it calls, by name.
        reads: names of its inputs, with the kinds by which blocks ask for many at once.
        writes: names of what it may change.
        defaults: of inputs that a call does not give.
        descriptions: of what it reads and writes.
    """

    _takes_config = False

    def __init__(
        self,
        step: Any,
        modules: Mapping[str, nn.Module],
        reads: Mapping[str, str | None],
        writes: Mapping[str, str | None],
        defaults: Mapping[str, Any],
        descriptions: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.step = step
        self.models = nn.ModuleDict(dict(modules))
        self.kinds = {**writes, **reads}
        self.defaults = dict(defaults)
        ports = {name: Port(optional=True, description=descriptions.get(name, "")) for name in self.kinds}
        self.inputs = {**{name: ports[name] for name in reads}, _RUN: _RUN_PORT}
        self.outputs = {**{name: ports[name] for name in writes}, _RUN: _RUN_PORT}
        self.writes = tuple(writes)

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """What the block writes, by name, and what was there before of that which it leaves alone."""
        library: Any = require("diffusers.modular_pipelines.modular_pipeline", "diffusers")
        running, state = inputs.pop(_RUN), library.PipelineState()
        for name, kind in self.kinds.items():
            value = inputs.get(name, self.defaults.get(name))
            if value is not None or name in self.defaults:
                state.set(name, value, kind)
        self.step(running, state)
        return {**{name: state.get(name) for name in self.writes}, _RUN: running}

    def to_config(self) -> dict[str, Any]:
        raise StructureError(f"{self.block_id}: a block of a modular pipeline is not saved; save the pipeline itself with save_pretrained")


class _Running(Block):
    """The pipeline of one run: its models are shared, all else of it is copied."""

    _takes_config = False
    uses_global_rng = False
    cacheable = False
    outputs: Mapping[str, Any] = {_RUN: _RUN_PORT}

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self) -> dict[str, Any]:
        return {_RUN: _own(self.pipeline)}

    def to_config(self) -> dict[str, Any]:
        raise StructureError(f"{self.block_id}: a modular pipeline is not saved with a graph; save it with save_pretrained")


def _own(pipeline: Any) -> Any:
    """A copy of a pipeline that shares its models."""
    found = copy.copy(pipeline)
    for name, component in pipeline.components.items():
        if component is not None and not isinstance(component, nn.Module):  # tokenizers too keep how they were last called
            object.__setattr__(found, name, copy.deepcopy(component))
    return found


# --- what blocks read and write ---------------------------------------------------------------------------------------


def _recorded(pipeline: Any, steps: Mapping[str, Any], example: Mapping[str, Any], library: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(reads and writes of each block, values that it wrote) in a run of the example.

    Raises:
        ConfigError: the run fails.
    """

    class Recording(library.PipelineState):  # type: ignore[misc, name-defined]
        def set(self, key: str, value: Any, kwargs_type: str | None = None) -> None:
            writes[key] = kwargs_type
            super().set(key, value, kwargs_type)

        def get(self, keys: Any, default: Any = None) -> Any:
            reads.update(dict.fromkeys([keys] if isinstance(keys, str) else keys))
            return super().get(keys, default)

        def get_by_kwargs(self, kwargs_type: str) -> dict[str, Any]:
            found = super().get_by_kwargs(kwargs_type)
            reads.update(dict.fromkeys(found, kwargs_type))
            return found

    reads: dict[str, str | None] = {}
    writes: dict[str, str | None] = {}
    state, running = Recording(), _own(pipeline)
    for param in pipeline.blocks.inputs:
        if param.name:
            state.set(param.name, example.get(param.name, param.default), param.kwargs_type)
    found: dict[str, Any] = {}
    values: dict[str, Any] = {}
    with _drawing(example), torch.no_grad():
        for name, step in steps.items():
            reads, writes = {}, {}
            try:
                step(running, state)
            except Exception as error:
                error.add_note(f"from_modular: in block {name!r} of the example")
                raise
            found[name] = (reads, writes)
            values[name] = {key: state.values[key] for key in writes}
    return found, values


def _graph(pipeline: Any, steps: Mapping[str, Any], recorded: Mapping[str, Any], known: Mapping[str, Any]) -> Graph:
    """Nodes in a row, each fed with what the last before it wrote, or with an input of the call."""
    graph = Graph("modular", metadata={"from_modular": type(pipeline).__name__})
    graph.add_node(_Running(pipeline), _START, auto_connect=False)
    written: dict[str, str] = {}
    before = _START
    for name, step in steps.items():
        reads, writes = (dict(each) for each in recorded[name])
        declared = {param.name: param for param in step.inputs if param.name}
        for key, param in declared.items():
            reads.setdefault(key, param.kwargs_type)
        for param in step.intermediate_outputs:
            writes.setdefault(param.name, param.kwargs_type)
        for key, kind in writes.items():  # what the block leaves alone goes on as it was
            if key in written or key in known:
                reads.setdefault(key, kind)
        reads = {key: kind for key, kind in reads.items() if key in written or key in known or key in declared}
        free = [key for key in reads if key not in written]
        block = ModularStep(
            step,
            {key: part for key in step.component_names if isinstance(part := getattr(pipeline, key, None), nn.Module)},
            reads,
            writes,
            {key: known[key].default for key in free if key in known},
            {param.name: param.description for param in (*step.intermediate_outputs, *declared.values())},
        )
        graph.add_node(block, name, auto_connect=False)
        graph.add_edge(f"{before}.{_RUN}", f"{name}.{_RUN}")
        for key in reads:
            if key in written:
                graph.add_edge(f"{written[key]}.{key}", f"{name}.{key}")
            else:
                graph.expose_input(name, key)
        written |= dict.fromkeys(writes, name)
        before = name
    for param in steps[before].intermediate_outputs:
        graph.expose_output(before, param.name)
    graph.validate()
    return graph


# --- proof ------------------------------------------------------------------------------------------------------------


class _drawing:
    """A run that draws from PyTorch's global generator, and from one of the example, as every other such run does."""

    def __init__(self, example: Mapping[str, Any]) -> None:
        self.generator: Any = example.get("generator")

    def __enter__(self) -> None:
        self.global_state = torch.get_rng_state()
        torch.manual_seed(0)
        self.own_state = self.generator.get_state() if isinstance(self.generator, torch.Generator) else None

    def __exit__(self, *error: object) -> None:
        torch.set_rng_state(self.global_state)
        if self.own_state is not None:
            self.generator.set_state(self.own_state)


def _check_equal(graph: Graph, steps: Mapping[str, Any], example: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses a graph that does something else than its pipeline; names the first block that does."""
    seen: dict[str, Any] = {}

    def listen(event: Any) -> None:
        if event.kind == "end" and event.path in steps:
            seen[event.path] = event.outputs

    with _drawing(example):
        graph.run(dict(example), callbacks=[listen])
    for name in steps:
        for key, value in expected[name].items():
            if not _equal(seen[name].get(key), value):
                raise ConfigError(
                    f"from_modular: {name} ({type(steps[name]).__name__}) gives another {key!r} than in the pipeline itself, so it reads "
                    "or keeps what is neither declared nor seen; make a graph of the ordinary pipeline: Graph.from_diffusers"
                )


def _equal(one: Any, other: Any) -> bool:
    """Tensors, arrays and pictures are close; what cannot be compared is taken as it is."""
    if isinstance(other, (list, tuple)):
        return isinstance(one, (list, tuple)) and len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(other, Mapping):
        return isinstance(one, Mapping) and one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in other)
    if isinstance(other, Tensor):
        return (
            isinstance(one, Tensor) and one.shape == other.shape and bool(torch.allclose(one.double(), other.double(), rtol=0, atol=CLOSE))
        )
    if isinstance(other, np.ndarray) or type(other).__module__.startswith("PIL."):
        first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
        return first.shape == second.shape and bool(np.allclose(first, second, rtol=0, atol=CLOSE))
    return not isinstance(other, (bool, int, float, str, type(None))) or one == other


GraphReaders.register("modular", from_modular)
