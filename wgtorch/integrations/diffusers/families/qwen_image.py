"""Graphs of Qwen-Image."""

from __future__ import annotations

from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.blocks.qwen_image_transformer import PATCH
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts
from wgtorch.lora.formats.names import AdapterNames

_DEFAULTS = Defaults(4.0)
_SIDE = 128  # of latents, where a call says nothing


def qwen_image(source: Source, task: str, batched: bool) -> Graph:
    """Qwen-Image as a graph. The pipeline calls the transformer twice where it guides, and so does the graph, whatever ``batched``.

    Guidance wants a negative prompt and a ``true_cfg_scale`` above 1.
    """
    flow = {"is_flow": True, "is_packed": True, "is_even": True, "patch": PATCH}
    parts = begin(source, task, False, _DEFAULTS, guidance="guidance/qwen_image", **flow)
    parts.backbone = source.model("transformer", "backbone/qwen_image_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl_qwen_image")
    parts.sides = (_SIDE * parts.vae.factor,) * 2
    pipeline_prompts(parts, "QwenImagePipeline")
    conditions(parts, "text_encoder.embedding", scale="true_cfg_scale", only_negative=True, masked=True)
    for name in ("num_images_per_prompt", "negative_prompt"):
        parts.graph.expose_input("conditions", name)
    sampling(parts, {"attention_mask": "conditions"})
    for node in ("backbone", "negative_backbone"):  # of no effect for a model that was not distilled with one
        parts.graph.expose_input(node, "guidance", "guidance_scale")
    return finished(parts)


QWEN_IMAGE = Family(
    "Qwen-Image",
    {"QwenImagePipeline": ("text_to_image",)},
    qwen_image,
    {
        "transformer": Part("backbone", ("QwenImageTransformer2DModel",)),
        "vae": Part("codec", ("AutoencoderKLQwenImage",)),
        **prompt_part("Qwen2_5_VLForConditionalGeneration"),
    },
    {
        "QwenImageTransformer2DModel": AdapterNames(
            "transformer", ("transformer",), first_in_kohya=lambda model: False, loader="QwenImageLoraLoaderMixin"
        )
    },
    is_even=True,
)
