"""A world of painted scenes without facts behind them: a traveller walks, the picture says where. Small, for benches and comparisons."""

from __future__ import annotations

from wgtorch.core.config.template import build_template, register_template
from wgtorch.stage import Stage
from wgtorch.templates.world import around, creator, environment_of, single
from wgtorch.world import World


@register_template("scenes", level="world")
def scenes(
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
    """A traveller's walk through painted scenes, told by a small grammar that reads each picture back; no facts stand behind it.

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
    world = World("scenes")
    world.add_stage(_philosopher())
    world.add_stage(_author())
    update = single("grammar/world_update", "world_update", memory=memory)
    world.add_stage(environment_of(update, single("grammar/development", "development")))
    world.add_stage(_architect(pictures=pictures))
    world.add_stage(creator(painter="scenes", steps=steps, guidance=guidance, larger=larger))
    world.set_canonical_cycle()
    world.set_initial_content({"story": story, "style": style, "traveller": traveller})
    return world


def _philosopher() -> Stage:
    """Looks at the artifacts and describes what is in them; it never sees the recipe."""
    stage = Stage("philosopher", role="philosopher")
    stage.add_pipeline(around(build_template("graph", "caption", {}), "describe"), "describe", map="image")
    stage.set_state_contract(["artifacts"], ["description"], {"describe.image": "artifacts"}, {"description": "describe.text"})
    stage.set_execution_condition("philosopher")
    return stage


def _author() -> Stage:
    """Tells what really happened, in the context of the world before the update, by grammar."""
    stage = Stage("author", role="author")
    stage.add_pipeline(single("grammar/author", "tell"), "tell")
    stage.set_state_contract(["intent", "description"], ["outcome"])
    stage.set_execution_condition("author")
    return stage


def _architect(*, pictures: int = 1) -> Stage:
    """Turns the intent into a recipe for pictures, by grammar.

    Args:
        pictures: pictures of one episode.
    """
    stage = Stage("architect", role="architect")
    stage.add_pipeline(single("grammar/architect", "plan", pictures=pictures), "plan")
    stage.set_state_contract(["intent"], ["recipe"])
    stage.set_execution_condition("architect")
    return stage
