"""Sana. The language model is told an instruction before the prompt, and none before the negative one."""

from __future__ import annotations

import inspect
from typing import Any

from wgtorch.core.errors import require
from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderDC
from wgtorch.integrations.diffusers.blocks.text_transformers import SanaTransformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.resolution import expose_bins
from wgtorch.integrations.diffusers.text import asked

_INSTRUCTION = "complex_human_instruction"


def _prompts(parts: Parts) -> bool:
    library: Any = require("diffusers", "diffusers")
    told = inspect.signature(library.SanaPipeline.__call__).parameters[_INSTRUCTION].default
    asked("SanaPipeline", "clean_caption")(parts)
    parts.graph.configure_node("text_encoder", inputs={_INSTRUCTION: list(told)})
    parts.graph.expose_input("text_encoder", _INSTRUCTION)
    return True


SANA = Family(
    "Sana",
    {"SanaPipeline": ("text_to_image",)},
    {"text_to_image": Defaults(4.5, steps=20)},
    SanaTransformer,
    (AutoencoderDC,),
    _prompts,
    prompt_part("Gemma2Model"),
    condition={"masked": True, "tiled_mask": True},
    settings={"is_flow": True, "steps_eta": True},
    size=1024,
    shifts=False,
    finish=lambda parts: expose_bins(parts, "SanaPipeline"),
    adapters=transformer_adapters("SanaLoraLoaderMixin"),
)
