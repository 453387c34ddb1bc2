"""Threads: what somebody wants, why, and what the next step towards it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.facts import Path
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.places import LANDMARKS_OF, way
from wgtorch.blocks.simulation.verbs.making import CRAFTED, FIXED, GATHERED
from wgtorch.core.registry import Registry

DONE = "done"
Step: TypeAlias = Action | str | None
"""The next action, :data:`DONE` where the thread has reached its end, None where it never can."""
Plan: TypeAlias = Callable[[Draft, str, dict[str, Any]], Step]
ThreadKinds: Registry[Plan] = Registry("thread kind", group="wgtorch.thread_kinds")
"""Planners by kind of thread: ``(draft, who, what) -> next action``."""
FAR = 7
"""Places that somebody would walk for something."""
_LOW = ("sad", "angry", "afraid", "weary", "ashamed")
_SCHOOLED = ("smith", "potter", "weaver", "painter", "singer", "mason", "carpenter", "baker", "scribe")


@dataclass(frozen=True, slots=True)
class Wish:
    """Something that somebody might come to want.

    Args:
        kind: of the thread.
        what: its data; ``words`` is the wish as an infinitive.
        because: facts that the wish rests on.
        weight: how much it presses.
    """

    kind: str
    what: dict[str, Any]
    because: tuple[Path, ...] = ()
    weight: float = 1.0


def thread_kind(name: str) -> Callable[[Plan], Plan]:
    """Decorator: makes a planner known under the kind of thread that it pursues."""
    return partial(ThreadKinds.register, name)


def _towards(draft: Draft, who: str, place: str) -> Step:
    return Action("go", place=place)


def _at(draft: Draft, who: str, place: str, action: Action) -> Step:
    """The action at a place, or the way there."""
    return action if draft.place_of(who) == place else _towards(draft, who, place)


def _last(draft: Draft, who: str, verb: str, target: str) -> Any:
    """The last event in which somebody did so to somebody."""
    events = reversed(draft.content.get("events", ()))
    return next((e for e in events if e["actor"] == who and e["verb"] == verb and e["target"] == target), None)


def _with(draft: Draft, who: str, other: str, action: Action) -> Step:
    """The action where the other is, or the way to them; None where they have left."""
    if other not in draft.characters or not draft.characters[other]["present"]:
        return None
    return _at(draft, who, draft.place_of(other), action)


@thread_kind("mend")
def mend(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To make a building whole again."""
    place = draft.places[what["place"]]
    if place["landmark"] != what["landmark"]:
        return None
    if place["state"] in ("whole", "locked"):
        return DONE
    return _at(draft, who, what["place"], Action("repair", target=what["landmark"]))


@thread_kind("raise")
def raise_building(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To put up a building where none stands."""
    place = draft.places[what["place"]]
    if place["landmark"] == what["landmark"]:
        if place["state"] != "unfinished":
            return DONE
        return _at(draft, who, what["place"], Action("repair", target=what["landmark"]))
    if place["landmark"] not in (None, "ruin"):
        return None
    return _at(draft, who, what["place"], Action("build", target=f"{what['colour']} {what['landmark']}"))


@thread_kind("fetch")
def fetch(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To get a thing that lies somewhere."""
    thing = draft.objects.get(what["object"])
    if thing is None:
        return None
    if thing["bearer"] == who:
        return DONE
    if thing["bearer"] is not None:
        return None
    return _at(draft, who, thing["place"], Action("take", target=what["object"]))


@thread_kind("bring")
def bring(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To bring somebody a thing."""
    thing = draft.objects.get(what["object"])
    if thing is None:
        return None
    if thing["bearer"] == what["person"]:
        return DONE
    if thing["bearer"] != who:
        return None
    return _with(draft, who, what["person"], Action("give", target=what["object"], receiver=what["person"]))


@thread_kind("obtain")
def obtain(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To get a thing that another carries, by trade or by asking, and out of spite by theft."""
    thing = draft.objects.get(what["object"])
    if thing is None:
        return None
    if thing["bearer"] == who:
        return DONE
    if thing["bearer"] is None:
        return _at(draft, who, thing["place"], Action("take", target=what["object"]))
    if thing["bearer"] != what["person"]:
        return None
    if draft.feeling(who, what["person"]) <= -2:
        return _with(draft, who, what["person"], Action("steal", target=what["object"], receiver=what["person"]))
    if draft.feeling(what["person"], who) < -1:
        return _with(draft, who, what["person"], Action("reconcile", target=what["person"]))
    if draft.characters[who]["carries"]:
        return _with(draft, who, what["person"], Action("trade", target=what["object"], receiver=what["person"]))
    if draft.feeling(what["person"], who) < 2:
        return _with(draft, who, what["person"], Action("talk", target=what["person"]))
    return _with(draft, who, what["person"], Action("beg", target=what["object"], receiver=what["person"]))


@thread_kind("see")
def see(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To have been at a place."""
    return DONE if draft.place_of(who) == what["place"] else _towards(draft, who, what["place"])


@thread_kind("friend")
def friend(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To win somebody's friendship."""
    if draft.feeling(what["person"], who) >= 3:
        return DONE
    if draft.feeling(what["person"], who) < 0:
        return _with(draft, who, what["person"], Action("reconcile", target=what["person"]))
    return _with(draft, who, what["person"], Action(draft.rng.choice(("talk", "befriend", "greet")), target=what["person"]))


@thread_kind("peace")
def peace(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To be reconciled with somebody."""
    if draft.feeling(who, what["person"]) >= 0 and draft.feeling(what["person"], who) >= 0:
        return DONE
    return _with(draft, who, what["person"], Action("reconcile", target=what["person"]))


@thread_kind("reckoning")
def reckoning(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To tell somebody what one thinks of them."""
    last = _last(draft, who, "quarrel", what["person"])
    if last is not None and last["id"] > what["since"]:
        return DONE
    return _with(draft, who, what["person"], Action("quarrel", target=what["person"]))


@thread_kind("console")
def console(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To cheer somebody up."""
    if what["person"] in draft.characters and draft.characters[what["person"]]["mood"] not in _LOW:
        return DONE
    return _with(draft, who, what["person"], Action(draft.rng.choice(("help", "greet", "help")), target=what["person"]))


@thread_kind("make")
def make(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To make a thing with one's own hands."""
    if any(draft.objects[name]["kind"] == what["object_kind"] for name in draft.characters[who]["carries"]):
        return DONE
    if what["gathered"]:
        if what["object_kind"] in GATHERED[draft.places[draft.place_of(who)]["terrain"]]:
            return Action("gather", target=what["object_kind"])
        lands = [land for land, kinds in GATHERED.items() if what["object_kind"] in kinds]
        steps = way(draft.places, draft.place_of(who), lambda name: draft.places[name]["terrain"] in lands)
        return _towards(draft, who, steps[-1]) if steps else None
    return Action("craft", target=what["object_kind"])


@thread_kind("grow")
def grow(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To plant something somewhere."""
    if any(draft.objects[name]["kind"] == what["object_kind"] for name in draft.lying(what["place"])):
        return DONE
    return _at(draft, who, what["place"], Action("plant", target=what["object_kind"]))


@thread_kind("hand_on")
def hand_on(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To teach somebody one's craft."""
    taught = _last(draft, who, "teach", what["person"])
    if taught is not None and taught["id"] > what["since"]:
        return DONE
    return _with(draft, who, what["person"], Action("teach", target=what["person"]))


@thread_kind("court")
def court(draft: Draft, who: str, what: dict[str, Any]) -> Step:
    """To win somebody's hand."""
    asked = _last(draft, who, "court", what["person"])
    if asked is not None and asked["id"] > what["since"] and asked["status"] in ("partly", "done"):
        return DONE
    if draft.feeling(what["person"], who) < 4:
        return _with(draft, who, what["person"], Action(draft.rng.choice(("talk", "befriend")), target=what["person"]))
    return _with(draft, who, what["person"], Action("court", target=what["person"]))


def wishes(draft: Draft, who: str) -> Iterator[Wish]:
    """What somebody might come to want, as the facts are."""
    me, places, rng = draft.characters[who], draft.places, draft.rng
    here, since = me["place"], draft.next_id
    near = _near(draft, here)
    people = [name for name, other in draft.characters.items() if name != who and other["present"]]
    taken = {
        thread["what"].get("place")
        for thread in draft.threads.values()
        if thread["status"] == "open" and thread["kind"] in ("mend", "raise")
    }
    if me["kind"] != "person":
        yield Wish("see", {"words": f"roam to {(goal := rng.choice(near))}", "place": goal})
        return
    for name in near:
        place = places[name]
        if name in taken or place["landmark"] is None:
            continue
        if place["state"] in ("burnt", "flooded", "unfinished") and place["landmark"] != "ruin":
            what = {"words": f"mend the {place['landmark']} at {name}", "place": name, "landmark": place["landmark"]}
            yield Wish("mend", what, (("places", name, "state"),), 5.0)
        elif place["landmark"] == "ruin" and place["terrain"] != "desert":
            kind, colour = rng.choice(LANDMARKS_OF[place["terrain"]]), rng.choice(("red", "blue", "yellow", "white"))
            if kind not in ("ruin", "cave", "stones"):
                what = {"words": f"raise a {colour} {kind} from the ruins of {name}", "place": name, "landmark": kind, "colour": colour}
                yield Wish("raise", what, (("places", name, "landmark"),), 1.0)
    bare_places = [name for name in near if places[name]["landmark"] is None and name not in taken]
    if bare_places:
        name = rng.choice(bare_places)
        kind, colour = rng.choice(LANDMARKS_OF[places[name]["terrain"]]), rng.choice(("red", "blue", "yellow", "white"))
        if kind not in ("ruin", "cave", "stones"):
            yield Wish("raise", {"words": f"build a {colour} {kind} at {name}", "place": name, "landmark": kind, "colour": colour}, (), 0.3)
    for name in people:
        other, mine = draft.characters[name], draft.feeling(who, name)
        remembered: tuple[Path, ...] = (("characters", who, "remembers", name),)
        if other["kind"] != "person":
            continue
        if mine <= -2 or draft.feeling(name, who) <= -2:
            paths = remembered if mine <= -2 else (("characters", name, "remembers", who),)
            yield Wish("peace", {"words": f"make peace with {name}", "person": name}, paths, 2.0)
            if mine <= -2:
                yield Wish("reckoning", {"words": f"call {name} to account", "person": name, "since": since}, paths, 2.0)
                if other["carries"]:
                    thing = rng.choice(other["carries"])
                    yield Wish(
                        "obtain",
                        {"words": f"get the {thing} from {name}", "object": thing, "person": name},
                        (*paths, ("objects", thing, "bearer")),
                        0.6,
                    )
        if mine >= 2 and me["carries"]:
            thing = rng.choice(me["carries"])
            yield Wish(
                "bring",
                {"words": f"bring {name} the {thing}", "object": thing, "person": name},
                (*remembered, ("objects", thing, "bearer")),
                1.5,
            )
        if mine >= 4 and draft.feeling(name, who) >= 2:
            yield Wish("court", {"words": f"win {name}'s hand", "person": name, "since": since}, remembered, 0.5)
        if other["mood"] in ("sad", "angry", "afraid", "weary", "ashamed") and mine >= 0:
            yield Wish("console", {"words": f"cheer {name} up", "person": name}, (("characters", name, "mood"),), 2.0)
        if 0 <= mine < 3:
            yield Wish("friend", {"words": f"be friends with {name}", "person": name}, remembered if mine else (), 0.4)
        if mine >= 1 and me["role"] in _SCHOOLED:
            yield Wish("hand_on", {"words": f"teach {name} the craft of a {me['role']}", "person": name, "since": since}, remembered, 0.4)
        for thing in other["carries"]:
            if draft.objects[thing]["kind"] not in {draft.objects[own]["kind"] for own in me["carries"]}:
                yield Wish(
                    "obtain",
                    {"words": f"get the {thing} from {name}", "object": thing, "person": name},
                    (("objects", thing, "bearer"),),
                    0.25,
                )
    for thing, fact in draft.objects.items():
        if fact["place"] in near and not fact["fixed"] and len(me["carries"]) < 5:
            yield Wish(
                "fetch", {"words": f"fetch the {thing} that lies at {fact['place']}", "object": thing}, (("objects", thing, "place"),), 0.8
            )
    if len(me["carries"]) < 4 and len(draft.objects) < 90:
        kind, gathered = rng.choice(
            [(k, False) for k in CRAFTED[:16] if k not in FIXED] + [(k, True) for kinds in GATHERED.values() for k in kinds]
        )
        verb = "gather" if gathered else "make"
        yield Wish("make", {"words": f"{verb} {kind if gathered else 'a ' + kind}", "object_kind": kind, "gathered": gathered}, (), 0.6)
    green = [name for name in near if places[name]["terrain"] in ("meadow", "hills", "forest", "river")]
    if green and len(draft.objects) < 90:
        name, kind = rng.choice(green), rng.choice(("garden", "tree", "flower"))
        yield Wish("grow", {"words": f"plant a {kind} at {name}", "place": name, "object_kind": kind}, (), 0.4)
    unseen = [name for name in near if name != here and (who != draft.hero or not places[name]["known"])] or [n for n in near if n != here]
    if unseen:
        name = rng.choice(unseen)
        yield Wish("see", {"words": f"see {name}", "place": name}, (), 1.2 if who == draft.hero else 0.5)


def _near(draft: Draft, start: str) -> list[str]:
    """Places within reach, nearest first."""
    found, edge = [start], [start]
    for _ in range(FAR):
        edge = [other for name in edge for other in draft.places[name]["neighbours"].values() if other not in found]
        edge = list(dict.fromkeys(edge))
        found += edge
    return found
