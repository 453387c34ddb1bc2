"""A ControlNet that is a part of a pipeline, beside its transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.integrations.diffusers.assembly import Parts, add, join
from wgtorch.integrations.diffusers.sampling import sized_by

_SHOWN = {"conditioning_scale": "controlnet_conditioning_scale", "start": "control_guidance_start", "end": "control_guidance_end"}


def place_control(parts: Parts, control: Any, multiple: int, seen: Mapping[str, str], shown: Mapping[str, str], **inputs: Any) -> str:
    """Puts the ControlNet, and what brings its picture to the size that is painted, a row for each prompt.

    Where a call says no size, that is the picture's own.

    Args:
        parts: with the loop.
        control: its block.
        multiple: of pixels that the picture's sides have.
        seen: inputs that the nodes of these ports feed.
        shown: further inputs that the pipeline's call has, with their names there.
        inputs: of the node, where nothing is fed.

    Returns:
        Where the picture comes from, node and port.
    """
    graph = parts.graph
    add(graph, "control_picture", "diffusers/sized_picture", {"multiple": multiple})
    add(graph, "control_rows", "diffusers/rows")
    add(graph, "controlnet", control, inputs=inputs)
    graph.expose_input("control_picture", "image", "control_image")
    sized_by(parts, "control_picture", "noise", "tokens")
    join(
        graph,
        ("control_picture.image", "control_rows.image"),
        ("conditions.prompt_embeds", "control_rows.condition"),
        *((source, f"controlnet.{port}") for port, source in seen.items()),
        ("schedule.timestep", "controlnet.timestep"),
        ("solver.next_timestep", "controlnet.timestep"),
        ("schedule.progress", "controlnet.progress"),
        ("solver.progress", "controlnet.progress"),
        *(("controlnet.adapted", f"{node}.adapted") for node in parts.backbones),
    )
    for port, name in {**_SHOWN, **shown}.items():
        graph.expose_input("controlnet", port, name)
    return "control_rows.image"


def encode_control(parts: Parts, seen: str) -> str:
    """The latent of the control picture at ``seen``, encoded before noise is drawn, as pipelines do; returns where it is."""
    add(parts.graph, "control_encoder", parts.vae)
    join(parts.graph, (seen, "control_encoder.image"), ("control_encoder.latent", "noise.after"))
    return "control_encoder.latent"
