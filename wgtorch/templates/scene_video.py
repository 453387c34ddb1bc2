"""Moving scenes: a picture that turns into what a prompt says, alone and behind text-to-image and the upscaler."""

from __future__ import annotations

from wgtorch.core.config.template import register_template
from wgtorch.core.pool import building
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.templates.scene_edits import image_to_image
from wgtorch.templates.scenes import DESCRIBER_REF, UPSCALER_REF, text_to_image, upscale


@register_template("image_to_video", level="graph")
def image_to_video(*, frames: int = 16, steps: int = 12, guidance: float = 2.0, strength: float = 0.95, larger: bool = False) -> Graph:
    """Turns a picture of a scene into what a prompt says, frame by frame: night falls, snow comes, a castle appears.

    The picture is described; the condition walks from that description to what the prompt changes of it; the painter
    repaints the picture once for each step of the way, all from the same noise, so that only what the words change does. It
    knows nothing of how things move: frames are repaintings, not motion.

    Args:
        frames: of the video, where the input ``num_frames`` is not fed.
        steps: solver steps of a picture from noise.
        guidance: strength of classifier-free guidance; 1 is none.
        strength: how much of the picture may change, in (0, 1].
        larger: frames at twice the painter's 64 pixels, by the upscaler.
    """
    with building():
        graph = image_to_image(steps=steps, guidance=guidance, strength=strength)
        graph.block_id = "image_to_video"
        graph.add_node("vlm/scene", "describer", config={"checkpoint_ref": DESCRIBER_REF}, auto_connect=False)
        if larger:
            graph.add_node("upscaler/scene", "upscaler", config={"checkpoint_ref": UPSCALER_REF}, auto_connect=False)
    graph.add_node(graph.nodes["tokenizer"], "start_tokenizer", auto_connect=False)
    graph.add_node(graph.nodes["conditioner"], "start_conditioner", auto_connect=False)
    graph.add_node("conditioner/scene_rest", "end", auto_connect=False)
    graph.add_node("video/walk", "walk", config={"frames": frames}, auto_connect=False)
    graph.add_node("video/repeat", "repeat", auto_connect=False)
    graph.add_node("video/join", "video", auto_connect=False)

    for target in ("backbone", "noise"):
        graph.remove_edge("conditioner.embedding", f"{target}.condition")
    for source, target in (
        ("picture.image", "describer.image"),
        ("describer.text", "start_tokenizer.text"),
        ("start_tokenizer.tokens", "start_conditioner.tokens"),
        ("start_conditioner.embedding", "walk.start"),
        ("conditioner.embedding", "end.embedding"),
        ("start_conditioner.embedding", "end.rest"),
        ("end.embedding", "walk.end"),
        ("walk.embedding", "backbone.condition"),
        ("end.embedding", "noise.condition"),
        ("noise.latent", "repeat.latent"),
        ("walk.frames", "repeat.frames"),
        ("walk.frames", "video.frames"),
    ):
        graph.add_edge(source, target)
    for node in ("backbone", "negative_backbone", "solver"):  # the frames begin at one and the same noised picture
        graph.remove_edge("noise.latent", f"{node}.latent")
        graph.add_edge("repeat.latent", f"{node}.latent")
    graph.hide_output("image")  # that of the codec shows single frames now
    if larger:
        graph.add_edge("codec.image", "upscaler.image")
    graph.add_edge("upscaler.image" if larger else "codec.image", "video.image")
    graph.expose_output("video", "video")
    graph.expose_input("walk", "num_frames")
    return graph


@register_template("text_to_video", level="pipeline")
def text_to_video(*, frames: int = 16, steps: int = 12, guidance: float = 2.0, strength: float = 0.95) -> Pipeline:
    """Paints a scene, enlarges it, and turns it into what a second prompt says: text-to-image, upscale, image-to-video.

    Without ``video_prompt`` the picture stays as it is. The painter works at 64 pixels, so the last graph
    makes the enlarged picture small again for it, and its frames large with the same upscaler.

    Args:
        frames: of the video, where the input ``num_frames`` is not fed.
        steps: solver steps of a picture from noise.
        guidance: strength of classifier-free guidance.
        strength: how much of the picture may change on the way, in (0, 1].
    """
    pipeline = Pipeline("text_to_video")
    with building():  # all graphs take their models from one pool
        pipeline.add_graph(text_to_image(steps=steps, guidance=guidance), "t2i")
        pipeline.add_graph(upscale(), "upscale")
        moving = image_to_video(frames=frames, steps=steps, guidance=guidance, strength=strength, larger=True)
        pipeline.add_graph(moving, "i2v", inputs={"prompt": ""})
    pipeline.add_edge("t2i.image", "upscale.image")
    pipeline.add_edge("upscale.image", "i2v.image")
    pipeline.expose_input("t2i", "prompt")
    pipeline.expose_input("i2v", "prompt", "video_prompt")
    for name in ("negative_prompt", "guidance_scale"):
        for graph in ("t2i", "i2v"):
            pipeline.expose_input(graph, name)
    pipeline.expose_input("i2v", "num_frames")
    pipeline.expose_output("upscale", "image")
    pipeline.expose_output("i2v", "video")
    return pipeline
