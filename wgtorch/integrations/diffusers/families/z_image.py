"""Z-Image. Its ``guidance_scale`` counts from 0, which is no guidance; texts keep their own lengths, in two calls."""

from wgtorch.integrations.diffusers.assembly import Defaults
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.text_transformers import PATCH, ZImageTransformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.text import asked

_FIRST_NAMES = {
    f"{block}.{{}}.attention.{there}": tuple(f"{block}.{{}}.attention.{layer}" for layer in layers)
    for block in ("layers", "noise_refiner", "context_refiner")
    for there, layers in (("qkv", ("to_q", "to_k", "to_v")), ("out", ("to_out.0",)))
}

Z_IMAGE = Family(
    "Z-Image",
    {"ZImagePipeline": ("text_to_image",)},
    {"text_to_image": Defaults(5.0)},
    ZImageTransformer,
    (AutoencoderKL,),
    asked("ZImagePipeline"),
    prompt_part("Qwen3Model"),
    condition={"masked": True, "offset": 1.0},
    settings={"is_flow": True, "patch": PATCH, "guidance": "guidance/z_image"},
    size=1024,
    shown=("guidance.cfg_normalization", "guidance.cfg_truncation"),
    adapters=transformer_adapters("ZImageLoraLoaderMixin", _FIRST_NAMES),
    is_even=True,
    is_batched=False,
)
