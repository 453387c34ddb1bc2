"""Graphs of CogVideoX."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.families.family import Family, Part, prompt_part
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, pipeline_prompts
from wgtorch.integrations.diffusers.video import video_sampling
from wgtorch.lora.formats.names import AdapterNames

_LENGTH = 226


def cogvideox(source: Source, task: str, batched: bool) -> Graph:
    """CogVideoX 1 as a graph.

    Raises:
        ConfigError: it is version 1.5, whose pipeline adds frames and takes them away again; or its scheduler looks back a step.
    """
    name, _ = source.scheduler()
    if name == "CogVideoXDPMScheduler":
        raise ConfigError(
            f"from_diffusers: {name} steps from two predictions, which solver/diffusers does not hand on; expected CogVideoXDDIMScheduler: "
            "pipeline.scheduler = diffusers.CogVideoXDDIMScheduler.from_config(pipeline.scheduler.config)"
        )
    parts = begin(source, task, batched, Defaults(6.0), is_flow=False, steps_eta=True)
    parts.backbone = source.model("transformer", "backbone/cogvideox_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl_cogvideox")
    own = parts.backbone.model.config
    if own.patch_size_t is not None:
        raise ConfigError(f"from_diffusers: {source.name!r} is a CogVideoX 1.5, which is not supported; expected version 1")
    parts.patch = own.patch_size
    pipeline_prompts(parts, "CogVideoXPipeline", length=_LENGTH)
    conditions(parts, "text_encoder.embedding")
    factor = parts.vae.factor
    sizes = {"num_frames": own.sample_frames, "height": own.sample_height * factor, "width": own.sample_width * factor}
    video_sampling(parts, own.in_channels, sizes, frames_first=True, any_count=True)
    return finished(parts)


COGVIDEOX = Family(
    "CogVideoX",
    {"CogVideoXPipeline": ("text_to_video",)},
    cogvideox,
    {
        "transformer": Part("backbone", ("CogVideoXTransformer3DModel",)),
        "vae": Part("codec", ("AutoencoderKLCogVideoX",)),
        **prompt_part("T5EncoderModel"),
    },
    {
        "CogVideoXTransformer3DModel": AdapterNames(
            "transformer", ("transformer",), first_in_kohya=lambda model: False, loader="CogVideoXLoraLoaderMixin"
        )
    },
)
