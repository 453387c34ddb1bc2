"""The creator of a storytelling world, and the schema of the recipes that it accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wgtorch.blocks.scenes.scene import ATTRIBUTES
from wgtorch.core.config.resolve import read_config
from wgtorch.core.config.serialization import LevelRegistry, child_from
from wgtorch.core.config.template import TemplateRegistry, build_template
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.port import Spec
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.templates.world import around, single

SHIPPED = "text_to_image"
_OPTIONS: dict[str, dict[str, Any]] = {
    "negative_prompt": {"type": "string", "maxLength": 300, "description": "what must not be in the pictures, in a few words"},
    "guidance_scale": {"type": "number", "minimum": 1, "maximum": 12, "description": "how closely to follow the prompt; mostly 3 to 7"},
    "width": {"type": "integer", "minimum": 256, "maximum": 1536, "multipleOf": 64, "description": "of the pictures, in pixels"},
    "height": {"type": "integer", "minimum": 256, "maximum": 1536, "multipleOf": 64, "description": "of the pictures, in pixels"},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "description": "the same number gives the same noise"},
}
"""What a recipe may hold beside its prompts, where the creator has an input of that name."""


def creator_of(source: Any) -> Pipeline:
    """The pipeline that paints: any that takes a ``prompt`` and gives an ``image``.

    Args:
        source: a template's name; the path of a config, a checkpoint or a folder of diffusers; ``{"template": ..., "params": ...}``;
            ``{"block_type": ..., "config": ...}``; a level's config; or a Graph or Pipeline itself.

    Raises:
        ConfigError: it is none of these, or takes no prompt, gives no image, or needs more than a prompt.
    """
    level = _level(source)
    pipeline = level if isinstance(level, Pipeline) else around(level, level.block_id)
    inputs, outputs = pipeline.get_input_spec(), pipeline.get_output_spec()
    if "prompt" not in inputs or "image" not in outputs:
        raise ConfigError(
            f"storytelling.creator: {pipeline.block_id!r} takes {list(inputs)} and gives {list(outputs)}; expected a text-to-image graph, "
            "with an input 'prompt' and an output 'image'"
        )
    needed = [name for name, port in inputs.items() if not port.optional and name != "prompt" and name not in _OPTIONS]
    if needed:
        raise ConfigError(
            f"storytelling.creator: {pipeline.block_id!r} needs {needed[0]!r} as well, which no recipe holds; give it a default"
        )
    return pipeline


def recipe_schema(inputs: Spec, pictures: int, options: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of recipes: ``prompts``, one for each picture, and what of ``options`` the creator takes.

    Args:
        inputs: the creator's ports.
        pictures: of one episode.
        options: names that the architect may set.

    Raises:
        ConfigError: an option that recipes do not have, or that this creator does not take.
    """
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(f"storytelling.options: unknown option {name!r}; {suggest(name, _OPTIONS)}")
        if name not in inputs:
            raise ConfigError(f"storytelling.options: this creator takes no {name!r}; it takes {list(inputs)}")
    chosen = {name: entry for name, entry in _OPTIONS.items() if name in options or (name in inputs and not inputs[name].optional)}
    prompts = {"type": "array", "minItems": pictures, "maxItems": pictures, "items": {"type": "string", "minLength": 1, "maxLength": 700}}
    return {
        "type": "object",
        "properties": {"prompts": {**prompts, "description": "one prompt for each picture"}, **chosen},
        "required": ["prompts", *(name for name in chosen if not inputs[name].optional)],
        "additionalProperties": False,
    }


def painter_notes(source: Any) -> str | None:
    """What the architect should know of the painter that ships with the package; None for any other."""
    named = source.get("template") if isinstance(source, Mapping) else source
    if named != SHIPPED:
        return None
    known = "; ".join(f"{name}: {', '.join(values)}" for name, values in ATTRIBUTES.items())
    return (
        f"it is small and knows only these things - {known}. Name one of each that the moment needs, in plain English words, in one or "
        "two short sentences (for example: 'A red castle on the left, in the hills, at dusk, under clouds, with a traveller.'). "
        "Leave out all else, the style too."
    )


def _level(source: Any) -> Graph | Pipeline:
    if isinstance(source, (Graph, Pipeline)):
        return source
    if isinstance(source, Mapping):
        return _from_mapping(source)
    if not isinstance(source, (str, Path)):
        raise ConfigError(f"storytelling.creator: found {type(source).__name__}; expected a template's name, a path, a config or a Graph")
    path = Path(source).expanduser()
    if (path / "model_index.json").is_file():
        return Graph.from_diffusers(path)
    for level in (Pipeline, Graph):
        if f"{level.level}/{source}" in TemplateRegistry:
            return child_from(str(source), level)
    if path.is_dir():
        return child_from(path, Graph)
    if path.is_file():
        config = read_config(path)
        if config.get("kind") in ("graph", "pipeline"):
            return LevelRegistry.get(config["kind"]).from_yaml(path)
    known = [name.split("/", 1)[1] for name in TemplateRegistry.names() if name.startswith(("graph/", "pipeline/"))]
    raise ConfigError(
        f"storytelling.creator: {str(source)!r} is no template and no file of a graph; {suggest(source, dict.fromkeys(known))}"
    )


def _from_mapping(source: Mapping[str, Any]) -> Graph | Pipeline:
    if "template" in source:
        level = source.get("level") or ("pipeline" if f"pipeline/{source['template']}" in TemplateRegistry else "graph")
        return build_template(level, source["template"], source.get("params") or {})
    if "block_type" in source:
        return single(source["block_type"], "paint", **(source.get("config") or {}))
    if source.get("kind") in ("graph", "pipeline"):
        return LevelRegistry.get(source["kind"]).from_config(source)
    raise ConfigError(f"storytelling.creator: found a mapping with {sorted(source)}; expected 'template', 'block_type' or 'kind' in it")
