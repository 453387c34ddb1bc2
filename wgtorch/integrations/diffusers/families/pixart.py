"""Graphs of PixArt-Sigma and PixArt-alpha."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part
from wgtorch.integrations.diffusers.resolution import expose_bins
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts
from wgtorch.lora.formats.names import AdapterNames

_DEFAULTS = Defaults(4.5, steps=20)
_CLASSES = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
_LENGTHS = {"PixArtSigmaPipeline": 300, "PixArtAlphaPipeline": 120}


def pixart(source: Source, task: str, batched: bool) -> Graph:
    """PixArt as a graph.

    Raises:
        ConfigError: the transformer is told the size of the picture (PixArt-alpha for 1024 pixels).
    """
    kind = source.pipeline_class
    parts = begin(source, task, batched, _DEFAULTS, is_flow=False, steps_eta=True)
    parts.backbone = source.model("transformer", "backbone/pixart_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl")
    own = parts.backbone.model.config
    if own.use_additional_conditions:
        raise ConfigError(
            f"from_diffusers: {source.name!r} has a transformer that is told the size and shape of the picture (PixArt-alpha for 1024 "
            "pixels), which the graph does not tell it; expected PixArt-Sigma, or alpha for 256 or 512 pixels"
        )
    parts.sides, parts.patch = (own.sample_size * parts.vae.factor,) * 2, own.patch_size
    pipeline_prompts(parts, kind, "clean_caption", length=_LENGTHS[kind])
    conditions(parts, "text_encoder.embedding", masked=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts, {"attention_mask": "conditions"})
    expose_bins(parts, kind)
    return finished(parts)


PIXART = Family(
    "PixArt",
    dict.fromkeys(_CLASSES, ("text_to_image",)),
    pixart,
    {
        "transformer": Part("backbone", ("PixArtTransformer2DModel",)),
        "vae": Part("codec", ("AutoencoderKL",)),
        **prompt_part("T5EncoderModel"),
    },
    {"PixArtTransformer2DModel": AdapterNames("transformer", ("transformer",), first_in_kohya=lambda model: False)},
)
