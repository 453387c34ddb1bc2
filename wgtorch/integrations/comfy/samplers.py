"""A KSampler as a graph: ComfyUI's schedule, one of our solvers, guidance in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.xl_conditions import TOLD_SIZES
from wgtorch.integrations.diffusers.sampling import denoising
from wgtorch.integrations.diffusers.source import Source

_SDE = "ComfyUI draws the noise of its steps from a Brownian path, here from the run's generator: of the same kind, not the same picture"
_ANCESTRAL = "ComfyUI draws the noise of its steps from a generator of its own, here from the run's: of the same kind, not the same picture"
SAMPLERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "euler": ("solver/euler", {}, ""),
    "ddim": ("solver/euler", {}, ""),  # which is DDIM without noise, and what ComfyUI calls so
    "heun": ("solver/heun", {}, ""),
    "dpmpp_2m": ("solver/dpmpp_2m", {"lower_order_final": False}, ""),
    "lcm": ("solver/lcm", {"timestep_scaling": None}, _ANCESTRAL),
    "euler_ancestral": ("solver/euler_ancestral", {}, _ANCESTRAL),
    "dpmpp_2m_sde": ("solver/dpmpp_2m_sde", {"lower_order_final": False}, _SDE),
    "dpmpp_2m_sde_gpu": ("solver/dpmpp_2m_sde", {"lower_order_final": False}, _SDE),
    "dpmpp_3m_sde": ("solver/dpmpp_3m_sde", {}, _SDE),
    "dpmpp_3m_sde_gpu": ("solver/dpmpp_3m_sde", {}, _SDE),
    "uni_pc": ("solver/unipc", {"order": 3, "variant": "bh1"}, ""),
    "uni_pc_bh2": ("solver/unipc", {"order": 3, "variant": "bh2"}, ""),
}
"""By ComfyUI's name: the solver, its settings, and how it differs."""
_TWICE = "it calls the model between two steps too, at a timestep that no schedule here gives; the nearest is {near}"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("dpmpp_sde", "dpmpp_sde_gpu"), _TWICE.format(near="dpmpp_2m_sde")),
    **dict.fromkeys(("dpm_2", "dpmpp_2s_ancestral", "dpm_2_ancestral"), _TWICE.format(near="heun, or euler_ancestral")),
}
"""Samplers of ComfyUI that are not here, and why."""
_UNIPC_REST = 1e-3  # the sigma at which ComfyUI's UniPC ends
_TRAINED = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")


def sampler(
    source: Source,
    backbone: Any,
    vae: Any,
    settings: Mapping[str, Any],
    *,
    adds_noise: bool,
    is_masked: bool,
    is_whole: bool,
    controls: Sequence[tuple[str, Any]],
) -> Graph:
    """The graph of a KSampler.

    Its inputs are ``latent``, ``positive``, ``negative``, ``steps``, ``cfg``, ``seed``, ``denoise``, ``start_at_step``, ``end_at_step``,
    ``leftover``, for XL ``positive_pooled`` and ``negative_pooled``, with a mask ``mask``, and for each ControlNet its picture and its
    strength; its output is ``latent``.

    Args:
        source: says how the model was trained.
        backbone: the block around the UNet.
        vae: the block around the autoencoder, for its sizes.
        settings: of the node.
        adds_noise: it starts from noise.
        is_masked: only what a mask covers is painted.
        is_whole: the node makes its sigmas itself, of UniPC with one step skipped at the end.
        controls: names and blocks of ControlNets.
    """
    graph = Graph("sampler", metadata={"takes_generator": True})
    parts = Parts(graph, source, "inpaint" if is_masked else "text_to_image", True, Defaults(8.0), backbone=backbone, vae=vae)
    _, trained = source.scheduler()
    if trained.get("rescale_betas_zero_snr") or trained.get("trained_betas") is not None:
        raise ConfigError(f"from_comfy: {source.name!r} was trained with betas of its own, which schedule/comfy does not have")
    known = {name: trained[name] for name in _TRAINED if name in trained}
    kind, config, _ = SAMPLERS[settings["sampler_name"]]
    if kind == "solver/unipc":
        known |= {"rest": _UNIPC_REST, "skips_last": is_whole}
    add(graph, "schedule", "schedule/comfy", {"scheduler": settings["scheduler"], **known})
    add(graph, "solver", kind, {**config, "prediction": trained.get("prediction_type", "epsilon")})
    add(graph, "aligned", "comfy/conditions")
    add(graph, "conditions", "diffusers/guided_condition", {"scale": 8.0})
    add(graph, "noise", "comfy/start", {} if adds_noise else {"adds_noise": False})
    add(graph, "encoder", "comfy/latent")
    join(
        graph,
        ("encoder.latent", "aligned.latent"),
        ("aligned.positive", "conditions.embedding"),
        ("aligned.negative", "conditions.negative_embedding"),
        ("aligned.rows", "conditions.num_images_per_prompt"),
        ("encoder.latent", "noise.image_latent"),
    )
    if is_masked:
        add(graph, "latent_mask", "comfy/latent_mask")
        join(graph, ("encoder.latent", "latent_mask.latent"), ("latent_mask.latent_mask", "noise.mask"))
        graph.expose_input("latent_mask", "mask")
    extra: dict[str, str] = {}
    is_xl = backbone.model.config.addition_embed_type == "text_time"
    if is_xl:
        extra = {"text_embeds": "conditions", "time_ids": "sizes"}
        add(graph, "sizes", "diffusers/picture_sizes", {"factor": vae.factor, "apart": True})
        for side in ("", "negative_"):
            for name in TOLD_SIZES:
                graph.expose_input("sizes", f"{side}{name}", f"{side or 'positive_'}{name}")
        for port, name in (("pooled", "positive_pooled"), ("negative_pooled", "negative_pooled")):
            graph.expose_input("conditions", port, name)
    denoising(parts, extra)
    if is_xl:
        join(graph, ("noise.latent", "sizes.latent"), ("conditions.scale", "sizes.scale"))
    for name, block in controls:
        graph.add_node(block, name)
        for port, shown in (("image", name), ("conditioning_scale", f"{name}_strength")):
            graph.hide_input(block.exposes[port])
            graph.expose_input(name, port, shown)
    for node, port, shown in (
        ("encoder", "latent", "latent"),
        *(("aligned", side, side) for side in ("positive", "negative")),
        ("schedule", "num_steps", "steps"),
        ("conditions", "guidance_scale", "cfg"),
        ("noise", "seed", "seed"),
        ("schedule", "strength", "denoise"),
        *(("schedule", name, name) for name in ("start_at_step", "end_at_step", "leftover")),
    ):
        graph.expose_input(node, port, shown)
    graph.expose_output("blend" if is_masked else "solver", "latent" if is_masked else "next_latent", "latent")
    graph.validate()
    return graph
