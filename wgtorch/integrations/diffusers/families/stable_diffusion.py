"""Graphs of Stable Diffusion 1 and 2, and what XL shares with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, begin, finished
from wgtorch.integrations.diffusers.families.family import CLIP, PICTURES, Family, Part, tasks_of, text_part
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, encoders, is_told
from wgtorch.lora.formats.names import AdapterNames

_TASKS = {
    "text_to_image": Defaults(7.5),
    "image_to_image": Defaults(7.5, 0.8),
    "inpaint": Defaults(7.5, 1.0),
}


def stable_diffusion(source: Source, task: str, batched: bool) -> Graph:
    """Stable Diffusion 1 or 2 as a graph."""
    parts = start(source, task, batched, _TASKS[task])
    parts.rescales = task == "text_to_image"
    if source.pipeline_class == LCM:
        parts.defaults = replace(parts.defaults, steps=4, distilled_scale=8.5)
    if told := is_told(parts, ""):
        encoders(parts)
    conditions(parts, "text_encoder.embedding" if told else None)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts)
    expose_distilled(parts)
    return finished(parts)


def start(source: Source, task: str, batched: bool, defaults: Defaults) -> Parts:
    """An empty graph for a task, with the UNet and the autoencoder at hand.

    Raises:
        ConfigError: the UNet is not for the task.
    """
    if source.config_of("unet").get("encoder_hid_dim_type") == "ip_image_proj":
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a UNet with an IP-Adapter in it; call unload_ip_adapter() first, and add the adapter "
            "to the graph: add_node(IPAdapter.from_file(...))"
        )
    parts = begin(source, task, batched, defaults, steps_eta=source.pipeline_class != LCM)
    parts.backbone = source.model("unet", "backbone/unet_2d_condition")
    parts.vae = autoencoder(source)
    check_channels(parts, parts.vae.model.config.latent_channels)
    own = parts.backbone.model.config
    if own.time_cond_proj_dim is not None:  # the model was distilled, and takes the scale itself
        parts.defaults = replace(defaults, guidance_scale=1.0, distilled_scale=defaults.guidance_scale)
    side, factor = own.sample_size, parts.vae.factor
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    parts.sides, parts.keeps_size = (height * factor, width * factor), task == "image_to_image"
    return parts


def autoencoder(source: Source) -> Any:
    """The autoencoder, or the small one that stands in for it."""
    return source.model("vae", "codec/autoencoder_tiny" if source.classes["vae"] == "AutoencoderTiny" else "codec/autoencoder_kl")


def check_channels(parts: Parts, latents: int) -> None:
    """Refuses a backbone that takes other channels than a task's latents have.

    Raises:
        ConfigError: it does.
    """
    found, painting = parts.backbone.model.config.in_channels, 2 * latents + 1
    known = (latents, painting) if parts.task == "inpaint" else (latents,)
    if found not in known:
        name = "UNet" if "UNet" in type(parts.backbone.model).__name__ else "transformer"
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a {name} of {found} input channels over latents of {latents}; "
            f"{parts.task} expects {' or '.join(map(str, known))}"
            + ("; this one was trained to inpaint, so take task='inpaint'" if found == painting else "")
        )


def expose_distilled(parts: Parts) -> None:
    """The scale that a distilled backbone takes as an input, as the call's ``guidance_scale``."""
    if parts.defaults.distilled_scale is not None:
        for node in ("backbone",) if parts.batched else ("backbone", "negative_backbone"):
            parts.graph.expose_input(node, "guidance", "guidance_scale")


# --- adapters ---------------------------------------------------------------------------------------------------------

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_AROUND = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def first_names(unet: Any) -> dict[str, tuple[str, ...]]:
    """Layers of a UNet by their names in its first code (``input_blocks.4.1.proj_in``), as kohya's scripts call those of XL."""
    places: dict[str, str] = {}
    count = 1
    for number, block in enumerate(unet.down_blocks):
        for layer in range(len(block.resnets)):
            places[f"down_blocks.{number}.resnets.{layer}"] = f"input_blocks.{count}.0"
            places[f"down_blocks.{number}.attentions.{layer}"] = f"input_blocks.{count}.1"
            count += 1
        if getattr(block, "downsamplers", None):
            places[f"down_blocks.{number}.downsamplers.0.conv"] = f"input_blocks.{count}.0.op"
            count += 1
    places |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2"}
    count = 0
    for number, block in enumerate(unet.up_blocks):
        has_attention = bool(getattr(block, "attentions", None))
        for layer in range(len(block.resnets)):
            places[f"up_blocks.{number}.resnets.{layer}"] = f"output_blocks.{count}.0"
            places[f"up_blocks.{number}.attentions.{layer}"] = f"output_blocks.{count}.1"
            count += 1
        if getattr(block, "upsamplers", None):
            places[f"up_blocks.{number}.upsamplers.0.conv"] = f"output_blocks.{count - 1}.{2 if has_attention else 1}.conv"
    found: dict[str, tuple[str, ...]] = {first: (path,) for first, path in _AROUND.items()}
    for path, _ in unet.named_modules():
        parts = path.split(".")
        for size in range(2, len(parts) + 1):
            place, rest = ".".join(parts[:size]), ".".join(parts[size:])
            if place in places:
                found[f"{places[place]}{'.' if rest else ''}{_RESNET.get(rest, rest)}"] = (path,)
    return found


UNET_ADAPTERS = AdapterNames(
    "unet",
    ("unet", "text_encoder", "text_encoder_2"),
    first_of=first_names,
    first_in_kohya=lambda unet: unet.config.addition_embed_type == "text_time",
    loader="StableDiffusionXLLoraLoaderMixin",
)

# --- the family -------------------------------------------------------------------------------------------------------

LCM = "LatentConsistencyModelPipeline"
UNET: Mapping[str, Part] = {"unet": Part("backbone", ("UNet2DConditionModel",)), "vae": Part("codec", PICTURES)}
STABLE_DIFFUSION = Family(
    "Stable Diffusion 1 and 2",
    {**tasks_of("StableDiffusion"), LCM: ("text_to_image",)},
    stable_diffusion,
    {**UNET, **text_part("", *CLIP)},
    {"UNet2DConditionModel": UNET_ADAPTERS},
    settings=lambda graph: {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ignored=("image_encoder",),
)
