"""The language stages of the default world, as blocks over a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.blocks.grammar.story import intent_of, next_scene, outcome_of, updated_content
from wgtorch.blocks.scenes.scene import parse, sentence
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import CONTENT, DESCRIPTION, FIRST_CONTENT, NEW_CONTENT, OUTCOME, RECIPE

_TRAVELLER = "the traveller"


@register_block("grammar/development")
class GrammarDevelopment(Block):
    """Writes what should happen next, from the world's content and the user's action, with a grammar.

    Words for time, weather, land and landmarks in the action steer the episode; the rest of it is quoted. Lands that
    were seen before look as they did. Draws from ``rng``; the same draws give the same words.
    """

    inputs = {"content": FIRST_CONTENT, "action": Port(dtype="text", description="what the user wants to do, in words; None for nothing")}
    outputs = {"intent": Port(dtype="text", description="what is meant to happen, in a sentence or two")}
    uses_global_rng = False

    def forward(self, content: Mapping[str, Any], action: str | None = None, rng: Rng | None = None) -> dict[str, Any]:
        """The intent, one sentence or two, for ``content`` and an action."""
        draws = (rng or GLOBAL_RNG).python()
        wish = parse(action) if action is not None else {}
        before = content.get("scene", {})
        places = content.get("places", {})
        scene = next_scene(before, places, wish, draws)
        known = "landmark" in places.get(scene["terrain"], {}) and "landmark" not in wish
        return {"intent": intent_of(scene, before, content.get("traveller", _TRAVELLER), known, action or "", draws)}


@register_block("grammar/architect")
class GrammarArchitect(Block):
    """Turns the intent into a recipe for pictures: reads the scene that the words name, and writes it as a prompt.

    The recipe holds ``prompts``, one for each picture, and the ``scene`` that was read.

    Args:
        pictures: pictures of one episode.
    """

    inputs = {"intent": Port(dtype="text", description="what is meant to happen, in words"), "content": CONTENT}
    outputs = {"recipe": RECIPE}
    uses_global_rng = False

    def __init__(self, *, pictures: int = 1) -> None:
        super().__init__()
        if pictures < 1:
            raise ValueError(f"GrammarArchitect.pictures: found {pictures}, expected at least 1")
        self.pictures = pictures

    def forward(self, intent: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The recipe for one intent; what the intent leaves open is taken from the scene the world stands in."""
        known = (content or {}).get("scene", {})
        scene = {**{name: known[name] for name in ("time", "weather", "terrain") if name in known}, **parse(intent)}
        traveller = str((content or {}).get("traveller", _TRAVELLER))
        if traveller.lower() in intent.lower():
            scene.setdefault("traveller", "yes")
        return {"recipe": {"prompts": [sentence(scene)] * self.pictures, "scene": scene}}


@register_block("grammar/author")
class GrammarAuthor(Block):
    """Tells what really happened: what was described in the pictures, against what was meant, in the world before it."""

    inputs = {"description": DESCRIPTION, "intent": Port(dtype="text", description="what is meant to happen, in words"), "content": CONTENT}
    outputs = {"outcome": OUTCOME}
    uses_global_rng = False

    def forward(self, description: Any, intent: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The outcome for a description, a text or a list of texts of which the first leads."""
        content = content or {}
        seen = parse(description if isinstance(description, str) else description[0])
        meant = parse(intent)
        whole = {"time": "day", "weather": "clear", "terrain": "meadow", **meant, **seen}
        if "landmark" in seen:
            whole = {**whole, **{name: seen.get(name, "") for name in ("color", "place")}}
        return {"outcome": outcome_of(whole, meant, content.get("scene", {}), content.get("traveller", _TRAVELLER))}


@register_block("grammar/world_update")
class GrammarWorldUpdate(Block):
    """Applies a complete episode to the world's content: where the traveller is, what each land holds, the story.

    Args:
        memory: episodes that the story tells in full.
    """

    inputs = {"content": CONTENT, "description": DESCRIPTION, "outcome": OUTCOME}
    outputs = {"content": NEW_CONTENT}
    uses_global_rng = False

    def __init__(self, *, memory: int = 6) -> None:
        super().__init__()
        if memory < 1:
            raise ValueError(f"GrammarWorldUpdate.memory: found {memory}, expected at least 1")
        self.memory = memory

    def forward(self, description: Any, outcome: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The content after an episode."""
        seen = parse(description if isinstance(description, str) else description[0])
        return {"content": updated_content(content or {}, seen, outcome, self.memory)}
