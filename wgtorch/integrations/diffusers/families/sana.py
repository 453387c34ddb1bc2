"""Graphs of Sana."""

from __future__ import annotations

import inspect
from typing import Any

from wgtorch.core.errors import ConfigError, require
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part
from wgtorch.integrations.diffusers.resolution import expose_bins
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts
from wgtorch.lora.formats.names import AdapterNames

_DEFAULTS = Defaults(4.5, steps=20)
_SIDE = 1024  # in pixels, where a call says nothing
_INSTRUCTION = "complex_human_instruction"


def sana(source: Source, task: str, batched: bool) -> Graph:
    """Sana as a graph. The language model is told an instruction before the prompt, and none before the negative one.

    Raises:
        ConfigError: the scheduler shifts by the size of the picture, which Sana's pipeline does not tell it.
    """
    name, config = source.scheduler()
    if config.get("use_dynamic_shifting"):
        raise ConfigError(f"from_diffusers: {name} shifts by the size of the picture, which Sana's pipeline does not tell it")
    parts = begin(source, task, batched, _DEFAULTS, is_flow=True)
    parts.backbone = source.model("transformer", "backbone/sana_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_dc")
    parts.sides = (_SIDE, _SIDE)
    pipeline_prompts(parts, "SanaPipeline", "clean_caption")
    library: Any = require("diffusers", "diffusers")
    told = inspect.signature(library.SanaPipeline.__call__).parameters[_INSTRUCTION].default
    parts.graph.configure_node("text_encoder", inputs={_INSTRUCTION: list(told)})
    parts.graph.expose_input("text_encoder", _INSTRUCTION)
    conditions(parts, "text_encoder.embedding", masked=True)
    parts.graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts, {"attention_mask": "conditions"})
    expose_bins(parts, "SanaPipeline")
    return finished(parts)


SANA = Family(
    "Sana",
    {"SanaPipeline": ("text_to_image",)},
    sana,
    {
        "transformer": Part("backbone", ("SanaTransformer2DModel",)),
        "vae": Part("codec", ("AutoencoderDC",)),
        **prompt_part("Gemma2Model"),
    },
    {
        "SanaTransformer2DModel": AdapterNames(
            "transformer", ("transformer",), first_in_kohya=lambda model: False, loader="SanaLoraLoaderMixin"
        )
    },
)
