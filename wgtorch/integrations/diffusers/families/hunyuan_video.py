"""HunyuanVideo. Guidance beside the distilled one wants a negative prompt and a ``true_cfg_scale`` above 1."""

from __future__ import annotations

from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.video_autoencoders import AutoencoderKLHunyuanVideo
from wgtorch.integrations.diffusers.blocks.video_transformers import HunyuanVideoTransformer
from wgtorch.integrations.diffusers.families.family import CLIP, CLIP_WORDS, Family, Part, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.text import asked, encoders


def _prepare(parts: Parts) -> None:
    parts.patch = parts.backbone.model.config.patch_size


def _prompts(parts: Parts) -> bool:
    """A language model through a template, and CLIP for the pooled text."""
    asked("HunyuanVideoPipeline", "prompt_template", length=256)(parts)
    encoders(parts, "_2")
    for prefix in ("", "negative_"):
        parts.graph.expose_input(f"{prefix}tokenizer_2", "text", f"{prefix}prompt")
    parts.graph.configure_node("negative_tokenizer_2", inputs={"text": ""})
    parts.graph.hide_input("clip_skip")
    return True


HUNYUAN_VIDEO = Family(
    "HunyuanVideo",
    {"HunyuanVideoPipeline": ("text_to_video",)},
    {"text_to_video": Defaults(1.0, distilled_scale=6.0)},
    HunyuanVideoTransformer,
    (AutoencoderKLHunyuanVideo,),
    _prompts,
    {
        **prompt_part("LlamaModel"),
        "text_encoder_2": Part("text_encoder_2", CLIP),
        "tokenizer_2": Part("tokenizer_2", CLIP_WORDS, is_tokenizer=True),
    },
    condition={"pooled": "text_encoder_2.pooled", "scale": "true_cfg_scale", "only_negative": True, "masked": True},
    settings={"is_flow": True},
    size={"num_frames": 129, "height": 720, "width": 1280},
    noise={"any_count": True},
    shown=("schedule.sigmas",),
    shifts=False,
    prepare=_prepare,
    adapters=transformer_adapters("HunyuanVideoLoraLoaderMixin"),
    is_even=True,
)
