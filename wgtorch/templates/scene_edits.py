"""Graphs that change a painted scene, and the pipeline that goes over its own picture again; one painter in all of them."""

from __future__ import annotations

from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import register_template
from wgtorch.core.pool import building
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.templates.scenes import SIZE, text_to_image


@register_template("image_to_image", level="graph")
def image_to_image(*, steps: int = 12, guidance: float = 2.0, strength: float = 0.6) -> Graph:
    """Repaints a picture of 64x64 pixels towards a prompt, with the small flow model that ships with the package.

    Args:
        steps: solver steps of a picture from noise; ``strength`` says which share of them is made.
        guidance: strength of classifier-free guidance; 1 is none.
        strength: how much may change, in (0, 1], where the input is not fed.
    """
    return _from_picture("image_to_image", steps, guidance, strength, whole_from_noise=False)


@register_template("inpaint", level="graph")
def inpaint(*, steps: int = 12, guidance: float = 2.0, strength: float = 1.0) -> Graph:
    """Paints what is masked in a picture of 64x64 pixels; the rest stays as it is.

    Args:
        steps: as for ``image_to_image``.
        guidance: strength of classifier-free guidance; 1 is none.
        strength: how much of what is masked may change, in (0, 1], where the input is not fed.
    """
    graph = _from_picture("inpaint", steps, guidance, strength, whole_from_noise=True)
    graph.add_node("diffusers/latent_mask", "mask", config={"factor": 1})
    graph.add_node("diffusers/blend", "blend")
    for source, target in (
        ("picture.image", "mask.image"),
        ("mask.latent_mask", "blend.mask"),
        ("encoder.latent", "blend.image_latent"),
        ("noise.noise", "blend.noise"),
        ("solver.next_latent", "blend.latent"),
        ("solver.next_timestep", "blend.timestep"),
        ("solver.progress", "blend.progress"),
        ("solver.done", "blend.done"),
    ):
        graph.add_edge(source, target)
    for target in ("backbone", "negative_backbone", "solver", "codec"):  # all go on from the blended latent
        graph.remove_edge("solver.next_latent", f"{target}.latent")
        graph.add_edge("blend.latent", f"{target}.latent")
    graph.add_edge("noise.latent", "solver.latent")
    graph.expose_input("mask", "mask_image")
    return graph


@register_template("text_to_image_refine", level="pipeline")
def text_to_image_refine(*, steps: int = 12, guidance: float = 2.0, strength: float = 0.3) -> Pipeline:
    """Paints a scene from a prompt, then goes over the picture once more with the same painter.

    Args:
        steps: solver steps of a picture from noise.
        guidance: strength of classifier-free guidance.
        strength: how much the second pass may change, in (0, 1].
    """
    pipeline = Pipeline("text_to_image_refine")
    with building():  # both graphs take their models from one pool
        pipeline.add_graph(text_to_image(steps=steps, guidance=guidance), "t2i")
        pipeline.add_graph(image_to_image(steps=steps, guidance=guidance, strength=strength), "refine")
    pipeline.add_edge("t2i.image", "refine.image")
    for name in ("prompt", "negative_prompt", "guidance_scale"):
        for graph in ("t2i", "refine"):
            pipeline.expose_input(graph, name)
    pipeline.expose_input("refine", "strength")
    pipeline.expose_output("refine", "image")
    return pipeline


def _from_picture(name: str, steps: int, guidance: float, strength: float, *, whole_from_noise: bool) -> Graph:
    """``text_to_image`` with a loop that starts at a picture, which says itself what the prompt leaves open."""
    graph = text_to_image(steps=steps, guidance=guidance)
    graph.block_id = name
    graph.remove_node("complete")
    graph.add_edge("conditioner.embedding", "backbone.condition")
    start = {"channels": 3, "factor": 1, "height": SIZE, "width": SIZE, "whole_from_noise": whole_from_noise}
    graph.replace_node("noise", BlockRegistry.build({"block_type": "noise/latents", "config": start}))
    graph.replace_node("solver", BlockRegistry.build({"block_type": "solver/flow_euler", "config": {"prediction": "x0"}}))
    graph.add_node("schedule/flow", "schedule", config={"num_steps": steps, "num_train_timesteps": 1}, inputs={"strength": strength})
    graph.add_node("diffusers/fit_picture", "picture", config={"multiple": 1, "height": SIZE, "width": SIZE})
    graph.add_node("encoder/pixels", "encoder")
    graph.add_edge("picture.image", "encoder.image")
    for node in ("backbone", "negative_backbone", "guidance"):
        graph.add_edge("schedule.timestep", f"{node}.timestep")
    graph.expose_input("picture", "image")
    graph.expose_input("schedule", "strength")
    graph.expose_input("noise", "latents")
    return graph
