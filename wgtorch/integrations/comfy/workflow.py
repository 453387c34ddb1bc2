"""Workflows of ComfyUI in their API form: read, and looked at whole before anything is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.json_text import loads
from wgtorch.integrations.comfy.blocks import CHANNELS, CROPS, METHODS, SIDES
from wgtorch.integrations.comfy.samplers import REFUSED, SAMPLERS
from wgtorch.integrations.comfy.schedule import SCHEDULERS

NUMBER, TEXT, FLAG = "a number", "a text", "enable or disable"
_KINDS: dict[str, Any] = {NUMBER: (int, float), TEXT: str, FLAG: str}


@dataclass(frozen=True)
class Spec:
    """A class of nodes: its inputs - by name the kind of a link (upper case), of a value, or the values it may have - and outputs."""

    inputs: Mapping[str, Any]
    outputs: tuple[str, ...] = ()
    optional: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


_MODELS = {"model": "MODEL", "clip": "CLIP"}
_GUIDED = {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "cfg": NUMBER}
_SCHEDULE = {"scheduler": tuple(SCHEDULERS), "steps": NUMBER}
_SAMPLING: dict[str, Any] = {**_GUIDED, **_SCHEDULE, "latent_image": "LATENT", "sampler_name": tuple(SAMPLERS)}
_STRENGTHS = {"strength_model": NUMBER, "strength_clip": NUMBER}
_SIZES = dict.fromkeys(("width", "height", "crop_w", "crop_h", "target_width", "target_height"), NUMBER)
_LATENT_METHODS = tuple(method for method in METHODS if method != "lanczos")
SPECS: dict[str, Spec] = {
    "CheckpointLoaderSimple": Spec({"ckpt_name": TEXT}, ("MODEL", "CLIP", "VAE")),
    "VAELoader": Spec({"vae_name": TEXT}, ("VAE",)),
    "LoraLoader": Spec({**_MODELS, "lora_name": TEXT, **_STRENGTHS}, ("MODEL", "CLIP")),
    "LoraLoaderModelOnly": Spec({"model": "MODEL", "lora_name": TEXT, "strength_model": NUMBER}, ("MODEL",)),
    "CLIPSetLastLayer": Spec({"clip": "CLIP", "stop_at_clip_layer": NUMBER}, ("CLIP",)),
    "CLIPTextEncode": Spec({"clip": "CLIP", "text": TEXT}, ("CONDITIONING",)),
    "CLIPTextEncodeSDXL": Spec({"clip": "CLIP", **_SIZES, "text_g": TEXT, "text_l": TEXT}, ("CONDITIONING",)),
    "ControlNetLoader": Spec({"control_net_name": TEXT}, ("CONTROL_NET",)),
    "ControlNetApply": Spec(
        {"conditioning": "CONDITIONING", "control_net": "CONTROL_NET", "image": "IMAGE", "strength": NUMBER}, ("CONDITIONING",)
    ),
    "ControlNetApplyAdvanced": Spec(
        {"positive": "CONDITIONING", "negative": "CONDITIONING", "control_net": "CONTROL_NET", "image": "IMAGE", "strength": NUMBER},
        ("CONDITIONING", "CONDITIONING"),
        {"start_percent": (0, 0.0), "end_percent": (1, 1.0), "vae": "VAE"},
    ),
    "KSampler": Spec({**_SAMPLING, "seed": NUMBER, "denoise": NUMBER}, ("LATENT",), ignored=("control_after_generate",)),
    "KSamplerAdvanced": Spec(
        {
            **_SAMPLING, "add_noise": FLAG, "noise_seed": NUMBER, "start_at_step": NUMBER, "end_at_step": NUMBER,
            "return_with_leftover_noise": FLAG,
        },
        ("LATENT",),
        ignored=("control_after_generate",),
    ),
    "SamplerCustomAdvanced": Spec(
        {"noise": "NOISE", "guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS", "latent_image": "LATENT"}, ("LATENT",)
    ),
    "CFGGuider": Spec(_GUIDED, ("GUIDER",)),
    "BasicGuider": Spec({"model": "MODEL", "conditioning": "CONDITIONING"}, ("GUIDER",)),
    "BasicScheduler": Spec({"model": "MODEL", **_SCHEDULE, "denoise": NUMBER}, ("SIGMAS",)),
    "KSamplerSelect": Spec({"sampler_name": tuple(SAMPLERS)}, ("SAMPLER",)),
    "RandomNoise": Spec({"noise_seed": NUMBER}, ("NOISE",), ignored=("control_after_generate",)),
    "EmptyLatentImage": Spec({"width": NUMBER, "height": NUMBER, "batch_size": NUMBER}, ("LATENT",)),
    "VAEDecode": Spec({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "VAEEncode": Spec({"pixels": "IMAGE", "vae": "VAE"}, ("LATENT",)),
    "VAEEncodeForInpaint": Spec({"pixels": "IMAGE", "vae": "VAE", "mask": "MASK"}, ("LATENT",), {"grow_mask_by": NUMBER}),
    "SetLatentNoiseMask": Spec({"samples": "LATENT", "mask": "MASK"}, ("LATENT",)),
    "LatentUpscale": Spec(
        {"samples": "LATENT", "upscale_method": _LATENT_METHODS, "width": NUMBER, "height": NUMBER, "crop": CROPS}, ("LATENT",)
    ),
    "LatentUpscaleBy": Spec({"samples": "LATENT", "upscale_method": _LATENT_METHODS, "scale_by": NUMBER}, ("LATENT",)),
    "ImageScale": Spec({"image": "IMAGE", "upscale_method": METHODS, "width": NUMBER, "height": NUMBER, "crop": CROPS}, ("IMAGE",)),
    "ImageScaleBy": Spec({"image": "IMAGE", "upscale_method": METHODS, "scale_by": NUMBER}, ("IMAGE",)),
    "LoadImage": Spec({"image": TEXT}, ("IMAGE", "MASK"), ignored=("upload", "choose file to upload")),
    "LoadImageMask": Spec({"image": TEXT, "channel": CHANNELS}, ("MASK",), ignored=("upload", "choose file to upload")),
    "ImagePadForOutpaint": Spec({"image": "IMAGE", **dict.fromkeys((*SIDES, "feathering"), NUMBER)}, ("IMAGE", "MASK")),
    "SaveImage": Spec({"images": "IMAGE"}, (), {"filename_prefix": TEXT}),
    "PreviewImage": Spec({"images": "IMAGE"}),
}  # fmt: skip
"""The classes that become graphs."""
ENDS = ("SaveImage", "PreviewImage")
_WHY: dict[tuple[str, ...], str] = {
    (
        "SamplerCustom", "KarrasScheduler", "ExponentialScheduler", "PolyexponentialScheduler", "SDTurboScheduler", "SplitSigmas",
        "FlipSigmas", "DisableNoise", "DualCFGGuider",
    ): ": of samplers in parts SamplerCustomAdvanced with RandomNoise, CFGGuider or BasicGuider, KSamplerSelect and BasicScheduler is read",
    (
        "UNETLoader", "DualCLIPLoader", "TripleCLIPLoader", "CLIPLoader", "FluxGuidance", "EmptySD3LatentImage", "CLIPTextEncodeFlux",
        "CLIPTextEncodeSD3", "ModelSamplingFlux", "ModelSamplingSD3",
    ): ": workflows of Stable Diffusion 1, 2 and XL are read; of SD 3 and FLUX make the graph with Graph.from_diffusers",
    ("VAEDecodeTiled", "VAEEncodeTiled"): ": use VAEDecode and VAEEncode, which take the whole picture at once",
    (
        "InpaintModelConditioning",
    ): ": models that see the mask are not read from workflows; use VAEEncodeForInpaint, or Graph.from_diffusers(task='inpaint')",
    (
        "UpscaleModelLoader", "ImageUpscaleWithModel",
    ): ": models that enlarge pictures are not read; ImageScale and ImageScaleBy are",
}  # fmt: skip
"""Classes that people ask for, and what to do instead."""


@dataclass(frozen=True)
class Step:
    """A node of a workflow.

    Args:
        id: of the node.
        kind: its class.
        inputs: values, and links as (id of the node, number of its output).
    """

    id: str
    kind: str
    inputs: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.id!r}"


def read_workflow(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Step]:
    """The nodes of a workflow that lead to its pictures, by their ids.

    Args:
        source: a file in API form ("Export (API)" in ComfyUI), a PNG that ComfyUI saved, or what is in it.

    Raises:
        ConfigError: it is no workflow in API form, or holds what no graph does; all of it is named.
    """
    name, nodes = _nodes(source)
    wrong: list[str] = []
    steps: dict[str, Step] = {}
    for node_id, node in nodes.items():
        if isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), Mapping):
            given = {key: _link(value) for key, value in node["inputs"].items()}
            steps[str(node_id)] = Step(str(node_id), node["class_type"], given)
        else:
            wrong.append(f"node {node_id!r} has no class_type and inputs")
    wanted = _wanted(steps)
    if not wanted and not wrong:
        wrong.append(f"no node shows a picture; expected one of {', '.join(ENDS)}")
    for step in wanted.values():
        wrong += [f"{step}: {what}" for what in _faults(step, steps)]
    if wrong:
        lines = "\n".join(f"  - {one}" for one in wrong)
        known = f"\nKnown are {', '.join(SPECS)}." if any(step.kind not in SPECS for step in wanted.values()) else ""
        raise ConfigError(f"from_comfy: {name} cannot become a graph:\n{lines}{known}")
    return wanted


def _nodes(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(source, Mapping):
        name, found = "the workflow", source
    else:
        name = str(source)
        try:
            found = loads(_text_of(Path(source).expanduser()))
        except (OSError, ValueError) as error:
            raise ConfigError(f"from_comfy: {name} cannot be read: {error}") from error
    if isinstance(found, Mapping) and isinstance(found.get("prompt"), Mapping):
        found = found["prompt"]  # as it is sent to the server
    if isinstance(found, Mapping) and isinstance(found.get("nodes"), list):
        raise ConfigError(f"from_comfy: {name} is a workflow as the editor saves it; expected its API form: Workflow > Export (API)")
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"from_comfy: {name} holds a {type(found).__name__}; expected nodes by their ids")
    return name, found


def _text_of(path: Path) -> str:
    """A file's text; of a picture that ComfyUI saved, the workflow that it carries."""
    if path.suffix.lower() != ".png":
        return path.read_text(encoding="utf-8")
    from PIL import Image

    with Image.open(path) as picture:
        text = picture.info.get("prompt")
    if not isinstance(text, str):
        raise ValueError("the picture carries no workflow in API form")
    return text


def _link(value: Any) -> Any:
    is_link = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
    return tuple(value) if is_link else value


def _wanted(steps: Mapping[str, Step]) -> dict[str, Step]:
    """What leads to a picture, in the order of the file; ComfyUI runs nothing else."""
    found: set[str] = set()
    waiting = [step.id for step in steps.values() if step.kind in ENDS]
    while waiting:
        node_id = waiting.pop()
        if node_id in steps and node_id not in found:
            found.add(node_id)
            waiting += [value[0] for value in steps[node_id].inputs.values() if isinstance(value, tuple)]
    return {node_id: step for node_id, step in steps.items() if node_id in found}


def _faults(step: Step, steps: Mapping[str, Step]) -> list[str]:
    """What is wrong with one node."""
    if step.kind not in SPECS:
        why = next((words for kinds, words in _WHY.items() if step.kind in kinds), "")
        return [f"not supported{why}"]
    spec = SPECS[step.kind]
    known = {**spec.inputs, **spec.optional}
    wrong = [f"{name} is missing" for name in spec.inputs if name not in step.inputs]
    for name, value in step.inputs.items():
        if name in spec.ignored:
            continue
        if name not in known:
            wrong.append(f"{name} is no input of it; {suggest(name, known)}")
        elif fault := _fault(known[name], value, steps):
            why = f" ({value}: {REFUSED[value]})" if name == "sampler_name" and value in REFUSED else ""
            wrong.append(f"{name}: {fault}{why}")
        elif name == "cfg" and value < 1:
            wrong.append(f"cfg: found {value:g}, expected at least 1, which is no guidance")
    if _returns_to(step, steps):
        wrong.append("it feeds itself")
    return wrong


def _fault(kind: Any, value: Any, steps: Mapping[str, Step]) -> str:
    """What is wrong with one input; empty where nothing is."""
    is_link = isinstance(value, tuple)
    if isinstance(kind, str) and kind.isupper():
        if not is_link:
            return f"found {value!r}, expected a link to a {kind}"
        other = steps.get(value[0])
        if other is None:
            return f"leads to a node {value[0]!r} that is not there"
        outputs = SPECS[other.kind].outputs if other.kind in SPECS else None  # of an unknown one something is said there
        if outputs is not None and (not 0 <= value[1] < len(outputs) or outputs[value[1]] != kind):
            return f"leads to output {value[1]} of {other}, which is no {kind}"
        return ""
    if is_link:
        return f"is a link to node {value[0]!r}; expected a value, so write it there"
    if isinstance(kind, tuple):
        return "" if value in kind else f"found {value!r}, supported: {', '.join(map(str, dict.fromkeys(kind)))}"
    fits = isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
    if kind == FLAG:
        fits = value in ("enable", "disable")
    return "" if fits else f"found {value!r}, expected {kind}"


def _returns_to(step: Step, steps: Mapping[str, Step]) -> bool:
    seen: set[str] = set()
    waiting = [value[0] for value in step.inputs.values() if isinstance(value, tuple)]
    while waiting:
        node_id = waiting.pop()
        if node_id == step.id:
            return True
        if node_id in steps and node_id not in seen:
            seen.add(node_id)
            waiting += [value[0] for value in steps[node_id].inputs.values() if isinstance(value, tuple)]
    return False
