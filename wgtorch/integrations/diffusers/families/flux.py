"""Graphs of FLUX.1."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, begin, finished
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.families.family import CLIP, PICTURES, Family, Part, tasks_of, text_part
from wgtorch.integrations.diffusers.families.stable_diffusion import autoencoder, expose_distilled
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, encoders, is_told, second_prompt, t5_encoders
from wgtorch.lora.formats.names import AdapterNames

_TASKS = {
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
    defaults = _TASKS[task]
    parts = begin(source, task, batched, defaults, is_flow=True, is_packed=True, is_even=True, patch=PATCH)
    parts.backbone = source.model("transformer", "backbone/flux_transformer")
    parts.vae = autoencoder(source)
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
    flux_prompts(parts)
    if parts.sees_patches:  # its pipeline is not told what is not wanted
        for name in ("negative_prompt", "negative_prompt_2", "true_cfg_scale", "negative_prompt_embeds"):
            if name in parts.graph.get_input_spec():
                parts.graph.hide_input(name)
    sampling(parts, {"text_embeds": "conditions"})
    expose_distilled(parts)
    return finished(parts)


def flux_prompts(parts: Parts) -> None:
    """Prompts through CLIP and T5, and what the backbone is conditioned on."""
    if told := is_told(parts, "", "_2"):
        encoders(parts)
        t5_encoders(parts, "_2", length=_LENGTH)
        second_prompt(parts, "_2")
    conditions(parts, "text_encoder_2.embedding" if told else None, "text_encoder.pooled", scale="true_cfg_scale", only_negative=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    parts.graph.expose_input("conditions", "negative_prompt")


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
FLUX_PARTS = {
    "transformer": Part("backbone", ("FluxTransformer2DModel",)),
    "vae": Part("codec", PICTURES),
    **text_part("", *CLIP),
    **text_part("_2", "T5EncoderModel"),
}
_BACKBONE = {"FluxTransformer2DModel": FLUX_ADAPTERS}
FLUX = Family("FLUX.1", tasks_of("Flux"), flux, FLUX_PARTS, _BACKBONE, is_even=True, ignored=("image_encoder",))
FLUX_FILL = Family("FLUX.1 Fill", {"FluxFillPipeline": ("inpaint",)}, flux, FLUX_PARTS, _BACKBONE, is_even=True, marks="mask_patches")
