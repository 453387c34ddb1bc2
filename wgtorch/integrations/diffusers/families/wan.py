"""Wan 2.1 and 2.2, which make videos. Of two transformers (2.2) one is called where there is much noise, the other below a boundary."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.core.structure import Edge
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.autoencoder_kl_wan import AutoencoderKLWan
from wgtorch.integrations.diffusers.blocks.video_transformers import WanTransformer
from wgtorch.integrations.diffusers.families.family import Family, Part, text_part
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import is_told
from wgtorch.lora.formats.foreign_layer_names import AdapterNames

_SIZE = {"num_frames": 81, "height": 480, "width": 832}


def _check(source: Source, task: str) -> None:
    parts = {"transformer", "transformer_2"} & set(source.classes)
    if len(parts) != (1 if source.settings.get("boundary_ratio") is None else 2):
        raise ConfigError(
            f"from_diffusers: {source.name!r} has {' and '.join(sorted(parts)) or 'no transformer'} and a boundary_ratio of "
            f"{source.settings.get('boundary_ratio')}; expected a boundary and both, or neither and transformer"
        )


def _prepare(parts: Parts) -> None:
    """Refuses a transformer that is not for the task."""
    parts.patch = max(parts.backbone.model.config.patch_size[1:])
    own, latents = parts.backbone.model.config, parts.vae.model.config.z_dim
    if own.image_dim is not None and "image_encoder" not in parts.source.classes:
        raise ConfigError(f"from_diffusers: {parts.source.name!r} has a transformer that sees pictures through CLIP, but no image_encoder")
    from_image = latents if parts.source.settings.get("expand_timesteps") else 2 * latents + parts.vae.frames
    expected = from_image if parts.task == "image_to_video" else latents
    if own.in_channels != expected:
        other = {latents: "text_to_video", from_image: "image_to_video"}.get(own.in_channels)
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a transformer of {own.in_channels} input channels over latents of {latents}; "
            f"{parts.task} expects {expected}" + (f"; take task={other!r}" if other else "")
        )


def _prompts(parts: Parts) -> bool:
    graph, source = parts.graph, parts.source
    if not is_told(parts, ""):
        return False
    tokenizer = source.tokenizer("tokenizer", "tokenizer/t5", length=512, clean=True)
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
    return True


def _finish(parts: Parts) -> None:
    """The picture that a video begins with, and the second transformer."""
    source = parts.source
    if parts.task == "image_to_video":
        (_known_frame if source.settings.get("expand_timesteps") else _first_frame)(parts)
    if (boundary := source.settings.get("boundary_ratio")) is not None:
        _two_stages(parts, float(boundary) * source.scheduler()[1].get("num_train_timesteps", 1000))
    parts.graph.metadata["wan"] = {name: source.settings[name] for name in _SETTINGS if source.settings.get(name)}


def _first_frame(parts: Parts) -> None:
    """The picture that the video begins with, beside the latent in every turn."""
    graph, patch = parts.graph, parts.patch
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
    for node in parts.backbones:
        join(graph, ("image_condition.condition", f"{node}.image_condition"))
    graph.expose_input("picture", "image")
    if parts.backbone.model.config.image_dim is not None:
        processor = parts.source.processor("image_processor")
        add(graph, "image_encoder", parts.source.model("image_encoder", "conditioner/wan_image", processor=processor))
        for name in ("image", "last_image"):
            graph.expose_input("image_encoder", name)
        for node in parts.backbones:
            join(graph, ("image_encoder.embedding", f"{node}.image_embeds"))
        graph.metadata.setdefault("input_aliases", {})["image_embeds"] = "image_encoder.embedding"
    graph.expose_input("frames", "last_image")
    graph.expose_input("frames", "num_frames")
    for side in sides:
        graph.expose_input("picture", side)


def _known_frame(parts: Parts) -> None:
    """The picture is the video's first frame, which stands in the latent as it is (2.2 of one transformer)."""
    graph, patch = parts.graph, parts.patch
    sides = {name: _SIZE[name] for name in ("height", "width")}
    add(graph, "picture", "diffusers/fit_picture", {"multiple": parts.vae.factor * patch, **sides})
    add(graph, "frames", "diffusers/known_frames", {"num_frames": 1})
    add(graph, "encoder", parts.vae)
    join(graph, ("picture.image", "frames.image"), ("frames.video", "encoder.video"))
    for name in ("image", *sides):
        graph.expose_input("picture", name)
    for backbone in parts.backbones:
        node = backbone.replace("backbone", "first_frame")
        add(graph, node, "diffusers/first_frame", {"patch": patch})
        for port in ("latent", "timestep"):
            for source in [_start(edge) for edge in graph.edges if (edge.target_node, edge.target_port) == (backbone, port)]:
                graph.remove_edge(source, f"{backbone}.{port}")
                join(graph, (source, f"{node}.{port}"))
            join(graph, (f"{node}.{port}", f"{backbone}.{port}"))
        join(graph, ("encoder.latent", f"{node}.known"))
    add(graph, "last_frames", "diffusers/first_frame", {"patch": patch})
    graph.remove_edge("solver.next_latent", "codec.latent")
    join(
        graph, ("encoder.latent", "last_frames.known"), ("solver.next_latent", "last_frames.latent"), ("last_frames.latent", "codec.latent")
    )


def _start(edge: Edge) -> str:
    return f"{edge.source_node}.{edge.source_port}"


def _two_stages(parts: Parts, boundary: float) -> None:
    """Another backbone below a boundary, with what the first is fed."""
    graph = parts.graph
    second = parts.source.model("transformer_2", "backbone/wan_transformer")
    for prefix in ("",) if parts.batched else ("negative_", ""):
        one, two, stage, either = (f"{prefix}{name}" for name in ("backbone", "backbone_2", "stage", "pred"))
        add(graph, stage, "diffusers/noise_stage", {"boundary": boundary})
        add(graph, two, second)
        add(graph, either, "diffusers/either")
        for edge in [edge for edge in graph.edges if one in (edge.source_node, edge.target_node)]:
            source, target = _start(edge), f"{edge.target_node}.{edge.target_port}"
            if edge.source_node == one:
                graph.remove_edge(source, target)
                join(graph, (f"{either}.pred", target))
            elif edge.target_port == "latent":
                graph.remove_edge(source, target)
                join(graph, (source, f"{stage}.latent"))
            else:
                join(graph, (source, f"{two}.{edge.target_port}"))
                if edge.target_port == "timestep":
                    join(graph, (source, f"{stage}.timestep"))
        join(graph, ("conditions.scale", f"{stage}.scale"), (f"{stage}.high", f"{one}.latent"), (f"{stage}.low", f"{two}.latent"))
        join(graph, (f"{one}.pred", f"{either}.pred"), (f"{two}.pred", f"{either}.pred"))
        graph.expose_input(stage, "guidance_scale_2")
    graph.remove_edge("conditions.scale", "guidance.scale")
    join(graph, ("stage.scale", "guidance.scale"))


_SETTINGS = ("boundary_ratio", "expand_timesteps")


def _arguments(graph: Graph) -> dict[str, Any]:
    """How the pipeline works, and what pictures are seen through, where they are."""
    found = dict(graph.metadata.get("wan", {}))
    if "image_encoder" in graph.nodes:
        block: Any = graph.nodes["image_encoder"]
        found["image_processor"] = block.processor
    return found


_LETTERS = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"), ("k_img", "add_k_proj"), ("v_img", "add_v_proj"))


def _names() -> dict[str, tuple[str, ...]]:
    """Layers of the transformer by their names in its first code (``blocks.0.self_attn.q``)."""
    found: dict[str, tuple[str, ...]] = {}
    for there, here in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        for letter, layer in _LETTERS:
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
    "Wan 2.1 and 2.2",
    {"WanPipeline": ("text_to_video", "image_to_video"), "WanImageToVideoPipeline": ("image_to_video", "text_to_video")},
    {"text_to_video": Defaults(5.0), "image_to_video": Defaults(5.0)},
    WanTransformer,
    (AutoencoderKLWan,),
    _prompts,
    {
        "transformer_2": Part("backbone_2", ("WanTransformer3DModel",), optional=True),
        **text_part("", "UMT5EncoderModel", "T5EncoderModel"),
        "image_encoder": Part("image_encoder", ("CLIPVisionModel",), optional=True),
    },
    settings={"is_flow": True},
    size=_SIZE,
    shifts=False,
    check=_check,
    prepare=_prepare,
    finish=_finish,
    adapters=AdapterNames("transformer", ("transformer",), first=_names(), loader="WanLoraLoaderMixin"),
    arguments=_arguments,
    ignored=("image_processor",),
)
