"""Qwen-Image. The pipeline calls the transformer twice where it guides, and so does the graph, whatever ``batched``.

Guidance wants a negative prompt and a ``true_cfg_scale`` above 1; ``guidance_scale`` is of no effect for a model that was not distilled.
"""

from wgtorch.integrations.diffusers.assembly import PACKED, Defaults
from wgtorch.integrations.diffusers.blocks.text_transformers import AutoencoderKLQwenImage, QwenImageTransformer
from wgtorch.integrations.diffusers.families.family import Family, latents, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.text import asked

QWEN_IMAGE = Family(
    "Qwen-Image",
    {"QwenImagePipeline": ("text_to_image",)},
    {"text_to_image": Defaults(4.0)},
    QwenImageTransformer,
    (AutoencoderKLQwenImage,),
    asked("QwenImagePipeline"),
    prompt_part("Qwen2_5_VLForConditionalGeneration"),
    condition={
        "scale": "true_cfg_scale", "only_negative": True, "masked": True, "mask_name": "prompt_embeds_mask", "tiled_mask": True,
    },
    settings={**PACKED, "guidance": "guidance/qwen_image"},
    size=latents(128),
    shown=("backbone.guidance as guidance_scale",),
    adapters=transformer_adapters("QwenImageLoraLoaderMixin"),
    is_even=True,
    is_batched=False,
)  # fmt: skip
