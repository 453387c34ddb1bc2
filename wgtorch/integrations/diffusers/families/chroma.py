"""Graphs of Chroma."""

from __future__ import annotations

from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.blocks.flux_transformer import PATCH
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part, tasks_of
from wgtorch.integrations.diffusers.families.flux import FLUX_ADAPTERS
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts

_TASKS = {"text_to_image": Defaults(5.0, steps=35), "image_to_image": Defaults(5.0, 0.9, steps=35)}
_SIDE = 128  # of latents, where a call says nothing


def chroma(source: Source, task: str, batched: bool) -> Graph:
    """Chroma as a graph: FLUX.1 without CLIP and without a distilled scale, whose text is seen up to where it ends."""
    flow = {"is_flow": True, "is_packed": True, "is_even": True, "patch": PATCH}
    parts = begin(source, task, batched, _TASKS[task], **flow)
    parts.backbone = source.model("transformer", "backbone/chroma_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    parts.sides = (_SIDE * parts.vae.factor,) * 2
    pipeline_prompts(parts, "ChromaPipeline", length=512)
    conditions(parts, "text_encoder.embedding", masked=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts, {"attention_mask": "conditions"})
    return finished(parts)


CHROMA = Family(
    "Chroma",
    tasks_of("Chroma", inpaint=False),
    chroma,
    {
        "transformer": Part("backbone", ("ChromaTransformer2DModel",)),
        "vae": Part("codec", ("AutoencoderKL",)),
        **prompt_part("T5EncoderModel"),
    },
    {"ChromaTransformer2DModel": FLUX_ADAPTERS},
    is_even=True,
    ignored=("image_encoder",),
)
