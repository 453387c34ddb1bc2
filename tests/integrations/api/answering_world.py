"""A world whose words all come from language models, and its pictures from an image generator."""

from __future__ import annotations

from typing import Any

from wgtorch import Graph, Pipeline, Stage, World

RECIPE = {"type": "object", "properties": {"prompts": {"type": "array", "items": {"type": "string"}}}, "required": ["prompts"]}


def world_of(build: Any, *, texts: dict[str, Any] | None = None, **config: Any) -> World:
    """The canonical cycle; ``config`` goes to every model, ``texts`` to those that write."""
    write = {**config, **(texts or {})}
    world = World("talking")
    world.add_stage(_stage("philosopher", "vlm", "text", {"image": "artifacts"}, "description", map="image", **_made(build, "vlm", write)))
    author = {"prompt": "description", "context": "intent"}
    world.add_stage(_stage("author", "llm", "text", author, "outcome", **_made(build, "llm", {**write, "system": "author"})))
    environment = _stage("environment", "llm", "text", {"prompt": "content.story"}, "intent", **_made(build, "llm", write))
    environment.set_state_contract([], ["intent"], {"environment.prompt": "content.story"}, {"intent": "environment.text"}, new_state=True)
    environment.set_execution_condition(None)
    world.add_stage(environment)
    plan = _made(build, "llm", {**write, "schema": RECIPE})
    world.add_stage(_stage("architect", "llm", "data", {"prompt": "intent"}, "recipe", **plan))
    paint = _made(build, "image_generator", config)
    world.add_stage(_stage("creator", "image_generator", "image", {"prompt": "recipe.prompts"}, "artifacts", map="prompt", **paint))
    world.set_canonical_cycle()
    world.set_initial_content({"story": "A storm comes."})
    return world


def _made(build: Any, block_type: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"block": build(block_type, **config)}


def _stage(role: str, kind: str, output: str, reads: dict[str, str], writes: str, *, block: Any, **place: Any) -> Stage:
    graph = Graph(role)
    graph.add_node(block, kind)
    for port in reads:
        graph.expose_input(kind, port)
    graph.expose_output(kind, output)
    pipeline = Pipeline(role)
    pipeline.add_graph(graph, role)
    for port in reads:
        pipeline.expose_input(role, port)
    pipeline.expose_output(role, output)
    stage = Stage(role, role=role)
    stage.add_pipeline(pipeline, role, **place)
    slots = list(dict.fromkeys(source.split(".")[0] for source in reads.values() if not source.startswith("content")))
    stage.set_state_contract(slots, [writes], {f"{role}.{port}": source for port, source in reads.items()}, {writes: f"{role}.{output}"})
    stage.set_execution_condition(role if role in ("philosopher", "author", "architect", "creator") else None)
    return stage


def respond(seen: Any) -> str:
    """What the models of this world say."""
    if "JSON Schema" in seen.system:
        return '{"prompts": ["a dark sea", "a small hut", "a lantern"]}'
    return f"Of {seen.prompt[-20:]} much can be told."
