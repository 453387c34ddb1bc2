"""Graphs as folders that diffusers loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wgtorch.core.errors import CheckpointError, ConfigError, Finding, ValidationError, require
from wgtorch.core.saving import write_folder
from wgtorch.graph import Graph, GraphWriters
from wgtorch.integrations.diffusers.importing import from_diffusers
from wgtorch.integrations.diffusers.source import INDEX
from wgtorch.integrations.diffusers.translation import scheduler_for

_ELSEWHERE = ("model", "checkpoint_ref", "dtype", "folder", "scale")
"""Settings that are in the models' own files, or that a call gives."""
_SUFFIX = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}


def to_diffusers(graph: Graph, folder: str | os.PathLike[str]) -> Path:
    """Writes a folder that ``diffusers.DiffusionPipeline.from_pretrained`` loads, whole or not at all.

    What a call may say anyway - the default number of steps, guidance scale or strength - is not in such a folder.

    Args:
        graph: as :func:`from_diffusers` makes them; models, tokenizers, schedule and solver may be others.
        folder: new, empty, or with a pipeline of diffusers, which is replaced.

    Returns:
        The folder.

    Raises:
        ConfigError: the graph does what no pipeline of diffusers does; lists all of it.
        CheckpointError: the folder holds something else.
    """
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()) and not (target / INDEX).is_file():
        raise CheckpointError(f"{target}: is a folder that holds no pipeline of diffusers; choose a new or empty one")
    pipeline = pipeline_of(graph)
    return write_folder(target, lambda fresh: pipeline.save_pretrained(str(fresh)))


def pipeline_of(graph: Graph) -> Any:
    """The pipeline of diffusers that does what a graph does, around the same modules.

    Raises:
        ConfigError: there is none.
    """
    task = "inpaint" if "latent_mask" in graph.nodes else "image_to_image" if "encoder" in graph.nodes else "text_to_image"
    if "backbone" in graph.nodes and graph.nodes["backbone"].block_type == "backbone/sd3_transformer":
        raise ConfigError("to_diffusers: Stable Diffusion 3 is not supported yet; keep the graph with save(folder)")
    needed = ["backbone", "codec", "text_encoder", "tokenizer", "schedule", "solver"]
    is_xl = "text_encoder_2" in graph.nodes
    missing = [name for name in needed if name not in graph.nodes]
    if missing:
        raise ConfigError(f"to_diffusers: {graph.block_id} has no node {', '.join(missing)}; expected a graph as from_diffusers makes them")
    parts = {name: _inner(graph, name) for name in ("text_encoder", "tokenizer")}
    if is_xl:
        parts |= {name: _inner(graph, name) for name in ("text_encoder_2", "tokenizer_2")}
        parts["force_zeros_for_empty_prompt"] = bool(graph.nodes["conditions"].config.get("zero_negative"))
        parts["add_watermarker"] = False
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    library: Any = require("diffusers", "diffusers")
    name, config = scheduler_for(graph.nodes["schedule"], graph.nodes["solver"])
    parts |= {"unet": _inner(graph, "backbone"), "vae": _inner(graph, "codec"), "scheduler": getattr(library, name)(**config)}
    pipeline = getattr(library, f"StableDiffusion{'XL' if is_xl else ''}{_SUFFIX[task]}Pipeline")(**parts)
    _check_same(graph, from_diffusers(pipeline, task=task, batched="repeat" in graph.nodes))
    return pipeline


def _inner(graph: Graph, node_id: str) -> Any:
    """The model or tokenizer of diffusers at a node."""
    block = graph.nodes[node_id]
    found = getattr(block, "tokenizer" if "tokenizer" in node_id else "model", None)
    if found is None:
        raise ConfigError(f"to_diffusers: {graph.block_id}/{node_id} is {block.block_type or type(block).__name__}, no model of diffusers")
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
