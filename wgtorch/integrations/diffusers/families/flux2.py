"""FLUX.2: ``dev`` takes the scale of guidance as an input; ``klein`` is guided away from the empty prompt, if at all."""

from __future__ import annotations

from wgtorch.integrations.diffusers.assembly import Defaults, Parts, add, join
from wgtorch.integrations.diffusers.blocks.flux2_transformer import AutoencoderKLFlux2, Flux2Transformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, transformer_adapters
from wgtorch.integrations.diffusers.sampling import sized_by
from wgtorch.integrations.diffusers.text import asked, is_told

KLEIN = "Flux2KleinPipeline"


def _is_distilled(parts: Parts) -> bool:
    return bool(parts.source.settings.get("is_distilled"))


def _prepare(parts: Parts) -> None:
    if parts.source.pipeline_class == KLEIN:
        parts.defaults = Defaults(1.0 if _is_distilled(parts) else 4.0)
    if _is_distilled(parts):
        parts.graph.metadata["flux2"] = {"is_distilled": True}


def _prompts(parts: Parts) -> bool:
    if told := is_told(parts, ""):
        asked(parts.source.pipeline_class, "text_encoder_out_layers")(parts)
        parts.graph.hide_input("negative_prompt")
    return told


def _finish(parts: Parts) -> None:
    """Only what the pipeline's call has is asked for; the schedule is shifted by the number of steps too."""
    graph, (_, config) = parts.graph, parts.source.scheduler()
    if parts.source.pipeline_class != KLEIN or _is_distilled(parts):
        for shown in {"guidance_scale", "negative_prompt_embeds"} & set(graph.get_input_spec()):
            graph.hide_input(shown)
    if parts.task == "image_to_image":
        add(graph, "pictures", "diffusers/flux2_pictures", {"multiple": parts.vae.factor})
        add(graph, "encoder", parts.vae, map=("image",))
        sized_by(parts, "pictures", "noise", "tokens")
        graph.expose_input("pictures", "image")
        join(graph, ("pictures.images", "encoder.image"), *(("encoder.latent", f"{node}.image_condition") for node in parts.backbones))
    if config.get("use_dynamic_shifting"):
        into = "settings" if "settings" in graph.nodes else "schedule"
        add(graph, "shift", "diffusers/flux2_shift", {"num_steps": parts.defaults.steps})
        graph.remove_edge("tokens.tokens", f"{into}.tokens")
        join(graph, ("tokens.tokens", "shift.tokens"), ("shift.mu", f"{into}.mu"))
        graph.expose_input("shift", "num_steps", "num_inference_steps")


FLUX2 = Family(
    "FLUX.2",
    dict.fromkeys(("Flux2Pipeline", KLEIN), ("text_to_image", "image_to_image")),
    dict.fromkeys(("text_to_image", "image_to_image"), Defaults(1.0, distilled_scale=4.0)),
    Flux2Transformer,
    (AutoencoderKLFlux2,),
    _prompts,
    prompt_part("Mistral3ForConditionalGeneration", "Qwen3ForCausalLM", optional=True),
    settings={"is_flow": True, "latent_form": 1},
    size=1024,
    prepare=_prepare,
    starts="text_to_image",
    finish=_finish,
    adapters=transformer_adapters("Flux2LoraLoaderMixin"),
    arguments=lambda graph: dict(graph.metadata.get("flux2", {})),
    is_even=True,
)
