"""Verbs of oneself: resting, waiting, singing, wishing."""

from __future__ import annotations

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import bare, named_in, words
from wgtorch.blocks.simulation.seasons import fits, hours_until, later, time_of_day
from wgtorch.blocks.simulation.verbs.making import add_object
from wgtorch.blocks.simulation.verbs.rules import Verdict, refused, spend, verb


@verb("rest")
def rest(draft: Draft, actor: str, action: Action) -> Verdict:
    """Rests where one is."""
    spend(draft, actor)
    draft.mood(actor, "calm")
    return draft.close(actor, action, "done", target=draft.place_of(actor))


def _hours(draft: Draft, action: Action) -> int | None:
    """For how long, where that was said: ``until morning``, ``two days``, ``one night``."""
    said = words(" ".join(filter(None, (action.target, action.manner, action.place))))
    clock = draft.content["clock"]
    numbers = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "ten": 10, "few": 3, "some": 3}
    count = next(
        (numbers.get(word) or int(word) for word in said if word in numbers or (word.isdecimal() and word.isascii() and len(word) < 4)), 1
    )
    count = max(1, min(count, 30))
    if "until" in said or "till" in said or "for" in said or "to" in said or len(said) == 1:
        for word in said:
            if word in lexicon.HOURS and not (word in ("day", "night") and "for" in said):
                return hours_until(clock, lexicon.HOURS[word][1])
    if any(word in ("night", "nights") for word in said):
        return 24 * (count - 1) + max(hours_until(clock, 7), 6 if count > 1 else 8)
    units = {
        "hour": 1,
        "hours": 1,
        "day": 24,
        "days": 24,
        "week": 168,
        "weeks": 168,
        "while": 3,
        "moment": 1,
        "bit": 1,
    }
    for word in said:
        if word.startswith("minute"):
            return max(1, count // 60)
        if word in units:
            return min(count * units[word], 24 * 30)
        if word == "tomorrow":
            return hours_until(clock, 7)
    return None


@verb("sleep")
def sleep(draft: Draft, actor: str, action: Action) -> Verdict:
    """Sleeps: until the hour that is named, else eight hours."""
    if _is_ages(" ".join(filter(None, (action.target, action.manner, action.place)))):
        return refused(draft, actor, action, "nobody sleeps that long")
    hours = _hours(draft, action)
    if hours is None:
        hours = hours_until(draft.content["clock"], 7) if time_of_day(draft.content["clock"]) in ("night", "dusk") else 8
    if actor == draft.hero:
        draft.change(later(draft.content["clock"], hours), "clock")
    draft.mood(actor, "calm")
    return draft.close(actor, action, "done", target=draft.place_of(actor), hours=hours)


_AGES = frozenset(
    ("year", "years", "century", "centuries", "decade", "decades", "ages", "forever", "eternity", "hundred", "thousand", "million")
)


def _is_ages(said: str) -> bool:
    """True for longer than anybody can wait: years, or numbers of three digits and more."""
    return not _AGES.isdisjoint(words(said)) or any(
        word[0].isdecimal() and not (word.isdecimal() and len(word) < 3) for word in words(said)
    )


@verb("wait")
def wait(draft: Draft, actor: str, action: Action) -> Verdict:
    """Waits: for a time, or for weather, which may not come."""
    said = " ".join(filter(None, (action.target, action.manner, action.place)))
    weather = named_in(said, lexicon.WEATHERS)
    over = weather is not None and not {"over", "ends", "stops", "passes", "gone", "end", "stop", "pass", "past"}.isdisjoint(
        words(action.words)
    )
    if over and draft.content["weather"] == weather:
        weather = "cloudy" if weather in ("rain", "storm", "snow") else "clear"
    if weather is not None and "night" not in words(said):
        return _wait_for(draft, actor, action, weather)
    if _is_ages(said):
        return refused(draft, actor, action, "nobody can wait that long", bare(said))
    hours = _hours(draft, action)
    if actor == draft.hero:
        draft.change(later(draft.content["clock"], hours or 3), "clock")
    if hours is None and bare(said) and not {"here", "patiently", "there", "again"} & set(words(said)):
        return draft.close(actor, action, "partly", f"{bare(said.removeprefix('for '))} did not come", target=bare(said))
    draft.mood(actor, "calm")
    return draft.close(actor, action, "done", target=bare(said) or draft.place_of(actor), hours=hours or 3)


def _wait_for(draft: Draft, actor: str, action: Action, weather: str) -> Verdict:
    now, land = draft.content["weather"], draft.places[draft.place_of(actor)]["terrain"]
    if now == weather:
        spend(draft, actor, 1)
        return draft.close(actor, action, "done", "it is so already", target=weather)
    if not fits(weather, land):
        return refused(draft, actor, action, f"{weather} never comes to a {land}", weather)
    spend(draft, actor, 6)
    before = {"clear": ("cloudy", "fog", "rain", "snow"), "cloudy": ("clear", "fog", "rain", "snow", "storm"), "fog": ("clear", "cloudy")}
    near = before.get(weather, ("cloudy", "rain"))
    if now in near and draft.rng.random() < 0.6:
        draft.change(weather, "weather")
        return draft.close(actor, action, "done", target=weather)
    return draft.close(actor, action, "partly", f"the {weather} did not come", target=weather)


@verb("perform")
def perform(draft: Draft, actor: str, action: Action) -> Verdict:
    """Sings, plays, dances, tells a story: whoever is here hears it."""
    others = draft.here(draft.place_of(actor), but=actor)
    spend(draft, actor, 2)
    draft.mood(actor, "glad")
    for name in others[:3]:
        draft.rests_on("characters", name, "mood")
        draft.mood(name, "glad")
    return draft.close(actor, action, "done", target=bare(action.target) or None, heard=others[:3])


@verb("pray")
def pray(draft: Draft, actor: str, action: Action) -> Verdict:
    """Prays, thinks, remembers, dreams: nothing but the mood changes."""
    spend(draft, actor, 1)
    draft.mood(actor, "hopeful")
    return draft.close(actor, action, "done", target=bare(action.target or action.manner) or None)


@verb("feel")
def feel(draft: Draft, actor: str, action: Action) -> Verdict:
    """Laughs, cries, jumps, waves: what a body does by itself."""
    spend(draft, actor, 1)
    draft.mood(actor, {"cry": "sad", "weep": "sad"}.get((words(action.words) or [""])[0], "glad"))
    return draft.close(actor, action, "done", target=bare(action.target or action.place) or None)


@verb("write")
def write(draft: Draft, actor: str, action: Action) -> Verdict:
    """Writes a letter, a poem, a book: it is there afterwards."""
    said = bare(action.target)
    kind = "book" if any(word in ("book", "story", "novel", "diary", "journal") for word in words(said)) else "letter"
    spend(draft, actor, 3)
    name = add_object(draft, kind, bearer=actor)
    return draft.close(actor, action, "done", target=name, made=name, at=draft.place_of(actor))


@verb("wish")
def wish(draft: Draft, actor: str, action: Action) -> Verdict:
    """Wants weather, hours or the sky to be otherwise: nobody commands them."""
    said = bare(" ".join(filter(None, (action.target, action.manner))))
    weather = named_in(said, lexicon.WEATHERS)
    if weather is not None and weather == draft.content["weather"] and "stop" not in words(action.words):
        return draft.close(actor, action, "done", "it is so already", target=weather)
    if any(word in ("rich", "happy", "home", "friend", "love", "peace") for word in words(said)):
        spend(draft, actor, 1)
        return draft.close(actor, action, "partly", "wishing alone brings nothing", target=said)
    return refused(
        draft,
        actor,
        action,
        "nobody commands the sky" if weather or any(w in lexicon.SKY_THINGS for w in words(said)) else "wishing does not make it so",
        weather or said or None,
    )


@verb("refrain")
def refrain(draft: Draft, actor: str, action: Action) -> Verdict:
    """Does not do it, and lets the hours go by."""
    spend(draft, actor, 1)
    return draft.close(actor, action, "done", target=bare(action.target or action.place) or None)


@verb("remark")
def remark(draft: Draft, actor: str, action: Action) -> Verdict:
    """Says something: words that change nothing."""
    return draft.close(actor, action, "done", target=None, said=action.words[:200])


@verb("unknown")
def unknown(draft: Draft, actor: str, action: Action) -> Verdict:
    """What nobody understands; near actions are offered."""
    said = bare(action.words)[:80]
    shown = f"“{said}”" if said else "that"
    offers = suggestions(draft, actor)
    reason = action.manner or f"nobody knows how to do {shown}"
    return draft.close(actor, action, "unclear", reason, target=None, offers=offers)


def suggestions(draft: Draft, actor: str) -> list[str]:
    """Four actions that would be understood and can be done from here."""
    here = draft.place_of(actor)
    place = draft.places[here]
    offers = [f"go {direction}" for direction in list(place["neighbours"])[:1]]
    others = draft.here(here, but=actor)
    if others:
        offers.append(f"talk to {others[0]}")
    takeable = [name for name in draft.lying(here) if not draft.objects[name]["fixed"]]
    if takeable:
        offers.append(f"take the {takeable[0]}")
    if place["landmark"] and place["state"] in ("burnt", "flooded", "unfinished"):
        offers.append(f"repair the {place['landmark']}")
    elif place["landmark"] in ("tower", "castle", "windmill"):
        offers.append(f"climb the {place['landmark']}")
    elif place["landmark"] is None:
        offers.append("build a house")
    offers += ["what is this place?", "look for treasure", "rest", "sing a song"]
    return offers[:4]
