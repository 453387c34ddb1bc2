"""A ControlNet that is a part of a pipeline, beside its transformer: of FLUX.1 and of Stable Diffusion 3.

Its blocks add to the transformer's, from a control picture in [0, 1] and the prompt; of Stable Diffusion 3 guidance is one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.flux import FLUX_MODELS
from wgtorch.integrations.diffusers.families.stable_diffusion_3 import SD3_MODELS
from wgtorch.integrations.diffusers.sampling import sized_by
from wgtorch.integrations.diffusers.source import Source

_FLUX_KINDS = ("FluxControlNetModel", "FluxMultiControlNetModel")
_SD3_KINDS = ("SD3ControlNetModel", "SD3MultiControlNetModel")
_SHOWN = {"conditioning_scale": "controlnet_conditioning_scale", "start": "control_guidance_start", "end": "control_guidance_end"}


def _place_control(parts: Parts, control: Any, multiple: int, seen: Mapping[str, str], shown: Mapping[str, str], **inputs: Any) -> str:
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


def _encode_control(parts: Parts, seen: str) -> str:
    """The latent of the control picture at ``seen``, encoded before noise is drawn, as pipelines do; returns where it is."""
    add(parts.graph, "control_encoder", parts.vae)
    join(parts.graph, (seen, "control_encoder.image"), ("control_encoder.latent", "noise.after"))
    return "control_encoder.latent"


def _check_single(source: Source, kind: str) -> None:
    if (found := source.classes["controlnet"]) != kind:
        raise ConfigError(f"from_diffusers: {source.name!r} has a {found}; expected one {kind}")


def _finish_flux(parts: Parts) -> None:
    graph, control = parts.graph, parts.source.model("controlnet", "adapter/flux_controlnet")
    seen = {"condition": "conditions.prompt_embeds", "text_embeds": "conditions.pooled_prompt_embeds", "latent": "noise.latent"}
    shown = {"control_mode": "control_mode", "guidance": "guidance_scale"}
    picture = _place_control(parts, control, parts.vae.factor * PATCH, seen, shown, guidance=parts.defaults.distilled_scale)
    join(graph, ("solver.next_latent", "controlnet.latent"))
    if control.sees_pixels:  # type: ignore[attr-defined]
        add(graph, "control_encoder", "diffusers/signed")
        join(graph, (picture, "control_encoder.image"), ("control_encoder.image", "controlnet.image"))
    else:
        join(graph, (_encode_control(parts, picture), "controlnet.image"))


FLUX_CONTROLNET = Family(
    "FLUX.1 with a ControlNet",
    {"FluxControlNetPipeline": ("text_to_image",)},
    {"text_to_image": Defaults(1.0, steps=28, distilled_scale=7.0)},
    **{
        **FLUX_MODELS,
        "others": {**FLUX_MODELS["others"], "controlnet": Part("controlnet", _FLUX_KINDS)},
    },
    check=lambda source, task: _check_single(source, _FLUX_KINDS[0]),
    finish=_finish_flux,
    ignored=("image_encoder",),
    marks="controlnet",
)


def _check_sd3(source: Source, task: str) -> None:
    _check_single(source, _SD3_KINDS[0])
    if source.config_of("controlnet").get("use_pos_embed", True) is False:
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a ControlNet that shares pos_embed with the transformer (Stable Diffusion 3.5 8B), which "
            "is not supported; expected one of its own"
        )


def _finish_sd3(parts: Parts) -> None:
    """The picture is encoded for both halves of the batch, which draws for each."""
    if not parts.batched:
        raise ConfigError("from_diffusers: batched=False is not supported with a ControlNet of Stable Diffusion 3; expected batched=True")
    graph, control = parts.graph, parts.source.model("controlnet", "adapter/sd3_controlnet")
    seen = {"condition": "conditions.condition", "text_embeds": "conditions.text_embeds", "latent": "repeat.latent"}
    picture = _place_control(parts, control, parts.vae.factor, seen, {})
    join(graph, ("conditions.parts", "control_rows.parts"))
    latent = _encode_control(parts, picture)
    if control.model.config.force_zeros_for_pooled_projection and parts.vae.shift:  # type: ignore[union-attr]
        add(graph, "control_shift", "diffusers/without_shift", {"shift": -parts.vae.shift})
        join(graph, (latent, "control_shift.latent"))
        latent = "control_shift.latent"
    join(graph, (latent, "controlnet.image"))


SD3_CONTROLNET = Family(
    "Stable Diffusion 3 with a ControlNet",
    {"StableDiffusion3ControlNetPipeline": ("text_to_image",)},
    {"text_to_image": Defaults(7.0, steps=28)},
    **{**SD3_MODELS, "others": {**SD3_MODELS["others"], "controlnet": Part("controlnet", _SD3_KINDS)}},
    shifts=False,
    check=_check_sd3,
    finish=_finish_sd3,
    ignored=("image_encoder",),
    marks="controlnet",
)
