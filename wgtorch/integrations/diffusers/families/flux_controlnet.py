"""FLUX.1 whose blocks a ControlNet adds to, from a control picture in [0, 1] and the prompt."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.families.control import encode_control, place_control
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.flux import FLUX_MODELS
from wgtorch.integrations.diffusers.source import Source


def _check(source: Source, task: str) -> None:
    if (found := source.classes["controlnet"]) != "FluxControlNetModel":
        raise ConfigError(f"from_diffusers: {source.name!r} has a {found}; expected one FluxControlNetModel")


def _finish(parts: Parts) -> None:
    graph, control = parts.graph, parts.source.model("controlnet", "adapter/flux_controlnet")
    seen = {"condition": "conditions.prompt_embeds", "text_embeds": "conditions.pooled_prompt_embeds", "latent": "noise.latent"}
    shown = {"control_mode": "control_mode", "guidance": "guidance_scale"}
    picture = place_control(parts, control, parts.vae.factor * PATCH, seen, shown, guidance=parts.defaults.distilled_scale)
    join(graph, ("solver.next_latent", "controlnet.latent"))
    if control.sees_pixels:  # type: ignore[attr-defined]
        add(graph, "control_encoder", "diffusers/signed")
        join(graph, (picture, "control_encoder.image"), ("control_encoder.image", "controlnet.image"))
    else:
        join(graph, (encode_control(parts, picture), "controlnet.image"))


FLUX_CONTROLNET = Family(
    "FLUX.1 with a ControlNet",
    {"FluxControlNetPipeline": ("text_to_image",)},
    {"text_to_image": Defaults(1.0, steps=28, distilled_scale=7.0)},
    **{
        **FLUX_MODELS,
        "others": {**FLUX_MODELS["others"], "controlnet": Part("controlnet", ("FluxControlNetModel", "FluxMultiControlNetModel"))},
    },
    check=_check,
    finish=_finish,
    ignored=("image_encoder",),
    marks="controlnet",
)
