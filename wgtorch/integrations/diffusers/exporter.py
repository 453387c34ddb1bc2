"""Graphs as folders that diffusers loads."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wgtorch.core.checkpoint.atomic import write_folder
from wgtorch.core.errors import CheckpointError, ConfigError, Finding, ValidationError, require, suggest
from wgtorch.graph import Graph, GraphWriters
from wgtorch.integrations.diffusers.exported_adapters import without_adapters
from wgtorch.integrations.diffusers.families import FAMILIES, Family, Part
from wgtorch.integrations.diffusers.importer import from_diffusers
from wgtorch.integrations.diffusers.read_back import check_written
from wgtorch.integrations.diffusers.schedulers import make_scheduler
from wgtorch.integrations.diffusers.source import INDEX
from wgtorch.integrations.diffusers.translation import scheduler_for

_ELSEWHERE = ("model", "checkpoint_ref", "dtype", "folder", "scale")
"""Settings that are in the models' own files, or that a call gives."""


def to_diffusers(graph: Graph, folder: str | os.PathLike[str], *, adapters: str = "keep") -> Path:
    """Writes a folder that ``diffusers.DiffusionPipeline.from_pretrained`` loads, whole or not at all.

    What was written is read back by diffusers and compared before it replaces anything. What a call may say anyway - the default
    number of steps, guidance scale or strength - is not in such a folder.

    Adapters (:mod:`wgtorch.lora`) that places of the graph select are no part of a pipeline's models. With ``"keep"`` the models are
    the base, bit for bit, and beside them lies ``pytorch_lora_weights.safetensors``, for ``pipeline.load_lora_weights(folder)``; with
    ``"fuse"`` they are counted into the weights. The graph keeps its own either way.

    Args:
        graph: as :func:`from_diffusers` makes them; models, tokenizers, schedule and solver may be others.
        folder: new, empty, or with a pipeline of diffusers, which is replaced.
        adapters: ``keep`` or ``fuse``.

    Returns:
        The folder.

    Raises:
        ConfigError: the graph does what no pipeline of diffusers does; lists all of it. Or what diffusers reads back is not what was
            written.
        CheckpointError: the folder holds something else.
        StructureError: places of one model select unlike adapters, or such as no file of diffusers holds.
    """
    if adapters not in ("keep", "fuse"):
        raise ConfigError(f"to_diffusers: adapters={adapters!r}; {suggest(adapters, ('keep', 'fuse'))}")
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()) and not (target / INDEX).is_file():
        raise CheckpointError(f"{target}: is a folder that holds no pipeline of diffusers; choose a new or empty one")
    pipeline, exported = without_adapters(graph, pipeline_of(graph), adapters == "fuse")
    _check_plain(pipeline)

    def fill(fresh: Path) -> None:
        pipeline.save_pretrained(str(fresh))
        exported.write(fresh)
        check_written(pipeline, exported, fresh)

    return write_folder(target, fill)


def _check_plain(pipeline: Any) -> None:
    """Refuses models whose weights are no plain tensors, such as quantised ones, before anything is written."""
    models = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    found = [
        f"{name}.{path} is a {kind.__name__}"
        for name, model in models.items()
        for path, value in model.named_parameters()
        for kind in (type(value) if type(value) is not nn.Parameter else type(value.data),)
        if kind is not torch.Tensor
    ]
    if found:
        raise ConfigError(
            f"to_diffusers: {found[0]}{f', and {len(found) - 1} more' if len(found) > 1 else ''}: what is quantised or distributed is not "
            "written; expected plain tensors"
        )


def pipeline_of(graph: Graph) -> Any:
    """The pipeline of diffusers that does what a graph does, around the same modules.

    Raises:
        ConfigError: there is none.
    """
    family = family_of_graph(graph)
    needed = [*(part.node for part in family.parts.values() if not part.optional), "schedule", "solver"]
    missing = [name for name in dict.fromkeys(needed) if name not in graph.nodes]
    if missing:
        raise ConfigError(f"to_diffusers: {graph.block_id} has no node {', '.join(missing)}; expected a graph as from_diffusers makes them")
    parts = {name: _inner(graph, part) if part.node in graph.nodes else None for name, part in family.parts.items()}
    library: Any = require("diffusers", "diffusers")
    name = family.class_for(graph)
    pipeline_class = getattr(library, name)
    taken = inspect.signature(pipeline_class.__init__).parameters
    parts = {part: value for part, value in parts.items() if value is not None or part in taken} | family.arguments(graph)
    scheduler, config = scheduler_for(graph.nodes["schedule"], graph.nodes["solver"], is_even=family.is_even)
    pipeline = pipeline_class(**parts, scheduler=make_scheduler(scheduler, config))
    _check_same(graph, from_diffusers(pipeline, task=family.task_of(graph), batched="repeat" in graph.nodes))
    return pipeline


def family_of_graph(graph: Graph) -> Family:
    """The family of a graph: of its backbone, and where several have that, by where it came from or by a node that only one has.

    Raises:
        ConfigError: there is none.
    """
    if "backbone" not in graph.nodes:
        raise ConfigError(f"to_diffusers: {graph.block_id} has no node backbone; expected a graph as from_diffusers makes them")
    model = getattr(graph.nodes["backbone"], "model", None)
    kind = type(model).__name__
    fitting = [family for family in FAMILIES if kind in family.parts[family.model].classes]
    marked = [family for family in fitting if family.marks and family.marks in graph.nodes]
    found = marked or [family for family in fitting if not family.marks]
    if not found:
        known = sorted({name for family in FAMILIES for name in family.parts[family.model].classes})
        raise ConfigError(f"to_diffusers: {graph.block_id}/backbone is {kind}, which no pipeline here has; known: {', '.join(known)}")
    return found[0]


def _inner(graph: Graph, part: Part) -> Any:
    """The model or tokenizer of diffusers at a node."""
    block = graph.nodes[part.node]
    found = getattr(block, "tokenizer" if part.is_tokenizer else "model", None)
    if found is None:
        raise ConfigError(
            f"to_diffusers: {graph.block_id}/{part.node} is {block.block_type or type(block).__name__}, no model of diffusers"
        )
    return found


def _check_same(graph: Graph, again: Graph) -> None:
    """Refuses what a pipeline has no place for: other nodes, other edges, other guidance."""
    findings = [
        Finding(f"{graph.block_id}/{name}", "a node that a pipeline of diffusers has no place for")
        for name in graph.nodes
        if name not in again.nodes
    ]
    nodes = dict(graph.nodes.items())
    for name, block in again.nodes.items():
        own = nodes.get(name)
        if own is None or own.block_type != block.block_type:
            findings.append(Finding(f"{graph.block_id}/{name}", own.block_type if own else "no such node", block.block_type))
        elif getattr(own, "model", None) is not getattr(block, "model", None):
            findings.append(Finding(f"{graph.block_id}/{name}", "a model of its own", "the one that the pipeline has once"))
        elif name not in ("schedule", "solver"):
            findings += [
                Finding(f"{graph.block_id}/{name}.{key}", repr(value), repr(block.config.get(key)))
                for key, value in own.config.items()
                if key not in _ELSEWHERE and value != block.config.get(key)
            ]
    if not findings:
        changed = set(graph.edges) ^ set(again.edges)
        findings = [Finding(f"{graph.block_id}: edge {edge}", "added" if edge in graph.edges else "missing") for edge in changed]
    if findings:
        raise ConfigError(f"to_diffusers: {ValidationError(graph.block_id, findings)}")


GraphWriters.register("diffusers", to_diffusers)
