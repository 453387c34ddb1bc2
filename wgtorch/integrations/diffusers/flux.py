"""Graphs of FLUX.1."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.stable_diffusion import expose_distilled
from wgtorch.integrations.diffusers.text import conditions, encoders, second_prompt, t5_encoders

FLUX = {
    "text_to_image": Defaults(1.0, steps=28, distilled_scale=3.5),
    "image_to_image": Defaults(1.0, 0.6, steps=28, distilled_scale=7.0),
    "inpaint": Defaults(1.0, 0.6, steps=28, distilled_scale=7.0),
}
_FILL = Defaults(1.0, 1.0, distilled_scale=30.0)
_SIDE = 128  # of latents, where a call says nothing
_LENGTH = 512


def flux(source: Source, task: str, batched: bool) -> Graph:
    """FLUX.1 as a graph, or for ``inpaint`` FLUX.1 Fill.

    ``guidance_scale`` is what the distilled model takes as an input; ``true_cfg_scale`` is that of classifier-free guidance, which
    there is only where a negative prompt is given.

    Raises:
        ConfigError: the transformer is not for the task.
    """
    defaults = FLUX[task]
    parts = begin(source, task, batched, defaults, is_flow=True, is_packed=True, is_even=True, patch=PATCH)
    parts.backbone = source.model("transformer", "backbone/flux_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    latents, found = parts.vae.model.config.latent_channels, parts.backbone.model.config.in_channels // PATCH**2
    parts.sees_patches = found == 2 * latents + parts.vae.factor**2
    if found != latents and not (parts.sees_patches and task == "inpaint"):
        known = "; this is a Fill, so take task='inpaint'" if parts.sees_patches else " (Depth, Canny and Kontext are not supported)"
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a transformer of {found} channels over latents of {latents}; "
            f"{task} expects as many{known}"
        )
    if parts.sees_patches:
        parts.defaults = _FILL
    parts.sides = (_SIDE * parts.vae.factor,) * 2
    encoders(parts)
    t5_encoders(parts, "_2", length=_LENGTH)
    second_prompt(parts, "_2")
    conditions(parts, "text_encoder_2.embedding", "text_encoder.pooled", scale="true_cfg_scale", only_negative=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    parts.graph.expose_input("conditions", "negative_prompt")
    if parts.sees_patches:  # its pipeline is not told what is not wanted
        for name in ("negative_prompt", "negative_prompt_2", "true_cfg_scale"):
            parts.graph.hide_input(name)
    sampling(parts, {"text_embeds": "conditions"})
    expose_distilled(parts)
    return finished(parts)
