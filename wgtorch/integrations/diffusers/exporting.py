"""Graphs as folders that diffusers loads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.atomic import write_folder
from wgtorch.core.errors import CheckpointError, ConfigError, Finding, ValidationError, require
from wgtorch.graph import Graph, GraphWriters
from wgtorch.integrations.diffusers.importing import from_diffusers
from wgtorch.integrations.diffusers.source import INDEX
from wgtorch.integrations.diffusers.translation import scheduler_for

_ELSEWHERE = ("model", "checkpoint_ref", "dtype", "folder", "scale")
"""Settings that are in the models' own files, or that a call gives."""


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
    written = _written(graph)
    needed = [*written.nodes.values(), "schedule", "solver"]
    missing = [name for name in needed if name not in graph.nodes]
    if missing:
        raise ConfigError(f"to_diffusers: {graph.block_id} has no node {', '.join(missing)}; expected a graph as from_diffusers makes them")
    parts = {part: _inner(graph, node) for part, node in written.nodes.items()}
    parts |= {part: _inner(graph, node) if node in graph.nodes else None for part, node in written.optional.items()}
    parts |= written.settings(graph)
    library: Any = require("diffusers", "diffusers")
    name, config = scheduler_for(graph.nodes["schedule"], graph.nodes["solver"], is_even=written.is_even)
    parts["scheduler"] = getattr(library, name)(**config)
    task = written.task_of(graph)
    pipeline = getattr(library, written.classes[task])(**parts)
    _check_same(graph, from_diffusers(pipeline, task=task, batched="repeat" in graph.nodes))
    return pipeline


def _task(graph: Graph) -> str:
    return "inpaint" if "latent_mask" in graph.nodes else "image_to_image" if "encoder" in graph.nodes else "text_to_image"


def _classes(family: str) -> dict[str, str]:
    endings = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}
    return {task: f"{family}{ending}Pipeline" for task, ending in endings.items()}


@dataclass(frozen=True)
class _Written:
    """How a family is written.

    Args:
        classes: of pipelines, by task.
        nodes: by the part of the pipeline, which node holds it.
        optional: likewise, of parts that may be missing.
        settings: what else the pipeline is constructed with.
        is_even: as for :func:`scheduler_for`.
        task_of: the task of a graph.
    """

    classes: dict[str, str]
    nodes: dict[str, str]
    optional: dict[str, str] = field(default_factory=dict)
    settings: Callable[[Graph], dict[str, Any]] = lambda graph: {}
    is_even: bool = False
    task_of: Callable[[Graph], str] = _task


def _clip_of(graph: Graph) -> dict[str, Any]:
    """What pictures are seen through, where they are."""
    if "image_encoder" not in graph.nodes:
        return {}
    block: Any = graph.nodes["image_encoder"]
    return {"image_encoder": _inner(graph, "image_encoder"), "image_processor": block.processor}


def _xl_settings(graph: Graph) -> dict[str, Any]:
    zeros, scored = graph.nodes["conditions"].config.get("zero_negative"), graph.nodes["sizes"].config.get("scored")
    aesthetics = {"requires_aesthetics_score": True} if scored else {}  # text to image has no such setting
    return {"force_zeros_for_empty_prompt": bool(zeros), "add_watermarker": False, **aesthetics}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_TEXT, _TEXT_2, _TEXT_3 = (_same(f"text_encoder{which}", f"tokenizer{which}") for which in ("", "_2", "_3"))
_UNET = {"unet": "backbone", "vae": "codec"}
_TRANSFORMER = {"transformer": "backbone", "vae": "codec"}
_SD = _Written(
    _classes("StableDiffusion"),
    {**_UNET, **_TEXT},
    settings=lambda graph: {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
)
_SDXL = _Written(
    _classes("StableDiffusionXL"),
    {**_UNET, **_TEXT_2},
    _TEXT,
    settings=_xl_settings,
)
_SD3 = _Written(_classes("StableDiffusion3"), {**_TRANSFORMER, **_TEXT, **_TEXT_2}, _TEXT_3)
_FLUX = _Written(_classes("Flux"), {**_TRANSFORMER, **_TEXT, **_TEXT_2}, is_even=True)
_FILL = _Written({"inpaint": "FluxFillPipeline"}, _FLUX.nodes, is_even=True)
_WAN = _Written(
    {"text_to_video": "WanPipeline", "image_to_video": "WanImageToVideoPipeline"},
    {**_TRANSFORMER, **_TEXT},
    settings=_clip_of,
    task_of=lambda graph: "image_to_video" if "encoder" in graph.nodes else "text_to_video",
)
_TRANSFORMERS = {"backbone/wan_transformer": _WAN, "backbone/sd3_transformer": _SD3, "backbone/flux_transformer": _FLUX}


def _written(graph: Graph) -> _Written:
    kind = graph.nodes["backbone"].block_type if "backbone" in graph.nodes else ""
    if "mask_patches" in graph.nodes:
        return _FILL
    return _TRANSFORMERS.get(kind) or (_SDXL if "text_encoder_2" in graph.nodes else _SD)


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
