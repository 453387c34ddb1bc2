"""Pipelines of diffusers as graphs."""

from __future__ import annotations

from typing import Any

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.pool import Pool, building
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.source import Source, open_pipeline
from wgtorch.integrations.diffusers.stable_diffusion import TASKS, stable_diffusion

FAMILIES = "Stable Diffusion 1 and 2"


def from_diffusers(source: Any, *, task: str = "text_to_image", batched: bool = True, pool: Pool | None = None) -> Graph:
    """A graph of the parts of a diffusers pipeline, every one a node that can be replaced.

    Inputs are named as in the call of the diffusers pipeline - ``prompt``, ``negative_prompt``, ``guidance_scale``,
    ``num_inference_steps``, ``latents``, ``height``, ``width``, ``image``, ``strength``, ``mask_image``, ... - and have its
    defaults. The output ``image`` is float [B, 3, H, W] in [0, 1], equal to the pipeline's for the same starting noise
    (``latents``: standard normal, [B, C, h, w]); under one ``torch.manual_seed`` both draw the same.

    The solver is one of ours where we have that of the folder's scheduler, else the scheduler itself in ``solver/diffusers``.
    A safety checker is left out.

    Example:
        >>> graph = Graph.from_diffusers("models/stable-diffusion-v1-5")
        >>> graph.run({"prompt": "a lighthouse in a storm", "num_inference_steps": 20}, seed=7)["image"]
        >>> graph.replace_node("solver", "solver/dpmpp_2m")

    Args:
        source: a local folder that ``save_pretrained`` wrote, or a pipeline object, whose modules are shared and not copied.
        task: ``text_to_image``, ``image_to_image`` or ``inpaint``; whichever task the pipeline's class is for.
        batched: classifier-free guidance runs as one batch of twice the size; False makes two calls of half the memory.
        pool: where models are looked for, so that graphs built apart share them.

    Raises:
        CheckpointError: the folder holds no pipeline, or files that cannot be read.
        ConfigError: the family or the task is not supported, or the model is not for that task.
    """
    if task not in TASKS:
        raise ConfigError(f"from_diffusers: unknown task {task!r}; {suggest(task, TASKS)}")
    opened = open_pipeline(source)
    build = _family(opened)
    with building(pool):
        return build(opened, task, batched)


def _family(source: Source) -> Any:
    classes = source.classes
    if (classes.get("unet"), classes.get("vae"), classes.get("text_encoder")) == ("UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel"):
        if not {"text_encoder_2", "controlnet", "motion_adapter", "image_encoder"} & set(classes):
            return stable_diffusion
    raise ConfigError(
        f"from_diffusers: {source.name!r} is a {source.pipeline_class} of {', '.join(f'{k} ({v})' for k, v in sorted(classes.items()))}; "
        f"supported: {FAMILIES}"
    )
