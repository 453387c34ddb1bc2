"""Graphs around the painter and the describer of pixel scenes."""

from __future__ import annotations

from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import register_template
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline

PAINTER_REF, DESCRIBER_REF = "wgtorch:pixel_painter", "wgtorch:pixel_describer"
SIZE = 64  # pixels, before they grow


@register_template("scene_to_image", level="graph")
def scene_to_image(*, steps: int = 10, scale: int = 8, painter: str | None = PAINTER_REF) -> Graph:
    """Paints a plan of a scene as pixel art, with the small flow model that ships with the package.

    Args:
        steps: solver steps.
        scale: whole number that pixels of the 64 x 64 painted ones grow by; 8 gives 512 x 512.
        painter: checkpoint_ref of the painter's weights; without one they are random, to be trained.
    """
    backbone = BlockRegistry.build({"block_type": "backbone/pixel_scene", "config": {"checkpoint_ref": painter} if painter else {}})
    graph = Graph("scene_to_image")
    graph.add_node("conditioner/pixel_scene", "conditioner", auto_connect=False)
    graph.add_node("noise/gaussian", "noise", config={"shape": [3, SIZE, SIZE]})
    graph.add_node(backbone, "backbone", auto_connect=False)
    graph.add_node("solver/flow_euler", "solver", config={"num_steps": steps, "prediction": "x0"})
    graph.add_node("codec/pixel_art", "codec", config={"scale": scale})
    for source, target in (
        ("conditioner.embedding", "noise.condition"),
        ("conditioner.embedding", "backbone.condition"),
        ("noise.latent", "backbone.latent"),
        ("noise.timestep", "backbone.timestep"),
        ("solver.next_latent", "backbone.latent"),
        ("solver.next_timestep", "backbone.timestep"),
        ("backbone.pred", "solver.pred"),
    ):
        graph.add_edge(source, target)
    graph.expose_input("conditioner", "scene", "scene")
    graph.expose_input("conditioner", "prompt", "prompt")
    graph.expose_output("codec", "image")
    graph.expose_output("codec", "small")
    return graph


@register_template("scene_to_image", level="pipeline")
def scene_to_image_pipeline(*, steps: int = 10, scale: int = 8) -> Pipeline:
    """The graph of the same name as a pipeline.

    Args:
        steps: solver steps.
        scale: whole number that pixels grow by.
    """
    pipeline = Pipeline("scene_to_image")
    pipeline.add_graph(scene_to_image(steps=steps, scale=scale), "t2i")
    for name in ("scene", "prompt"):
        pipeline.expose_input("t2i", name)
    pipeline.expose_output("t2i", "image")
    return pipeline


@register_template("describe_scene", level="graph")
def describe_scene(*, describer: str | None = DESCRIBER_REF) -> Graph:
    """Says what is in a pixel scene, thing by thing, from the picture alone.

    Args:
        describer: checkpoint_ref of the describer's weights; without one they are random, to be trained.
    """
    graph = Graph("describe_scene")
    graph.add_node("vlm/pixel_scene", "describer", config={"checkpoint_ref": describer} if describer else {})
    graph.infer_exposed_ports()
    return graph
