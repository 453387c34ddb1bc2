"""Graphs of Wan, which makes videos."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, begin, finished, join
from wgtorch.integrations.diffusers.families.family import Family, Part, text_part
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, is_told
from wgtorch.integrations.diffusers.video import video_sampling
from wgtorch.lora.formats.names import AdapterNames

_TASKS = {"text_to_video": Defaults(5.0), "image_to_video": Defaults(5.0)}
_LENGTH = 512
_SIZE = {"num_frames": 81, "height": 480, "width": 832}


def wan(source: Source, task: str, batched: bool) -> Graph:
    """Wan 2.1 as a graph, and what of 2.2 has one transformer.

    Raises:
        ConfigError: the transformer is not for the task, or the pipeline works in two stages.
    """
    _check_settings(source)
    parts = begin(source, task, batched, _TASKS[task], is_flow=True)
    parts.backbone = source.model("transformer", "backbone/wan_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl_wan")
    _check_channels(parts)
    if told := is_told(parts, ""):
        _prompts(parts)
    conditions(parts, "text_encoder.embedding" if told else None)
    parts.graph.expose_input("conditions", "num_images_per_prompt", "num_videos_per_prompt")
    parts.patch = max(parts.backbone.model.config.patch_size[1:])
    video_sampling(parts, parts.vae.model.config.z_dim, _SIZE)
    if task == "image_to_video":
        _first_frame(parts)
    return finished(parts)


def _check_settings(source: Source) -> None:
    if source.settings.get("boundary_ratio") is not None or source.settings.get("expand_timesteps"):
        raise ConfigError(
            f"from_diffusers: {source.name!r} is a Wan 2.2 of two stages, or with a timestep for each patch; "
            "supported are those of one transformer and one timestep, such as Wan 2.1"
        )
    name, config = source.scheduler()
    if config.get("use_dynamic_shifting"):
        raise ConfigError(f"from_diffusers: {name} shifts by the size of the picture, which Wan's pipeline does not tell it")


def _check_channels(parts: Parts) -> None:
    own, latents = parts.backbone.model.config, parts.vae.model.config.z_dim
    if own.image_dim is not None and "image_encoder" not in parts.source.classes:
        raise ConfigError(f"from_diffusers: {parts.source.name!r} has a transformer that sees pictures through CLIP, but no image_encoder")
    from_image = 2 * latents + parts.vae.frames
    expected = from_image if parts.task == "image_to_video" else latents
    if own.in_channels != expected:
        other = {latents: "text_to_video", from_image: "image_to_video"}.get(own.in_channels)
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a transformer of {own.in_channels} input channels over latents of {latents}; "
            f"{parts.task} expects {expected}" + (f"; take task={other!r}" if other else "")
        )


def _prompts(parts: Parts) -> None:
    graph, source = parts.graph, parts.source
    tokenizer = source.tokenizer("tokenizer", "tokenizer/t5", length=_LENGTH, clean=True)
    found = source.classes["text_encoder"]
    kind = {} if found == "UMT5EncoderModel" else {"kind": found}
    encoder = source.model("text_encoder", "conditioner/umt5_text", **kind)
    for prefix in ("", "negative_"):
        words, text = f"{prefix}tokenizer", f"{prefix}text_encoder"
        add(graph, words, tokenizer, inputs={"text": ""} if prefix else {})
        add(graph, text, encoder)
        join(graph, (f"{words}.tokens", f"{text}.tokens"), (f"{words}.attention_mask", f"{text}.attention_mask"))
        graph.expose_input(words, "text", f"{prefix}prompt")
        graph.expose_input(words, "max_sequence_length")


def _first_frame(parts: Parts) -> None:
    """The picture that the video begins with, beside the latent in every turn."""
    graph, patch = parts.graph, max(parts.backbone.model.config.patch_size[1:])
    sides = {name: _SIZE[name] for name in ("height", "width")}
    add(graph, "picture", "diffusers/fit_picture", {"multiple": parts.vae.factor * patch, **sides})
    add(graph, "frames", "diffusers/known_frames", {"num_frames": _SIZE["num_frames"]})
    add(graph, "encoder", parts.vae)
    add(graph, "image_condition", "diffusers/frames_condition", {"frames": parts.vae.frames})
    join(
        graph,
        ("picture.image", "frames.image"),
        ("frames.video", "encoder.video"),
        ("frames.known", "image_condition.known"),
        ("encoder.latent", "image_condition.latent"),
    )
    backbones = ("backbone",) if parts.batched else ("backbone", "negative_backbone")
    for node in backbones:
        join(graph, ("image_condition.condition", f"{node}.image_condition"))
    graph.expose_input("picture", "image")
    if parts.backbone.model.config.image_dim is not None:
        processor = parts.source.processor("image_processor")
        add(graph, "image_encoder", parts.source.model("image_encoder", "conditioner/wan_image", processor=processor))
        for name in ("image", "last_image"):
            graph.expose_input("image_encoder", name)
        for node in backbones:
            join(graph, ("image_encoder.embedding", f"{node}.image_embeds"))
    graph.expose_input("frames", "last_image")
    graph.expose_input("frames", "num_frames")
    for side in sides:
        graph.expose_input("picture", side)


def _settings(graph: Graph) -> dict[str, Any]:
    """What pictures are seen through, where they are."""
    if "image_encoder" not in graph.nodes:
        return {}
    block: Any = graph.nodes["image_encoder"]
    return {"image_processor": block.processor}


_LETTERS = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"), ("k_img", "add_k_proj"), ("v_img", "add_v_proj"))


def _names() -> dict[str, tuple[str, ...]]:
    """Layers of the transformer by their names in its first code (``blocks.0.self_attn.q``)."""
    found: dict[str, tuple[str, ...]] = {}
    for there, here in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        for letter, layer in (
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("o", "to_out.0"),
            ("k_img", "add_k_proj"),
            ("v_img", "add_v_proj"),
        ):
            found[f"blocks.{{}}.{there}.{letter}"] = (f"blocks.{{}}.{here}.{layer}",)
    embedder = "condition_embedder"
    return {
        **found,
        "blocks.{}.ffn.0": ("blocks.{}.ffn.net.0.proj",),
        "blocks.{}.ffn.2": ("blocks.{}.ffn.net.2",),
        "text_embedding.0": (f"{embedder}.text_embedder.linear_1",),
        "text_embedding.2": (f"{embedder}.text_embedder.linear_2",),
        "time_embedding.0": (f"{embedder}.time_embedder.linear_1",),
        "time_embedding.2": (f"{embedder}.time_embedder.linear_2",),
        "time_projection.1": (f"{embedder}.time_proj",),
        "img_emb.proj.1": (f"{embedder}.image_embedder.ff.net.0.proj",),
        "img_emb.proj.3": (f"{embedder}.image_embedder.ff.net.2",),
        "head.head": ("proj_out",),
    }


WAN = Family(
    "Wan 2.1",
    {"WanPipeline": ("text_to_video", "image_to_video"), "WanImageToVideoPipeline": ("image_to_video", "text_to_video")},
    wan,
    {
        "transformer": Part("backbone", ("WanTransformer3DModel",)),
        "vae": Part("codec", ("AutoencoderKLWan",)),
        **text_part("", "UMT5EncoderModel", "T5EncoderModel"),
        "image_encoder": Part("image_encoder", ("CLIPVisionModel",), optional=True),
    },
    {"WanTransformer3DModel": AdapterNames("transformer", ("transformer",), first=_names(), loader="WanLoraLoaderMixin")},
    settings=_settings,
    ignored=("image_processor",),
)
