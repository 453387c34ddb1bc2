"""Pipelines of diffusers as graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.pool import Pool, building
from wgtorch.core.run.run_values import InputHints
from wgtorch.graph import Graph, GraphReaders
from wgtorch.integrations.diffusers.absent_inputs import hint_at
from wgtorch.integrations.diffusers.families import FAMILIES
from wgtorch.integrations.diffusers.families.family import Family, names
from wgtorch.integrations.diffusers.families.refused import instead_of
from wgtorch.integrations.diffusers.source import Source, open_pipeline

TASKS = ("text_to_image", "image_to_image", "inpaint", "text_to_video", "image_to_video")


def from_diffusers(
    source: Any,
    *,
    task: str = "text_to_image",
    batched: bool = True,
    pool: Pool | None = None,
    dtype: torch.dtype | str | None = None,
    config: str | os.PathLike[str] | None = None,
    components: Mapping[str, Any] | None = None,
) -> Graph:
    """A graph of the parts of a diffusers pipeline, every one a node that can be replaced.

    Inputs are named as in the call of the diffusers pipeline - ``prompt``, ``negative_prompt``, ``guidance_scale``,
    ``num_inference_steps``, ``latents``, ``height``, ``width``, ``image``, ``strength``, ``mask_image``, ``num_frames``, ... - and
    have its defaults, so only the prompt and the images are needed. The output is ``image``, float [B, 3, H, W] in [0, 1], or
    ``video`` [B, T, 3, H, W], equal to the pipeline's for the same starting noise: ``latents``, standard normal [B, C, h, w] (or
    packed, as Flux's pipeline has them; of a video [B, C, T, h, w]), else drawn in the same order from the same generator. Beside an
    image ``latents`` are what the loop starts from, and in inpainting its noise, without the image, as the pipelines take them.

    ================  ================================================  ======================================================
    family            tasks                                             not supported
    ================  ================================================  ======================================================
    Stable Diffusion  ``text_to_image``, ``image_to_image``,            a UNet that holds an IP-Adapter
    1, 2, XL          ``inpaint``
    InstructPix2Pix   ``image_to_image``                                XL
    SD 3              the same                                          image adapters
    FLUX.1            the same; Fill ``inpaint``                        Depth, Canny, Kontext
    Wan 2.1, 2.2      ``text_to_video``, ``image_to_video``             Animate, VACE, video to video
    Qwen-Image        ``text_to_image``                                 edit, pictures
    Z-Image           ``text_to_image``                                 pictures
    Sana, PixArt      ``text_to_image``                                 sizes between those of training, PixArt-alpha for 1024 pixels
    LTX-Video         ``text_to_video``                                 pictures
    CogVideoX 1       ``text_to_video``                                 pictures, 1.5, ``CogVideoXDPMScheduler``
    HunyuanVideo      ``text_to_video``                                 pictures, 1.5, FramePack
    FLUX.2, klein     ``text_to_image``, ``image_to_image``             prompts that are written anew
    FLUX.1, SD 3      ``text_to_image``                                 several ControlNets at once, that of SD 3.5 8B
    with a ControlNet
    Lumina-Image 2    ``text_to_image``
    AnimateDiff       ``text_to_video``                                 XL, FreeInit, FreeNoise, image adapters
    Stable Video      ``image_to_video``
    Diffusion
    Chroma            ``text_to_image``, ``image_to_image``             inpainting, image adapters
    ================  ================================================  ======================================================

    What the call of a pipeline may have instead of a prompt - ``prompt_embeds``, ``negative_prompt_embeds``, ``pooled_prompt_embeds``,
    ``negative_pooled_prompt_embeds`` - is given under that name, and the prompt left out. A ``generator``, or a list with one for each
    picture, is drawn from in the pipeline's order, in place of PyTorch's global one. A pipeline without text encoders wants them.
    Adapters on pictures are nodes (``adapter/ip``, ``adapter/controlnet``; see ``add_adapter``), ``output_type`` is that of the
    pipelines, but ``pt`` by default, and SD 3's guidance that skips layers is one more place of the backbone (``guidance/pag``). What a
    graph has no input for - ``cross_attention_kwargs``, ``callback_on_step_end``, ``padding_mask_crop``, ... - is an error that says what
    does the same here.

    Latents may stand in place of a picture to change. So one model of XL goes on where another leaves off, as its refiner does:

        >>> latent = base.run({**call, "denoising_end": 0.8, "output_type": "latent"})["image"]
        >>> refiner.run({**call, "denoising_start": 0.8, "image": latent})["image"]

    (With Heun the second walk starts at the step where the first has left off; diffusers' starts one before. Stable Diffusion 1 and 2 of
    diffusers read ``height`` only beside ``width``; here each is read alone.)

    The solver is one of ours where we have that of the folder's scheduler, else the scheduler itself in ``solver/diffusers``.
    A safety checker is left out. Tensors of another size than is worked at are resized to the nearest pixels, pictures of Pillow by
    Lanczos' window. Inpainting with SD 3 decodes without the autoencoder's shift, as the pipeline does: the node ``without_shift``.

    Example:
        >>> graph = Graph.from_diffusers("models/stable-diffusion-v1-5")
        >>> graph.run({"prompt": "a lighthouse in a storm", "num_inference_steps": 20}, seed=7)["image"]
        >>> graph.set_solver("solver/dpmpp_2m")

    Args:
        source: a local folder that ``save_pretrained`` wrote, or a pipeline object, whose modules are shared and not copied; or one
            ``.safetensors`` file of all models (a transformer alone goes to ``components``), as diffusers' converters read it; or
            ``hf://owner/name`` (``@revision``, ``/file.safetensors``), from huggingface_hub's own cache.
        task: one of the family's, whichever the pipeline's class is for.
        batched: classifier-free guidance runs as one batch of twice the size; False makes two calls of half the memory.
        pool: where models are looked for, so that graphs built apart share them.
        dtype: of the weights, such as ``torch.bfloat16``; that of a pipeline object is its own, and is not changed.
        config: for a single file the folder of a pipeline of the same kind, whose configs, tokenizers and class count; without one
            diffusers looks for them in the local cache of the hub.
        components: models in place of those of a folder, by their names there: a module, such as a quantised one, or the path of a
            ``.safetensors`` file, or of a ``.gguf`` file, whose weights stay quantised (``{"transformer": "flux1-dev-Q4_0.gguf"}``). With
            quantised weights such a graph runs, and is not saved.

    Raises:
        CheckpointError: the folder holds no pipeline, or files that cannot be read; a file lacks a weight, or has one without a place.
        ConfigError: the family or the task is not supported, or the model is not for that task.
    """
    if task not in TASKS:
        raise ConfigError(f"from_diffusers: unknown task {task!r}; {suggest(task, TASKS)}")
    opened = open_pipeline(source, dtype=dtype_name(dtype), config=config, components=components)
    family = family_of(opened, task)
    with building(pool):
        return family.build(opened, task, batched)


def dtype_name(dtype: torch.dtype | str | None) -> str | None:
    """The name of a dtype, as configs of blocks have it."""
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if not isinstance(getattr(torch, name, None), torch.dtype) or not getattr(torch, name).is_floating_point:
        raise ConfigError(f"from_diffusers: dtype={dtype!r}; expected a floating dtype, such as torch.bfloat16")
    return name


def family_of(source: Source, task: str) -> Family:
    """The family that a pipeline says it is of; its name decides, never the parts that happen to lie in it.

    Raises:
        ConfigError: no family takes a pipeline of that name, or not for the task; says what to use instead.
    """
    name = source.pipeline_class
    found = next((family for family in FAMILIES if name in family.pipelines), None)
    if found is None:
        plain = next((next(iter(family.pipelines)) for family in FAMILIES if _holds(source, family)), "")
        instead = instead_of(name, plain)
        raise ConfigError(
            f"from_diffusers: {source.name!r} is a {name} of {', '.join(f'{k} ({v})' for k, v in sorted(source.classes.items()))}; "
            f"supported: {names(FAMILIES)}" + (f". {name} is another algorithm: {instead}" if instead else "")
        )
    if task not in found.pipelines[name]:
        raise ConfigError(
            f"from_diffusers: {task} of {name} is not supported; supported: {', '.join(found.pipelines[name])}; "
            f"take task={found.pipelines[name][0]!r}"
        )
    found.check_parts(source)
    return found


def _holds(source: Source, family: Family) -> bool:
    """All parts of a family are among those of a pipeline."""
    needed = {name: part for name, part in family.parts.items() if not part.optional}
    return all(source.classes.get(name) in (part.classes or (source.classes.get(name),)) for name, part in needed.items()) and (
        {name for name in source.classes if name.startswith("text_encoder")} <= family.parts.keys()
    )


GraphReaders.register("diffusers", from_diffusers)
InputHints.register("from_diffusers", hint_at)
