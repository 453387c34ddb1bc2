"""Graphs of Stable Diffusion XL."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.parts import Defaults, Parts, add, finished, join
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.stable_diffusion import start
from wgtorch.integrations.diffusers.text import conditions, encoders, second_prompt

STABLE_DIFFUSION_XL = {
    "text_to_image": Defaults(5.0),
    "image_to_image": Defaults(5.0, 0.3),
    "inpaint": Defaults(7.5, 0.9999),
}
_SIZES = ("original_size", "crops_coords_top_left", "target_size")


def stable_diffusion_xl(source: Source, task: str, batched: bool) -> Graph:
    """Stable Diffusion XL as a graph.

    Raises:
        ConfigError: it is a refiner.
    """
    if source.settings.get("requires_aesthetics_score"):
        raise ConfigError(f"from_diffusers: {source.name!r} is a refiner, which is told how pleasing a picture is; not supported")
    parts = start(source, task, batched, STABLE_DIFFUSION_XL[task])
    _prompts(parts)
    zeros = bool(source.settings.get("force_zeros_for_empty_prompt", True))
    conditions(parts, "text_encoders.embedding", "text_encoder_2.pooled", zero_negative=zeros)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    parts.graph.expose_input("conditions", "negative_prompt")
    _sizes(parts)
    sampling(parts, {"text_embeds": "conditions", "time_ids": "sizes"})
    join(parts.graph, ("noise.latent", "sizes.latent"), ("conditions.scale", "sizes.scale"))
    return finished(parts)


def _prompts(parts: Parts) -> None:
    """Two tokenizers and text encoders, whose embeddings stand side by side."""
    graph = parts.graph
    encoders(parts, layer="penultimate")
    encoders(parts, "_2", layer="penultimate", projection=True)
    second_prompt(parts, "_2")
    for prefix in ("", "negative_"):
        both = f"{prefix}text_encoders"
        add(graph, both, "diffusers/joined_conditions")
        join(
            graph,
            (f"{prefix}text_encoder.embedding", f"{both}.embedding"),
            (f"{prefix}text_encoder_2.embedding", f"{both}.second_embedding"),
        )


def _sizes(parts: Parts) -> None:
    """The sizes that the model is told."""
    add(parts.graph, "sizes", "diffusers/picture_sizes", {"factor": parts.vae.factor, "batched": parts.batched})
    for name in (*_SIZES, *(f"negative_{name}" for name in _SIZES)):
        parts.graph.expose_input("sizes", name)
