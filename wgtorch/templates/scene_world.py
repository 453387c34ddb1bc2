"""A world of painted scenes without facts behind them: a traveller walks, the picture says where. Small, for benches and comparisons."""

from __future__ import annotations

from wgtorch.core.config.template import build_template, register_template
from wgtorch.templates.world import around, creator, environment_of, single, stage_of
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
    seen = around(build_template("graph", "caption", {}), "describe")
    reads, writes = {"describe.image": "artifacts"}, {"description": "describe.text"}
    world.add_stage(stage_of("philosopher", seen, "describe", ["artifacts"], ["description"], reads, writes, map="image"))
    world.add_stage(stage_of("author", single("grammar/author", "tell"), "tell", ["intent", "description"], ["outcome"]))
    update = single("grammar/world_update", "world_update", memory=memory)
    world.add_stage(environment_of(update, single("grammar/development", "development")))
    plan = single("grammar/architect", "plan", pictures=pictures)
    world.add_stage(stage_of("architect", plan, "plan", ["intent"], ["recipe"]))
    world.add_stage(creator(painter="scenes", steps=steps, guidance=guidance, larger=larger))
    world.set_canonical_cycle()
    world.set_initial_content({"story": story, "style": style, "traveller": traveller})
    return world
