"""The canonical stages and the default world."""

from __future__ import annotations

from wgtorch.core.config.template import build_template, register_template
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world import World


def single(block_type: str, name: str, **config: object) -> Pipeline:
    """A pipeline of one graph of one block, all its ports exposed."""
    graph = Graph(name)
    graph.add_node(block_type, name, config=config)
    for port in graph.nodes[name].get_input_spec():
        graph.expose_input(name, port)
    for port in graph.nodes[name].get_output_spec():
        graph.expose_output(name, port)
    return around(graph, name)


def around(graph: Graph, name: str) -> Pipeline:
    """A pipeline of one graph, with that graph's interface."""
    pipeline = Pipeline(name)
    pipeline.add_graph(graph, name)
    for port in graph.get_input_spec():
        pipeline.expose_input(name, port)
    for port in graph.get_output_spec():
        pipeline.expose_output(name, port)
    return pipeline


@register_template("philosopher", level="stage")
def philosopher() -> Stage:
    """Looks at the artifacts and describes what is in them; it never sees the recipe."""
    stage = Stage("philosopher", role="philosopher")
    stage.add_pipeline(around(build_template("graph", "caption", {}), "describe"), "describe", map="image")
    stage.set_state_contract(["artifacts"], ["description"], {"describe.image": "artifacts"}, {"description": "describe.text"})
    stage.set_execution_condition("philosopher")
    return stage


@register_template("author", level="stage")
def author() -> Stage:
    """Tells what really happened, in the context of the world before the update, by grammar."""
    stage = Stage("author", role="author")
    stage.add_pipeline(single("grammar/author", "tell"), "tell")
    stage.set_state_contract(
        ["intent", "description"],
        ["outcome"],
        {"tell.intent": "intent", "tell.description": "description", "tell.content": "content"},
        {"outcome": "tell.outcome"},
    )
    stage.set_execution_condition("author")
    return stage


@register_template("environment", level="stage")
def environment(*, memory: int = 6) -> Stage:
    """Applies a complete state to the world's content, and writes the next episode's intent, by grammar.

    Args:
        memory: episodes that the story tells in full.
    """
    stage = Stage("environment", role="environment")
    stage.add_pipeline(single("grammar/world_update", "world_update", memory=memory), "world_update", condition="complete")
    stage.add_pipeline(single("grammar/development", "development"), "development")
    stage.add_edge("world_update.content", "development.content")
    stage.set_state_contract(
        [],
        ["intent"],
        {
            "world_update.content": "content",
            "world_update.description": "description",
            "world_update.outcome": "outcome",
            "development.content": "content",
            "development.action": "action",
        },
        {"content": "world_update.content", "intent": "development.intent"},
        new_state=True,
    )
    return stage


@register_template("architect", level="stage")
def architect(*, pictures: int = 1) -> Stage:
    """Turns the intent into a recipe for pictures, by grammar.

    Args:
        pictures: pictures of one episode.
    """
    stage = Stage("architect", role="architect")
    stage.add_pipeline(single("grammar/architect", "plan", pictures=pictures), "plan")
    stage.set_state_contract(["intent"], ["recipe"], {"plan.intent": "intent", "plan.content": "content"}, {"recipe": "plan.recipe"})
    stage.set_execution_condition("architect")
    return stage


@register_template("creator", level="stage")
def creator(*, steps: int = 12, guidance: float = 2.0, larger: bool = True) -> Stage:
    """Paints a picture for each prompt of the recipe.

    Args:
        steps: solver steps.
        guidance: strength of classifier-free guidance.
        larger: pictures of 128x128 pixels, by the upscaler behind the painter; else of 64x64.
    """
    stage = Stage("creator", role="creator")
    options = {"steps": steps, "guidance": guidance, "larger": larger}
    stage.add_pipeline(build_template("pipeline", "text_to_image", options), "paint", map="prompt")
    stage.set_state_contract(["recipe"], ["artifacts"], {"paint.prompt": "recipe.prompts"}, {"artifacts": "paint.image"})
    stage.set_execution_condition("creator")
    return stage


@register_template("default", level="world")
def default(
    *,
    story: str = "A traveller walks through a small painted world.",
    style: str = "painted scenes",
    traveller: str = "the traveller",
    pictures: int = 1,
    steps: int = 12,
    guidance: float = 2.0,
    larger: bool = True,
    memory: int = 6,
) -> World:
    """A traveller's world that develops itself and paints what happens; needs no network, key or GPU.

    Args:
        story: how it begins.
        style: a note that travels with the content.
        traveller: who walks.
        pictures: pictures of one episode.
        steps: solver steps of a picture.
        guidance: strength of classifier-free guidance.
        larger: pictures of 128x128 pixels, by the upscaler behind the painter; else of 64x64.
        memory: episodes that the story tells in full.
    """
    world = World("default")
    world.add_stage(philosopher())
    world.add_stage(author())
    world.add_stage(environment(memory=memory))
    world.add_stage(architect(pictures=pictures))
    world.add_stage(creator(steps=steps, guidance=guidance, larger=larger))
    world.set_canonical_cycle()
    world.set_initial_content({"story": story, "style": style, "traveller": traveller})
    return world
