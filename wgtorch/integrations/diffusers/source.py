"""Where the parts of a graph come from: a folder that diffusers wrote, or a pipeline object."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.checkpoint.refs import read_file
from wgtorch.core.errors import CheckpointError, ConfigError, require, suggest
from wgtorch.core.json_text import loads
from wgtorch.integrations.diffusers.blocks.foreign import changed, diff_of
from wgtorch.integrations.diffusers.single_file import check_filled, check_places, is_convertible, read_model, read_tensors

INDEX = "model_index.json"
HUB = "hf://"
_PROMPT = "conditioner/pipeline_prompt"
_SINGLE = {
    "inpainting": "StableDiffusionInpaintPipeline",
    "xl_refiner": "StableDiffusionXLImg2ImgPipeline",
    "xl_inpaint": "StableDiffusionXLInpaintPipeline",
    "xl_base": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux-fill": "FluxFillPipeline",
    "flux": "FluxPipeline",
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
}
"""Pipelines by how diffusers calls kinds of single files."""


class Source:
    """The parts of a diffusers pipeline, by the names that diffusers gives them (``unet``, ``text_encoder_2``, ...)."""

    name: str
    pipeline_class: str
    classes: Mapping[str, str]
    settings: Mapping[str, Any]

    def model(self, part: str, block_type: str, **config: Any) -> Block:
        """The block around a model."""
        raise NotImplementedError

    def config_of(self, part: str) -> Mapping[str, Any]:
        """A model's own config."""
        raise NotImplementedError

    def tokenizer(self, part: str, block_type: str = "tokenizer/clip", **config: Any) -> Block:
        """The block around a tokenizer."""
        raise NotImplementedError

    def prompt(self, **config: Any) -> Block:
        """The block around text encoder and tokenizer of a pipeline that prepares prompts in a way of its own."""
        raise NotImplementedError

    def scheduler(self) -> tuple[str, dict[str, Any]]:
        """Class name and settings of the scheduler."""
        raise NotImplementedError

    def unsaid(self) -> list[str]:
        """Settings of the scheduler that nobody chose: another scheduler made of it has its own defaults for them."""
        return []

    def processor(self, part: str) -> dict[str, Any]:
        """Settings of a processor of pictures."""
        raise NotImplementedError


class FolderSource(Source):
    """A folder with a ``model_index.json``; models are read from its subfolders, by the pool of what is being built."""

    def __init__(self, folder: str | os.PathLike[str], dtype: str | None = None, components: Mapping[str, Any] | None = None) -> None:
        self.dtype = dtype
        self.given = dict(components or {})
        self.folder = Path(folder).expanduser().resolve()
        self.name = str(folder)
        if not (self.folder / INDEX).is_file():
            held = sorted(entry.name for entry in self.folder.iterdir())[:8] if self.folder.is_dir() else "no such folder"
            raise CheckpointError(
                f"from_diffusers: {self.name!r} holds no {INDEX}; expected a pipeline's local folder, as save_pretrained writes it. "
                f"There: {held}"
            )
        index = self._json(self.folder / INDEX)
        self.pipeline_class = str(index.get("_class_name"))
        pairs = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
        self.classes = {name: entry[1] for name, entry in pairs.items() if entry[1] is not None}
        self.settings = {name: value for name, value in index.items() if name not in pairs and not name.startswith("_")}
        if unknown := set(self.given) - set(self.classes):
            raise ConfigError(f"from_diffusers: components: {suggest(sorted(unknown)[0], self.classes)}")

    def model(self, part: str, block_type: str, **config: Any) -> Block:
        folder = self.folder / part
        block_class: Any = BlockRegistry.get(block_type)
        if part in self.given:
            return block_class.around(self._component(part), **config)
        own = block_class._class(**config)
        known = self._json(folder / "config.json")
        known = own.load_config(str(folder), local_files_only=True) if hasattr(own, "load_config") else known
        settings = _own_settings(own, known)
        if self.dtype is not None:
            config = {"dtype": self.dtype, **config}
        return BlockRegistry.build({"block_type": block_type, "config": {**config, "model": settings, "checkpoint_ref": str(folder)}})

    def _component(self, part: str) -> Any:
        """A model that was given in place of the folder's; one of a file is read as diffusers reads it, and of a GGUF file stays quantised.

        Raises:
            CheckpointError: diffusers cannot read the file, a weight is missing there, or a tensor has no place in the model.
        """
        found = self.given[part]
        if not isinstance(found, (str, os.PathLike)):
            return found
        library: Any = require("diffusers", "diffusers")
        is_quantised = Path(found).suffix == ".gguf"
        if is_quantised:
            require("gguf", "smollm")
        kind = getattr(library, self.classes[part])
        compute = torch.get_default_dtype() if self.dtype is None else getattr(torch, self.dtype)
        try:
            self.given[part] = read_model(
                kind,
                read_tensors(found),
                str(self.folder / part),
                quantization_config=library.GGUFQuantizationConfig(compute_dtype=compute) if is_quantised else None,
                local_files_only=True,
                torch_dtype=compute,
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f"from_diffusers: diffusers cannot read {str(found)!r} as a {kind.__name__}: {error}") from error
        return self.given[part]

    def config_of(self, part: str) -> Mapping[str, Any]:
        return self._json(self.folder / part / "config.json")

    def tokenizer(self, part: str, block_type: str = "tokenizer/clip", **config: Any) -> Block:
        return BlockRegistry.build({"block_type": block_type, "config": {"folder": str(self.folder / part), **config}})

    def prompt(self, **config: Any) -> Block:
        kind = self.classes["text_encoder"]
        return self.model("text_encoder", _PROMPT, kind=kind, folder=str(self.folder / "tokenizer"), **config)

    def scheduler(self) -> tuple[str, dict[str, Any]]:
        return self.classes["scheduler"], public(self._json(self.folder / "scheduler" / "scheduler_config.json"))

    def processor(self, part: str) -> dict[str, Any]:
        return _settings_of_processor(self._json(self.folder / part / "preprocessor_config.json"))

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            found = loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            part = path.relative_to(self.folder).parent
            lacks = f"has no folder {str(part)!r}" if not path.parent.is_dir() else f"has no {path.name} in {str(part)!r}"
            raise CheckpointError(
                f"from_diffusers: {self.name!r} {lacks}, which its {INDEX} names; there: {sorted(p.name for p in self.folder.iterdir())}. "
                "Copy or fetch the folder again, with all that is below it"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"from_diffusers: {path} cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise CheckpointError(f"from_diffusers: {path} holds a {type(found).__name__}, expected settings by name")
        return found


class PipelineSource(Source):
    """A pipeline object, whose models are shared."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.pipeline_class = self.name = type(pipeline).__name__
        self.classes = {name: type(part).__name__ for name, part in pipeline.components.items() if part is not None}
        self.settings = {name: value for name, value in dict(pipeline.config).items() if not isinstance(value, (list, tuple))}

    def model(self, part: str, block_type: str, **config: Any) -> Block:
        block_class: Any = BlockRegistry.get(block_type)
        return block_class.around(self.pipeline.components[part], **config)

    def config_of(self, part: str) -> Mapping[str, Any]:
        config = self.pipeline.components[part].config
        return config.to_dict() if hasattr(config, "to_dict") else dict(config)

    def tokenizer(self, part: str, block_type: str = "tokenizer/clip", **config: Any) -> Block:
        block_class: Any = BlockRegistry.get(block_type)
        return block_class.around(self.pipeline.components[part], **config)

    def prompt(self, **config: Any) -> Block:
        block_class: Any = BlockRegistry.get(_PROMPT)
        return block_class.around_both(self.pipeline.components["text_encoder"], self.pipeline.components["tokenizer"], **config)

    def scheduler(self) -> tuple[str, dict[str, Any]]:
        scheduler = self.pipeline.components["scheduler"]
        name, config = type(scheduler).__name__, public(dict(scheduler.config))
        shift = scheduler.shift if hasattr(type(scheduler), "shift") else config.get("shift")  # an entry of the config is no attribute
        if shift != config.get("shift"):
            raise ConfigError(
                f"from_diffusers: {name} was told a shift of {shift} by set_shift, which its config does not say; give it the shift as "
                f"diffusers.{name}.from_config(pipeline.scheduler.config, shift={shift})"
            )
        return name, config

    def unsaid(self) -> list[str]:
        return sorted(self.pipeline.components["scheduler"].config.get("_use_default_values", ()))

    def processor(self, part: str) -> dict[str, Any]:
        return _settings_of_processor(self.pipeline.components[part].to_dict())


def of_hub(ref: str) -> Path:
    """The local copy of ``hf://owner/name``, ``hf://owner/name@revision`` or ``hf://owner/name/file.safetensors``.

    It is that of huggingface_hub's own cache (``HF_HOME``), with what diffusers itself would fetch; without network (``HF_HUB_OFFLINE=1``)
    what is there already.

    Raises:
        CheckpointError: there is no such repository or file, or it is not in the cache and cannot be fetched.
    """
    name, _, inside = ref.removeprefix(HUB).partition("/")
    own, _, inside = inside.partition("/")
    own, _, revision = own.partition("@")
    if not name or not own:
        raise CheckpointError(
            f"from_diffusers: {ref!r}; expected {HUB}owner/name, {HUB}owner/name@revision or {HUB}owner/name/file.safetensors"
        )
    hub: Any = require("huggingface_hub", "diffusers")
    library: Any = require("diffusers", "diffusers")
    which = {"revision": revision or None, "cache_dir": hub.constants.HF_HUB_CACHE}
    try:
        if inside.endswith(".safetensors"):
            return Path(hub.hf_hub_download(f"{name}/{own}", inside, **which))
        folder = Path(library.DiffusionPipeline.download(f"{name}/{own}", use_safetensors=True, **which))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are OSErrors and ValueErrors
        raise CheckpointError(
            f"from_diffusers: {ref!r} is not in the cache ({which['cache_dir']}), and cannot be fetched: {error}"
        ) from error
    return folder / inside if inside else folder


def open_pipeline(
    source: Any,
    *,
    dtype: str | None = None,
    config: str | os.PathLike[str] | None = None,
    components: Mapping[str, Any] | None = None,
) -> Source:
    """The source for what a user hands over.

    Args:
        source: a folder, a single file, a ref of the hub, or a pipeline.
        dtype: of the weights.
        config: folder of configs for a single file.
        components: models in place of a folder's.

    Raises:
        CheckpointError: a folder that holds no pipeline.
        ConfigError: it is neither a folder nor a pipeline.
    """
    is_local = True
    if isinstance(source, str) and source.startswith(HUB):
        source, is_local = of_hub(source), False
    if components and (not isinstance(source, (str, os.PathLike)) or Path(source).suffix == ".safetensors"):
        raise ConfigError("from_diffusers: components are for folders; of a pipeline set them: pipeline.transformer = mine")
    if isinstance(source, (str, os.PathLike)):
        if Path(source).suffix == ".safetensors":
            return PipelineSource(single_file(Path(source), dtype, config, is_local))
        if config is not None:
            raise ConfigError("from_diffusers: config is for a single .safetensors file; a folder has its own")
        return FolderSource(source, dtype, components)
    if hasattr(source, "components") and hasattr(source, "config"):
        if dtype is not None or config is not None:
            raise ConfigError(
                "from_diffusers: dtype and config are for what is read from files; a pipeline's modules are shared, so change them there: "
                "pipeline.to(torch.bfloat16)"
            )
        return PipelineSource(source)
    raise ConfigError(f"from_diffusers: got a {type(source).__name__}; expected the path of a local folder, or a pipeline of diffusers")


def single_file(file: Path, dtype: str | None, config: str | os.PathLike[str] | None, is_local: bool) -> Any:
    """The pipeline of a single file, as diffusers' own converters read it; without ``is_local`` settings may be fetched from the hub.

    Raises:
        CheckpointError: it is not there, or diffusers cannot read it.
        ConfigError: nothing says which pipeline it is of.
    """
    library: Any = require("diffusers", "diffusers")
    names: Any = require("diffusers.loaders.single_file_utils", "diffusers")
    if not file.is_file():
        raise CheckpointError(f"from_diffusers: {str(file)!r} is no file")
    _, tensors = read_file(file)
    if config is not None:
        name = FolderSource(config).pipeline_class
    else:
        kind = str(names.infer_diffusers_model_type(tensors))
        name = next((pipeline for start, pipeline in _SINGLE.items() if kind.startswith(start)), "")
        if not name:
            raise ConfigError(f"from_diffusers: {str(file)!r} seems to be {kind!r}; expected one of {', '.join(_SINGLE)}, or config=")
    where = str(config or names.fetch_diffusers_config(tensors)["pretrained_model_name_or_path"])
    options = {"torch_dtype": None if dtype is None else getattr(torch, dtype), "local_files_only": is_local or config is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that one version of diffusers gives up for another
            index = getattr(library, name).load_config(where, local_files_only=options["local_files_only"])
            kinds = {part: getattr(library, entry[1] or "", None) for part, entry in index.items() if isinstance(entry, (list, tuple))}
            parts = {part: read_model(k, tensors, where, part, **options) for part, k in kinds.items() if is_convertible(k)}
            found = getattr(library, name).from_single_file(str(file), config=where, **options, **parts)
        for model in (model for model in found.components.values() if isinstance(model, torch.nn.Module)):
            check_filled(model)
        check_places(tensors, found.components)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, names.SingleFileComponentError) as error:
        raise CheckpointError(
            f"from_diffusers: diffusers cannot read {str(file)!r} as a {name}: {error}. The file holds weights and no settings: give "
            "config=, the folder of a pipeline of the same kind (graph.config=FOLDER where it is trained, --config FOLDER where it is "
            f"imported), or fetch settings once: hf download {where} --include '*.json' '*.txt'. Of a file of one model alone, give the "
            "pipeline's folder and components={'transformer': file}"
        ) from error
    for part, model in found.components.items():  # tokenizers name the pipeline's folder, where they were read from one below it
        own = Path(getattr(model, "name_or_path", None) or "?") / part
        if part.startswith("tokenizer") and own.is_dir():
            model.name_or_path = str(own)
    return found


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file holds them, without what diffusers notes for itself."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items() if not name.startswith("_")}


def _settings_of_processor(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of classes; what counts as a number is one."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if not name.endswith("_type")}
    return {name: int(value) if isinstance(value, int) and not isinstance(value, bool) else value for name, value in plain.items()}


def _own_settings(model_class: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's config file says beyond its class's defaults, for a config of ours to hold."""
    if getattr(model_class, "config_class", None) is not None:
        return diff_of(model_class.config_class(**public(known)))
    return changed(model_class, public(known))
