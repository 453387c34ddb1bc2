"""All that the page shows, as data: from the facts of a world where it has such, from its slots where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.blocks.simulation.blocks import facts_after
from wgtorch.play.episodes import slot_text
from wgtorch.play.game import Game
from wgtorch.report.facts import carried_by, cast_of, clock_of, is_here, map_of, traveller_in
from wgtorch.report.words import words

SUGGESTED = 4


def view_of(game: Game, past: str | None = None, after: int = -1) -> dict[str, Any]:
    """What the page shows now, without the episodes up to a step of an earlier view, as :meth:`Episodes.told` says."""
    world = game.world
    state = world.state
    content = facts_now(world.content, state)
    told = game.episodes[game.branch].told(past, after)
    slots = {} if state is None else {slot: slot_text(state[slot]) for slot in state.schema}
    return {
        "world": world.world_id,
        "title": _title(content) or world.world_id,
        "passes": world.life.passes,
        "seed": world.life.seed,
        "busy": game.is_busy,
        "stage": game.stage,
        "next": world.cycle[world.life.stage % len(world.cycle)] if world.cycle else None,
        "running": game.action,
        "paused": game.paused_after,
        "error": game.error,
        "cycle": list(world.cycle),
        "pauses": sorted(game.pauses),
        **told,
        "slots": slots,
        "suggestions": suggestions(content, state),
        "map": map_of(content),
        "cast": cast_of(content),
        "carried": carried_by(content, content.get("traveller")),
        "clock": clock_of(content),
        "branch": game.branch,
        "branches": [{"name": name, "passes": branch.life.passes, "parent": game.parents[name]} for name, branch in game.branches.items()],
        "can": {"undo": game.keeps_log, "branch": game.keeps_log and world.life.passes > 0},
    }


def facts_now(content: Mapping[str, Any], state: Any) -> Mapping[str, Any]:
    """What the world is as the episode that is shown leaves it: a simulation applies what happens in the next pass."""
    intent = state["intent"] if state is not None and "intent" in state else None
    return (facts_after(content, intent) if intent is not None else None) or content


def suggestions(content: Mapping[str, Any], state: Any) -> list[str]:
    """Up to four things that one might do now: those that the world names, or what the facts around the traveller allow."""
    intent = state["intent"] if state is not None and "intent" in state else None
    named = intent.get("suggestions") if isinstance(intent, Mapping) else None
    if named:
        return [words(entry) for entry in named][:SUGGESTED]
    who = traveller_in(content)
    if who is None:
        return ["look around", "wait", "go on", "ask what happened here"]
    here = content["places"].get(who["place"], {})
    name = content["traveller"]
    people = [other for other, entry in content["characters"].items() if is_here(entry, who["place"]) and other != name]
    lying = [thing for thing, entry in content.get("objects", {}).items() if entry.get("place") == who["place"] and not entry.get("fixed")]
    found = [f"talk to {people[0]}"] if people else []
    found += [f"take the {lying[0]}"] if lying else []
    found += [f"go {direction}" for direction in here.get("neighbours", {})]
    return [*found[:SUGGESTED], "wait", "look around", "sing", "sleep"][:SUGGESTED]


def _title(content: Mapping[str, Any]) -> str:
    text = words(content.get("title") or content.get("opening") or content.get("story"))
    return text.split("\n")[0][:120]
