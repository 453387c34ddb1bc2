"""Graphs and pipelines around the small models of painted scenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import register_template
from wgtorch.core.pool import building
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline

PAINTER_REF, TEXT_REF, DESCRIBER_REF = "wgtorch:scene_painter", "wgtorch:scene_text", "wgtorch:scene_describer"
UPSCALER_REF = "wgtorch:scene_upscaler"
SIZE = 64  # pixels


@register_template("text_to_image", level="graph")
def text_to_image(*, steps: int = 12, guidance: float = 2.0, painter: str | None = PAINTER_REF) -> Graph:
    """Paints a scene of 64x64 pixels from a prompt, with the small flow model that ships with the package.

    Args:
        steps: solver steps.
        guidance: strength of classifier-free guidance; 1 is none.
        painter: checkpoint_ref of the painter's weights; without one they are random, to be trained.
    """
    backbone = BlockRegistry.build({"block_type": "backbone/scene", "config": {"checkpoint_ref": painter} if painter else {}})
    conditioner = BlockRegistry.build({"block_type": "conditioner/scene", "config": {"checkpoint_ref": TEXT_REF}})
    tokenizer = BlockRegistry.build({"block_type": "tokenizer/scene"})

    graph = Graph("text_to_image")
    graph.add_node(tokenizer, "tokenizer")
    graph.add_node(tokenizer, "negative_tokenizer", inputs={"text": ""})
    graph.add_node(conditioner, "conditioner", auto_connect=False)
    graph.add_node(conditioner, "negative_conditioner", auto_connect=False)
    graph.add_node("conditioner/scene_complete", "complete", auto_connect=False)  # what the prompt leaves open
    graph.add_node("noise/gaussian", "noise", config={"shape": [3, SIZE, SIZE]})
    graph.add_node(backbone, "backbone", auto_connect=False)
    graph.add_node(backbone, "negative_backbone", auto_connect=False)
    graph.add_node("guidance/cfg", "guidance", config={"scale": guidance, "interval": [0.05, 0.7]}, auto_connect=False)
    graph.add_node("solver/flow_euler", "solver", config={"num_steps": steps, "prediction": "x0"})
    graph.add_node("codec/pixels", "codec")

    graph.add_edge("conditioner.embedding", "complete.embedding")
    graph.add_edge("complete.embedding", "backbone.condition")
    graph.add_edge("negative_conditioner.embedding", "negative_backbone.condition")
    for prefix in ("", "negative_"):
        graph.add_edge(f"{prefix}tokenizer.tokens", f"{prefix}conditioner.tokens")
        for source, port in (
            ("noise.latent", "latent"),
            ("noise.timestep", "timestep"),
            ("solver.next_latent", "latent"),
            ("solver.next_timestep", "timestep"),
        ):
            graph.add_edge(source, f"{prefix}backbone.{port}")
    graph.add_edge("conditioner.embedding", "noise.condition")
    graph.add_edge("backbone.pred", "guidance.pred_cond")
    graph.add_edge("negative_backbone.pred", "guidance.pred_uncond")
    graph.add_edge("noise.timestep", "guidance.timestep")
    graph.add_edge("solver.next_timestep", "guidance.timestep")
    graph.add_edge("guidance.pred_guided", "solver.pred")

    graph.expose_input("tokenizer", "text", "prompt")
    graph.expose_input("negative_tokenizer", "text", "negative_prompt")
    graph.expose_input("guidance", "scale", "guidance_scale")
    graph.expose_output("codec", "image")
    return graph


@register_template("caption", level="graph")
def caption(*, vlm: Mapping[str, Any] | None = None) -> Graph:
    """Describes a picture: a scene with the small describer that ships with the package, or anything with a model of your own.

    Args:
        vlm: config of another vision model: ``{"provider": "openai", "model_id": ...}``, ``{"backend": "local", "checkpoint_ref": ...}``,
            or ``{"block_type": ..., "config": ...}``.
    """
    shipped = {"block_type": "vlm/scene", "config": {"checkpoint_ref": DESCRIBER_REF}}
    entry = shipped if vlm is None else vlm if "block_type" in vlm else {"block_type": "vlm", "config": vlm}
    graph = Graph("caption")
    graph.add_node(BlockRegistry.build(entry), "describer")
    graph.infer_exposed_ports()
    return graph


@register_template("upscale", level="graph")
def upscale() -> Graph:
    """Doubles the sides of a picture, with the small upscaler of scenes that ships with the package."""
    graph = Graph("upscale")
    graph.add_node("upscaler/scene", "upscaler", config={"checkpoint_ref": UPSCALER_REF})
    graph.infer_exposed_ports()
    return graph


@register_template("text_to_image", level="pipeline")
def text_to_image_pipeline(*, steps: int = 12, guidance: float = 2.0, larger: bool = False) -> Pipeline:
    """The graph of the same name as a pipeline, with the upscaler behind it where larger pictures are wanted.

    Args:
        steps: solver steps.
        guidance: strength of classifier-free guidance.
        larger: pictures of 128x128 pixels: text-to-image, upscale.
    """
    pipeline = Pipeline("text_to_image")
    with building():
        pipeline.add_graph(text_to_image(steps=steps, guidance=guidance), "t2i")
        if larger:
            pipeline.add_graph(upscale(), "upscale")
    for name in ("prompt", "negative_prompt", "guidance_scale"):
        pipeline.expose_input("t2i", name)
    if larger:
        pipeline.add_edge("t2i.image", "upscale.image")
    pipeline.expose_output("upscale" if larger else "t2i", "image")
    return pipeline
