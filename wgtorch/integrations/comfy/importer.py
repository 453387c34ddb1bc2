"""Workflows of ComfyUI as graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wgtorch.core.checkpoint.assign import check_whole
from wgtorch.core.errors import CheckpointError, ConfigError, require, suggest
from wgtorch.core.pool import Pool, building
from wgtorch.graph import Graph, GraphReaders
from wgtorch.integrations.comfy.blocks import SIDES
from wgtorch.integrations.comfy.links import Checkpoint, Conditioning, Latent, Worn
from wgtorch.integrations.comfy.samplers import SAMPLERS, sampler
from wgtorch.integrations.comfy.schedule import ALL
from wgtorch.integrations.comfy.workflow import Step, read_workflow
from wgtorch.integrations.diffusers.assembly import add, join
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.controlnet import ControlNet
from wgtorch.integrations.diffusers.blocks.xl_conditions import TOLD_SIZES
from wgtorch.integrations.diffusers.importer import dtype_name
from wgtorch.integrations.diffusers.single_file import read_model, read_tensors
from wgtorch.integrations.diffusers.source import open_pipeline
from wgtorch.lora import load as load_adapter
from wgtorch.lora.places import places_of

_SUPPORTED = {
    "StableDiffusionPipeline": 1,
    "StableDiffusionImg2ImgPipeline": 1,
    "StableDiffusionXLPipeline": 2,
    "StableDiffusionXLImg2ImgPipeline": 2,
}
"""Pipelines whose parts are known here, with their text encoders."""


def from_comfy(
    workflow: str | os.PathLike[str] | Mapping[str, Any],
    *,
    models: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | str | None = None,
    pool: Pool | None = None,
) -> Graph:
    """A workflow of ComfyUI, in its API form, as a graph of blocks.

    Its nodes are named by kind and id (``text_encoder_6``, ``sampler_3``, ``decode_8``), and a KSampler is a graph of its own, with
    backbone, guidance and solver. Inputs are what people change: ``text_6``, ``seed_3``, ``steps_3``, ``cfg_3``, ``denoise_3``,
    ``width_5``, ``height_5``, ``batch_size_5``, ``image_10``, ``mask_10``; left out, they are the workflow's. Outputs are ``image`` of
    one SaveImage, else ``image_9`` for each.

    Read are checkpoints of Stable Diffusion 1, 2 and XL, as one file or a folder of diffusers, LoRAs as of :func:`wgtorch.lora.load`, and
    ControlNets. Sigmas, timesteps, noise of the seed, weighted and long prompts, masks and sizes are ComfyUI's; of samplers that draw in
    each step, ``graph.metadata["differs"]`` says that their noise is not. Of a soft mask only the latents are mixed, not the model's idea
    of the picture.

    Example:
        >>> graph = Graph.from_comfy("workflow_api.json", models="ComfyUI/models", images="ComfyUI/input")
        >>> graph.run({"text_6": "a lighthouse in a storm", "seed_3": 7})["image"]

    Args:
        workflow: the file, a PNG that ComfyUI saved (it carries its workflow), or what is in it.
        models: a folder as ComfyUI's ``models``, with ``checkpoints``, ``loras``, ``controlnet`` and ``vae``; or one with all files in it.
        images: folder of the pictures that are loaded; without it they are fed.
        config: as for :func:`~wgtorch.integrations.diffusers.importer.from_diffusers`, for checkpoints of a single file.
        dtype: of the weights.
        pool: where models are looked for.

    Raises:
        ConfigError: it holds nodes, inputs or values that no graph has; all are named.
        CheckpointError: a file is not there, or cannot be read.
    """
    steps = read_workflow(workflow)
    builder = _Builder(steps, Path(models).expanduser(), images, config, dtype_name(dtype))
    with building(pool):
        return builder.built()


class _Builder:
    """Builds the nodes that lead to pictures, each once."""

    def __init__(self, steps: Mapping[str, Step], models: Path, images: Any, config: Any, dtype: str | None) -> None:
        self.steps, self.models, self.config, self.dtype = steps, models, config, dtype
        self.images = None if images is None else Path(images).expanduser()
        self.graph = Graph("workflow", metadata={"from_comfy": True, "takes_generator": True})
        self.made: dict[str, tuple[Any, ...]] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.blocks: dict[str, Any] = {}  # autoencoders and ControlNets, by file
        self.place_adapters: dict[str, tuple[tuple[str, float], ...]] = {}  # LoRAs of places
        self.differs: dict[str, str] = {}

    def built(self) -> Graph:
        ends = [step for step in self.steps.values() if step.kind in ("SaveImage", "PreviewImage")]
        for step in ends:
            node, _, port = self.link(step, "images").partition(".")
            self.graph.expose_output(node, port, "image" if len(ends) == 1 else f"image_{step.id}")
        self._put_adapters()
        self.graph.metadata["differs"] = self.differs
        self.graph.validate()
        return self.graph

    def link(self, step: Step, name: str) -> Any:
        """What an input of a node is joined to."""
        node_id, slot = step.inputs[name]
        if node_id not in self.made:
            other = self.steps[node_id]
            self.made[node_id] = getattr(self, f"_{other.kind}")(other)
        return self.made[node_id][slot]

    def node(self, step: Step, name: str, block: Any, config: dict[str, Any] | None = None, /, **inputs: Any) -> str:
        """A node of the graph, ``name`` and the step's id; values of ``inputs`` are the workflow's, which a run may change."""
        node_id = f"{name}_{step.id}".replace(":", "_")  # of nodes in a group
        add(self.graph, node_id, block, config, inputs={key: value for key, value in inputs.items() if value is not None})
        for key, value in inputs.items():
            if value is not None:
                self.graph.expose_input(node_id, key, f"{key}_{step.id}".replace(":", "_"))
        return node_id

    def tell(self, node: str, **inputs: Any) -> None:
        """Further values for a node."""
        self.graph.configure_node(node, inputs={**self.graph.node_specs[node].inputs, **inputs})

    def file(self, kind: str, name: str) -> Path:
        """A model's file, or folder.

        Raises:
            CheckpointError: it is not there.
        """
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"from_comfy: {name!r} leads out of the folder of models")
        for folder in (self.models / kind, self.models):
            if (folder / name).exists():
                return folder / name
        folder = self.models / kind if (self.models / kind).is_dir() else self.models
        known = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise CheckpointError(f"from_comfy: {kind}: {name!r} is not in {str(folder)!r}; {suggest(name, known)}")

    # --- models -------------------------------------------------------------------------------------------------------

    def _CheckpointLoaderSimple(self, step: Step) -> tuple[Any, ...]:
        name = step.inputs["ckpt_name"]
        if name not in self.checkpoints:
            file = self.file("checkpoints", name)
            source = open_pipeline(file, dtype=self.dtype, config=self.config if file.is_file() else None)
            count = _SUPPORTED.get(source.pipeline_class)
            if count is None:
                raise ConfigError(f"from_comfy: {name!r} is a {source.pipeline_class}; supported are Stable Diffusion 1, 2 and XL")
            backbone = source.model("unet", "backbone/unet_2d_condition")
            vae = source.model("vae", "codec/autoencoder_kl")
            if backbone.model.config.in_channels != vae.channels:  # type: ignore[attr-defined, union-attr]
                raise ConfigError(f"from_comfy: {name!r} has a UNet that sees more than the latent, which no node of this list feeds")
            layers = {"layer": "penultimate"} if count == 2 else {}
            words = tuple(
                (
                    source.tokenizer(f"tokenizer{end}", "tokenizer/comfy"),
                    source.model(f"text_encoder{end}", "conditioner/clip_text", **layers, **({"projection": True} if end else {})),
                )
                for end in ("", "_2")[:count]
            )
            self.checkpoints[name] = Checkpoint(source, backbone, vae, words)
        found = self.checkpoints[name]
        return Worn(found), Worn(found), found.vae

    def _VAELoader(self, step: Step) -> tuple[Any, ...]:
        name = step.inputs["vae_name"]
        if name not in self.blocks:
            library: Any = require("diffusers", "diffusers")
            model = self._single(library.AutoencoderKL, self.file("vae", name), "vae")
            self.blocks[name] = AutoencoderKL.around(model)
        return (self.blocks[name],)

    def _single(self, kind: Any, file: Path, part: str) -> Any:
        """A model of a file, or of a folder of diffusers."""
        dtype = torch.get_default_dtype() if self.dtype is None else getattr(torch, self.dtype)
        try:
            if file.is_dir():
                model, told = kind.from_pretrained(str(file), local_files_only=True, torch_dtype=dtype, output_loading_info=True)
                check_whole(model, told, f"from_comfy: {str(file)!r}")
                return model.eval()
            config = None if self.config is None else str(self.config)
            return read_model(kind, read_tensors(file), config, part, torch_dtype=dtype, local_files_only=self.config is not None)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"from_comfy: diffusers cannot read {str(file)!r} as a {kind.__name__}: {error}") from error

    def _LoraLoader(self, step: Step) -> tuple[Any, ...]:
        file = str(self.file("loras", step.inputs["lora_name"]))
        found = []
        for name in ("model", "clip"):
            if name in step.inputs:
                source, strength = self.link(step, name), float(step.inputs[f"strength_{name}"])
                found.append(replace(source, adapters=(*source.adapters, (file, strength))) if strength else source)
        return tuple(found)

    _LoraLoaderModelOnly = _LoraLoader

    def _CLIPSetLastLayer(self, step: Step) -> tuple[Any, ...]:
        layer = int(step.inputs["stop_at_clip_layer"])
        return (replace(self.link(step, "clip"), skip=-layer),)

    def _ControlNetLoader(self, step: Step) -> tuple[Any, ...]:
        name = step.inputs["control_net_name"]
        if name not in self.blocks:
            library: Any = require("diffusers", "diffusers")
            self.blocks[name] = ControlNet.around(self._single(library.ControlNetModel, self.file("controlnet", name), "controlnet"))
        return (name,)

    # --- conditions ---------------------------------------------------------------------------------------------------

    def _CLIPTextEncode(self, step: Step) -> tuple[Any, ...]:
        return (self._encoded(step, ("text", "text")),)

    def _CLIPTextEncodeSDXL(self, step: Step) -> tuple[Any, ...]:
        """A text for each encoder, and the sizes that the model is told: SDXL.encode_adm of ComfyUI's model_base.py."""
        if len(self.link(step, "clip").checkpoint.words) < 2:
            raise ConfigError(f"from_comfy: {step}: its checkpoint is not of Stable Diffusion XL; use CLIPTextEncode")
        sizes = (int(step.inputs[name]) for name in ("height", "width", "crop_h", "crop_w", "target_height", "target_width"))
        return (replace(self._encoded(step, ("text_l", "text_g")), sizes=tuple(sizes)),)

    def _encoded(self, step: Step, texts: tuple[str, str]) -> Conditioning:
        """What the text encoders make of the inputs that they read."""
        clip: Worn = self.link(step, "clip")
        embeddings, pooled = [], ""
        for number, (tokenizer, encoder) in enumerate(clip.checkpoint.words):
            end = "" if number == 0 else "_2"
            own, other = texts[number], texts[1 - number]
            words = self.node(step, f"prompt{end}", tokenizer)
            for port, name in {"text": own, **({"beside": other} if other != own else {})}.items():
                self.tell(words, **{port: step.inputs[name]})
                self.graph.expose_input(words, port, f"{name}_{step.id}".replace(":", "_"))
            text = self.node(step, f"text_encoder{end}", encoder)
            if clip.skip:
                first = 1 if encoder.layer == "last" else 2
                self.tell(text, clip_skip=clip.skip - first)
            self.place_adapters[text] = clip.adapters
            row = self.node(step, f"embedding{end}", "comfy/weighted")
            join(
                self.graph,
                (f"{words}.tokens", f"{text}.tokens"),
                (f"{words}.attention_mask", f"{text}.attention_mask"),
                (f"{text}.embedding", f"{row}.embedding"),
                (f"{text}.pooled", f"{row}.pooled"),
                (f"{words}.weights", f"{row}.weights"),
            )
            embeddings.append(f"{row}.embedding")
            pooled = f"{row}.pooled"
        if len(embeddings) == 1:
            return Conditioning(embeddings[0], "")
        both = self.node(step, "embeddings", "diffusers/joined_conditions")
        join(self.graph, (embeddings[0], f"{both}.embedding"), (embeddings[1], f"{both}.second_embedding"))
        return Conditioning(f"{both}.embedding", pooled)

    def _ControlNetApply(self, step: Step) -> tuple[Any, ...]:
        sides = [self.link(step, name) for name in ("conditioning", "positive", "negative") if name in step.inputs]
        control = (self.link(step, "control_net"), self.link(step, "image"), float(step.inputs["strength"]))
        return tuple(replace(side, controls=(*side.controls, control)) for side in sides)

    _ControlNetApplyAdvanced = _ControlNetApply

    def _latents(self) -> tuple[int, int]:
        """Channels of latents, and pixels to a side of them."""
        known = next(iter(self.checkpoints.values()), None)
        return (4, 8) if known is None else (known.vae.channels, known.vae.factor)

    # --- latents and pictures -----------------------------------------------------------------------------------------

    def _KSampler(self, step: Step) -> tuple[Any, ...]:
        return self._sampled(step, step.inputs, *(self.link(step, name) for name in ("model", "positive", "negative")))

    _KSamplerAdvanced = _KSampler

    def _SamplerCustomAdvanced(self, step: Step) -> tuple[Any, ...]:
        """The same, whose settings stand in nodes of their own."""
        cfg, *guided = self.link(step, "guider")
        own = {"seed": self.link(step, "noise"), "sampler_name": self.link(step, "sampler"), "cfg": cfg}
        return self._sampled(step, {**own, **self.link(step, "sigmas")}, *guided)

    def _CFGGuider(self, step: Step) -> tuple[Any, ...]:
        return ((step.inputs["cfg"], *(self.link(step, name) for name in ("model", "positive", "negative"))),)

    def _BasicGuider(self, step: Step) -> tuple[Any, ...]:
        condition = self.link(step, "conditioning")
        return ((1.0, self.link(step, "model"), condition, condition),)

    def _BasicScheduler(self, step: Step) -> tuple[Any, ...]:
        return ({name: step.inputs[name] for name in ("scheduler", "steps", "denoise")},)

    def _KSamplerSelect(self, step: Step) -> tuple[Any, ...]:
        return (step.inputs["sampler_name"],)

    def _RandomNoise(self, step: Step) -> tuple[Any, ...]:
        return (step.inputs["noise_seed"],)

    def _sampled(
        self, step: Step, given: Mapping[str, Any], model: Worn, positive: Conditioning, negative: Conditioning
    ) -> tuple[Any, ...]:
        """A sampler's graph, of its settings and what it is guided by."""
        latent = self.link(step, "latent_image")
        if negative.controls and negative.controls != positive.controls:
            raise ConfigError(f"from_comfy: {step}: other ControlNets on what is not wanted than on the prompt are not supported")
        controls = [(f"control_{number}", self.blocks[name]) for number, (name, _, _) in enumerate(positive.controls)]
        inner = sampler(
            model.checkpoint.source,
            model.checkpoint.backbone,
            model.checkpoint.vae,
            given,
            adds_noise=given.get("add_noise", "enable") == "enable",
            is_masked=bool(latent.mask),
            is_whole=step.kind != "SamplerCustomAdvanced",
            controls=controls,
        )
        seed = given["seed"] if "seed" in given else given["noise_seed"]
        own = {"steps": given["steps"], "cfg": given["cfg"], "seed": seed, "denoise": given.get("denoise")}
        if "start_at_step" in given:
            own |= {"start_at_step": given["start_at_step"], "end_at_step": min(given["end_at_step"], ALL)}
        node = self.node(step, "sampler", inner, None, **own)
        if given.get("return_with_leftover_noise") == "enable":
            self.tell(node, leftover=True)
        self.place_adapters[f"{node}/backbone"] = model.adapters
        join(self.graph, (latent.port, f"{node}.latent"))
        for side, condition in (("positive", positive), ("negative", negative)):
            join(self.graph, (condition.embedding, f"{node}.{side}"))
            if condition.pooled:
                join(self.graph, (condition.pooled, f"{node}.{side}_pooled"))
            if condition.sizes:
                self.tell(node, **{f"{side}_{name}": condition.sizes[at : at + 2] for at, name in zip((0, 2, 4), TOLD_SIZES, strict=True)})
        if latent.mask:
            join(self.graph, (latent.mask, f"{node}.mask"))
        for (name, _), (_, picture, strength) in zip(controls, positive.controls, strict=True):
            join(self.graph, (picture, f"{node}.{name}"))
            self.tell(node, **{f"{name}_strength": strength})
        if words := SAMPLERS[given["sampler_name"]][2]:
            self.differs[node] = words
        return (Latent(f"{node}.latent"),)

    def _EmptyLatentImage(self, step: Step) -> tuple[Any, ...]:
        channels, factor = self._latents()
        sizes = {name: step.inputs[name] for name in ("width", "height", "batch_size")}
        node = self.node(step, "latent", "comfy/empty_latent", {"channels": channels, "factor": factor}, **sizes)
        return (Latent(f"{node}.latent"),)

    def _VAEDecode(self, step: Step) -> tuple[Any, ...]:
        node = self.node(step, "decode", self.link(step, "vae"))
        join(self.graph, (self.link(step, "samples").port, f"{node}.latent"))
        return (f"{node}.image",)

    def _VAEEncode(self, step: Step) -> tuple[Any, ...]:
        vae = self.link(step, "vae")
        grow = {"grow_mask_by": int(step.inputs.get("grow_mask_by", 6))} if "mask" in step.inputs else {}
        fit = self.node(step, "pixels", "comfy/fit", {"factor": vae.factor, **grow})
        node = self.node(step, "encode", vae)
        self.tell(node, draws=False)
        join(self.graph, (self.link(step, "pixels"), f"{fit}.image"), (f"{fit}.image", f"{node}.image"))
        if not grow:
            return (Latent(f"{node}.latent"),)
        join(self.graph, (self.link(step, "mask"), f"{fit}.mask"))
        return (Latent(f"{node}.latent", f"{fit}.mask"),)

    _VAEEncodeForInpaint = _VAEEncode

    def _SetLatentNoiseMask(self, step: Step) -> tuple[Any, ...]:
        return (replace(self.link(step, "samples"), mask=self.link(step, "mask")),)

    def _LatentUpscale(self, step: Step) -> tuple[Any, ...]:
        latent = self.link(step, "samples")
        return (replace(latent, port=self._resized(step, latent.port, self._latents()[1])),)

    _LatentUpscaleBy = _LatentUpscale

    def _ImageScale(self, step: Step) -> tuple[Any, ...]:
        return (self._resized(step, self.link(step, "image"), 1),)

    _ImageScaleBy = _ImageScale

    def _resized(self, step: Step, port: str, factor: int) -> str:
        config = {"method": step.inputs["upscale_method"], "crop": step.inputs.get("crop", "disabled"), "factor": factor}
        sizes = {name: step.inputs[name] for name in ("width", "height", "scale_by") if name in step.inputs}
        node = self.node(step, "resize", "comfy/resize", config, **sizes)
        join(self.graph, (port, f"{node}.value"))
        return f"{node}.value"

    def _ImagePadForOutpaint(self, step: Step) -> tuple[Any, ...]:
        node = self.node(step, "padded", "comfy/pad_for_outpaint", None, **{name: step.inputs[name] for name in (*SIDES, "feathering")})
        join(self.graph, (self.link(step, "image"), f"{node}.image"))
        return f"{node}.image", f"{node}.mask"

    def _LoadImageMask(self, step: Step) -> tuple[Any, ...]:
        return (self._LoadImage(step)[1],)

    def _LoadImage(self, step: Step) -> tuple[Any, ...]:
        name = str(step.inputs["image"])
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"from_comfy: {step}: {name!r} leads out of the folder of pictures")
        channel = {"channel": step.inputs["channel"]} if "channel" in step.inputs else {}
        file = name if self.images is None else str(self.images / name)
        node = self.node(step, "mask" if channel else "image", "comfy/load_image", {"file": file, **channel})
        for port in ("image", "mask"):
            self.graph.expose_input(node, port, f"{port}_{step.id}".replace(":", "_"))
        return f"{node}.image", f"{node}.mask"

    # --- adapters -----------------------------------------------------------------------------------------------------

    def _put_adapters(self) -> None:
        """Reads each LoRA once, and has each place select its own with its strength."""
        files = dict.fromkeys(file for adapters in self.place_adapters.values() for file, _ in adapters)
        names = {file: f"lora_{number}_{Path(file).stem}".replace(".", "_") for number, file in enumerate(files)}
        for file, name in names.items():
            load_adapter(self.graph, file, name, wear=False)
        for place, adapters in self.place_adapters.items():
            known = places_of(self.graph, [place])[0].adapters
            weights: dict[str, float] = {}
            for file, strength in adapters:
                if names[file] in known:
                    weights[names[file]] = weights.get(names[file], 0.0) + strength
            if weights:
                self.graph.set_adapter(place, weights)


GraphReaders.register("comfy", from_comfy)
