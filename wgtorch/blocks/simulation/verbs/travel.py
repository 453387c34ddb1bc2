"""Verbs of going and of not going."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import IMPOSSIBLE_VERB, Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import DETERMINERS, bare, named_in, with_article, words
from wgtorch.blocks.simulation.matching import Named, find
from wgtorch.blocks.simulation.phrases import PREPOSITIONS
from wgtorch.blocks.simulation.places import way
from wgtorch.blocks.simulation.verbs.rules import Verbs, Verdict, arrive, refused, spend, verb

STEPS = 2
"""Places that one can walk in one pass."""


_OF_WAYS = DETERMINERS | frozenset(
    ("mile", "miles", "step", "steps", "way", "far", "further", "farther", "of", "here", "bit", "little", "two", "three", "ten")
)


@verb("go")
def go(draft: Draft, actor: str, action: Action) -> Verdict:
    """Walks to what is named, as far as one comes."""
    said = action.place or action.target
    direction = named_in(action.manner, lexicon.DIRECTIONS) or named_in(said, lexicon.DIRECTIONS)
    here = draft.place_of(actor)
    beside = {word for word in words(said or "") if word not in lexicon.DIRECTIONS and word not in _OF_WAYS and not word.isdecimal()}
    if direction is not None and not beside:
        other = draft.places[here]["neighbours"].get(direction)
        if other is None:
            return refused(draft, actor, action, f"no way leads {direction} from {here}", direction)
        return _walk(draft, actor, action, [other], other)
    if not bare(said) or bare(said) in (
        "anywhere",
        "somewhere",
        "elsewhere",
        "away",
        "on",
        "out",
        "outside",
        "way",
        "journey",
        "road",
        "path",
        "wherever you want",
        "wherever you like",
        "any further",
    ):
        return wander(draft, actor, action)
    named = find(draft, actor, said)
    goal, missing = destination(draft, named)
    if goal is None:
        return refused(draft, actor, action, missing, named.name or said)
    if direction is not None:
        other = draft.places[here]["neighbours"].get(direction)
        if other is None or not goal(other):
            return refused(draft, actor, action, f"there is no {bare(said)} to the {direction} of {here}", named.name)
        return _walk(draft, actor, action, [other], other)
    steps = way(draft.places, here, goal)
    if steps is None:
        return refused(draft, actor, action, missing, named.name or said)
    if not steps:
        spend(draft, actor, 1)
        return draft.close(actor, action, "done", f"{actor} is there already", target=here, to=here, way=[])
    return _walk(draft, actor, action, steps, steps[-1])


def destination(draft: Draft, named: Named) -> tuple[Callable[[str], bool] | None, str]:
    """Which places would be the one that was named, and what to say where there is none."""
    places = draft.places
    goal: Callable[[str], bool] | None = None
    missing = f"nobody knows a place called {named.name!r}"
    if named.part in ("place", "character", "object"):
        fact = draft.objects[named.name] if named.part == "object" else {"place": named.name, "bearer": None}
        who = named.name if named.part == "character" else fact["bearer"]
        where = draft.place_of(who) if who else fact["place"]
        return (lambda name: name == where), f"no way leads to {named.name}"
    if named.part == "land":
        missing = f"there is no {named.name} that anybody has heard of"

        def goal(name: str) -> bool:
            return bool(places[name]["terrain"] == named.name)

    elif named.part == "landmark":
        missing = f"there is no {f'{named.colour} ' if named.colour else ''}{named.name} that anybody has heard of"

        def goal(name: str) -> bool:
            place = places[name]
            return bool(place["landmark"] == named.name and (named.colour is None or place["colour"] == named.colour))

    elif named.part == "sky":
        missing = f"no road leads to the {bare(named.name)}"
    elif named.part in ("kind", "beast"):
        missing = f"nobody has seen {with_article(named.name)} anywhere near"
        if named.part == "kind":
            holding = {thing["place"] for thing in draft.objects.values() if thing["kind"] == named.name and thing["place"]}
            goal = (lambda name: name in holding) if holding else None
    elif named.part == "weather":
        missing = f"one cannot walk to the {named.name}"
    if goal is not None and not any(goal(name) for name in places):
        goal = None
    return goal, missing


def _walk(draft: Draft, actor: str, action: Action, steps: list[str], goal: str) -> Verdict:
    here, walked = draft.place_of(actor), steps[:STEPS]
    land = draft.places[goal]["terrain"]
    if land in draft.characters[actor]["avoids"]:
        draft.change([name for name in draft.characters[actor]["avoids"] if name != land], "characters", actor, "avoids")
    for place in walked:
        if actor == draft.hero:
            draft.change(True, "places", place, "known")
    arrive(draft, actor, walked[-1])
    spend(draft, actor, 2 * len(walked))
    details: dict[str, Any] = {"from": here, "to": walked[-1], "way": walked}
    if len(walked) == len(steps):
        return draft.close(actor, action, "done", target=goal, **details)
    left = len(steps) - len(walked)
    because = f"{goal} is still {left} {'place' if left == 1 else 'places'} further on"
    return draft.close(actor, action, "partly", because, target=goal, goal=goal, **details)


@verb("wander")
def wander(draft: Draft, actor: str, action: Action) -> Verdict:
    """Goes to some neighbouring place."""
    here = draft.place_of(actor)
    choices = open_ways(draft, actor)
    if action.manner and action.manner.startswith("not "):
        off = find(draft, actor, action.manner.removeprefix("not ").removeprefix("to "))
        shunned, _ = destination(draft, off)
        choices = [name for name in draft.places[here]["neighbours"].values() if shunned is None or not shunned(name)]
    if not choices:
        return refused(draft, actor, action, f"no way leads out of {here}", here)
    return _walk_one(draft, actor, action, draft.rng.choice(choices))


def _walk_one(draft: Draft, actor: str, action: Action, place: str) -> Verdict:
    return _walk(draft, actor, action, [place], place)


def open_ways(draft: Draft, actor: str) -> list[str]:
    """Neighbouring places that somebody does not avoid; unknown ones first for the traveller."""
    avoids = draft.characters[actor]["avoids"]
    places = draft.places
    found = [name for name in places[draft.place_of(actor)]["neighbours"].values() if places[name]["terrain"] not in avoids]
    unknown = [name for name in found if not places[name]["known"]] if actor == draft.hero else []
    return unknown or found


@verb("enter")
def enter(draft: Draft, actor: str, action: Action) -> Verdict:
    """Goes into a building that stands here; none is made because it was named."""
    said = action.target or action.place
    named, here = find(draft, actor, said), draft.place_of(actor)
    place = draft.places[here]
    if named.part in ("land", "place", "character", "weather", "sky"):
        return go(draft, actor, replace(action, place=said, target=None))
    if named.part == "object" and not draft.objects[named.name]["fixed"]:
        return refused(draft, actor, action, f"nobody fits into the {named.name}", named.name)
    inside = place["landmark"] == named.name and (named.colour in (None, place["colour"]))
    if named.part != "object" and not inside and bare(said):
        return refused(draft, actor, action, f"no {bare(said)} stands at {here}", named.name)
    if place["landmark"] is None:
        return refused(draft, actor, action, f"nothing is built at {here}", said)
    if place["state"] in ("burnt", "ruined", "burning", "locked"):
        draft.rests_on("places", here, "state")
        return refused(draft, actor, action, f"the {place['landmark']} is {place['state']}", named.name)
    spend(draft, actor, 2)
    draft.mood(actor, "curious")
    return draft.close(actor, action, "done", target=named.name or place["landmark"], into=place["landmark"])


@verb("leave")
def leave(draft: Draft, actor: str, action: Action) -> Verdict:
    """Goes away from what is named, if it is here."""
    here = draft.place_of(actor)
    said = bare(action.target or action.place)
    if said and said not in ("place", "here", "this place", "town", "village", "now"):
        named = find(draft, actor, said)
        place = draft.places[here]
        if named.part == "object" and draft.objects[named.name]["bearer"] == actor:
            return Verbs.get("drop")(draft, actor, replace(action, target=named.name))
        is_here = {
            "place": here == named.name,
            "land": place["terrain"] == named.name,
            "landmark": place["landmark"] == named.name,
            "character": named.part == "character" and named.name != actor and draft.place_of(named.name) == here,
            "object": named.part == "object",
        }.get(named.part, False)
        if not is_here:
            return refused(draft, actor, action, f"{actor} is not at any {said} that could be left", named.name or said)

        def off(name: str) -> bool:
            return draft.places[name].get({"land": "terrain"}.get(named.part, named.part)) == named.name

        choices = [name for name in open_ways(draft, actor) if not off(name)]
        choices = choices or [name for name in place["neighbours"].values() if not off(name)]
        if not choices:
            steps = way(draft.places, here, lambda name: not off(name))
            if not steps:
                return refused(draft, actor, action, f"no way leads out of {here}", named.name)
            return _walk(draft, actor, action, steps, steps[-1])
        return _walk_one(draft, actor, action, draft.rng.choice(choices))
    return wander(draft, actor, action)


@verb("flee")
def flee(draft: Draft, actor: str, action: Action) -> Verdict:
    """Goes away, fast."""
    return wander(draft, actor, action)


@verb("return")
def go_back(draft: Draft, actor: str, action: Action) -> Verdict:
    """Goes back: to the beginning, to where one came from, or to what is named."""
    said = bare(action.place or action.target)
    if not said or "start" in said or "began" in said or "beginning" in said or said in ("home", "back", "there") or said.endswith(" came"):
        goal = draft.content.get("start") if ("start" in said or "beg" in said or said == "home" or actor != draft.hero) else None
        if goal is None:
            goal = _came_from(draft, actor) or draft.content.get("start")
        if goal is None or goal not in draft.places:
            return refused(draft, actor, action, f"{actor} has not been anywhere else yet", said or None)
        return go(draft, actor, replace(action, place=str(goal), target=None, manner=None))
    return go(draft, actor, action)


def _came_from(draft: Draft, actor: str) -> str | None:
    for event in reversed(draft.content.get("events", ())):
        if event["actor"] == actor and event["details"].get("from") and event["details"]["from"] != draft.place_of(actor):
            return str(event["details"]["from"])
    return None


_WAYS = frozenset(("road", "roads", "path", "paths", "trail", "track", "way", "street", "lane"))


@verb("follow")
def follow(draft: Draft, actor: str, action: Action) -> Verdict:
    """Goes to where somebody is, or along a road or a river."""
    said = action.target or action.place
    named = find(draft, actor, said)
    if named.part in ("land", "landmark", "place"):
        return go(draft, actor, replace(action, place=action.place or said, target=None))
    if not _WAYS.isdisjoint(words(said or "")):
        direction = next((lexicon.DIRECTIONS[word] for word in words(said or "") if word in lexicon.DIRECTIONS), action.manner)
        return go(draft, actor, replace(action, target=None, manner=direction))
    if named.part != "character":
        return (
            go(draft, actor, action)
            if action.place
            else refused(
                draft, actor, action, f"nobody called {named.name!r} can be followed" if named.name else "nobody was named", named.name
            )
        )
    return go(draft, actor, replace(action, place=named.name, target=None))


@verb("stay")
def stay(draft: Draft, actor: str, action: Action) -> Verdict:
    """Remains."""
    spend(draft, actor)
    draft.mood(actor, "calm")
    return draft.close(actor, action, "done", target=draft.place_of(actor))


@verb("avoid")
def avoid(draft: Draft, actor: str, action: Action) -> Verdict:
    """Keeps away from a land or a place; makes nothing of what is named."""
    said = action.target or action.place
    named = find(draft, actor, said)
    spend(draft, actor, 1)
    if named.part == "land" and named.name not in draft.characters[actor]["avoids"]:
        draft.change([*draft.characters[actor]["avoids"], named.name], "characters", actor, "avoids")
    return draft.close(actor, action, "done", target=named.name or said, kept_from=named.name or bare(said))


@verb("hide")
def hide(draft: Draft, actor: str, action: Action) -> Verdict:
    """Takes cover."""
    here = draft.place_of(actor)
    landmark = draft.places[here]["landmark"]
    said = bare(action.target or action.place or action.manner)
    if landmark is None and draft.places[here]["terrain"] in ("sea", "desert", "meadow", "marsh"):
        return refused(draft, actor, action, f"there is nothing at {here} to hide behind", said or None)
    if action.words and said and any(word in words(action.words) for word in ("behind", "in", "inside", "under")):
        named = find(draft, actor, said)
        if named.part == "landmark" and named.name != landmark:
            return refused(draft, actor, action, f"no {said} stands at {here}", named.name)
    spend(draft, actor, 2)
    draft.mood(actor, "afraid" if draft.content["weather"] == "storm" else "calm")
    return draft.close(actor, action, "done", target=said or None, behind=landmark or draft.places[here]["terrain"])


@verb("climb")
def climb(draft: Draft, actor: str, action: Action) -> Verdict:
    """Climbs what is here: from above one sees the places around, which are known from then on."""
    said = action.target or action.place
    here = draft.place_of(actor)
    place, named = draft.places[here], find(draft, actor, said)
    high = place["landmark"] in ("tower", "castle", "windmill", "stones", "ship", "ruin") or place["terrain"] in ("hills", "mountains")
    there = (
        (named.part == "landmark" and place["landmark"] == named.name and named.colour in (None, place["colour"]))
        or (named.part == "land" and place["terrain"] == named.name)
        or (named.part == "object" and draft.objects[named.name]["fixed"])
        or (named.part == "kind" and named.name == "tree" and place["terrain"] == "forest")
        or (not bare(said) and high)
    )
    if not there:
        return refused(draft, actor, action, f"no {bare(said) or 'height'} to climb is at {here}", named.name or said)
    spend(draft, actor)
    seen = [name for name in place["neighbours"].values() if not draft.places[name]["known"]]
    if actor == draft.hero:
        for name in seen:
            draft.change(True, "places", name, "known")
    draft.mood(actor, "proud")
    return draft.close(actor, action, "done", target=named.name or place["landmark"] or place["terrain"], saw=seen)


@verb(IMPOSSIBLE_VERB)
def impossible(draft: Draft, actor: str, action: Action) -> Verdict:
    """What nobody in this world can do."""
    said, phrase = bare(action.target or action.place), words(action.manner or "fly")
    while len(phrase) > 1 and not said and phrase[-1] in (*PREPOSITIONS, *DETERMINERS):
        phrase = phrase[:-1]
    where = (action.target or action.place or "") if phrase[-1] in PREPOSITIONS else said if phrase[-1] in DETERMINERS else ""
    return refused(draft, actor, action, f"nobody in this land can {' '.join([*phrase, *words(where)])}", said or None)


@verb("swim")
def swim(draft: Draft, actor: str, action: Action) -> Verdict:
    """Bathes in the water that is here."""
    here = draft.place_of(actor)
    if draft.places[here]["terrain"] not in ("sea", "river", "marsh"):
        return refused(draft, actor, action, f"there is no water to swim in at {here}", "water")
    if draft.content["weather"] == "storm":
        return refused(draft, actor, action, "the storm whips the water too high", "water")
    spend(draft, actor, 2)
    draft.mood(actor, "glad")
    return draft.close(actor, action, "done", target=draft.places[here]["terrain"])
