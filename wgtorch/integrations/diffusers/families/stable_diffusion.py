"""Stable Diffusion 1 and 2, and what XL and others share with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL, AutoencoderTiny
from wgtorch.integrations.diffusers.blocks.unet_2d_condition import UNet2DCondition
from wgtorch.integrations.diffusers.families.family import CLIP, Family, tasks_of, text_part
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import encoders, is_told
from wgtorch.lora.formats.foreign_layer_names import AdapterNames

LCM = "LatentConsistencyModelPipeline"


def check_unet(source: Source, task: str) -> None:
    """Refuses a UNet that holds an IP-Adapter.

    Raises:
        ConfigError: it does.
    """
    if source.config_of("unet").get("encoder_hid_dim_type") == "ip_image_proj":
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a UNet with an IP-Adapter in it; call unload_ip_adapter() first, and add the adapter "
            "to the graph: add_node(IPAdapter.from_file(...))"
        )


def prepare_unet(parts: Parts) -> None:
    """What the UNet says of the graph.

    Raises:
        ConfigError: it is not for the task.
    """
    check_channels(parts, parts.vae.model.config.latent_channels)
    own, defaults = parts.backbone.model.config, parts.defaults
    if own.time_cond_proj_dim is not None:  # the model was distilled, and takes the scale itself
        parts.defaults = replace(defaults, guidance_scale=1.0, distilled_scale=defaults.guidance_scale)
    parts.keeps_size = parts.task == "image_to_image"


def unet_size(parts: Parts) -> tuple[int, int]:
    """(height, width) that the UNet was trained at, in pixels."""
    side, factor = parts.backbone.model.config.sample_size, parts.vae.factor
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return height * factor, width * factor


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


def _prepare(parts: Parts) -> None:
    prepare_unet(parts)
    parts.rescales = parts.task == "text_to_image"
    if parts.source.pipeline_class == LCM:
        parts.steps_eta = False
        parts.defaults = replace(parts.defaults, steps=4, distilled_scale=8.5)


def clip_prompts(parts: Parts) -> bool:
    """Prompts through one CLIP."""
    if told := is_told(parts, ""):
        encoders(parts)
    return told


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

UNET: dict[str, Any] = {
    "backbone": UNet2DCondition,
    "codec": (AutoencoderKL, AutoencoderTiny),
    "model": "unet",
    "settings": {"is_flow": False, "steps_eta": True},
    "size": unet_size,
    "check": check_unet,
    "adapters": UNET_ADAPTERS,
    "ignored": ("image_encoder",),
}
"""What families of this UNet share."""
UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
STABLE_DIFFUSION = Family(
    "Stable Diffusion 1 and 2",
    {**tasks_of("StableDiffusion"), LCM: ("text_to_image",)},
    {"text_to_image": Defaults(7.5), "image_to_image": Defaults(7.5, 0.8), "inpaint": Defaults(7.5, 1.0)},
    prompts=clip_prompts,
    others=text_part("", *CLIP),
    prepare=_prepare,
    arguments=lambda graph: UNCHECKED,
    **UNET,
)
