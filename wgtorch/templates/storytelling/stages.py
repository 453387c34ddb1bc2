"""The stages of a storytelling world: language models with a memory, around any painter.

Every stage that writes is one graph::

    content --> memory ---context---> prompt --prompt, system--> llm --> text, data
       |                                 ^
       +-----> language ---language------+
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.checkpoint.named import local_ref
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.templates.storytelling.prompts import ARCHITECT, AUTHOR, DEVELOPMENT, PHILOSOPHER, WORLD_UPDATE, Words
from wgtorch.templates.storytelling.recipe import recipe_schema
from wgtorch.templates.world import around, environment_of, single, stage_of

_RECORDS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "glossary": {
            "type": "array",
            "maxItems": 6,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 60},
                    "description": {"type": "string", "minLength": 1, "maxLength": 400},
                },
                "required": ["name", "description"],
                "additionalProperties": False,
            },
        },
        "summary": {"type": "string", "minLength": 1, "maxLength": 1500},
    },
    "required": ["glossary", "summary"],
    "additionalProperties": False,
}


def model(kind: str, config: Mapping[str, Any], where: str) -> Block:
    """The block of a model, from its config or from ``{"block_type": ..., "config": ...}``; one of the pool where it is there."""
    check_model(config, where)
    entry = dict(config) if "block_type" in config else {"block_type": kind, "config": dict(config)}
    return BlockRegistry.build(entry)


def check_model(config: Any, where: str) -> None:
    """Refuses what is no config of a model.

    Raises:
        ConfigError: it is no mapping.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"storytelling.{where}: found {config!r}; expected the config of a model, as {{'provider': 'openai', 'model_id': ...}} "
            "or {'backend': 'local', 'checkpoint_ref': ...}"
        )


def philosopher(vlm: Block) -> Stage:
    """Describes each picture on its own. Of the world's content it is told the language and nothing else, of the recipe nothing."""
    graph = Graph("describe")
    graph.add_node(vlm, "vlm", auto_connect=False, inputs=_accepted(vlm, temperature=0.2, max_tokens=400))
    graph.expose_input("vlm", "image")
    graph.expose_output("vlm", "text")
    reads = {"describe.image": "artifacts"}
    if "prompt" in vlm.get_input_spec():
        _add_words(graph, PHILOSOPHER, "vlm")
        reads["describe.content"] = "content"
    writes = {"description": "describe.text"}
    return stage_of("philosopher", around(graph, "describe"), "describe", ["artifacts"], ["description"], reads, writes, map="image")


def author(llm: Block, memory: Mapping[str, Any], temperature: float) -> Stage:
    """Tells what really happened, in the context of the world before the update."""
    graph = _writing("tell", llm, AUTHOR, memory, about="intent", temperature=temperature, max_tokens=700)
    for port in ("intent", "description"):
        graph.expose_input("words", port)
    graph.expose_output("llm", "text", "outcome")
    return stage_of("author", around(graph, "tell"), "tell", ["intent", "description"], ["outcome"])


def environment(development: Block, update: Block | None, memory: Mapping[str, Any], keep: Mapping[str, Any], temperature: float) -> Stage:
    """Takes a complete state into the world's content, and writes the next episode's intent.

    Args:
        development: writes the intent.
        update: keeps glossary and summary; None leaves both to the policies of ``memory/keep``.
        memory, keep: configs of those blocks.
        temperature: of the development; records are written at 0.2.
    """
    graph = _writing("development", development, DEVELOPMENT, memory, about="action", temperature=temperature, max_tokens=500)
    graph.expose_input("words", "action")
    graph.expose_output("llm", "text", "intent")
    return environment_of(_world_update(update, memory, keep), around(graph, "development"))


def architect(
    llm: Block,
    memory: Mapping[str, Any],
    creator: Pipeline,
    *,
    pictures: int,
    options: Sequence[str],
    prompt_language: str,
    painter: str | None,
    temperature: float,
) -> Stage:
    """Turns the intent into a recipe that the creator accepts, in the context of the updated world."""
    schema = recipe_schema(creator.get_input_spec(), pictures, options)
    graph = _writing("plan", llm, ARCHITECT, memory, about="intent", temperature=temperature, max_tokens=1500, schema=schema)
    fixed = {"pictures": pictures, "prompt_language": prompt_language, **({} if painter is None else {"painter": painter})}
    graph.configure_node("words", inputs=fixed)
    graph.expose_input("words", "intent")
    graph.expose_output("llm", "data", "recipe")
    return stage_of("architect", around(graph, "plan"), "plan", ["intent"], ["recipe"])


def creator(pipeline: Pipeline, options: Sequence[str]) -> Stage:
    """Paints a picture for each prompt of the recipe."""
    reads = {"paint.prompt": "recipe.prompts"}
    spec = pipeline.get_input_spec()
    reads |= {f"paint.{name}": f"recipe.{name}" for name in spec if name in options or (not spec[name].optional and name != "prompt")}
    return stage_of("creator", pipeline, "paint", ["recipe"], ["artifacts"], reads, {"artifacts": "paint.image"}, map="prompt")


# --- parts ------------------------------------------------------------------------------------------------------------


def _writing(name: str, llm: Block, words: Words, memory: Mapping[str, Any], *, about: str, **call: Any) -> Graph:
    """A graph that writes: memory and language of the content go into words, the words to a model; ``about`` is what to recall for."""
    graph = Graph(name)
    graph.add_node(llm, "llm", auto_connect=False, inputs=_accepted(llm, **call))
    _add_words(graph, words, "llm")
    graph.add_node("memory", "memory", config={**_tokenizer_of(llm), **memory}, auto_connect=False)
    graph.add_edge("memory.context", "words.context")
    graph.expose_input("memory", "content")
    graph.expose_input("memory", "query", about)
    return graph


def _tokenizer_of(llm: Block) -> dict[str, Any]:
    """The tokenizer of a model that is here, to count a prompt's tokens with."""
    ref = llm.config.get("checkpoint_ref")
    return {"tokenizer": ref} if ref and (Path(local_ref(ref)).expanduser() / "tokenizer.json").is_file() else {}


def _world_update(llm: Block | None, memory: Mapping[str, Any], keep: Mapping[str, Any]) -> Pipeline:
    if llm is None:
        return single("memory/keep", "world_update", **keep)
    graph = _writing("world_update", llm, WORLD_UPDATE, memory, about="outcome", temperature=0.2, max_tokens=1200, schema=_RECORDS)
    graph.add_node("memory/keep", "keep", config=dict(keep), auto_connect=False)
    graph.add_edge("llm.data", "keep.records")
    graph.expose_input("words", "outcome")
    graph.expose_input("keep", "outcome")
    graph.expose_input("keep", "content")
    graph.expose_output("keep", "content")
    return around(graph, "world_update")


def _add_words(graph: Graph, words: Words, target: str) -> None:
    config = {"prompt": words.prompt, "system": words.system, "optional": list(words.optional)}
    graph.add_node("prompt", "words", config=config, auto_connect=False)
    graph.add_edge("words.prompt", f"{target}.prompt")
    if "system" in graph.nodes[target].get_input_spec():
        graph.add_edge("words.system", f"{target}.system")
    if "language" in graph.nodes["words"].get_input_spec():
        graph.add_node("prompt/language", "language", auto_connect=False)
        graph.add_edge("language.language", "words.language")
        graph.expose_input("language", "content")


def _accepted(block: Block, **call: Any) -> dict[str, Any]:
    """Options of a call that the block has a port for and its own config leaves open."""
    own = block.config
    return {name: value for name, value in call.items() if name in block.get_input_spec() and (name == "schema" or own.get(name) is None)}
