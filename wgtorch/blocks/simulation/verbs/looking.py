"""Verbs of looking, searching and asking."""

from __future__ import annotations

from dataclasses import replace

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import bare, named_in, with_article, words
from wgtorch.blocks.simulation.matching import find, last_named
from wgtorch.blocks.simulation.places import way
from wgtorch.blocks.simulation.seasons import time_of_day
from wgtorch.blocks.simulation.verbs.being import suggestions
from wgtorch.blocks.simulation.verbs.making import add_object
from wgtorch.blocks.simulation.verbs.rules import Verdict, far, refused, spend, verb, whereabouts
from wgtorch.blocks.simulation.verbs.travel import destination

FINDS = ("coin", "ring", "shell", "key", "letter", "feather", "bell")
_CHANCE = 0.35


@verb("look")
def look(draft: Draft, actor: str, action: Action) -> Verdict:
    """Looks at what is here; it changes nothing."""
    said, here = action.target or action.place or action.manner, draft.place_of(actor)
    if named_in(said, lexicon.DIRECTIONS):
        return draft.close(actor, action, "done", target=here, answer=answer_to(draft, actor, replace(action, target=None, place=None)))
    if bare(said) and bare(said) not in ("around", "about", "place", "here", "everything", "surroundings", "landscape", "view", "horizon"):
        named = find(draft, actor, said)
        place = draft.places[here]
        seen = {
            "character": named.part == "character" and draft.place_of(named.name) == here,
            "object": True,
            "landmark": place["landmark"] == named.name,
            "land": place["terrain"] == named.name or any(draft.places[n]["terrain"] == named.name for n in place["neighbours"].values()),
            "place": named.name == here or named.name in place["neighbours"].values(),
            "weather": True,
            "sky": True,
        }.get(named.part, False)
        if not seen:
            return refused(draft, actor, action, f"no {bare(said)} is to be seen from {here}", named.name)
        return draft.close(actor, action, "done", target=named.name, answer=describe(draft, actor, named.part, named.name))
    return draft.close(actor, action, "done", target=here, answer=describe(draft, actor, "place", here))


def describe(draft: Draft, actor: str, part: str, name: str) -> str:
    """What is known of a fact, in a sentence."""
    if part == "character":
        who = draft.characters[name]
        carried = ", ".join(who["carries"]) or "nothing"
        return f"{name}, {with_article(who['role'])}, looks {who['mood']} and carries {carried}"
    if part == "object":
        thing = draft.objects[name]
        colour = f"{thing['colour']} " if thing["colour"] and thing["colour"] not in name.split() else ""
        return f"the {colour}{name} is {thing['state']}"
    if part in ("place", "landmark", "land") and (part != "place" or name in draft.places):
        where = name if part == "place" else draft.place_of(actor)
        return describe_place(draft, actor, where)
    if part == "weather" or part == "sky":
        return f"the sky is {_sky(draft.content['weather'])}"
    return f"there is nothing more to be said of {name}"


def _sky(weather: str) -> str:
    return {
        "clear": "clear",
        "cloudy": "grey",
        "rain": "heavy with rain",
        "snow": "full of snow",
        "fog": "hidden in fog",
        "storm": "torn by a storm",
    }[weather]


def describe_place(draft: Draft, actor: str, where: str) -> str:
    """A place with what stands, lies and lives there, and where ways lead."""
    place = draft.places[where]
    land = {"sea": "by the sea", "river": "by a river", "mountains": "in the mountains", "hills": "among hills"}.get(
        place["terrain"], f"in {with_article(place['terrain'])}"
    )
    told = [f"{where} lies {land}"]
    if place["landmark"]:
        adjectives = [word for word in (place["state"] if place["state"] not in ("whole", "ruined") else "", place["colour"] or "") if word]
        told.append(f"{with_article(' '.join([*adjectives, place['landmark']]))} stands there")
    if where == draft.place_of(actor):
        others, things = draft.here(where, but=actor), draft.lying(where)
        if others:
            told.append(f"{' and '.join(others)} {'is' if len(others) == 1 else 'are'} here")
        if things:
            told.append(f"{' and '.join(with_article(name) for name in things[:3])} {'is' if len(things) == 1 else 'are'} there")
        ways = ", ".join(f"{direction} to {name}" for direction, name in place["neighbours"].items() if draft.places[name]["known"])
        open_ = " and ".join(direction for direction, name in place["neighbours"].items() if not draft.places[name]["known"])
        told += [f"ways lead {ways}"] if ways else []
        told += [f"unknown land lies {open_}"] if open_ else []
    return "; ".join(filter(None, told))


@verb("search")
def search(draft: Draft, actor: str, action: Action) -> Verdict:
    """Looks for something: what lies here is found, treasure only by chance, and then the event says so."""
    here, said = draft.place_of(actor), action.target or action.place
    named = find(draft, actor, said)
    if named.part == "object" and draft.objects[named.name]["bearer"] is None:
        return draft.close(actor, action, "done", target=named.name, answer=f"the {named.name} is right here at {here}")
    if named.part == "object":
        return draft.close(
            actor, action, "done", target=named.name, answer=f"{draft.objects[named.name]['bearer']} carries the {named.name}"
        )
    if named.part in ("character", "land", "landmark", "place"):
        goal, missing = destination(draft, named)
        steps = way(draft.places, here, goal) if goal is not None else None
        if steps is None:
            return refused(draft, actor, action, missing, named.name)
        spend(draft, actor, 2)
        return draft.close(
            actor, action, "done", target=named.name, answer=f"{named.name} is {far(draft, actor, steps[-1] if steps else here)}"
        )
    wanted = named_in(said, lexicon.OBJECTS)
    spend(draft, actor)
    if (wanted in ("treasure", "coin", *FINDS) or not bare(said)) and draft.rng.random() < _CHANCE:
        kind = wanted if wanted in FINDS else draft.rng.choice(FINDS)
        name = add_object(draft, kind, bearer=actor)
        draft.mood(actor, "glad")
        return draft.close(actor, action, "done", target=name, found=name, at=here)
    return draft.close(actor, action, "partly", f"nothing of the kind was found at {here}", target=named.name or bare(said) or None)


@verb("ask")
def ask(draft: Draft, actor: str, action: Action) -> Verdict:
    """A question: facts stay as they are, and it is answered from them, or said that nobody knows."""
    if action.target and action.manner and action.manner.startswith("about "):
        asked, here = find(draft, actor, action.target), draft.place_of(actor)
        if lexicon.means_anybody(action.target):
            if not draft.here(here, but=actor):
                return refused(draft, actor, action, f"there is nobody at {here}", None)
        elif asked.part == "nothing":
            return refused(draft, actor, action, f"there is nobody called {bare(action.target)}", bare(action.target))
        if asked.part == "character" and draft.place_of(asked.name) != here:
            return refused(draft, actor, action, whereabouts(draft, asked.name), asked.name)
    answer = answer_to(draft, actor, action)
    if answer is None:
        topic = bare(action.target or action.manner or "") or bare(action.words)
        of = (
            f"knows anything of {topic}" if not action.words.rstrip().endswith("?") and len(topic.split()) <= 3 else "has an answer to that"
        )
        return draft.close(
            actor, action, "done", f"nobody {of}", target=topic[:80] or None, answer=f"nobody at {draft.place_of(actor)} {of}"
        )
    return draft.close(actor, action, "done", answer, target=bare(action.target) or draft.place_of(actor), answer=answer)


def answer_to(draft: Draft, actor: str, action: Action) -> str | None:
    """The answer to a question, from the facts; None where they hold none."""
    said, here = words(action.words), draft.place_of(actor)
    first = next((word for word in said if word in ("what", "where", "who", "whose", "when", "why", "how", "which")), "")
    topic = find(draft, actor, action.target or action.place)
    if {"i", "we", "me", "my"} & set(said) and ({"did", "done", "happened", "deeds"} & set(said) or {"have", "been"} <= set(said)):
        return _deeds(draft, actor)
    if {"how", "many"} <= set(said):
        return _number(draft, actor, action.target)
    if (who := _meant(draft, actor, action, said)) is not None and (told := _of_themselves(draft, actor, who, said)) is not None:
        return told
    if topic.part == "weather" and not {"time", "hour"} & set(said):
        return f"the sky over {here} is {_sky(draft.content['weather'])}"
    direction = next((lexicon.DIRECTIONS[word] for word in said if word in lexicon.DIRECTIONS), None)
    if direction is not None and topic.part in ("nothing", "place"):
        other = draft.places[here]["neighbours"].get(direction)
        known = other is not None and draft.places[other]["known"]
        return (
            f"{other} lies {direction} of {here}"
            if known
            else f"{'no way leads' if other is None else 'unknown land lies'} {direction} of {here}"
        )
    if topic.part == "nothing" and any(word in lexicon.HOURS for word in said):
        return f"it is {_hour_words(draft.content['clock'])}"
    if first == "when" or ("time" in said and first in ("what", "")) or "hour" in said or "late" in said:
        clock = draft.content["clock"]
        return f"it is {_hour_words(clock)} of day {clock['day']}"
    if "weather" in said or topic.part in ("weather", "sky"):
        return f"the sky over {here} is {_sky(draft.content['weather'])}"
    if (
        ("i" in said and {"am", "where"} <= set(said))
        or ("place" in said and topic.part in ("nothing", "place"))
        or {"where", "are", "we"} <= set(said)
    ):
        return describe_place(draft, actor, here)
    if ("who" in said or lexicon.ANYBODY & set(said[:4]) or {"alone"} & set(said)) and {"here", "around", "there", "alone", "nearby"} & set(
        said
    ):
        others = draft.here(here, but=actor)
        return f"{' and '.join(others)} {'is' if len(others) == 1 else 'are'} at {here}" if others else f"nobody but {actor} is at {here}"
    if {"want", "wants", "wish", "need"} & set(said) and lexicon.ANYBODY & set(said):
        goals = {name: draft.characters[name]["goal"] for name in draft.here(here, but=actor)}
        wishes = [f"{name} wants to {draft.threads[goal]['what']['words']}" for name, goal in goals.items() if goal in draft.threads]
        return ", ".join(wishes) or f"nobody at {here} says what they want"
    if {"carry", "have", "carrying", "inventory", "got", "own", "things", "stuff", "belongings"} & set(said) and (
        "i" in said or "inventory" in said or "my" in said
    ):
        carried = draft.characters[actor]["carries"]
        return f"{actor} carries {', '.join(carried)}" if carried else f"{actor} carries nothing"
    if "who" in said and "i" in said:
        return describe(draft, actor, "character", actor)
    if said[:2] in (["your", "name"], ["who", "are"]) or {"your", "name"} <= set(said) or {"who", "are", "you"} <= set(said):
        others = draft.here(here, but=actor)
        return (
            f"{others[0]} is {with_article(draft.characters[others[0]]['role'])}" if others else f"there is nobody at {here} who could say"
        )
    if (first == "where" or {"way", "far", "direction", "get", "reach", "go", "come", "find"} & set(said)) and topic.part != "nothing":
        goal, missing = destination(draft, topic)
        steps = way(draft.places, here, goal) if goal is not None else None
        if steps is None:
            return missing
        name = (
            f"the nearest {topic.name}"
            if topic.part in ("land", "landmark", "kind")
            else f"the {topic.name}"
            if topic.part == "object"
            else topic.name
        )
        return f"{name} is {far(draft, actor, steps[-1] if steps else here)}"
    if {"do", "can", "should", "could"} & set(said) and "i" in said:
        return "one could " + ", ".join([said for said in suggestions(draft, actor) if not said.endswith("?")][:3])
    if {"colour", "color"} & set(said) and topic.part == "landmark" and draft.places[here]["landmark"] == topic.name:
        return f"the {topic.name} at {here} is {draft.places[here]['colour'] or 'of no colour that has a name'}"
    if topic.part == "beast":
        near = [name for name, who in draft.characters.items() if who["role"] == topic.name and who["present"]]
        return (
            f"{near[0]}, {with_article(topic.name)}, is at {draft.place_of(near[0])}"
            if near
            else f"nobody has seen {with_article(topic.name)} anywhere near"
        )
    if topic.part == "character":
        goal = draft.characters[topic.name]["goal"]
        wants = f" and wants to {draft.threads[goal]['what']['words']}" if goal and goal in draft.threads else ""
        return f"{topic.name}, {with_article(draft.characters[topic.name]['role'])}, is at {draft.place_of(topic.name)}{wants}"
    if topic.part == "place":
        return describe_place(draft, actor, topic.name)
    if topic.part == "object" and (first in ("who", "whose") or not {"have", "has", "got"}.isdisjoint(said)):
        bearer = draft.objects[topic.name]["bearer"]
        return f"{bearer} carries the {topic.name}" if bearer else f"the {topic.name} is nobody's"
    if topic.part == "object":
        return describe(draft, actor, "object", topic.name)
    if topic.part in ("land", "landmark"):
        goal, missing = destination(draft, topic)
        steps = way(draft.places, here, goal) if goal is not None else None
        return missing if steps is None else f"the nearest {topic.name} is {far(draft, actor, steps[-1] if steps else here)}"
    if {"news", "happened", "new", "yesterday", "happening"} & set(said):
        last = next(
            (e for e in reversed(draft.content.get("events", ())) if e["status"] == "done" and e["actor"] != actor and e["target"]), None
        )
        return f"{last['actor']} was last busy at {last['where']}" if last and last["where"] else None
    return None


def _deeds(draft: Draft, actor: str) -> str:
    """What somebody did of late in their own words, the last first, and where they were for it."""
    own = [event for event in draft.content.get("events", ()) if event["actor"] == actor and event["verb"] not in ("ask", "look")]
    told = [f"“{event['action']}” at {event['where']}" for event in reversed(own) if event["action"] and event["status"] != "refused"]
    return f"of late {actor} did what was said: {', '.join(told[:4])}" if told else f"{actor} has done nothing yet that was asked for"


def _meant(draft: Draft, actor: str, action: Action, said: list[str]) -> str | None:
    """Who ``you``, ``she`` and ``he`` are in a question: whom it names, who was last spoken of, who is here."""
    if {"you", "your", "yours", "she", "he", "her", "his", "him"}.isdisjoint(said):
        return None
    named, here = find(draft, actor, action.target), draft.here(draft.place_of(actor), but=actor)
    who = named.name if named.part == "character" and named.name != actor else last_named(draft, actor, "person")
    return who if who in here or {"you", "your", "yours"}.isdisjoint(said) else next(iter(here), None)


def _of_themselves(draft: Draft, actor: str, who: str, said: list[str]) -> str | None:
    """What somebody says of themselves: name, mood, wish, belongings, whom they like."""
    entry, asked = draft.characters[who], set(said)
    if asked & {"name", "called"} or (asked & {"who"} and asked & {"are", "is"} and len(said) < 4):
        return f"{who} is {with_article(entry['role'])}"
    if said[:1] == ["how"] and asked & {"are", "is", "feel", "feeling", "doing", "do"} and not asked & {"old", "far"}:
        return f"{who} is {entry['mood']}"
    if asked & {"like", "love", "trust", "hate", "friends"} and asked & {"me", "we", "us"}:
        feeling = draft.feeling(who, actor)
        return f"{who} {'thinks well' if feeling > 1 else 'thinks ill' if feeling < -1 else 'does not know what to think'} of {actor}"
    if asked & {"friend", "friends"}:
        liked = max(draft.characters, key=lambda name: draft.feeling(who, name) if name != who else -9)
        return f"{who} likes {liked} best" if draft.feeling(who, liked) > 0 else f"{who} has no friend to speak of"
    if asked & {"have", "carry", "carrying", "own", "got", "sell"}:
        return f"{who} carries {', '.join(entry['carries']) or 'nothing'}"
    if asked & {"where"} and asked & {"live", "from", "is", "are", "go", "went"} and not asked & {"know", "going"}:
        return f"{who} is at {draft.place_of(who)}"
    if asked & {"want", "wants", "wish", "need", "doing", "going", "plan", "looking", "do"} and not asked & {"know"}:
        goal = draft.threads.get(entry["goal"] or "")
        return f"{who} wants to {goal['what']['words']}" if goal else f"{who} wants nothing in particular"
    return None


def _number(draft: Draft, actor: str, topic: str | None) -> str | None:
    """How many of something there are: people here, things here and in one's hands, buildings and lands as far as they are known."""
    here = draft.place_of(actor)
    if {"people", "persons", "men", "women", "of", "characters"} & set(words(topic or "")):
        return f"{len(draft.here(here))} at {here}, {actor} among them"
    if (kind := named_in(topic, lexicon.LANDMARKS) or named_in(topic, lexicon.TERRAINS)) is not None:
        known = [place for place in draft.places.values() if place["known"] and kind in (place["landmark"], place["terrain"])]
        standing = sum(thing["kind"] == kind for thing in draft.objects.values())
        return f"{actor} knows of {len(known) + standing or 'none'}"
    if (kind := named_in(topic, lexicon.OBJECTS)) is not None:
        near = (*draft.characters[actor]["carries"], *draft.lying(here))
        return f"{actor} sees {sum(draft.objects[name]['kind'] == kind for name in near) or 'none'} here"
    return None


def _hour_words(clock: dict[str, int]) -> str:
    return f"{time_of_day(clock)}, hour {clock['hour']}"
