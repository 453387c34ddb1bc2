"""Stable Diffusion 3 whose blocks a ControlNet adds to, from a control picture in [0, 1]; guidance is one batch."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.families.control import encode_control, place_control
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.stable_diffusion_3 import SD3_MODELS
from wgtorch.integrations.diffusers.source import Source

_KINDS = ("SD3ControlNetModel", "SD3MultiControlNetModel")


def _check(source: Source, task: str) -> None:
    if (found := source.classes["controlnet"]) != _KINDS[0]:
        raise ConfigError(f"from_diffusers: {source.name!r} has a {found}; expected one {_KINDS[0]}")
    if source.config_of("controlnet").get("use_pos_embed", True) is False:
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a ControlNet that shares pos_embed with the transformer (Stable Diffusion 3.5 8B), which "
            "is not supported; expected one of its own"
        )


def _finish(parts: Parts) -> None:
    """The picture is encoded for both halves of the batch, which draws for each."""
    if not parts.batched:
        raise ConfigError("from_diffusers: batched=False is not supported with a ControlNet of Stable Diffusion 3; expected batched=True")
    graph, control = parts.graph, parts.source.model("controlnet", "adapter/sd3_controlnet")
    seen = {"condition": "conditions.condition", "text_embeds": "conditions.text_embeds", "latent": "repeat.latent"}
    picture = place_control(parts, control, parts.vae.factor, seen, {})
    join(graph, ("conditions.parts", "control_rows.parts"))
    latent = encode_control(parts, picture)
    if control.model.config.force_zeros_for_pooled_projection and parts.vae.shift:  # type: ignore[union-attr]
        add(graph, "control_shift", "diffusers/without_shift", {"shift": -parts.vae.shift})
        join(graph, (latent, "control_shift.latent"))
        latent = "control_shift.latent"
    join(graph, (latent, "controlnet.image"))


SD3_CONTROLNET = Family(
    "Stable Diffusion 3 with a ControlNet",
    {"StableDiffusion3ControlNetPipeline": ("text_to_image",)},
    {"text_to_image": Defaults(7.0, steps=28)},
    **{**SD3_MODELS, "others": {**SD3_MODELS["others"], "controlnet": Part("controlnet", _KINDS)}},
    shifts=False,
    check=_check,
    finish=_finish,
    ignored=("image_encoder",),
    marks="controlnet",
)
