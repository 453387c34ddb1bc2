"""Graphs of Z-Image."""

from __future__ import annotations

from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.blocks.z_image_transformer import PATCH
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts
from wgtorch.lora.formats.names import AdapterNames

_DEFAULTS = Defaults(5.0)
_SIDE = 1024  # in pixels, where a call says nothing


def z_image(source: Source, task: str, batched: bool) -> Graph:
    """Z-Image as a graph. Its ``guidance_scale`` counts from 0, which is no guidance; texts keep their own lengths, in two calls."""
    parts = begin(source, task, False, _DEFAULTS, is_flow=True, is_even=True, patch=PATCH, guidance="guidance/z_image")
    parts.backbone = source.model("transformer", "backbone/z_image_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    parts.sides = (_SIDE, _SIDE)
    pipeline_prompts(parts, "ZImagePipeline")
    conditions(parts, "text_encoder.embedding", masked=True, offset=1.0)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts, {"attention_mask": "conditions"})
    for name in ("cfg_normalization", "cfg_truncation"):
        parts.graph.expose_input("guidance", name)
    return finished(parts)


def _names() -> dict[str, tuple[str, ...]]:
    """Layers of the transformer by their names in its first code (``layers.0.attention.qkv``)."""
    found: dict[str, tuple[str, ...]] = {}
    for block in ("layers", "noise_refiner", "context_refiner"):
        found[f"{block}.{{}}.attention.qkv"] = tuple(f"{block}.{{}}.attention.to_{letter}" for letter in "qkv")
        found[f"{block}.{{}}.attention.out"] = (f"{block}.{{}}.attention.to_out.0",)
    return found


Z_IMAGE = Family(
    "Z-Image",
    {"ZImagePipeline": ("text_to_image",)},
    z_image,
    {
        "transformer": Part("backbone", ("ZImageTransformer2DModel",)),
        "vae": Part("codec", ("AutoencoderKL",)),
        **prompt_part("Qwen3Model"),
    },
    {
        "ZImageTransformer2DModel": AdapterNames(
            "transformer", ("transformer",), first=_names(), first_in_kohya=lambda model: False, loader="ZImageLoraLoaderMixin"
        )
    },
    is_even=True,
)
