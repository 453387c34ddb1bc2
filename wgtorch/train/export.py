"""What a training leaves for other programs: adapters as they read them, with a card that says what they are."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wgtorch.core.block import Block
from wgtorch.core.errors import CheckpointError, ConfigError, suggest
from wgtorch.train.patterns import blocks_at
from wgtorch.train.registries import check_settings
from wgtorch.train.trainable import Trainable

FORMATS = ("diffusers", "kohya", "peft")
"""What :func:`wgtorch.lora.save` writes."""
MODEL = "model"
"""The format of a whole model of diffusers or transformers, as its ``save_pretrained`` writes it."""


def _options(*, format: str | None = None, name: str | None = None, folder: str | None = None) -> None:
    """The types of the settings."""


@dataclass(frozen=True, slots=True)
class Export:
    """What is written when a training ends.

    Args:
        format: ``diffusers``, ``kohya`` or ``peft`` for an adapter; ``model`` for a whole model of diffusers or transformers.
        name: of the adapter, or the path of the model's node.
        folder: in the run's folder.
        settings: of the training, for the card.
    """

    format: str
    name: str
    folder: str
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any] | str | None, target: Block, settings: Mapping[str, Any]) -> Export | None:
        """From ``{"format": "diffusers"}``, or a format's name; None for nothing.

        Raises:
            ConfigError: an unknown key, or there is no such adapter or model to write.
        """
        if not given:
            return None
        options = {"format": given} if isinstance(given, str) else given
        check_settings(_options, options, "export")
        if (options.get("format") or FORMATS[0]) not in (*FORMATS, MODEL):
            raise ConfigError(f"export.format: found {options['format']!r}; {suggest(options['format'], (*FORMATS, MODEL))}")
        if options["format"] == MODEL:
            models = {path: block for path, block in blocks_at(target) if hasattr(getattr(block, "model", None), "save_pretrained")}
            if options.get("name") not in models:
                name = options.get("name")
                raise ConfigError(f"export.name: there is no model of diffusers or transformers at {name!r}; {suggest(str(name), models)}")
            return cls(MODEL, str(options["name"]), str(options.get("folder") or options["name"]), settings)
        from wgtorch.lora.switching import adapters

        known = adapters(target)
        name = options.get("name") or (settings.get("lora") or {}).get("name") or next(iter(known), None)
        if name not in known:
            raise ConfigError(f"export: there is no adapter {name!r} to write; add one with lora=..., or leave export out")
        return cls(str(options.get("format") or "diffusers"), str(name), str(options.get("folder") or "lora"), settings)

    def check(self, target: Block, folder: Path) -> None:
        """Says before a training what could not be written after it: the adapter is written once as it begins, and taken away.

        Raises:
            CheckpointError: the folder holds something else, or a file stands there.
            StructureError: the format has no place for what has the adapter.
        """
        from wgtorch.lora.files import check_folder, save

        into = folder / self.folder
        if into.is_file() and into.suffix != ".safetensors":
            raise CheckpointError(f"export.folder: a file stands at {into}, where a folder is to be written; take it away, or give another")
        if self.format != MODEL:
            check_folder(into, self.format)
            with TemporaryDirectory(prefix=".export", dir=folder) as trial:
                save(target, Path(trial) / "adapter", name=self.name, format=self.format)

    def write(self, trainable: Trainable, folder: Path) -> Path:
        """Writes it, with the weights as they are, and ``README.md`` beside it."""
        from wgtorch.lora import save

        if self.format == MODEL:
            path = folder / self.folder
            model: Any = dict(blocks_at(trainable.target))[self.name].model
            model.save_pretrained(path)
        else:
            path = save(trainable.target, folder / self.folder, name=self.name, format=self.format)
        into = path if path.is_dir() else path.parent
        (into / "samples.png").unlink(missing_ok=True)  # of the training before this one
        for picture in sorted((folder / "samples").glob("*.png"))[-1:]:  # beside the card, so that the folder can be sent as it is
            shutil.copyfile(picture, into / "samples.png")
        (into / "README.md").write_text(self.card(trainable, folder), encoding="utf-8")
        return into

    def card(self, trainable: Trainable, folder: Path) -> str:
        """What a person, and a hub, reads of it."""
        return model_card(self, trainable, folder)


def model_card(export: Export, trainable: Trainable, folder: Path) -> str:
    """A model card in Markdown: base, data, settings and pictures."""
    import yaml

    settings = {key: value for key, value in export.settings.items() if value and isinstance(value, (str, int, float, list, Mapping))}
    target = trainable.target
    bases = _bases(export, target)
    base, hub = ", ".join(map(_shown, bases)), next(filter(None, map(_hub_id, bases)), None)
    model = getattr(dict(blocks_at(target)).get(export.name), "model", None)
    count = sum(parameter.numel() for parameter in trainable.learned())
    text = yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True).strip()
    kind = "model" if export.format == MODEL else "LoRA adapter"
    tags = "[wgtorch]" if export.format == MODEL else "[lora, wgtorch]"
    library = "wgtorch" if export.format == "peft" else "diffusers"
    head = [*([f"base_model: {hub}"] if hub else []), f"library_name: {library}", f"tags: {tags}"]  # a Hub takes models of a Hub alone
    lines = ["---", *head, "---", "", f"# {export.name}", ""]
    lines += [f"A {kind} of {count:,} numbers for {base}, trained with wgtorch in {trainable.trainer.global_step} steps.", ""]
    lines += ["![samples](samples.png)", ""] if (folder / export.folder / "samples.png").is_file() else []
    lines += [*_use(export, model), "## Settings", "", "```yaml", text, "```", ""]
    return "\n".join(lines)


def _use(export: Export, model: Any) -> list[str]:
    if export.format == "peft":
        return ["```python", 'wgtorch.lora.load(level, "path/of/this/folder")  # a graph with that model, or a world around it', "```", ""]
    if export.format == MODEL:
        return ["```python", f'{type(model).__name__}.from_pretrained("path/of/this/folder")', "```", ""]
    return ["```python", 'pipeline.load_lora_weights("path/of/this/folder")', "```", ""]


def _bases(export: Export, target: Block) -> list[str]:
    """What names the models that were learned from: the refs of the blocks with the adapter or of the model, else the target's id."""
    from wgtorch.lora.switching import adapters

    blocks = dict(blocks_at(target))
    at = [export.name] if export.format == MODEL else adapters(target).get(export.name, [])
    refs = dict.fromkeys(str(ref) for path in at if path in blocks and (ref := blocks[path].config.get("checkpoint_ref")))
    return list(refs) or [target.block_id]


def _hub_id(ref: str) -> str | None:
    """The model on a Hub that a ref names, or whose snapshot it is a path in."""
    if found := re.search(r"models--(.+?)--([^/\\]+)[/\\]snapshots[/\\]", ref):
        return f"{found[1]}/{found[2]}"
    return ref if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", ref) and not Path(ref).exists() else None


def _shown(ref: str) -> str:
    """A base as others know it: on a Hub, as a name of what ships, else by the last of its folders, for paths are of this machine alone."""
    return _hub_id(ref) or (ref if ref.startswith("wgtorch:") else "/".join(Path(ref).parts[-2:]))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
