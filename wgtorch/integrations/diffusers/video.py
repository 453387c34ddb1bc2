"""The loop of a latent diffusion model of videos, from conditions that are there to frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.integrations.diffusers.assembly import Parts, add
from wgtorch.integrations.diffusers.sampling import add_codec, denoising, scheduling

SIZES = ("num_frames", "height", "width")


def video_sampling(parts: Parts, sizes: Mapping[str, int], extra: Mapping[str, str] | None = None, **noise: Any) -> None:
    """Schedule, noise, loop and decoder.

    Args:
        parts: with conditions; its autoencoder says ``factor`` and ``frames``.
        sizes: of a video, where a call says nothing: ``num_frames``, ``height``, ``width``.
        extra: further conditions of the backbone: which of its inputs is fed by which node.
        noise: further settings of the node that draws.
    """
    graph = parts.graph
    parts.sides, parts.frames = (sizes["height"], sizes["width"]), (parts.vae.frames, sizes["num_frames"])
    scheduling(parts)
    config = parts.vae.model.config
    channels = config.get("z_dim") or config["latent_channels"]
    own = {"channels": channels, "factor": parts.vae.factor, "frames": parts.vae.frames, "patch": parts.patch}
    add(graph, "noise", "noise/video_latents", {**own, **sizes, **noise})
    for name in ("latents", *SIZES):
        graph.expose_input("noise", name)
        if "tokens" in graph.nodes:
            graph.expose_input("tokens", name)
    denoising(parts, extra or {})
    add_codec(parts, "solver.next_latent")
    graph.expose_output("codec", "video")
