"""Graphs of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.translation import blocks_for


@dataclass(frozen=True)
class Defaults:
    """What a diffusers pipeline does when its call says nothing."""

    guidance_scale: float
    strength: float | None = None
    steps: int = 50


STABLE_DIFFUSION = {
    "text_to_image": Defaults(7.5),
    "image_to_image": Defaults(7.5, 0.8),
    "inpaint": Defaults(7.5, 1.0),
}


@dataclass
class Parts:
    """What stands in a graph, before it is joined."""

    graph: Graph
    source: Source
    task: str
    batched: bool
    defaults: Defaults
    unet: Any = None
    vae: Any = None


def stable_diffusion(source: Source, task: str, batched: bool) -> Graph:
    """Stable Diffusion 1 or 2 as a graph."""
    parts = start(source, task, batched, STABLE_DIFFUSION[task])
    encoders(parts)
    conditions(parts, "text_encoder.embedding")
    sampling(parts)
    return finished(parts)


def start(source: Source, task: str, batched: bool, defaults: Defaults) -> Parts:
    """An empty graph for a task, with the models of the source at hand."""
    graph = Graph(task, metadata={"from_diffusers": source.pipeline_class})
    parts = Parts(graph, source, task, batched, defaults)
    parts.unet = source.model("unet", "backbone/unet_2d_condition")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    _check_unet(parts)
    return parts


def _check_unet(parts: Parts) -> None:
    own, latents = parts.unet.model.config, parts.vae.model.config.latent_channels
    known = (latents, 2 * latents + 1) if parts.task == "inpaint" else (latents,)
    if own.in_channels not in known:
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a UNet of {own.in_channels} input channels over latents of {latents}; "
            f"{parts.task} expects {' or '.join(map(str, known))}"
            + ("; this one was trained to inpaint, so take task='inpaint'" if own.in_channels == 2 * latents + 1 else "")
        )
    if own.time_cond_proj_dim is not None:
        raise ConfigError(f"from_diffusers: {parts.source.name!r} has a UNet that takes the guidance scale as an input; not supported")


# --- text -------------------------------------------------------------------------------------------------------------


def encoders(parts: Parts, which: str = "", **config: Any) -> None:
    """A tokenizer and a text encoder, for the prompt and for what is not wanted; ``which`` is the end of their names."""
    graph, source = parts.graph, parts.source
    tokenizer, encoder = source.tokenizer(f"tokenizer{which}"), source.model(f"text_encoder{which}", "conditioner/clip_text", **config)
    for prefix in ("", "negative_"):
        words, text = f"{prefix}tokenizer{which}", f"{prefix}text_encoder{which}"
        add(graph, words, tokenizer, inputs={"text": ""} if prefix and not which else {})
        add(graph, text, encoder)
        join(graph, (f"{words}.tokens", f"{text}.tokens"), (f"{words}.attention_mask", f"{text}.attention_mask"))
        if not which:
            graph.expose_input(words, "text", f"{prefix}prompt")
    graph.expose_input(f"text_encoder{which}", "clip_skip")


def conditions(parts: Parts, embedding: str, **config: Any) -> None:
    """What the backbone is conditioned on, joined once before the loop; ``embedding`` is where it comes from."""
    graph = parts.graph
    add(graph, "conditions", "diffusers/guided_condition", {"scale": parts.defaults.guidance_scale, "batched": parts.batched, **config})
    for prefix in ("", "negative_"):
        join(graph, (f"{prefix}{embedding}", f"conditions.{prefix}embedding"))
    graph.expose_input("conditions", "guidance_scale")
    graph.expose_input("conditions", "num_images_per_prompt")


# --- sampling ---------------------------------------------------------------------------------------------------------


def sampling(parts: Parts, extra: Mapping[str, str] | None = None) -> None:
    """Schedule, noise, backbone, guidance, solver and codec.

    Args:
        parts: with their conditions.
        extra: further conditions of the backbone: which of its inputs is fed by which node.
    """
    graph, defaults = parts.graph, parts.defaults
    schedule, solver = blocks_for(*parts.source.scheduler(), num_steps=defaults.steps)
    start = {} if defaults.strength is None else {"strength": defaults.strength}
    add(graph, "schedule", schedule, inputs=start)
    graph.expose_input("schedule", "num_steps", "num_inference_steps")
    if defaults.strength is not None:
        graph.expose_input("schedule", "strength")
    seen = _TASKS[parts.task](parts)
    _backbone(parts, extra or {}, seen)
    add(graph, "guidance", "guidance/cfg", {"scale": defaults.guidance_scale})
    add(graph, "solver", solver)
    add(graph, "codec", parts.vae)
    turned = _after_step(parts)
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
        (turned["latent"], "solver.latent"),
        (turned["progress"], "solver.progress"),
        ("solver.next_timestep", "solver.timestep"),
        ("solver.next_timestep", "guidance.timestep"),
        (turned["latent"], "codec.latent"),
    )
    twice = ["backbone", "negative_backbone"]
    into = ["repeat"] if parts.batched else ["channels"] if "channels" in graph.nodes else twice
    for node in into:
        join(graph, ("noise.latent", f"{node}.latent"), (turned["latent"], f"{node}.latent"))
    graph.expose_output("codec", "image")


def _backbone(parts: Parts, extra: Mapping[str, str], seen: str | None) -> None:
    """The backbone, once over a batch that holds both conditions, or at two places for two calls."""
    graph = parts.graph
    inputs = {"condition": "conditions", **extra}
    if parts.batched:
        add(graph, "repeat", "diffusers/repeat")
        join(graph, ("conditions.parts", "repeat.parts"))
    if seen:
        add(graph, "channels", "diffusers/inpaint_channels")
        join(graph, ("latent_mask.latent_mask", "channels.mask"), (seen, "channels.masked_latent"))
        if parts.batched:
            join(graph, ("repeat.latent", "channels.latent"))
    for prefix in ("",) if parts.batched else ("", "negative_"):
        node = f"{prefix}backbone"
        add(graph, node, parts.unet)
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


# --- tasks ------------------------------------------------------------------------------------------------------------


def _noise(parts: Parts, **config: Any) -> None:
    side = parts.unet.model.config.sample_size
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    factor = parts.vae.factor
    own = {"channels": parts.vae.model.config.latent_channels, "factor": factor, "height": height * factor, "width": width * factor}
    add(parts.graph, "noise", "noise/latents", {**own, **config})
    parts.graph.expose_input("noise", "latents")


def _from_text(parts: Parts) -> str | None:
    _noise(parts)
    parts.graph.expose_input("noise", "height")
    parts.graph.expose_input("noise", "width")
    return None


def _from_image(parts: Parts) -> str | None:
    graph = parts.graph
    add(graph, "picture", "diffusers/fit_picture", {"multiple": parts.vae.factor})
    add(graph, "encoder", parts.vae)
    _noise(parts)
    join(graph, ("picture.image", "encoder.image"), ("encoder.latent", "noise.image_latent"))
    graph.expose_input("picture", "image")
    return None


def _from_masked_image(parts: Parts) -> str | None:
    """Returns the latent of the masked picture where the model wants to see it."""
    graph, factor = parts.graph, parts.vae.factor
    side = parts.unet.model.config.sample_size * factor
    add(graph, "picture", "diffusers/fit_picture", {"multiple": factor, "height": side, "width": side})
    add(graph, "latent_mask", "diffusers/latent_mask", {"factor": factor})
    add(graph, "encoder", parts.vae)
    _noise(parts, whole_from_noise=True)
    join(
        graph,
        ("picture.image", "latent_mask.image"),
        ("picture.image", "encoder.image"),
        ("encoder.latent", "noise.image_latent"),
    )
    graph.expose_input("picture", "image")
    graph.expose_input("latent_mask", "mask_image")
    graph.expose_input("picture", "height")
    graph.expose_input("picture", "width")
    if parts.unet.model.config.in_channels == parts.vae.model.config.latent_channels:
        return None
    add(graph, "masked_image", "diffusers/masked_image")
    add(graph, "masked_encoder", parts.vae)
    join(
        graph,
        ("picture.image", "masked_image.image"),
        ("latent_mask.mask", "masked_image.mask"),
        ("masked_image.image", "masked_encoder.image"),
    )
    return "masked_encoder.latent"


_TASKS: dict[str, Callable[[Parts], str | None]] = {
    "text_to_image": _from_text,
    "image_to_image": _from_image,
    "inpaint": _from_masked_image,
}
TASKS = tuple(_TASKS)


def _after_step(parts: Parts) -> dict[str, str]:
    """Where the next turn takes latent and progress from; where a mask keeps the picture, that is put back first."""
    graph = parts.graph
    for name in ("",) if parts.batched else ("", "negative_"):
        join(graph, ("solver.next_timestep", f"{name}backbone.timestep"))
    if parts.batched:
        join(graph, ("split.pred_cond", "guidance.pred_cond"), ("split.pred_uncond", "guidance.pred_uncond"))
    else:
        join(graph, ("backbone.pred", "guidance.pred_cond"), ("negative_backbone.pred", "guidance.pred_uncond"))
    if parts.task != "inpaint" or "channels" in graph.nodes:
        return {"latent": "solver.next_latent", "progress": "solver.progress"}
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
    return {"latent": "blend.latent", "progress": "blend.progress"}


# --- building ---------------------------------------------------------------------------------------------------------


def add(graph: Graph, node_id: str, block: Block | str, config: dict[str, Any] | None = None, **place: Any) -> None:
    """Adds a node that is joined by hand."""
    built = BlockRegistry.build({"block_type": block, "config": config or {}}) if isinstance(block, str) else block
    graph.add_node(built, node_id, auto_connect=False, **place)


def join(graph: Graph, *pairs: tuple[str, str]) -> None:
    """Adds edges."""
    for source, target in pairs:
        graph.add_edge(source, target)


def finished(parts: Parts) -> Graph:
    """The graph, validated."""
    parts.graph.validate()
    return parts.graph
