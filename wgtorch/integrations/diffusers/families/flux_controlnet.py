"""Graphs of FLUX.1 with a ControlNet."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, add, begin, finished, join
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.flux import FLUX_ADAPTERS, FLUX_PARTS, flux_prompts
from wgtorch.integrations.diffusers.families.stable_diffusion import autoencoder, expose_distilled
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source

_SIDE = 128  # of latents, where a call says nothing


def flux_controlnet(source: Source, task: str, batched: bool) -> Graph:
    """FLUX.1 whose blocks a ControlNet adds to, from a control picture in [0, 1] and the prompt.

    Raises:
        ConfigError: it has several ControlNets.
    """
    flow = {"is_flow": True, "is_packed": True, "is_even": True, "patch": PATCH}
    parts = begin(source, task, batched, Defaults(1.0, steps=28, distilled_scale=7.0), **flow)
    if source.classes["controlnet"] != "FluxControlNetModel":
        raise ConfigError(f"from_diffusers: {source.name!r} has a {source.classes['controlnet']}; expected one FluxControlNetModel")
    parts.backbone = source.model("transformer", "backbone/flux_transformer")
    parts.vae = autoencoder(source)
    parts.sides = (_SIDE * parts.vae.factor,) * 2
    flux_prompts(parts)
    sampling(parts, {"text_embeds": "conditions"})
    graph, (height, width) = parts.graph, parts.sides
    control = source.model("controlnet", "adapter/flux_controlnet")
    add(graph, "control_picture", "diffusers/fit_picture", {"multiple": parts.vae.factor * PATCH, "height": height, "width": width})
    add(graph, "control_rows", "diffusers/rows")
    add(graph, "controlnet", control, inputs={"guidance": parts.defaults.distilled_scale})
    graph.expose_input("control_picture", "image", "control_image")
    for side in ("height", "width"):
        graph.expose_input("control_picture", side)
    join(graph, ("control_picture.image", "control_rows.image"), ("conditions.prompt_embeds", "control_rows.condition"))
    seen = "control_rows.image"
    if control.sees_pixels:  # type: ignore[attr-defined]
        add(graph, "control_encoder", "diffusers/signed")
        join(graph, (seen, "control_encoder.image"), ("control_encoder.image", "controlnet.image"))
    else:
        add(graph, "control_encoder", parts.vae)
        join(graph, (seen, "control_encoder.image"), ("control_encoder.latent", "controlnet.image"))
        join(graph, ("control_encoder.latent", "noise.after"))  # pipelines encode the picture before they draw
    join(
        graph,
        ("conditions.prompt_embeds", "controlnet.condition"),
        ("conditions.pooled_prompt_embeds", "controlnet.text_embeds"),
        ("noise.latent", "controlnet.latent"),
        ("solver.next_latent", "controlnet.latent"),
        ("schedule.timestep", "controlnet.timestep"),
        ("solver.next_timestep", "controlnet.timestep"),
        ("schedule.progress", "controlnet.progress"),
        ("solver.progress", "controlnet.progress"),
    )
    for node in ("backbone",) if batched else ("backbone", "negative_backbone"):
        join(graph, ("controlnet.adapted", f"{node}.adapted"))
    shown = {"conditioning_scale": "controlnet_conditioning_scale", "start": "control_guidance_start", "end": "control_guidance_end"}
    for port, name in {**shown, "control_mode": "control_mode", "guidance": "guidance_scale"}.items():
        graph.expose_input("controlnet", port, name)
    expose_distilled(parts)
    return finished(parts)


FLUX_CONTROLNET = Family(
    "FLUX.1 with a ControlNet",
    {"FluxControlNetPipeline": ("text_to_image",)},
    flux_controlnet,
    {**FLUX_PARTS, "controlnet": Part("controlnet", ("FluxControlNetModel", "FluxMultiControlNetModel"))},
    {"FluxTransformer2DModel": FLUX_ADAPTERS},
    is_even=True,
    ignored=("image_encoder",),
    marks="controlnet",
)
