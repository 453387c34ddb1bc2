"""FLUX.1, and for ``inpaint`` FLUX.1 Fill.

``guidance_scale`` is what the distilled model takes as an input; ``true_cfg_scale`` is that of classifier-free guidance, which there is
only where a negative prompt is given.
"""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import PACKED, Defaults, Parts
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL, AutoencoderTiny
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH, FluxTransformer
from wgtorch.integrations.diffusers.families.family import CLIP, Family, latents, tasks_of, text_part
from wgtorch.integrations.diffusers.text import encoders, is_told, second_prompt, t5_encoders
from wgtorch.lora.formats.foreign_layer_names import AdapterNames

_FILL = Defaults(1.0, 1.0, distilled_scale=30.0)


def _prepare(parts: Parts) -> None:
    """Refuses a transformer that is not for the task; that of a Fill sees the mask's pixels and the masked picture."""
    channels, found = parts.vae.model.config.latent_channels, parts.backbone.model.config.in_channels // PATCH**2
    parts.sees_patches = found == 2 * channels + parts.vae.factor**2
    if found != channels and not (parts.sees_patches and parts.task == "inpaint"):
        known = "; this is a Fill, so take task='inpaint'" if parts.sees_patches else " (Depth, Canny and Kontext are not supported)"
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a transformer of {found} channels over latents of {channels}; "
            f"{parts.task} expects as many{known}"
        )
    if parts.sees_patches:
        parts.defaults = _FILL


def _finish(parts: Parts) -> None:
    """The pipeline of a Fill is not told what is not wanted."""
    for name in ("negative_prompt", "negative_prompt_2", "true_cfg_scale", "negative_prompt_embeds") if parts.sees_patches else ():
        if name in parts.graph.get_input_spec():
            parts.graph.hide_input(name)


def flux_prompts(parts: Parts) -> bool:
    """Prompts through CLIP and T5."""
    if told := is_told(parts, "", "_2"):
        encoders(parts)
        t5_encoders(parts, "_2", length=512)
        second_prompt(parts, "_2")
    return told


def _names() -> dict[str, tuple[str, ...]]:
    """Layers of the transformer by their names in its first code (``double_blocks.0.img_attn.qkv``)."""
    found: dict[str, tuple[str, ...]] = {}
    for there, added, out, end in (("img", "to_{}", "to_out.0", ""), ("txt", "add_{}_proj", "to_add_out", "_context")):
        block = "transformer_blocks.{}"
        found |= {
            f"double_blocks.{{}}.{there}_attn.qkv": tuple(f"{block}.attn.{added.format(letter)}" for letter in "qkv"),
            f"double_blocks.{{}}.{there}_attn.proj": (f"{block}.attn.{out}",),
            f"double_blocks.{{}}.{there}_mlp.0": (f"{block}.ff{end}.net.0.proj",),
            f"double_blocks.{{}}.{there}_mlp.2": (f"{block}.ff{end}.net.2",),
            f"double_blocks.{{}}.{there}_mod.lin": (f"{block}.norm1{end}.linear",),
        }
    single = "single_transformer_blocks.{}"
    embedders = {"time": "timestep", "vector": "text", "guidance": "guidance"}
    return {
        **found,
        "single_blocks.{}.linear1": (*(f"{single}.attn.to_{letter}" for letter in "qkv"), f"{single}.proj_mlp"),
        "single_blocks.{}.linear2": (f"{single}.proj_out",),
        "single_blocks.{}.modulation.lin": (f"{single}.norm.linear",),
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        **{
            f"{there}_in.{layer}_layer": (f"time_text_embed.{here}_embedder.linear_{number}",)
            for there, here in embedders.items()
            for number, layer in ((1, "in"), (2, "out"))
        },
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    }


FLUX_ADAPTERS = AdapterNames(
    "transformer",
    ("transformer", "text_encoder"),
    first=_names(),
    t5="text_encoder_2",
    loader="FluxLoraLoaderMixin",
)
FLUX_MODELS: dict[str, Any] = {
    "backbone": FluxTransformer,
    "codec": (AutoencoderKL, AutoencoderTiny),
    "prompts": flux_prompts,
    "others": {**text_part("", *CLIP), **text_part("_2", "T5EncoderModel")},
    "condition": {
        "embedding": "text_encoder_2.embedding", "pooled": "text_encoder.pooled", "scale": "true_cfg_scale", "only_negative": True,
    },
    "settings": PACKED,
    "size": latents(128),
    "adapters": FLUX_ADAPTERS,
    "is_even": True,
}  # fmt: skip
"""What families of this transformer share."""
_OWN: dict[str, Any] = {**FLUX_MODELS, "prepare": _prepare, "finish": _finish}
_CHANGES = Defaults(1.0, 0.6, steps=28, distilled_scale=7.0)
_TASKS = {"text_to_image": Defaults(1.0, steps=28, distilled_scale=3.5), "image_to_image": _CHANGES, "inpaint": _CHANGES}
FLUX = Family("FLUX.1", tasks_of("Flux"), _TASKS, ignored=("image_encoder",), **_OWN)
FLUX_FILL = Family("FLUX.1 Fill", {"FluxFillPipeline": ("inpaint",)}, _TASKS, marks="mask_patches", **_OWN)
