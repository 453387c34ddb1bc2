"""The storytelling world: language models develop it, any text-to-image graph paints it, a vision model looks at the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.core.config.template import register_template
from wgtorch.core.errors import ConfigError
from wgtorch.core.pool import building
from wgtorch.templates.storytelling import stages
from wgtorch.templates.storytelling.recipe import SHIPPED, creator_of, painter_notes
from wgtorch.world import World

_MODEL: Mapping[str, Any] = {"backend": "api", "provider": "openai", "model_id": "gpt-4.1-mini"}


@register_template("storytelling", level="world")
def storytelling(
    *,
    llm: Mapping[str, Any] = _MODEL,
    vlm: Mapping[str, Any] | None = None,
    creator: Any = SHIPPED,
    development: Mapping[str, Any] | None = None,
    update: Mapping[str, Any] | str | None = None,
    author: Mapping[str, Any] | None = None,
    architect: Mapping[str, Any] | None = None,
    story: str = "A lighthouse stands on a rock before a small harbour town. Its keeper, an old woman named Mara, has kept the lamp for "
    "thirty years, and one evening a stranger's boat comes in.",
    style: str = "ink and watercolour, muted colours",
    rules: Sequence[str] = (),
    glossary: Mapping[str, str] | None = None,
    language: str | None = None,
    prompt_language: str = "English",
    painter: str | None = None,
    pictures: int = 1,
    options: Sequence[str] | None = None,
    temperature: float = 0.9,
    memory: Mapping[str, Any] | None = None,
    keep: Mapping[str, Any] | None = None,
) -> World:
    """A world told by language models and painted by any text-to-image graph.

    Which model stands where is a line of config: a model behind an API (``{"provider": "openai", "model_id": ...}``) or of this
    machine (``{"backend": "local", "checkpoint_ref": ...}``), for all roles in ``llm``, or for one of them.

    Args:
        llm: language model of every role that has none of its own.
        vlm: vision model that describes the pictures; the model of ``llm`` where left out, which an API's mostly can be.
        creator: what paints: a template's name, the path of a graph's config or of a folder of diffusers,
            ``{"template": ..., "params": ...}``, ``{"block_type": "image_generator", "config": ...}``, or a Graph.
        development: model that writes what is about to happen.
        update: model that keeps glossary and summary; ``"plain"`` keeps them without one.
        author: model that tells what really happened.
        architect: model that writes the painter's prompts.
        story: how the world begins.
        style: of words and pictures.
        rules: what always holds in this world.
        glossary: what names stand for, and what they look like.
        language: of the world, as its English name (``Russian``); the language of ``story`` where left out.
        prompt_language: that the painter was trained with.
        painter: what the architect should know of the painter.
        pictures: of one episode.
        options: what a recipe says beside its prompts, of ``negative_prompt``, ``guidance_scale``, ``width``, ``height``, ``seed``.
        temperature: at which development and author write, where their configs do not say; the architect writes at half of it.
        memory: config of the block ``memory``: what of the world goes into a prompt.
        keep: config of the block ``memory/keep``: how much of it the world remembers.
    """
    if pictures < 1:
        raise ConfigError(f"storytelling.pictures: found {pictures}, expected at least 1")
    stages.check_model(llm, "llm")
    notes = painter_notes(creator) if painter is None else painter
    seen = _vision(llm) if vlm is None else vlm
    recall = {"budget": 4500, "stable_first": True, **(memory or {})}
    episodes = int((keep or {}).get("episodes", 16))
    memory_policy = {"episodes": episodes, "at_once": max(1, min(6, episodes // 2)), **(keep or {})}
    world = World("storytelling")
    with building():  # the same model at several places is one
        paint = creator_of(creator)
        chosen = [name for name in ("negative_prompt",) if name in paint.get_input_spec() and notes is None] if options is None else options
        written = {
            name: stages.model("llm", llm if own is None else own, name)
            for name, own in (("development", development), ("author", author), ("architect", architect))
        }
        records = None if update == "plain" else stages.model("llm", llm if update is None else update, "update")  # type: ignore[arg-type]
        world.add_stage(stages.philosopher(stages.model("vlm", seen, "vlm")))
        world.add_stage(stages.author(written["author"], recall, temperature))
        world.add_stage(stages.environment(written["development"], records, recall, memory_policy, temperature))
        world.add_stage(
            stages.architect(
                written["architect"],
                recall,
                paint,
                pictures=pictures,
                options=chosen,
                prompt_language=prompt_language,
                painter=notes,
                temperature=temperature / 2,
            )
        )
        world.add_stage(stages.creator(paint, chosen))
    world.set_canonical_cycle()
    content = {"language": language, "style": style, "rules": list(rules), "story": story, "glossary": dict(glossary or {})}
    world.set_initial_content({name: value for name, value in content.items() if value})
    return world


def _vision(llm: Mapping[str, Any]) -> dict[str, Any]:
    """The model of ``llm`` as one that sees.

    Raises:
        ConfigError: it is not behind an API, and most language models do not see.
    """
    backend = llm.get("backend", "api") if "block_type" not in llm else None
    if backend != "api":
        raise ConfigError(
            "storytelling.vlm: is left out, and llm is a local model; name the one that looks at the pictures, as "
            "{'backend': 'local', 'checkpoint_ref': ...}, or {'block_type': 'vlm/scene', 'config': {'checkpoint_ref': "
            "'wgtorch:scene_describer'}} for pictures of the painter that ships"
        )
    return {name: value for name, value in llm.items() if name not in ("schema", "system", "stop")}
