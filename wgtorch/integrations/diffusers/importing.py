"""Pipelines of diffusers as graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.pool import Pool, building
from wgtorch.graph import Graph, GraphReaders
from wgtorch.integrations.diffusers.flux import FLUX, flux
from wgtorch.integrations.diffusers.source import Source, open_pipeline
from wgtorch.integrations.diffusers.stable_diffusion import STABLE_DIFFUSION, stable_diffusion
from wgtorch.integrations.diffusers.stable_diffusion_3 import STABLE_DIFFUSION_3, stable_diffusion_3
from wgtorch.integrations.diffusers.stable_diffusion_xl import STABLE_DIFFUSION_XL, stable_diffusion_xl
from wgtorch.integrations.diffusers.wan import WAN, wan

FAMILIES = "Stable Diffusion 1, 2, XL and 3, FLUX.1, Wan 2.1"
TASKS = ("text_to_image", "image_to_image", "inpaint", "text_to_video", "image_to_video")


def from_diffusers(source: Any, *, task: str = "text_to_image", batched: bool = True, pool: Pool | None = None) -> Graph:
    """A graph of the parts of a diffusers pipeline, every one a node that can be replaced.

    Inputs are named as in the call of the diffusers pipeline - ``prompt``, ``negative_prompt``, ``guidance_scale``,
    ``num_inference_steps``, ``latents``, ``height``, ``width``, ``image``, ``strength``, ``mask_image``, ``num_frames``, ... - and
    have its defaults, so only the prompt and the images are needed. The output is ``image``, float [B, 3, H, W] in [0, 1], or
    ``video`` [B, T, 3, H, W], equal to the pipeline's for the same starting noise: ``latents``, standard normal [B, C, h, w] (or
    packed, as Flux's pipeline has them; of a video [B, C, T, h, w]), else drawn in the same order from the same generator. (Where a
    loop starts near an image, ``latents`` are the noise that is added to it; diffusers then forgets the image.)

    ================  ================================================  ======================================================
    family            tasks                                             not supported
    ================  ================================================  ======================================================
    Stable Diffusion  ``text_to_image``, ``image_to_image``,            a UNet that holds an IP-Adapter
    1, 2, XL          ``inpaint``
    SD 3              the same                                          image adapters
    FLUX.1            the same; Fill ``inpaint``                        Depth, Canny, Kontext
    Wan 2.1           ``text_to_video``, ``image_to_video``             2.2 of two stages, or with a timestep for each patch
    ================  ================================================  ======================================================

    What the call of a pipeline may have instead of a prompt is given under its path, and the prompt left out:

    ================  ==============================  ==============================
    family            ``prompt_embeds``               ``pooled_prompt_embeds``
    ================  ==============================  ==============================
    1, 2, Wan         ``text_encoder.embedding``
    XL                ``text_encoders.embedding``     ``text_encoder_2.pooled``
    SD 3              ``text_encoders.embedding``     ``text_encoders.pooled``
    FLUX.1            ``text_encoder_2.embedding``    ``text_encoder.pooled``
    ================  ==============================  ==============================

    The negative ones begin with ``negative_``; XL and FLUX.1 want ``negative_prompt=""`` beside them, since there none means another
    guidance. Adapters on pictures are nodes (``adapter/ip``, ``adapter/controlnet``), SD 3's guidance that skips layers is one more place
    of the backbone (``guidance/pag``), and ``eta`` is a setting of ``solver/ddim``. Without a counterpart is ``padding_mask_crop``.

    Latents in place of pictures are given likewise, under ``encoder.latent`` and ``masked_encoder.latent``. So one model of XL goes on
    where another leaves off, as its refiner does:

        >>> latent = base.run({**call, "denoising_end": 0.8}, outputs=["solver.next_latent"])["solver.next_latent"]
        >>> refiner.run({**call, "denoising_start": 0.8, "encoder.latent": latent})["image"]

    (Latents are alpha x0 + sigma eps whatever the solver; those of diffusers' Euler and Heun are that divided by alpha. With Heun the
    second walk starts at the step where the first has left off; diffusers' starts one before.)

    The solver is one of ours where we have that of the folder's scheduler, else the scheduler itself in ``solver/diffusers``.
    A safety checker is left out. Pictures of another size than is worked at are resized to the nearest pixels. Inpainting with
    SD 3 decodes without the autoencoder's shift, as the pipeline does: that is the node ``without_shift``.

    Example:
        >>> graph = Graph.from_diffusers("models/stable-diffusion-v1-5")
        >>> graph.run({"prompt": "a lighthouse in a storm", "num_inference_steps": 20}, seed=7)["image"]
        >>> graph.replace_node("solver", "solver/dpmpp_2m")

    Args:
        source: a local folder that ``save_pretrained`` wrote, or a pipeline object, whose modules are shared and not copied.
        task: one of the family's, whichever the pipeline's class is for.
        batched: classifier-free guidance runs as one batch of twice the size; False makes two calls of half the memory.
        pool: where models are looked for, so that graphs built apart share them.

    Raises:
        CheckpointError: the folder holds no pipeline, or files that cannot be read.
        ConfigError: the family or the task is not supported, or the model is not for that task.
    """
    if task not in TASKS:
        raise ConfigError(f"from_diffusers: unknown task {task!r}; {suggest(task, TASKS)}")
    opened = open_pipeline(source)
    build = _family(opened, task)
    with building(pool):
        return build(opened, task, batched)


def _family(source: Source, task: str) -> Any:
    classes = source.classes
    others = set(classes) - _BESIDE
    for models, build, tasks in _FAMILIES:
        if others in (set(models), {*models, _SEEING}) and all(classes[name] == kind for name, kind in models.items() if kind):
            if task not in tasks:
                raise ConfigError(f"from_diffusers: {task} of {source.pipeline_class} is not supported; supported: {', '.join(tasks)}")
            return build
    raise ConfigError(
        f"from_diffusers: {source.name!r} is a {source.pipeline_class} of {', '.join(f'{k} ({v})' for k, v in sorted(classes.items()))}; "
        f"supported: {FAMILIES}"
    )


_BESIDE = {"safety_checker", "feature_extractor"}
"""What graphs leave out."""
_SEEING = "image_encoder"
"""What IP-Adapters see through: left out as well, where a family has no use for it."""
_SD = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "scheduler": "",
}
_SDXL = {**_SD, "text_encoder_2": "CLIPTextModelWithProjection", "tokenizer_2": "CLIPTokenizer"}
_REFINER = {name: kind for name, kind in _SDXL.items() if name not in ("text_encoder", "tokenizer")}
_SD3 = {
    "transformer": "SD3Transformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModelWithProjection",
    "tokenizer": "CLIPTokenizer",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "tokenizer_2": "CLIPTokenizer",
    "scheduler": "",
}
_SD3_T5 = {**_SD3, "text_encoder_3": "T5EncoderModel", "tokenizer_3": ""}
_FLUX = {
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "text_encoder_2": "T5EncoderModel",
    "tokenizer_2": "",
    "scheduler": "",
}
_WAN = {
    "transformer": "WanTransformer3DModel",
    "vae": "AutoencoderKLWan",
    "text_encoder": "UMT5EncoderModel",
    "tokenizer": "",
    "scheduler": "",
}
_WAN_CLIP = {**_WAN, "image_encoder": "CLIPVisionModel", "image_processor": ""}
_FAMILIES: tuple[tuple[dict[str, str], Callable[..., Graph], tuple[str, ...]], ...] = (
    (_SD, stable_diffusion, tuple(STABLE_DIFFUSION)),
    (_SDXL, stable_diffusion_xl, tuple(STABLE_DIFFUSION_XL)),
    (_REFINER, stable_diffusion_xl, tuple(STABLE_DIFFUSION_XL)),
    (_SD3, stable_diffusion_3, tuple(STABLE_DIFFUSION_3)),
    (_SD3_T5, stable_diffusion_3, tuple(STABLE_DIFFUSION_3)),
    (_FLUX, flux, tuple(FLUX)),
    (_WAN_CLIP, wan, tuple(WAN)),
    (_WAN, wan, tuple(WAN)),
)

GraphReaders.register("diffusers", from_diffusers)
