"""Chroma: FLUX.1 without CLIP and without a distilled scale, whose text is seen up to where it ends."""

from wgtorch.integrations.diffusers.assembly import PACKED, Defaults
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.text_transformers import ChromaTransformer
from wgtorch.integrations.diffusers.families.family import Family, latents, prompt_part, tasks_of
from wgtorch.integrations.diffusers.families.flux import FLUX_ADAPTERS
from wgtorch.integrations.diffusers.text import asked

CHROMA = Family(
    "Chroma",
    tasks_of("Chroma", inpaint=False),
    {"text_to_image": Defaults(5.0, steps=35), "image_to_image": Defaults(5.0, 0.9, steps=35)},
    ChromaTransformer,
    (AutoencoderKL,),
    asked("ChromaPipeline", length=512),
    prompt_part("T5EncoderModel"),
    condition={"masked": True},
    settings=PACKED,
    size=latents(128),
    adapters=FLUX_ADAPTERS,
    is_even=True,
    ignored=("image_encoder",),
)
