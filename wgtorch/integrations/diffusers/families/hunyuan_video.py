"""Graphs of HunyuanVideo."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, begin, finished
from wgtorch.integrations.diffusers.families.family import CLIP, CLIP_WORDS, Family, Part, prompt_part
from wgtorch.integrations.diffusers.families.stable_diffusion import expose_distilled
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, encoders, pipeline_prompts
from wgtorch.integrations.diffusers.video import video_sampling
from wgtorch.lora.formats.names import AdapterNames

_SIZE = {"num_frames": 129, "height": 720, "width": 1280}


def hunyuan_video(source: Source, task: str, batched: bool) -> Graph:
    """HunyuanVideo as a graph. Guidance beside the distilled one wants a negative prompt and a ``true_cfg_scale`` above 1.

    Raises:
        ConfigError: the scheduler shifts by the size of the picture, which the pipeline does not tell it.
    """
    name, config = source.scheduler()
    if config.get("use_dynamic_shifting"):
        raise ConfigError(f"from_diffusers: {name} shifts by the size of the picture, which HunyuanVideo's pipeline does not tell it")
    parts = begin(source, task, batched, Defaults(1.0, distilled_scale=6.0), is_flow=True, is_even=True)
    parts.backbone = source.model("transformer", "backbone/hunyuan_video_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl_hunyuan_video")
    parts.patch = parts.backbone.model.config.patch_size
    pipeline_prompts(parts, "HunyuanVideoPipeline", "prompt_template", length=256)
    encoders(parts, "_2")
    graph = parts.graph
    for prefix in ("", "negative_"):
        graph.expose_input(f"{prefix}tokenizer_2", "text", f"{prefix}prompt")
    graph.configure_node("negative_tokenizer_2", inputs={"text": ""})
    graph.hide_input("clip_skip")
    conditions(parts, "text_encoder.embedding", "text_encoder_2.pooled", scale="true_cfg_scale", only_negative=True, masked=True)
    graph.expose_input("conditions", "num_images_per_prompt", "num_videos_per_prompt")
    graph.expose_input("conditions", "negative_prompt")
    extra = {"text_embeds": "conditions", "attention_mask": "conditions"}
    video_sampling(parts, parts.backbone.model.config.in_channels, _SIZE, extra, any_count=True)
    graph.expose_input("schedule", "sigmas")
    expose_distilled(parts)
    return finished(parts)


HUNYUAN_VIDEO = Family(
    "HunyuanVideo",
    {"HunyuanVideoPipeline": ("text_to_video",)},
    hunyuan_video,
    {
        "transformer": Part("backbone", ("HunyuanVideoTransformer3DModel",)),
        "vae": Part("codec", ("AutoencoderKLHunyuanVideo",)),
        **prompt_part("LlamaModel"),
        "text_encoder_2": Part("text_encoder_2", CLIP),
        "tokenizer_2": Part("tokenizer_2", CLIP_WORDS, is_tokenizer=True),
    },
    {
        "HunyuanVideoTransformer3DModel": AdapterNames(
            "transformer", ("transformer",), first_in_kohya=lambda model: False, loader="HunyuanVideoLoraLoaderMixin"
        )
    },
    is_even=True,
)
