"""Verbs of making, mending and destroying."""

from __future__ import annotations

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.cast import new_object, new_object_name
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import bare, colour_in, named_in, with_article, words
from wgtorch.blocks.simulation.matching import carried, find, lying
from wgtorch.blocks.simulation.places import PAINTABLE_COLOURS
from wgtorch.blocks.simulation.verbs.rules import Verbs, Verdict, refused, spend, verb

NOT_BUILT = ("cave", "ruin")
GREAT = ("castle", "inn")
"""What takes more than one go to build."""
UNBURNABLE = ("well", "cave", "stones", "ruin")
CRAFTED = (
    "rope", "flute", "basket", "table", "chair", "net", "doll", "bell", "mask", "drum", "kite", "ladder", "cart", "knife", "hat", "bag",
    "jar", "lamp", "bow", "stick", "cloak", "boat", "statue", "fence", "sign", "chest", "spade", "axe", "key", "ring", "book", "map",
    "letter", "brush", "door", "sword",
)  # fmt: skip
COOKED = ("bread", "soup", "cake", "cheese")
FIXED = ("boat", "statue", "fence", "sign", "cart", "table", "ladder", "door")
GATHERED = {
    "sea": ("shell", "fish"), "river": ("fish", "reed", "clay"), "meadow": ("flower", "herb"), "hills": ("stone", "wool", "berries"),
    "mountains": ("stone", "feather"), "desert": ("stone", "shell"), "forest": ("wood", "mushroom", "berries"),
    "marsh": ("reed", "herb", "clay"),
}  # fmt: skip


def add_object(
    draft: Draft, kind: str, *, place: str | None = None, bearer: str | None = None, colour: str | None = None, fixed: bool = False
) -> str:
    """Makes a new object as an effect of the event in the making, and returns its name."""
    name = new_object_name(kind, colour, draft.objects, draft.rng)
    draft.change(new_object(kind, place=place, bearer=bearer, colour=colour, fixed=fixed), "objects", name)
    if bearer is not None:
        draft.change([*draft.characters[bearer]["carries"], name], "characters", bearer, "carries")
    return name


def material_in(action: Action) -> str | None:
    """What it is to be made of: ``a house of gold``, ``a golden ship`` is a colour and no material."""
    said = words(f"{action.manner or ''}")
    for before, word in zip(["", *said], said, strict=False):
        if before in ("of", "from", "with") and word in lexicon.MATERIALS:
            return word
    target = words(action.target or "")
    for word in target[:-1]:
        if word in lexicon.MATERIALS:
            return word
    if "of" in target:
        rest = target[target.index("of") + 1 :]
        return next((word for word in rest if word in lexicon.MATERIALS), None)
    return None


@verb("build")
def build(draft: Draft, actor: str, action: Action) -> Verdict:
    """Puts up a building or a thing that stays where it is."""
    said = bare(action.target or action.place)
    head = said.split(" of ")[0]
    kind = named_in(head, lexicon.LANDMARKS)
    here = draft.place_of(actor)
    place, colour, material = draft.places[here], colour_in(head), material_in(action)
    if kind is None:
        thing = named_in(head, lexicon.OBJECTS)
        if thing == "fire":
            return light(draft, actor, action)
        if thing in ("tunnel", "hole"):
            return dig(draft, actor, action)
        if thing in ("garden", "tree", "flower"):
            return plant(draft, actor, action)
        if not said or said in ("something", "anything"):
            return draft.close(actor, action, "unclear", "it was not said what should be built", target=None)
        return craft(draft, actor, action)
    if not said or kind in NOT_BUILT:
        return refused(draft, actor, action, f"nobody builds {with_article(kind) if kind else 'nothing in particular'}", kind)
    if material is not None and not _has_material(draft, actor, place["terrain"], material):
        return refused(draft, actor, action, f"there is no {material} at {here} to build with", kind)
    over = named_in(action.place, lexicon.TERRAINS) if action.place and action.target else None
    needs = {"ship": ("sea", "river"), "bridge": ("river",)}.get(kind, ())
    if over is not None and place["terrain"] != over:
        return refused(draft, actor, action, f"there is no {over} at {here}", kind)
    if needs and place["terrain"] not in needs:
        return refused(draft, actor, action, f"there is no water at {here} that {with_article(kind)} would need", kind)
    if place["terrain"] == "sea" and kind in ("well", "windmill", "cave"):
        return refused(draft, actor, action, f"the ground at {here} carries no {kind}", kind)
    spend(draft, actor, 5)
    draft.mood(actor, "proud")
    if place["landmark"] in (None, "ruin"):
        draft.rests_on("places", here, "landmark")
        unfinished = kind in GREAT
        draft.change(kind, "places", here, "landmark")
        draft.change(colour or (None if kind == "stones" else draft.rng.choice(PAINTABLE_COLOURS)), "places", here, "colour")
        draft.change("unfinished" if unfinished else "whole", "places", here, "state")
        if unfinished:
            return draft.close(actor, action, "partly", f"the {kind} needs more than one day of work", target=kind, made=kind, at=here)
        return draft.close(actor, action, "done", target=kind, made=kind, at=here)
    name = add_object(draft, kind, place=here, colour=colour, fixed=True)
    return draft.close(actor, action, "done", target=name, made=name, at=here, beside=place["landmark"])


def _has_material(draft: Draft, actor: str, terrain: str, material: str) -> bool:
    ground = {
        "wood": ("forest", "hills", "meadow", "river"), "stone": ("hills", "mountains", "desert", "sea"), "mud": ("marsh", "river"),
        "clay": ("river", "marsh"), "straw": ("meadow", "hills"), "ice": (), "brick": ("river", "marsh"),
    }  # fmt: skip
    plain = {"stones": "stone", "bricks": "brick"}.get(material, material)
    return terrain in ground.get(plain, ()) or any(draft.objects[name]["kind"] == plain for name in draft.characters[actor]["carries"])


@verb("craft")
def craft(draft: Draft, actor: str, action: Action) -> Verdict:
    """Makes a thing by hand."""
    said = bare(action.target or action.place)
    head, material, here = said.split(" of ")[0], material_in(action), draft.place_of(actor)
    kind = named_in(head, lexicon.OBJECTS)
    if kind in COOKED:
        return cook(draft, actor, action)
    if kind is None and named_in(head, lexicon.LANDMARKS) is not None:
        return build(draft, actor, action)
    if kind is None or kind not in CRAFTED:
        return draft.close(actor, action, "unclear", f"nobody here knows how to make {action.target or 'that'}", target=said or None)
    if material is not None and not _has_material(draft, actor, draft.places[here]["terrain"], material):
        return refused(draft, actor, action, f"there is no {material} at {here} to make it of", kind)
    if kind in ("ring", "key", "sword", "bell") and draft.characters[actor]["role"] != "smith":
        return refused(draft, actor, action, f"it takes a smith to make {with_article(kind)}", kind)
    spend(draft, actor, 4)
    draft.mood(actor, "proud")
    place = {"place": here, "fixed": True} if kind in FIXED else {"bearer": actor}
    name = add_object(draft, kind, colour=colour_in(said), **place)  # type: ignore[arg-type]
    return draft.close(actor, action, "done", target=name, made=name, at=here)


@verb("cook")
def cook(draft: Draft, actor: str, action: Action) -> Verdict:
    """Makes something to eat."""
    said = bare(action.target)
    kind = named_in(said, lexicon.OBJECTS)
    if kind is not None and kind not in COOKED and carried(draft, actor, said) is None:
        return refused(draft, actor, action, f"{actor} has no {said} to cook", kind)
    spend(draft, actor, 2)
    name = add_object(draft, kind if kind in COOKED else "soup", bearer=actor)
    return draft.close(actor, action, "done", target=name, made=name, at=draft.place_of(actor))


@verb("gather")
def gather(draft: Draft, actor: str, action: Action) -> Verdict:
    """Picks up what the land gives: wood in a forest, shells by the sea."""
    here = draft.place_of(actor)
    land, said = draft.places[here]["terrain"], bare(action.target)
    kind = named_in(said, lexicon.OBJECTS)
    if said and kind not in GATHERED[land]:
        return refused(draft, actor, action, f"no {said} is to be had at {here}", kind or said)
    spend(draft, actor, 2)
    name = add_object(draft, kind or draft.rng.choice(GATHERED[land]), bearer=actor)
    return draft.close(actor, action, "done", target=name, made=name, at=here)


@verb("repair")
def repair(draft: Draft, actor: str, action: Action) -> Verdict:
    """Makes whole what is burnt, ruined, flooded or unfinished."""
    here, said = draft.place_of(actor), bare(action.target or action.place)
    said = "" if said.startswith("what ") or said in ("everything", "it all", "damage") else said
    place = draft.places[here]
    thing = carried(draft, actor, said) or lying(draft, here, said) if said else None
    if thing is not None:
        if draft.objects[thing]["state"] == "whole":
            return refused(draft, actor, action, f"nothing is wrong with the {thing}", thing)
        draft.rests_on("objects", thing, "state")
        spend(draft, actor)
        draft.change("whole", "objects", thing, "state")
        return draft.close(actor, action, "done", target=thing)
    kind = named_in(said, lexicon.LANDMARKS)
    if place["landmark"] is None or (said and kind != place["landmark"]):
        return refused(draft, actor, action, f"no {said or 'building'} stands at {here} that could be mended", kind or said or None)
    if place["state"] == "whole":
        return refused(draft, actor, action, f"nothing is wrong with the {place['landmark']}", place["landmark"])
    if place["landmark"] == "ruin":
        return refused(draft, actor, action, "nobody can tell any more what it was", "ruin")
    draft.rests_on("places", here, "state")
    was = place["state"]
    spend(draft, actor, 5)
    draft.change("whole", "places", here, "state")
    draft.mood(actor, "proud")
    return draft.close(actor, action, "done", target=place["landmark"], was=was, at=here)


@verb("destroy")
def destroy(draft: Draft, actor: str, action: Action) -> Verdict:
    """Breaks down a building or a thing that is here."""
    here, said = draft.place_of(actor), action.target or action.place
    named, place = find(draft, actor, said), draft.places[draft.place_of(actor)]
    if named.part == "object":
        draft.rests_on("objects", named.name, "bearer" if draft.objects[named.name]["bearer"] else "place")
        if draft.objects[named.name]["bearer"] not in (None, actor):
            return refused(draft, actor, action, f"the {named.name} is in the hands of {draft.objects[named.name]['bearer']}", named.name)
        spend(draft, actor, 2)
        draft.remove(named.name)
        return draft.close(actor, action, "done", target=named.name, gone=named.name)
    if named.part == "character":
        return harm(draft, actor, action)
    if place["landmark"] is None or named.name != place["landmark"] or named.colour not in (None, place["colour"]):
        return refused(draft, actor, action, f"no {bare(said) or 'building'} stands at {here}", named.name or None)
    if place["landmark"] == "ruin":
        return refused(draft, actor, action, "there is nothing left of it to destroy", "ruin")
    kind = place["landmark"]
    draft.rests_on("places", here, "landmark")
    spend(draft, actor, 5)
    draft.change("ruin", "places", here, "landmark")
    draft.change(None, "places", here, "colour")
    draft.change("ruined", "places", here, "state")
    _outrage(draft, actor, here)
    return draft.close(actor, action, "done", target=kind, fell=kind, at=here, witnesses=draft.here(here, but=actor))


@verb("burn")
def burn(draft: Draft, actor: str, action: Action) -> Verdict:
    """Sets fire to a building or a thing that is here."""
    here, said = draft.place_of(actor), action.target or action.place
    named, place = find(draft, actor, said), draft.places[draft.place_of(actor)]
    if named.part == "object" and draft.objects[named.name]["bearer"] in (None, actor):
        spend(draft, actor, 1)
        draft.remove(named.name)
        return draft.close(actor, action, "done", target=named.name, gone=named.name)
    if named.part == "character":
        return harm(draft, actor, action)
    if place["landmark"] is None or named.name != place["landmark"] or named.colour not in (None, place["colour"]):
        return refused(draft, actor, action, f"no {bare(said) or 'building'} stands at {here}", named.name or None)
    if place["landmark"] in UNBURNABLE or place["state"] == "burnt":
        why = "is burnt already" if place["state"] == "burnt" else "does not burn"
        return refused(draft, actor, action, f"the {place['landmark']} {why}", named.name)
    draft.rests_on("places", here, "state")
    spend(draft, actor, 3)
    draft.change("burnt", "places", here, "state")
    _outrage(draft, actor, here)
    return draft.close(actor, action, "done", target=named.name, burnt=named.name, at=here, witnesses=draft.here(here, but=actor))


def _outrage(draft: Draft, actor: str, place: str) -> None:
    """Whoever sees it remembers it."""
    for name in draft.here(place, but=actor):
        draft.feel(name, actor, -3)
        draft.mood(name, "angry")


@verb("harm")
def harm(draft: Draft, actor: str, action: Action) -> Verdict:
    """Nobody is killed in this world: it is refused with the reason."""
    said = action.target or action.place
    named = find(draft, actor, said)
    if named.part == "character" and named.name == actor:
        return refused(draft, actor, action, f"{actor} wants to live", actor)
    if named.part == "character":
        return refused(draft, actor, action, f"{actor} cannot bring it over the heart to raise a hand against {named.name}", named.name)
    if named.part in ("landmark", "object"):
        return destroy(draft, actor, action)
    if bare(said) and lexicon.means_anybody(said):
        return refused(draft, actor, action, f"{actor} cannot bring it over the heart to raise a hand against anybody")
    return refused(draft, actor, action, f"there is no {bare(said) or 'enemy'} here", named.name or None)


@verb("colour")
def colour(draft: Draft, actor: str, action: Action) -> Verdict:
    """Gives a building or a thing that is here another colour."""
    here = draft.place_of(actor)
    given = "" if action.manner and action.manner.startswith("not ") else action.manner
    wanted = colour_in(given) or colour_in(action.target)
    said = " ".join(word for word in words(action.target or action.place or "") if word not in lexicon.COLOURS or colour_in(given))
    named, place = find(draft, actor, said), draft.places[here]
    if named.part in ("sky", "weather", "land"):
        return refused(draft, actor, action, f"no brush reaches the {bare(said)}", bare(said))
    if named.part == "character":
        return refused(draft, actor, action, f"{named.name} would not hold still for it", named.name)
    if wanted is None:
        if bare(said) and named.part == "nothing":
            return draft.close(actor, action, "unclear", f"nobody knows in which colour {bare(said)!r} should be", target=bare(said))
        return refused(draft, actor, action, "no colour that anybody has was named", named.name or None)
    if named.part == "object" and draft.objects[named.name]["bearer"] in (None, actor):
        spend(draft, actor, 2)
        draft.change(wanted, "objects", named.name, "colour")
        return draft.close(actor, action, "done", target=named.name, colour=wanted)
    if place["landmark"] is None or place["landmark"] != named.name or named.colour not in (None, place["colour"], wanted):
        return refused(draft, actor, action, f"no {bare(said) or 'building'} stands at {here}", named.name or None)
    if place["landmark"] in ("cave", "ruin", "stones") or place["state"] in ("burnt", "ruined"):
        return refused(draft, actor, action, f"paint does not hold on the {place['landmark']} as it is", named.name)
    if place["colour"] == wanted:
        return refused(draft, actor, action, f"the {named.name} is {wanted} already", named.name)
    draft.rests_on("places", here, "colour")
    was = place["colour"]
    spend(draft, actor, 4)
    draft.change(wanted, "places", here, "colour")
    draft.mood(actor, "proud")
    return draft.close(actor, action, "done", target=named.name, colour=wanted, was=was, at=here)


@verb("dig")
def dig(draft: Draft, actor: str, action: Action) -> Verdict:
    """Digs: a hole, a well, or a tunnel that takes two goes."""
    here, said = draft.place_of(actor), bare(action.target)
    place, kind = draft.places[here], named_in(said, lexicon.OBJECTS)
    if named_in(said, lexicon.LANDMARKS) == "well":
        return build(draft, actor, action)
    if kind in ("treasure", "coin", "ring", "chest"):
        return Verbs.get("search")(draft, actor, action)
    if place["terrain"] in ("sea", "river", "marsh"):
        return refused(draft, actor, action, f"at {here} every hole fills with water at once", kind or said or None)
    if kind == "tunnel":
        if place["terrain"] not in ("hills", "mountains"):
            return refused(draft, actor, action, f"the ground at {here} is too soft to hold a tunnel", "tunnel")
        begun = next((name for name in draft.lying(here) if draft.objects[name]["kind"] == "tunnel"), None)
        spend(draft, actor, 5)
        if begun is None:
            name = add_object(draft, "tunnel", place=here, fixed=True)
            draft.change("unfinished", "objects", name, "state")
            return draft.close(actor, action, "partly", "the rock gives way only hand by hand", target=name, made=name, at=here)
        if draft.objects[begun]["state"] == "whole":
            return draft.close(actor, action, "done", target=begun, at=here)
        draft.rests_on("objects", begun, "state")
        draft.change("whole", "objects", begun, "state")
        return draft.close(actor, action, "done", target=begun, finished=begun, at=here)
    if kind not in (None, "hole", "garden"):
        return refused(draft, actor, action, f"nobody can dig {with_article(said)}", kind)
    if said and kind is None:
        return draft.close(actor, action, "unclear", f"nobody knows how to dig {said!r}", target=said)
    spend(draft, actor, 3)
    name = add_object(draft, kind or "hole", place=here, fixed=True)
    return draft.close(actor, action, "done", target=name, made=name, at=here)


@verb("plant")
def plant(draft: Draft, actor: str, action: Action) -> Verdict:
    """Plants a garden, a tree, flowers."""
    here, said = draft.place_of(actor), bare(action.target)
    kind = named_in(said, lexicon.OBJECTS)
    kind = kind if kind in ("garden", "tree", "flower", "herb") else None
    if said and kind is None:
        return draft.close(actor, action, "unclear", f"nobody knows how {said!r} is planted", target=said)
    if draft.places[here]["terrain"] in ("sea", "desert", "mountains"):
        return refused(draft, actor, action, f"nothing takes root at {here}", kind)
    spend(draft, actor, 3)
    draft.mood(actor, "hopeful")
    name = add_object(draft, kind or "garden", place=here, colour=colour_in(said), fixed=True)
    return draft.close(actor, action, "done", target=name, made=name, at=here)


@verb("light")
def light(draft: Draft, actor: str, action: Action) -> Verdict:
    """Lights a fire, or a lamp that somebody carries."""
    here, said = draft.place_of(actor), bare(action.target)
    named = find(draft, actor, said)
    if named.part == "landmark" and named.name != "none" and draft.places[here]["landmark"] == named.name:
        return burn(draft, actor, action)
    lamp = carried(draft, actor, said) if said and "fire" not in said else None
    if lamp is not None and draft.objects[lamp]["kind"] == "lamp":
        spend(draft, actor, 1)
        draft.change("burning", "objects", lamp, "state")
        return draft.close(actor, action, "done", target=lamp)
    if said and named_in(said, lexicon.OBJECTS) not in ("fire",):
        return refused(draft, actor, action, f"{actor} has no {said} to light", named.name)
    if draft.content["weather"] in ("rain", "storm", "snow"):
        return refused(draft, actor, action, f"in the {draft.content['weather']} no fire catches", "fire")
    if any(draft.objects[name]["kind"] == "fire" for name in draft.lying(here)):
        return refused(draft, actor, action, f"a fire burns at {here} already", "fire")
    spend(draft, actor, 1)
    name = add_object(draft, "fire", place=here, fixed=True)
    draft.change("burning", "objects", name, "state")
    return draft.close(actor, action, "done", target=name, made=name, at=here)


@verb("extinguish")
def extinguish(draft: Draft, actor: str, action: Action) -> Verdict:
    """Puts out what burns here."""
    here, said = draft.place_of(actor), bare(action.target)
    burning = [name for name in [*draft.characters[actor]["carries"], *draft.lying(here)] if draft.objects[name]["state"] == "burning"]
    fitting = [name for name in burning if not said or draft.objects[name]["kind"] == named_in(said, lexicon.OBJECTS)]
    if not fitting:
        return refused(draft, actor, action, f"no {said or 'fire'} burns at {here}", said or "fire")
    draft.rests_on("objects", fitting[0], "state")
    spend(draft, actor, 1)
    if draft.objects[fitting[0]]["kind"] == "fire":
        draft.remove(fitting[0])
    else:
        draft.change("whole", "objects", fitting[0], "state")
    return draft.close(actor, action, "done", target=fitting[0], out=fitting[0])
