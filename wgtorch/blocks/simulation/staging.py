"""What of an episode is shown: from the facts to a :class:`~wgtorch.blocks.simulation.scene_plan.ScenePlan`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.blocks.simulation.facts import Content, Event
from wgtorch.blocks.simulation.lexicon import agreed, with_article
from wgtorch.blocks.simulation.scene_plan import BACK, BEASTS, FRONT, LANDMARKS, LARGEST, OBJECTS, Look, ScenePlan, Thing
from wgtorch.blocks.simulation.seasons import time_of_day

_BESIDE = tuple(slot for slot in FRONT if slot != "front_middle")


def plan_of(content: Content, events: Sequence[Event] = ()) -> ScenePlan:
    """The picture of an episode: the traveller where they are, the landmark, who took part, and the thing it was about.

    Args:
        content: the facts as the events left them.
        events: the episode's.
    """
    hero = content["traveller"]
    where = content["characters"][hero]["place"]
    place = content["places"][where]
    things, unpainted = [], []
    if place["landmark"] in LANDMARKS:
        slot = BACK[zlib.crc32(where.encode()) % len(BACK)]
        things.append(Thing("landmark", place["landmark"], slot, place["colour"], place["state"], where))
    elif place["landmark"] is not None:
        unpainted.append(place["landmark"])
    things.append(Thing("hero", "person", "front_middle", name=hero, look=Look(**content["characters"][hero]["look"])))
    free = list(_BESIDE)
    for name in _company(content, events, where, hero)[:2]:
        who = content["characters"][name]
        slot = free.pop(zlib.crc32(name.encode()) % len(free))
        kind = who["kind"] if who["kind"] in BEASTS else "person"
        things.append(Thing("character", kind, slot, name=name, look=Look(**who["look"])))
    for name in _objects(content, events, where, hero):
        thing = content["objects"][name]
        if thing["kind"] not in OBJECTS:
            unpainted.append(name)
        elif len(things) < LARGEST and not any(other.role == "object" for other in things):
            things.append(Thing("object", thing["kind"], free[0], thing["colour"], thing["state"], name))
    return ScenePlan(
        time_of_day(content["clock"]),
        content["weather"],
        place["terrain"],
        tuple(things),
        where,
        tuple(dict.fromkeys(unpainted)),
    )


def _company(content: Content, events: Sequence[Event], where: str, hero: str) -> list[str]:
    """Who is beside the traveller, those first who took part."""
    here = [name for name, who in content["characters"].items() if who["place"] == where and who["present"] and name != hero]
    involved = [str(name) for event in events for name in (event["actor"], event["target"], event["details"].get("to")) if name in here]
    return list(dict.fromkeys([*involved, *here]))


def _objects(content: Content, events: Sequence[Event], where: str, hero: str) -> list[str]:
    """Things that the episode is about and that are here, then those that stand here."""
    at_hand = {name for name, thing in content["objects"].items() if thing["place"] == where or thing["bearer"] == hero}
    about = [str(event["target"]) for event in events if event["where"] == where and str(event["target"]) in at_hand]
    standing = [name for name, thing in content["objects"].items() if thing["place"] == where]
    return list(dict.fromkeys([*about, *standing]))[:4]


_FAR = {"back_left": "far left", "back_middle": "far ahead", "back_right": "far right"}
_NEAR = {
    "front_far_left": "at the left edge", "front_left": "to the left", "front_middle": "in front", "front_right": "to the right",
    "front_far_right": "at the right edge",
}  # fmt: skip


def prompt_of(plan: ScenePlan) -> str:
    """A plan in words for a painter that knows all kinds of it: who and what, where, and how they look; of what it cannot paint, nothing.

    >>> prompt_of(ScenePlan("dusk", "rain", "hills", (Thing("landmark", "stones", "back_left", None, "whole", "Irontor"),)))
    'Hills, dusk, rain; far left stones'
    """
    parts = [
        f"{plan.terrain.capitalize()}, {plan.time}, {plan.weather if plan.weather not in ('clear', 'cloudy') else f'{plan.weather} sky'}"
    ]
    for thing in plan.things:
        where = {**_FAR, **_NEAR}[thing.slot]
        if thing.look is None:
            words = [thing.state if thing.state != "whole" else "", str(thing.colour or ""), thing.kind]
            parts.append(agreed(f"{where} {with_article(' '.join(filter(None, words)))}"))
            continue
        headwear = "" if thing.look.hat == "none" else f", {'wide hat' if thing.look.hat == 'wide' else thing.look.hat}"
        kind = "" if thing.kind == "person" else f", a {thing.kind}"
        coat = f"{thing.look.hair} hair, {thing.look.coat} coat{headwear}" if thing.kind == "person" else f"{thing.look.coat} fur"
        parts.append(f"{where} {thing.name}{kind} ({coat})")
    return "; ".join(parts)


# --- for painters of the scenes' captions --------------------------------------------------------------------------------

_TERRAIN = {"river": "sea", "marsh": "meadow"}
_COLUMN = {"back_left": "left", "back_middle": "middle", "back_right": "right"}


def caption_attributes(plan: ScenePlan) -> dict[str, str]:
    """A plan as attributes of :mod:`wgtorch.blocks.scenes.scene`: of what that painter knows, and nothing else."""
    from wgtorch.blocks.scenes.scene import ATTRIBUTES

    found = {"time": plan.time, "weather": plan.weather, "terrain": _TERRAIN.get(plan.terrain, plan.terrain), "landmark": "none"}
    landmark = next((thing for thing in plan.things if thing.role == "landmark"), None)
    if landmark is not None and landmark.kind in ATTRIBUTES["landmark"] and not (landmark.kind == "ship" and found["terrain"] != "sea"):
        found |= {"landmark": landmark.kind, "place": _COLUMN[landmark.slot]}
        if landmark.colour in ATTRIBUTES["color"]:
            found["color"] = str(landmark.colour)
    found["traveller"] = "yes" if any(thing.role == "hero" for thing in plan.things) else "no"
    return found


def differences(scene: Mapping[str, Any], seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a picture shows something else than its plan: what, as planned, as seen. Only of what was seen something is said.

    Args:
        scene: ``recipe.scene``.
        seen: what the describer saw: keys of a plan, or attributes of :mod:`wgtorch.blocks.scenes.scene`.
    """
    if "things" in seen:
        from wgtorch.blocks.pixel_scenes.words import discrepancies

        return [{"what": one["path"], "planned": one["asked"], "seen": one["seen"]} for one in discrepancies(scene, seen)]
    planned = dict(caption_attributes(ScenePlan.from_data(scene)))
    keys = ("time", "weather", "terrain", "landmark", "color")
    found = [(key, planned[key], seen[key]) for key in keys if key in planned and key in seen]
    return [{"what": what, "planned": before, "seen": after} for what, before, after in found if before != after]
