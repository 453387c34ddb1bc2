"""What befalls the world without anybody's doing: skies, storms, growth, strangers, new land."""

from __future__ import annotations

from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.cast import ROLES, add_character
from wgtorch.blocks.simulation.facts import DIRECTIONS, OPPOSITE, WORLD
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.places import add_place
from wgtorch.blocks.simulation.scene_plan import TERRAINS
from wgtorch.blocks.simulation.seasons import Skies
from wgtorch.blocks.simulation.verbs.making import add_object

FEWEST, MOST = 6, 14
"""Characters that the land holds."""
_FRAGILE = ("house", "windmill", "tower", "tent", "ship", "bridge", "inn", "shrine", "castle")


def turn_weather(draft: Draft, sky: str) -> None:
    """Lets the sky go on; an event where it changes.

    Args:
        draft: the facts.
        sky: name of the weather model.
    """
    terrain = draft.places[draft.place_of(draft.hero)]["terrain"]
    now = draft.content["weather"]
    after = Skies.get(sky)(now, terrain, draft.rng)
    if after != now:
        draft.change(after, "weather")
        draft.close(WORLD, Action("weather", target=after), "done", at=draft.place_of(draft.hero), was=now)


def mishap(draft: Draft) -> None:
    """At most one thing that befalls the world in a pass."""
    rng, weather = draft.rng, draft.content["weather"]
    fires = [name for name, thing in draft.objects.items() if thing["kind"] == "fire"]
    gardens = [name for name, thing in draft.objects.items() if thing["kind"] in ("garden", "tree") and thing["place"]]
    chance = rng.random()
    if fires and (weather in ("rain", "snow", "storm") or chance < 0.4):
        _go_out(draft, fires[0])
    elif weather == "storm" and chance < 0.6:
        _damage(draft)
    elif gardens and chance < 0.12 and len(draft.objects) < 90:
        _ripen(draft, rng.choice(gardens))
    elif chance < 0.17:
        _lose(draft)
    elif chance < 0.20:
        _arrive(draft)
    elif chance < 0.22:
        _depart(draft)
    elif chance < 0.26:
        _discover(draft)
    elif chance < 0.29 and len(draft.objects) < 90:
        _wash_ashore(draft)
    elif len(draft.objects) > 70 and chance < 0.6:
        _decay(draft)


def _go_out(draft: Draft, fire: str) -> None:
    place = draft.objects[fire]["place"]
    draft.rests_on("objects", fire)
    draft.remove(fire)
    draft.close(WORLD, Action("go_out", target=fire), "done", at=place, gone=fire)


def _damage(draft: Draft) -> None:
    whole = [name for name, place in draft.places.items() if place["landmark"] in _FRAGILE and place["state"] in ("whole", "locked")]
    if not whole:
        return
    name = draft.rng.choice(whole)
    place = draft.places[name]
    state = "flooded" if place["terrain"] in ("sea", "river", "marsh") else "burnt"
    draft.rests_on("weather")
    draft.change(state, "places", name, "state")
    for who in draft.here(name):
        draft.mood(who, "afraid")
    draft.close(WORLD, Action("damage", target=place["landmark"]), "done", at=name, place=name, state=state, struck=place["landmark"])


def _ripen(draft: Draft, garden: str) -> None:
    place = draft.objects[garden]["place"]
    draft.rests_on("objects", garden)
    name = add_object(draft, "apple", place=place)
    draft.close(WORLD, Action("ripen", target=garden), "done", at=place, made=name, grew=garden)


def _lose(draft: Draft) -> None:
    bearers = [name for name, who in draft.characters.items() if who["carries"] and who["present"] and name != draft.hero]
    if not bearers:
        return
    who = draft.rng.choice(bearers)
    thing = draft.rng.choice(draft.characters[who]["carries"])
    draft.rests_on("objects", thing, "bearer")
    draft.move(thing, place=draft.place_of(who))
    draft.mood(who, "sad")
    draft.close(who, Action("lose", target=thing), "done", lost=thing, at=draft.place_of(who))


def _arrive(draft: Draft) -> None:
    present = [name for name, who in draft.characters.items() if who["present"]]
    if len(present) >= MOST:
        return
    characters, objects = dict(draft.characters), dict(draft.objects)
    known = set(characters)
    roles = [role for role in ROLES if role not in {who["role"] for who in characters.values() if who["present"]}] or list(ROLES)
    name = add_character(draft.rng, draft.rng.choice(roles), draft.places, characters, objects)
    assert name not in known
    draft.change({**characters[name], "carries": []}, "characters", name)
    for thing in characters[name]["carries"]:
        draft.change(objects[thing], "objects", thing)
    draft.change(characters[name]["carries"], "characters", name, "carries")
    draft.close(name, Action("arrive", target=characters[name]["place"]), "done", role=characters[name]["role"])


def _depart(draft: Draft) -> None:
    place = draft.place_of(draft.hero)
    present = [
        name
        for name, who in draft.characters.items()
        if who["present"] and name != draft.hero and who["goal"] is None and who["place"] != place
    ]
    if sum(who["present"] for who in draft.characters.values()) <= FEWEST or not present:
        return
    who = draft.rng.choice(present)
    draft.rests_on("characters", who, "mood")
    for thing in list(draft.characters[who]["carries"]):
        draft.move(thing, place=draft.place_of(who))
    draft.change(False, "characters", who, "present")
    draft.close(who, Action("depart", target=draft.place_of(who)), "done", role=draft.characters[who]["role"])


def _discover(draft: Draft) -> None:
    """Somebody finds a way into land that was on no map."""
    taken = {tuple(place["at"]) for place in draft.places.values()}
    finders = [(who, direction) for who, c in draft.characters.items() if c["present"] for direction in DIRECTIONS]
    open_ = []
    for who, direction in finders:
        x, y = draft.places[draft.place_of(who)]["at"]
        dx, dy = DIRECTIONS[direction]
        if (x + dx, y + dy) not in taken:
            open_.append((who, direction, (x + dx, y + dy)))
    if not open_:
        return
    who, direction, cell = draft.rng.choice(open_)
    here = draft.place_of(who)
    places = dict(draft.places)
    land = draft.rng.choice((draft.places[here]["terrain"], draft.rng.choice(TERRAINS)))
    name = add_place(places, cell, land, draft.rng)
    draft.change(places[name], "places", name)
    for where, other in places[name]["neighbours"].items():
        draft.change(name, "places", other, "neighbours", OPPOSITE[where])
    draft.mood(who, "curious")
    draft.close(who, Action("discover", target=name), "done", direction=direction, found_place=name, land=land)


def _wash_ashore(draft: Draft) -> None:
    shores = [name for name, place in draft.places.items() if place["terrain"] in ("sea", "river")]
    if not shores:
        return
    place = draft.rng.choice(shores)
    name = add_object(draft, draft.rng.choice(("chest", "letter", "bell", "mask", "rope", "doll", "coin", "drum")), place=place)
    draft.close(WORLD, Action("wash_ashore", target=name), "done", at=place, made=name)


def _decay(draft: Draft) -> None:
    old = [name for name, thing in draft.objects.items() if thing["place"] and thing["kind"] not in ("garden", "tree", "lamp")]
    if not old:
        return
    name = draft.rng.choice(old[: max(1, len(old) // 2)])
    place = draft.objects[name]["place"]
    draft.rests_on("objects", name, "place")
    draft.remove(name)
    draft.close(WORLD, Action("decay", target=name), "done", at=place, gone=name)
