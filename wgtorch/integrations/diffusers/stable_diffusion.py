"""Graphs of Stable Diffusion 1 and 2, and what XL shares with them."""

from __future__ import annotations

from dataclasses import replace

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, begin, finished
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, encoders

STABLE_DIFFUSION = {
    "text_to_image": Defaults(7.5),
    "image_to_image": Defaults(7.5, 0.8),
    "inpaint": Defaults(7.5, 1.0),
}


def stable_diffusion(source: Source, task: str, batched: bool) -> Graph:
    """Stable Diffusion 1 or 2 as a graph."""
    parts = start(source, task, batched, STABLE_DIFFUSION[task])
    parts.rescales = task == "text_to_image"
    encoders(parts)
    conditions(parts, "text_encoder.embedding")
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts)
    expose_distilled(parts)
    return finished(parts)


def start(source: Source, task: str, batched: bool, defaults: Defaults) -> Parts:
    """An empty graph for a task, with the UNet and the autoencoder at hand.

    Raises:
        ConfigError: the UNet is not for the task.
    """
    if source.config_of("unet").get("encoder_hid_dim_type") == "ip_image_proj":
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a UNet with an IP-Adapter in it; call unload_ip_adapter() first, and add the adapter "
            "to the graph: add_node(IPAdapter.from_file(...))"
        )
    parts = begin(source, task, batched, defaults)
    parts.backbone = source.model("unet", "backbone/unet_2d_condition")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    check_channels(parts, parts.vae.model.config.latent_channels)
    own = parts.backbone.model.config
    if own.time_cond_proj_dim is not None:  # the model was distilled, and takes the scale itself
        parts.defaults = replace(defaults, guidance_scale=1.0, distilled_scale=defaults.guidance_scale)
    side, factor = own.sample_size, parts.vae.factor
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    parts.sides, parts.keeps_size = (height * factor, width * factor), task == "image_to_image"
    return parts


def check_channels(parts: Parts, latents: int) -> None:
    """Refuses a backbone that takes other channels than a task's latents have.

    Raises:
        ConfigError: it does.
    """
    found, painting = parts.backbone.model.config.in_channels, 2 * latents + 1
    known = (latents, painting) if parts.task == "inpaint" else (latents,)
    if found not in known:
        name = "UNet" if "UNet" in type(parts.backbone.model).__name__ else "transformer"
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a {name} of {found} input channels over latents of {latents}; "
            f"{parts.task} expects {' or '.join(map(str, known))}"
            + ("; this one was trained to inpaint, so take task='inpaint'" if found == painting else "")
        )


def expose_distilled(parts: Parts) -> None:
    """The scale that a distilled backbone takes as an input, as the call's ``guidance_scale``."""
    if parts.defaults.distilled_scale is not None:
        for node in ("backbone",) if parts.batched else ("backbone", "negative_backbone"):
            parts.graph.expose_input(node, "guidance", "guidance_scale")
