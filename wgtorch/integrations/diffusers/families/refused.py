"""Pipelines of diffusers that do something else with the parts of a family, and what does that here."""

from __future__ import annotations

import re

_ADAPTER = "load the family's plain pipeline, as {plain}.from_pipe(pipeline), and add the {what} to its graph: add_node({node!r})"
_REFUSED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("AnimateDiff", "of AnimateDiff the pipeline from a prompt over a Stable Diffusion 1 is here (AnimateDiffPipeline)", {}),
    ("ControlNetXS", "a ControlNet-XS is part of the UNet's own forward, which no block here has", {}),
    ("ControlNetUnion", "a union of ControlNets is told which of its conditions is meant, which adapter/controlnet cannot say", {}),
    ("PAG", "perturbed-attention guidance is a node here: make the graph of {plain}.from_pipe(pipeline), and replace_node('guidance', "
     "'guidance/pag') with one more place of the backbone; see wgtorch.blocks.diffusion.guidance.PerturbedAttention", {}),
    ("(Flux|StableDiffusion3|ZImage|QwenImage).*ControlNet", "of ControlNets of transformers FluxControlNetPipeline and "
     "StableDiffusion3ControlNetPipeline are supported", {}),
    ("ControlNet", _ADAPTER, {"what": "ControlNet", "node": "adapter/controlnet"}),
    ("^StableDiffusion(XL)?Adapter", _ADAPTER, {"what": "T2I-Adapter", "node": "adapter/t2i"}),
    ("SAG", "self-attention guidance is a node here: make the graph of {plain}.from_pipe(pipeline), and put 'guidance/sag' between the "
     "backbone and the solver", {}),
    ("AttendAndExcite", "it steers latents by the gradient of attention maps; make the graph of {plain}.from_pipe(pipeline), and put a "
     "block of your own between solver.next_latent and the backbone", {}),
    ("Panorama", "it averages predictions of overlapping views (MultiDiffusion); make the graph of {plain}.from_pipe(pipeline), and put a "
     "block that cuts and joins views around its backbone", {}),
    ("LEdits", "it inverts a picture before it edits it; graphs here do not invert", {}),
    ("LDM3D", "its autoencoder decodes a depth map beside the picture, which no codec here does", {}),
    ("LatentConsistencyModelImg2Img", "its scheduler is told the strength itself; make the graph of "
     "diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipeline), whose steps are a share of those of the whole way", {}),
    ("XLInstructPix2Pix", "it guides by two scales, of the picture and of the text, which is here for Stable Diffusion 1 alone", {}),
    ("(Latent)?Upscale", "its UNet sees a small picture and a level of noise", {}),
    ("Depth2Img", "its UNet sees a depth map", {}),
    ("DiffEdit|Pix2PixZero|CycleDiffusion", "it inverts a picture before it edits it; graphs here do not invert", {}),
    ("GLIGEN", "its UNet is told boxes through layers of its own", {}),
    ("UnCLIP|ImageVariation", "it starts from an embedding of a picture instead of a prompt", {}),
    ("Safe$|StableDiffusionPipelineSafe", "its guidance turns away from named concepts; guidance/perp_neg is the nearest here", {}),
    ("TextToVideoZero", "it warps the latents of one picture into frames", {}),
    ("FluxControl", "its transformer sees a control picture as channels (Depth, Canny)", {}),
    ("Redux", "it makes prompts of pictures; feed what it gives as prompt_embeds and pooled_prompt_embeds", {}),
    ("VACE|WanVideoToVideo|WanAnimate", "it conditions on whole videos", {}),
    ("Onnx|OnnxStable", "its models are no PyTorch modules", {}),
    ("Modular", "a modular pipeline is a program of its own; give the ordinary pipeline of its family", {}),
)  # fmt: skip


def instead_of(pipeline_class: str, plain: str) -> str:
    """Why a pipeline is refused by its name, and what to do instead; empty where nothing is known of it.

    Args:
        pipeline_class: of diffusers.
        plain: the pipeline of a supported family that its parts make too; empty where they make none.
    """
    for pattern, words, filled in _REFUSED:
        if re.search(pattern, pipeline_class):
            return words.format(plain=f"diffusers.{plain}" if plain else "the family's plain pipeline", **filled)
    return f"make the graph of diffusers.{plain}.from_pipe(pipeline), if its algorithm is what you want" if plain else ""
