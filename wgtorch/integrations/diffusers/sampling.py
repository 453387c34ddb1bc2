"""The loop of a latent diffusion model: schedule, noise, backbone, guidance, solver and codec, for every task on pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wgtorch.integrations.diffusers.assembly import Parts, add, join
from wgtorch.integrations.diffusers.translation import DYNAMIC, blocks_for, told_eta


def sampling(parts: Parts, extra: Mapping[str, str] | None = None, *, start: str = "") -> None:
    """All of it, around conditions that are there.

    Args:
        parts: with their conditions.
        start: the task whose loop starts as this one does, where that is another.
        extra: further conditions of the backbone: which of its inputs is fed by which node.
    """
    task = _TASKS[start or parts.task]
    scheduling(parts)
    seen = task(parts)
    denoising(parts, extra or {}, seen)
    last = _after_step(parts)
    if parts.skips_shift and parts.vae.shift:
        add(parts.graph, "without_shift", "diffusers/without_shift", {"shift": parts.vae.shift})
        join(parts.graph, (last, "without_shift.latent"))
        last = "without_shift.latent"
    add_codec(parts, last)
    parts.graph.expose_output("codec", "image")


def add_codec(parts: Parts, last: str) -> None:
    """What decodes the latent of a node and port, and gives out what a call wants."""
    add(parts.graph, "codec", parts.vae, inputs={} if parts.latent_form is None else {"latent_form": parts.latent_form})
    join(parts.graph, (last, "codec.latent"))
    parts.graph.expose_input("codec", "output_type")


# --- schedule ---------------------------------------------------------------------------------------------------------


def scheduling(parts: Parts) -> None:
    """The schedule, the solver, and what a run tells the schedule."""
    graph, defaults = parts.graph, parts.defaults
    name, config = parts.source.scheduler()
    if unsaid := parts.source.unsaid():
        graph.metadata["scheduler_defaults"] = unsaid
    patch, steps = parts.patch if parts.is_packed else 1, defaults.steps
    if name == "LCMScheduler":  # which has no more than those that it was distilled from
        steps = min(steps, config.get("original_inference_steps", steps))
    schedule, solver = blocks_for(name, config, steps, is_flow=parts.is_flow, is_even=parts.is_even, patch=patch)
    rounds_up = parts.is_flow and defaults.strength is not None
    starts = {"strength": defaults.strength} if defaults.strength is not None and not rounds_up else {}
    add(graph, "schedule", schedule, inputs=starts)
    if parts.steps_eta and "eta" in solver.get_input_spec():
        solver, given = told_eta(solver)
        add(graph, "solver", solver, inputs=given)
        graph.expose_input("solver", "eta")
    else:
        add(graph, "solver", solver)
    graph.expose_input("schedule", "num_steps", "num_inference_steps")
    if rounds_up:
        add(graph, "strength", "diffusers/strength", {"strength": defaults.strength, "num_steps": defaults.steps})
        graph.expose_input("strength", "num_steps", "num_inference_steps")
        join(graph, ("strength.strength", "schedule.strength"))
    if defaults.strength is not None:
        graph.expose_input("strength" if rounds_up else "schedule", "strength")
    if parts.task in _TASKS:
        _expose_lists(parts, "strength" if rounds_up else "")
    is_dynamic, is_wrapped = bool(config.get("use_dynamic_shifting")), schedule.block_type == "schedule/diffusers"
    into = "schedule"
    if is_wrapped and (is_dynamic or parts.is_even):
        into = "settings"
        # Where a scheduler does not say, pipelines do, and SD3's not as Flux's.
        known = {"max_shift": 1.15 if parts.is_even else 1.16}
        known |= {ours: config[theirs] for ours, theirs in DYNAMIC.items() if config.get(theirs) is not None}
        # Where a scheduler makes sigmas of a flow itself, Flux leaves that to it.
        is_even = parts.is_even and not config.get("use_flow_sigmas")
        add(
            graph,
            into,
            "diffusers/flow_settings",
            {"num_steps": defaults.steps, "dynamic_shift": known if is_dynamic else None, "even": is_even},
        )
        graph.expose_input(into, "num_steps", "num_inference_steps")
        join(graph, ("settings.settings", "schedule.settings"))
    if is_dynamic and parts.tokens is not None:
        graph.configure_node(into, inputs={"tokens": parts.tokens})
    elif is_dynamic:
        height, width = parts.sides
        sides = {"factor": parts.vae.factor, "patch": parts.patch, "height": height, "width": width}
        times = {} if parts.frames is None else {"frames": parts.frames[0], "num_frames": parts.frames[1]}
        add(graph, "tokens", "diffusers/patch_count", {**sides, **times})
        join(graph, ("tokens.tokens", f"{into}.tokens"))


def _expose_lists(parts: Parts, counting: str) -> None:
    """Timesteps or sigmas of a run's own; ``counting`` is the node that counts steps."""
    for name in ("sigmas",) if parts.is_flow else ("timesteps", "sigmas"):
        parts.graph.expose_input("schedule", name)
    if counting:
        parts.graph.expose_input(counting, "sigmas")


# --- tasks ------------------------------------------------------------------------------------------------------------


def _noise(parts: Parts, **config: Any) -> None:
    height, width = parts.sides
    own = {"channels": parts.vae.channels, "factor": parts.factor or parts.vae.factor, "height": height, "width": width}
    patch = {"patch": parts.patch} if parts.patch > 1 else {}
    add(parts.graph, "noise", "noise/latents", {**own, **patch, **config})
    parts.graph.expose_input("noise", "latents")


def _from_text(parts: Parts) -> str | None:
    _noise(parts)
    nodes = ("noise", "tokens") if "tokens" in parts.graph.nodes else ("noise",)
    for node in nodes:
        parts.graph.expose_input(node, "height")
        parts.graph.expose_input(node, "width")
    if "tokens" in parts.graph.nodes:
        parts.graph.expose_input("tokens", "latents")
    return None


def _picture(parts: Parts) -> None:
    """The picture at a size that the model can work at."""
    graph = parts.graph
    sides = {} if parts.keeps_size else dict(zip(("height", "width"), parts.sides, strict=True))
    multiple = parts.vae.factor * (parts.patch if parts.is_packed else 1)
    takes_latents = parts.task == "image_to_image" or parts.inpaints_latents
    latents = {"latent_channels": parts.vae.channels} if takes_latents else {}
    add(graph, "picture", "diffusers/fit_picture", {"multiple": multiple, **sides, **latents})
    graph.expose_input("picture", "image")
    for side in sides:
        graph.expose_input("picture", side)


def _from_image(parts: Parts) -> str | None:
    graph = parts.graph
    _picture(parts)
    add(graph, "encoder", parts.vae, inputs={} if parts.is_flow else {"draws": "each"})
    if "tokens" in graph.nodes:
        join(graph, ("encoder.latent", "tokens.latents"))
    _noise(parts, starts_at_latents=True)
    graph.expose_input("encoder", "unneeded", "latents")
    join(graph, ("picture.image", "encoder.image"), ("encoder.latent", "noise.image_latent"))
    return None


def _from_masked_image(parts: Parts) -> str | None:
    """Returns the latent of the masked picture where the model wants to see it."""
    graph = parts.graph
    _picture(parts)
    if "tokens" in graph.nodes:
        join(graph, ("picture.image", "tokens.image"))
    add(graph, "latent_mask", "diffusers/latent_mask", {"factor": parts.vae.factor})
    add(graph, "encoder", parts.vae)
    # A backbone that was trained to inpaint takes the mask and the masked picture beside the latent.
    sees = parts.sees_patches or parts.backbone.model.config.in_channels == 2 * parts.vae.channels + 1
    draws = parts.vae.sample
    masked = {} if sees or not draws else {"draws_for_masked": True}
    _noise(parts, whole_from_noise=True, starts_at_latents=True, **masked)
    join(
        graph,
        ("picture.image", "latent_mask.image"),
        ("picture.image", "encoder.image"),
        ("encoder.latent", "noise.image_latent"),
    )
    graph.expose_input("latent_mask", "mask_image")
    if not sees:
        join(graph, ("picture.image", "noise.picture"))
        return None
    graph.expose_input("encoder", "unneeded", "latents")
    add(graph, "masked_image", "diffusers/masked_image")
    add(graph, "masked_encoder", parts.vae)
    join(
        graph,
        ("picture.image", "masked_image.image"),
        ("latent_mask.mask", "masked_image.mask"),
        ("masked_image.image", "masked_encoder.image"),
    )
    join(graph, ("noise.noise", "masked_image.after"))  # pipelines encode the masked picture last
    if not parts.sees_patches:  # UNets' encode the picture only where the loop starts near it
        join(graph, ("schedule.progress", "encoder.progress"))
    return "masked_encoder.latent"


_TASKS: dict[str, Callable[[Parts], str | None]] = {
    "text_to_image": _from_text,
    "image_to_image": _from_image,
    "inpaint": _from_masked_image,
}


# --- loop -------------------------------------------------------------------------------------------------------------


def denoising(parts: Parts, extra: Mapping[str, str], seen: str | None = None) -> None:
    """The loop: the backbone, guidance and the solver, from ``noise`` on.

    Args:
        parts: with conditions, schedule, solver and noise.
        extra: as for :func:`sampling`.
        seen: the latent of a masked picture that the backbone sees.
    """
    graph = parts.graph
    _backbone(parts, extra, seen)
    add(graph, "guidance", parts.guidance, {"scale": parts.defaults.guidance_scale})
    if parts.rescales:
        graph.expose_input("guidance", "rescale", "guidance_rescale")
    turned = _blend(parts)
    join(
        graph,
        ("schedule.progress", "noise.progress"),
        ("schedule.progress", "solver.progress"),
        ("schedule.timestep", "solver.timestep"),
        ("schedule.timestep", "guidance.timestep"),
        ("conditions.prompt_embeds", "noise.condition"),
        ("conditions.scale", "guidance.scale"),
        ("noise.latent", "solver.latent"),
        ("guidance.pred_guided", "solver.pred"),
        (turned, "solver.latent"),
        ("blend.progress" if "blend" in graph.nodes else "solver.progress", "solver.progress"),
        ("solver.next_timestep", "solver.timestep"),
        ("solver.next_timestep", "guidance.timestep"),
    )
    for node in ("repeat",) if parts.batched else ("channels",) if "channels" in graph.nodes else parts.backbones:
        join(graph, ("noise.latent", f"{node}.latent"), (turned, f"{node}.latent"))
    for node in parts.backbones:
        join(graph, ("solver.next_timestep", f"{node}.timestep"))
    if parts.batched:
        join(graph, ("split.pred_cond", "guidance.pred_cond"), ("split.pred_uncond", "guidance.pred_uncond"))
    else:
        join(graph, ("backbone.pred", "guidance.pred_cond"), ("negative_backbone.pred", "guidance.pred_uncond"))


def _backbone(parts: Parts, extra: Mapping[str, str], seen: str | None) -> None:
    """The backbone, once over a batch that holds both conditions, or at two places for two calls."""
    graph = parts.graph
    inputs = {"condition": "conditions", **extra}
    if parts.batched:
        add(graph, "repeat", "diffusers/repeat")
        join(graph, ("conditions.parts", "repeat.parts"))
    if seen:
        mask = "latent_mask.latent_mask"
        if parts.sees_patches:
            add(graph, "mask_patches", "diffusers/mask_patches", {"factor": parts.vae.factor})
            join(graph, ("latent_mask.mask", "mask_patches.mask"))
            mask = "mask_patches.patches"
        add(graph, "channels", "diffusers/inpaint_channels", {"mask_last": True} if parts.sees_patches else {})
        join(graph, (mask, "channels.mask"), (seen, "channels.masked_latent"))
        if parts.batched:
            join(graph, ("repeat.latent", "channels.latent"))
    for prefix in ("",) if parts.batched else ("", "negative_"):
        node = f"{prefix}backbone"
        scale = parts.defaults.distilled_scale
        add(graph, node, parts.backbone, inputs={} if scale is None else {"guidance": scale})
        for name, feeding in inputs.items():
            join(graph, (f"{feeding}.{prefix}{name}", f"{node}.{name}"))
        join(graph, ("schedule.timestep", f"{node}.timestep"))
        if seen:
            join(graph, ("channels.latent", f"{node}.latent"))
        elif parts.batched:
            join(graph, ("repeat.latent", f"{node}.latent"))
    if parts.batched:
        add(graph, "split", "diffusers/split")
        join(graph, ("backbone.pred", "split.pred"), ("conditions.parts", "split.parts"))


def _blend(parts: Parts) -> str:
    """Where a mask keeps the picture, that is put back after each step."""
    graph = parts.graph
    if parts.task == "inpaint" and "channels" not in graph.nodes:
        add(graph, "blend", "diffusers/blend")
        join(
            graph,
            ("solver.next_latent", "blend.latent"),
            ("solver.next_timestep", "blend.timestep"),
            ("solver.progress", "blend.progress"),
            ("solver.done", "blend.done"),
            ("encoder.latent", "blend.image_latent"),
            ("noise.noise", "blend.noise"),
            ("latent_mask.latent_mask", "blend.mask"),
        )
    return _after_step(parts)


def expose_distilled(parts: Parts) -> None:
    """The scale that a distilled backbone takes as an input, as the call's ``guidance_scale``."""
    if parts.defaults.distilled_scale is not None:
        for node in parts.backbones:
            parts.graph.expose_input(node, "guidance", "guidance_scale")


def sized_by(parts: Parts, node: str, *readers: str) -> None:
    """Sizes go through a node before they reach those that work with them."""
    for name in ("height", "width"):
        parts.graph.hide_input(name)
        parts.graph.expose_input(node, name)
        join(parts.graph, *((f"{node}.{name}", f"{reader}.{name}") for reader in readers if reader in parts.graph.nodes))


def _after_step(parts: Parts) -> str:
    """Where the next turn takes the latent from."""
    return "blend.latent" if "blend" in parts.graph.nodes else "solver.next_latent"
