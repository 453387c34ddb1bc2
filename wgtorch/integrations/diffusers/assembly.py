"""What a graph is made of before it is joined, and how nodes are added and joined by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.source import Source


@dataclass(frozen=True)
class Defaults:
    """What a diffusers pipeline does when its call says nothing.

    Args:
        guidance_scale: of classifier-free guidance.
        strength: where the task starts from an image.
        steps: of a run.
        distilled_scale: guidance scale that the model itself takes as an input.
    """

    guidance_scale: float
    strength: float | None = None
    steps: int = 50
    distilled_scale: float | None = None


PACKED = {"is_flow": True, "is_packed": True, "patch": 2, "latent_form": 2}
"""Settings of graphs of FLUX.1 and its kin, whose pipelines keep latents as patches of 2 x 2 in a row."""


@dataclass
class Parts:
    """What stands in a graph, before it is joined.

    Args:
        graph: so far.
        source: of the models.
        task: of the graph.
        batched: guidance runs as one batch.
        defaults: of the pipeline.
        backbone: the block around the model.
        vae: the block around the autoencoder.
        patch: latents to a side of what the backbone takes as one.
        is_flow: the model predicts a flow: its schedule is one, and a share of the steps is rounded up.
        is_packed: the pipeline keeps latents as patches in a row (Flux).
        is_even: sigmas are asked for evenly, whatever the scheduler's own are (Flux).
        sides: (height, width) in pixels, where a call says nothing.
        skips_shift: the pipeline decodes without the autoencoder's shift.
        keeps_size: an image that is changed keeps its size, whatever ``sides``.
        factor: pixels to a latent's side that the pipeline counts with, where that is not the autoencoder's.
        latent_form: of latents that the pipeline gives out undecoded, as for :func:`~.blocks.pictures.given_latent`.
        inpaints_latents: latents may stand in place of a picture that is inpainted.
        tokens: that a scheduler is told a picture has, where the pipeline tells always the same.
        sees_patches: the backbone, trained to inpaint, sees the mask's pixels as channels (FLUX.1 Fill).
        frames: (frames to a latent's, frames of a video where a call says nothing); None of pictures.
        guidance: block type of classifier-free guidance.
        steps_eta: the pipeline's call has ``eta``, 0 by default, which it hands to a scheduler that takes it.
        rescales: the call of the pipeline says how much guidance is rescaled.
    """

    graph: Graph
    source: Source
    task: str
    batched: bool
    defaults: Defaults
    backbone: Any = None
    vae: Any = None
    patch: int = 1
    is_flow: bool = False
    is_packed: bool = False
    is_even: bool = False
    sides: tuple[int, int] = (512, 512)
    keeps_size: bool = False
    skips_shift: bool = False
    rescales: bool = False
    steps_eta: bool = False
    guidance: str = "guidance/cfg"
    frames: tuple[int, int] | None = None
    sees_patches: bool = False
    factor: int | None = None
    tokens: int | None = None
    latent_form: int | str | None = None
    inpaints_latents: bool = False

    @property
    def backbones(self) -> tuple[str, ...]:
        """The places of the backbone: one that takes a batch of both conditions, or two."""
        return ("backbone",) if self.batched else ("backbone", "negative_backbone")


def begin(source: Source, task: str, batched: bool, defaults: Defaults, **more: Any) -> Parts:
    """An empty graph for a task; ``more`` as for :class:`Parts`."""
    graph = Graph(task, metadata={"from_diffusers": source.pipeline_class, "takes_generator": True})
    return Parts(graph, source, task, batched, defaults, **more)


def add(graph: Graph, node_id: str, block: Block | str, config: dict[str, Any] | None = None, **place: Any) -> None:
    """Adds a node that is joined by hand."""
    built = BlockRegistry.build({"block_type": block, "config": config or {}}) if isinstance(block, str) else block
    graph.add_node(built, node_id, auto_connect=False, **place)


def join(graph: Graph, *pairs: tuple[str, str]) -> None:
    """Adds edges."""
    for source, target in pairs:
        graph.add_edge(source, target)


def finished(parts: Parts) -> Graph:
    """The graph, validated."""
    parts.graph.validate()
    return parts.graph
