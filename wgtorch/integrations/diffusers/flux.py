"""Graphs of FLUX.1."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.parts import Defaults, begin, finished
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, encoders, second_prompt, t5_encoders

FLUX = {
    "text_to_image": Defaults(1.0, steps=28, distilled_scale=3.5),
    "image_to_image": Defaults(1.0, 0.6, steps=28, distilled_scale=7.0),
    "inpaint": Defaults(1.0, 0.6, steps=28, distilled_scale=7.0),
}
_SIDE = 128  # of latents, where a call says nothing
_LENGTH = 512


def flux(source: Source, task: str, batched: bool) -> Graph:
    """FLUX.1 as a graph.

    ``guidance_scale`` is what the distilled model takes as an input; ``true_cfg_scale`` is that of classifier-free guidance, which
    there is only where a negative prompt is given.

    Raises:
        ConfigError: the transformer is not for the task.
    """
    defaults = FLUX[task]
    parts = begin(source, task, batched, defaults, is_flow=True, is_packed=True, is_even=True, patch=PATCH)
    parts.backbone = source.model("transformer", "backbone/flux_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    found, expected = parts.backbone.model.config.in_channels, parts.vae.model.config.latent_channels * PATCH**2
    if found != expected:
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a transformer of {found} input channels over patches of {expected}; "
            f"{task} expects as many (those of Fill, Depth, Canny and Kontext take more, and are not supported)"
        )
    parts.sides = (_SIDE * parts.vae.factor,) * 2
    encoders(parts)
    t5_encoders(parts, "_2", length=_LENGTH)
    second_prompt(parts, "_2")
    conditions(parts, "text_encoder_2.embedding", "text_encoder.pooled", scale="true_cfg_scale", only_negative=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    parts.graph.expose_input("conditions", "negative_prompt")
    sampling(parts, {"text_embeds": "conditions"})
    for node in ("backbone",) if batched else ("backbone", "negative_backbone"):
        parts.graph.expose_input(node, "guidance", "guidance_scale")
    return finished(parts)
