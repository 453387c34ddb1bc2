"""Graphs of FLUX.2."""

from __future__ import annotations

from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, add, begin, finished, join
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.stable_diffusion import expose_distilled
from wgtorch.integrations.diffusers.sampling import sampling
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions, is_told, pipeline_prompts
from wgtorch.lora.formats.names import AdapterNames

_SIDE = 1024  # in pixels, where a call says nothing
KLEIN = "Flux2KleinPipeline"


def flux2(source: Source, task: str, batched: bool) -> Graph:
    """FLUX.2 as a graph: ``dev`` takes the scale of guidance as an input; ``klein`` is guided away from the empty prompt, if at all."""
    _, config = source.scheduler()
    is_klein, is_distilled = source.pipeline_class == KLEIN, bool(source.settings.get("is_distilled"))
    defaults = Defaults(1.0 if is_distilled else 4.0) if is_klein else Defaults(1.0, distilled_scale=4.0)
    parts = begin(source, task, batched, defaults, is_flow=True, is_even=True)
    parts.backbone = source.model("transformer", "backbone/flux2_transformer")
    parts.vae = source.model("vae", "codec/autoencoder_kl_flux2")
    parts.sides = (_SIDE, _SIDE)
    graph = parts.graph
    if is_distilled:
        graph.metadata["flux2"] = {"is_distilled": True}
    if told := is_told(parts, ""):
        pipeline_prompts(parts, source.pipeline_class, "text_encoder_out_layers")
        graph.hide_input("negative_prompt")
    conditions(parts, "text_encoder.embedding" if told else None)
    graph.expose_input("conditions", "num_images_per_prompt")
    sampling(parts)
    if not is_klein or is_distilled:
        for shown in {"guidance_scale", "negative_prompt_embeds"} & set(graph.get_input_spec()):
            graph.hide_input(shown)
    expose_distilled(parts)
    if config.get("use_dynamic_shifting"):
        into = "settings" if "settings" in graph.nodes else "schedule"
        add(graph, "shift", "diffusers/flux2_shift", {"num_steps": defaults.steps})
        graph.remove_edge("tokens.tokens", f"{into}.tokens")
        join(graph, ("tokens.tokens", "shift.tokens"), ("shift.mu", f"{into}.mu"))
        graph.expose_input("shift", "num_steps", "num_inference_steps")
    return finished(parts)


FLUX2 = Family(
    "FLUX.2",
    {"Flux2Pipeline": ("text_to_image",), KLEIN: ("text_to_image",)},
    flux2,
    {
        "transformer": Part("backbone", ("Flux2Transformer2DModel",)),
        "vae": Part("codec", ("AutoencoderKLFlux2",)),
        "text_encoder": Part("text_encoder", ("Mistral3ForConditionalGeneration", "Qwen3ForCausalLM"), optional=True),
        "tokenizer": Part("text_encoder", is_tokenizer=True, optional=True),
    },
    {
        "Flux2Transformer2DModel": AdapterNames(
            "transformer", ("transformer",), first_in_kohya=lambda model: False, loader="Flux2LoraLoaderMixin"
        )
    },
    settings=lambda graph: dict(graph.metadata.get("flux2", {})),
    is_even=True,
)
