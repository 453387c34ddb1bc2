"""The stages of a simulated world, as blocks: what begins it, develops it, updates it, plans its pictures and tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.cast import CastMakers
from wgtorch.blocks.simulation.drama import Dramas, Schedules
from wgtorch.blocks.simulation.episode import after, develop
from wgtorch.blocks.simulation.facts import ENTITIES, check_content, check_entry
from wgtorch.blocks.simulation.genesis import facts_of, is_begun
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.places import MapMakers
from wgtorch.blocks.simulation.resolver import Resolvers
from wgtorch.blocks.simulation.seasons import Skies
from wgtorch.blocks.simulation.staging import caption_attributes, differences, plan_of, prompt_of
from wgtorch.blocks.simulation.telling.teller import Tellers
from wgtorch.blocks.simulation.verbs.being import suggestions
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.port import Port
from wgtorch.core.registry import Registry
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import ACTIONS, CONTENT, DESCRIPTION, FIRST_CONTENT, INTENT, NEW_CONTENT, OUTCOME, RECIPE

_DISCREPANCIES = 50
"""How many of the last discrepancies the content keeps."""


@register_block("simulation/development")
class SimulationDevelopment(Block):
    """Develops a simulated world by one pass: tries the action against the facts, lets the others live on, and says what is meant.

    The intent is ``{"text": ..., "resolution": ..., "suggestions": [...]}``. The resolution is the verdict of the leading event
    (``status``, ``because``, ``effects``, ...) and holds all ``events`` of the pass, which the update applies; the suggestions are
    actions that could come next. Actions come from a reader, by the name of who acts; without any the cast goes its ways. Draws
    from ``rng``; the same draws give the same events.

    A content without places is a world that has not begun: map, cast, clock and sky are made around what it holds, and
    ``resolution.genesis`` says from which seed, so that the first update can put them into the content.

    Args:
        places: how many places the map has at first, at least 8.
        characters: how many characters there are at first, the traveller included, at least 2.
        map_maker: name of a registered map maker.
        cast_maker: name of a registered cast maker.
        resolver: name of a registered resolver.
        drama: name of a registered drama.
        sky: name of a registered weather.
        scheduling: who acts in a pass: ``initiative``, ``turns`` or ``all``, or another that is registered.
        teller: name of a registered teller.
    """

    inputs = {"content": FIRST_CONTENT, "actions": ACTIONS}
    outputs = {
        "intent": Port(
            dtype="dict",
            description="text of what is meant, resolution with the pass's events, suggestions of actions",
        )
    }
    uses_global_rng = False

    def __init__(
        self,
        *,
        places: int = 36,
        characters: int = 8,
        map_maker: str = "grid",
        cast_maker: str = "village",
        resolver: str = "facts",
        drama: str = "threads",
        sky: str = "drifting",
        scheduling: str = "initiative",
        teller: str = "grammar",
    ) -> None:
        super().__init__()
        _whole("SimulationDevelopment.places", places, 8)
        _whole("SimulationDevelopment.characters", characters, 2)
        _known(
            "SimulationDevelopment", map_maker=(map_maker, MapMakers), cast_maker=(cast_maker, CastMakers),
            resolver=(resolver, Resolvers), drama=(drama, Dramas), sky=(sky, Skies),
            scheduling=(scheduling, Schedules), teller=(teller, Tellers),
        )  # fmt: skip
        self.beginning = {"places": places, "characters": characters, "map_maker": map_maker, "cast_maker": cast_maker}
        self.teller = Tellers.get(teller)()
        self.parts = {"resolver": resolver, "drama": drama, "sky": sky, "scheduling": scheduling}

    def forward(self, content: Mapping[str, Any], actions: Mapping[str, Any] | None = None, rng: Rng | None = None) -> dict[str, Any]:
        """The intent of the next episode.

        Raises:
            ConfigError: facts in the content do not fit.
        """
        draws = (rng or GLOBAL_RNG).python()
        genesis = {} if is_begun(content) else {"genesis": {"seed": draws.getrandbits(62), **self.beginning}}
        facts = facts_of(content, {"resolution": genesis})
        assert facts is not None
        read = {who: [Action(**entry) for entry in clauses] for who, clauses in (actions or {}).items()}
        events = develop(facts, read, draws, **self.parts)
        lead = next((event for event in events if event["action"]), events[0] if events else None)
        resolution = {**(lead or {}), "events": events, **genesis}
        offers = suggestions(Draft(after(facts, events), draws), facts["traveller"])
        return {"intent": {"text": self.teller.intent(facts, events, draws), "resolution": resolution, "suggestions": offers}}


@register_block("simulation/world_update")
class SimulationUpdate(Block):
    """Applies a complete episode to a simulated world: the effects of its events, and nothing else, change facts.

    Where the picture shows something else than was planned, the difference is kept under ``discrepancies``; it changes no fact.

    Args:
        memory: episodes that the story tells in full.
    """

    inputs = {
        "content": CONTENT,
        "intent": INTENT,
        "recipe": Port(description="what the pictures were to show, with the scene plan"),
        "description": DESCRIPTION,
        "outcome": Port(description="what happened: words, or a mapping with text"),
    }
    outputs = {"content": NEW_CONTENT}
    uses_global_rng = False

    def __init__(self, *, memory: int = 6) -> None:
        super().__init__()
        _whole("SimulationUpdate.memory", memory, 1)
        self.memory = memory

    def forward(
        self, content: Mapping[str, Any], intent: Any = None, recipe: Any = None, description: Any = None, outcome: Any = None
    ) -> dict[str, Any]:
        """The content after an episode. One of plain words leaves all facts as they are.

        Raises:
            ConfigError: an event does not fit the schema.
        """
        number = int(content.get("episodes", 0)) + 1
        found = [{"episode": number, **entry} for entry in discrepancies(recipe, description)]
        facts, events = facts_of(content, intent), events_of(intent)
        changed = dict(content if facts is None else facts)
        if facts is not None and events:
            if not follow(facts, events):
                found.append({"episode": number, "what": "events", "planned": "those of another past", "seen": "left out"})
            else:
                changed = self._applied(facts, events)
        changed["chronicle"] = [*content.get("chronicle", []), text_of(outcome)]
        changed["episodes"] = number
        changed["opening"] = content.get("opening", content.get("story", ""))
        changed["discrepancies"] = [*content.get("discrepancies", []), *found][-_DISCREPANCIES:]
        changed["story"] = self._story(changed)
        return {"content": changed}

    def _applied(self, facts: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for event in events:
            check_entry("events", str(event["id"]), event)
        changed = after(facts, events)
        touched = {(effect["path"][0], effect["path"][1]) for event in events for effect in event["effects"] if len(effect["path"]) > 1}
        check_content(changed, entries=sorted(entry for entry in touched if entry[0] in ENTITIES))
        return changed

    def _story(self, content: Mapping[str, Any]) -> str:
        told = content["chronicle"]
        forgotten = len(told) - self.memory
        known = sum(place["known"] for place in content.get("places", {}).values())
        bridge = f"{forgotten} episode{'s' if forgotten > 1 else ''} passed, through {known} places." if forgotten > 0 else ""
        return " ".join(filter(None, [content["opening"], bridge, *told[-self.memory :]]))


@register_block("simulation/architect")
class SimulationArchitect(Block):
    """Plans the pictures of an episode from the facts: ``recipe.scene`` is the plan, ``prompts`` say it in words, one for each picture.

    Args:
        pictures: pictures of one episode.
        painter: whose words they are: ``pixels``, which paints all of a plan, or ``scenes``, which knows some of it.
    """

    inputs = {"intent": INTENT, "content": CONTENT}
    outputs = {"recipe": RECIPE}
    uses_global_rng = False

    def __init__(self, *, pictures: int = 1, painter: str = "pixels") -> None:
        super().__init__()
        _whole("SimulationArchitect.pictures", pictures, 1)
        if painter not in ("pixels", "scenes"):
            raise ConfigError(f"SimulationArchitect.painter: found {painter!r}; {suggest(str(painter), ('pixels', 'scenes'))}")
        self.pictures, self.painter = pictures, painter

    def forward(self, intent: Any, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The recipe for one intent; a plain text is painted as it stands."""
        from wgtorch.blocks.scenes.scene import sentence

        facts = facts_after(content, intent)
        if facts is None:
            return {"recipe": {"prompts": [text_of(intent)] * self.pictures}}
        plan = plan_of(facts, events_of(intent))
        prompt = prompt_of(plan) if self.painter == "pixels" else sentence(caption_attributes(plan))
        return {"recipe": {"prompts": [prompt] * self.pictures, "scene": plan.to_data()}}


@register_block("simulation/author")
class SimulationAuthor(Block):
    """Tells what came of an episode, from its events and the facts before it: who did what, why, and what it goes back to.

    Args:
        teller: name of a registered teller.
    """

    inputs = {"intent": INTENT, "description": DESCRIPTION, "content": CONTENT}
    outputs = {"outcome": OUTCOME}
    uses_global_rng = False

    def __init__(self, *, teller: str = "grammar") -> None:
        super().__init__()
        _known("SimulationAuthor", teller=(teller, Tellers))
        self.teller = Tellers.get(teller)()

    def forward(
        self, intent: Any, description: Any = None, content: Mapping[str, Any] | None = None, rng: Rng | None = None
    ) -> dict[str, Any]:
        """The outcome. An intent without events is told as what was meant, beside what was seen."""
        facts, events = facts_of(content, intent), events_of(intent)
        if facts is None or not events or not follow(facts, events):
            seen = text_of(description)
            return {"outcome": " ".join(filter(None, [f"What was meant: {text_of(intent)}", f"What was seen: {seen}" if seen else ""]))}
        return {"outcome": self.teller.outcome(facts, after(facts, events), events, (rng or GLOBAL_RNG).python())}


# --- slots ----------------------------------------------------------------------------------------------------------------


def text_of(slot: Any) -> str:
    """The words of a slot: a text, the ``text`` of a mapping, or those of a list."""
    if isinstance(slot, Mapping):
        return text_of(slot.get("text"))
    if isinstance(slot, (list, tuple)):
        return " ".join(dict.fromkeys(filter(None, map(text_of, slot))))
    return "" if slot is None else str(slot)


def events_of(intent: Any) -> list[dict[str, Any]]:
    """The events that an intent brings; a plain text is an intent too and brings none."""
    resolution = intent.get("resolution") if isinstance(intent, Mapping) else None
    return list(resolution.get("events", ())) if isinstance(resolution, Mapping) else []


def facts_after(content: Mapping[str, Any] | None, intent: Any) -> dict[str, Any] | None:
    """The facts as the events of an intent leave them, before an update applies them; None of a world that is no simulation."""
    facts, events = facts_of(content, intent), events_of(intent)
    return after(facts, events) if facts is not None and events and follow(facts, events) else facts


def follow(facts: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> bool:
    """True when events are the next ones of a ledger."""
    first = len(facts["events"]) + 1
    return [event.get("id") for event in events] == list(range(first, first + len(events)))


def discrepancies(recipe: Any, description: Any) -> list[dict[str, Any]]:
    """Where pictures show something else than the recipe's scene, as far as the description holds what was seen as data."""
    scene = recipe.get("scene") if isinstance(recipe, Mapping) else None
    seen = description.get("attributes") if isinstance(description, Mapping) else None
    if not isinstance(scene, Mapping) or not seen:
        return []
    rows: Sequence[Any] = seen if isinstance(seen, (list, tuple)) else [seen]
    return [entry for row in rows for entry in differences(scene, row)]


def _whole(where: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{where}: found {value!r}, expected a whole number of at least {least}")


def _known(where: str, **parts: tuple[Any, Registry[Any]]) -> None:
    for name, (value, registry) in parts.items():
        if not isinstance(value, str) or value not in registry:
            raise ConfigError(f"{where}.{name}: found {value!r}; {suggest(str(value), registry.names())}")
