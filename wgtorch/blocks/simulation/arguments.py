"""The words behind the verb of a clause: whom or what, where, to whom and how; without what only tells more of them."""

from __future__ import annotations

import re

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import IMPOSSIBLE_VERB, Action
from wgtorch.blocks.simulation.cast import NAMES
from wgtorch.blocks.simulation.leads import verb_at
from wgtorch.blocks.simulation.lexicon import DETERMINERS, MANNERS, words
from wgtorch.blocks.simulation.phrases import FRAMES, IMPLIED, IMPOSSIBLE, PREPOSITIONS

AUXILIARIES = frozenset("is are am was were does did has have do will can could would should may might shall must".split())
SPEAKERS = frozenset("i we you he she it they there this that these those everybody nobody somebody everything my your".split())
_ANSWERS = frozenset(
    "directions way news help advice information road name reason price time truth forgiveness pardon hand dance opinion".split()
)
"""What is asked for by asking."""
_WHERE = frozenset("in at on over into near by under across to from behind inside through onto".split())


def with_arguments(verb: str, phrase: str, rest: list[str], negated: bool, polite: bool, text: str) -> Action:
    """What the words behind a verb name: whom or what, where, to whom, how.

    Args:
        verb: of the resolver.
        phrase: the words that are the verb.
        rest: the words behind them.
        negated, polite, text: of the action.
    """
    manner = [word for word in rest if word in MANNERS and word not in ("there", "here")]
    rest = [word for word in rest if word not in MANNERS or word in ("there", "here")]
    direction = next((word for word in rest if word in lexicon.DIRECTIONS), None)
    if phrase in IMPOSSIBLE:
        return Action(
            IMPOSSIBLE_VERB, target=" ".join(_split(rest)[0][1]) or None, manner=phrase, negated=negated, polite=polite, words=text
        )
    if phrase in IMPLIED and not _split(rest)[0][1]:
        rest = [IMPLIED[phrase][1], *rest]
    frame, parts = FRAMES.get(verb, "thing"), _split(rest)
    target: str | None = " ".join(parts[0][1]) or None
    place = receiver = None
    said: list[str] = []
    for preposition, phrase_words in parts[1:]:
        inner = " ".join(phrase_words)
        if not inner:
            continue
        if (frame == "hand" and preposition in ("to", "for") and receiver is None) or (
            frame == "get" and preposition in ("from", "off", "with") and receiver is None
        ):
            receiver = inner
        elif (frame == "person" and preposition in ("to", "with", "at", "for", "from") and target is None) or (
            frame == "topic" and target is None
        ):
            target = inner
        elif frame == "move" and preposition in _WHERE | {"for", "towards", "toward", "up", "down", "around", "along", "past", "of"}:
            place = place or inner
        elif frame == "colour" and preposition in ("in", "with"):
            said.append(inner)
        elif preposition == "of" and target is not None:
            target = f"{target} of {inner}"
        elif preposition in _WHERE and place is None:
            place = inner
        else:
            said.append(f"{preposition} {inner}")
    if frame == "hand" and (receiver is None) is not (target is None):
        who, thing = _indirect(str(target or receiver))
        receiver, target = (who, thing) if receiver is None or who is not None else (receiver, None)
    if verb in ("give", "invite") and target in ("me", "us") and (where := place or _until(said)):
        return Action("go", place=where, negated=negated, polite=polite, words=text)  # "bring me to the river"
    if verb == "give" and receiver in ("me", "us"):
        verb, receiver = "beg", None
    if verb == "teach" and target in ("me", "us"):
        verb, target = "talk", None
    if frame == "person" and verb in ("talk", "teach") and target is not None:
        who, topic = _indirect(target)
        target, said = (who, [*said, str(topic)]) if who is not None else (target, said)
    if frame == "move" and direction is not None:
        if target is not None and words(target) and all(word in lexicon.DIRECTIONS or word in DETERMINERS for word in words(target)):
            target = None
        if place is not None and all(word in lexicon.DIRECTIONS or word in DETERMINERS for word in words(place)):
            place = None
        said.append(lexicon.DIRECTIONS[direction])
    if frame == "move" and place is None and target is not None:
        place, target = target, None
    if verb == "colour":
        target, colour = _coloured(phrase, target, said)
        said = [colour] if colour else said
    if verb in ("burn", "destroy", "harm") and target is not None:
        target = re.sub(r" (?:down|up|apart)$", "", target)
    joined = " ".join([*said, *(manner if verb not in ("colour",) else [])]) or None
    return Action(verb, target=target, place=place, manner=joined, negated=negated, polite=polite, receiver=receiver, words=text)


def _until(said: list[str]) -> str | None:
    return next((entry.partition(" ")[2] for entry in said if entry.startswith(("until ", "till "))), None)


def without_purpose(rest: list[str]) -> list[str]:
    """Arguments without what it is for: ``the river to fetch water`` is ``the river``."""
    for at in range(1, len(rest) - 1):
        what = rest[at + 1]
        if rest[at] in ("to", "for") and what not in DETERMINERS and what not in lexicon.LANDMARKS and what not in lexicon.OBJECTS:
            found = verb_at(rest[at + 1 :]) if what not in lexicon.DIRECTIONS else None
            is_fit = found is not None and found[2] == ("base" if rest[at] == "to" else "ing")
            if is_fit or (found is not None and rest[at] == "for" and len(rest) > at + 2):
                return rest[:at]
    return rest


def without_relative(verb: str, rest: list[str]) -> list[str]:
    """Arguments without a clause that tells more of them: ``the seeds that Anna gave me`` is ``the seeds``."""
    if verb in ("look", "search") and rest[:1] != [] and rest[0] in ("what", "whether", "who", "if"):
        return next((rest[at:] for at in range(1, len(rest)) if rest[at] in _WHERE), [])
    if verb in ("take", "gather") and rest[1:2] != [] and rest[0] == "with" and rest[1] in ("me", "us"):
        rest = rest[2:]
    for at in range(1, len(rest) - 2 if verb not in ("ask", "talk", "wish", "stay") else 0):
        is_told = rest[at + 1] in SPEAKERS | DETERMINERS | AUXILIARIES or rest[at + 1].capitalize() in NAMES
        if is_told and rest[at] in ("that", "which", "who", "whom", "where") and rest[at - 1] not in PREPOSITIONS:
            return rest[:at]
    return rest


def by_what_follows(verb: str, rest: list[str]) -> tuple[str, list[str]]:
    """Verbs whose meaning stands at the end: ``turn the moon red``, ``set the house on fire``."""
    if rest[0] == "move" and len(rest) > 1 and rest[1] in DETERMINERS:
        return "use", rest
    if (
        rest[0] in ("turn", "make", "colour", "color")
        and len(rest) > 2
        and rest[-1] in lexicon.COLOURS
        and verb in ("use", "wish", "craft")
    ):
        return "colour", [rest[0], *rest[1:]]
    if rest[0] == "turn" and "into" in rest[2:]:
        return "wish", rest
    if rest[0] == "turn" and not lexicon.DIRECTIONS.keys().isdisjoint(rest):
        return "go", rest
    if rest[0] == "knock" and len(rest) > 2 and rest[-1] in ("unconscious", "senseless", "out", "cold"):
        return "harm", rest[:-1]
    if rest[0] == "pack" and len(rest) > 1:
        return "take", rest
    if rest == ["lay", "down"]:
        return "rest", rest
    if rest[:2] == ["make", "sure"] and verb == "craft":
        return "look", ["make", *rest[2:]]
    if rest[0] == "wash" and len(rest) > 1 and rest[1] not in ("my", "myself"):
        return "repair", rest
    if rest[:2] == ["look", "behind"] and rest[2:3] in (["me"], ["us"], ["myself"], ["yourself"], ["you"]):
        return "look", rest
    if rest[0] == "explain" and "me" not in rest[:3] and rest[1:2] != [] and (rest[1] in SPEAKERS or rest[1] in ("that", "to")):
        return "talk", rest
    if rest[0] == "ask" and "for" in rest[2:6] and _ANSWERS.isdisjoint(rest):
        return "beg", [word for word in rest if word != "for"] if "of" not in rest else rest
    if rest[0] == "beg" and not {"pardon", "forgiveness"}.isdisjoint(rest):
        return "reconcile", ["beg", *(word.removesuffix("'s") for word in rest[1:] if word not in ("pardon", "forgiveness", "of", "for"))]
    if rest[0] == "give" and rest[-1] in ("regards", "thanks", "love", "greetings", "best"):
        return "greet", [word for word in rest[:-1] if word not in ("my", "our", "to")]
    if rest[0] == "leave" and not lexicon.OBJECTS.keys().isdisjoint(rest[1:4]):
        if rest[-1] == "here":
            return "drop", rest[:-1]
        if "with" in rest[2:]:
            return "give", ["to" if word == "with" else word for word in rest]
    if verb == "return" and not {"where", "was"} - set(rest):
        return "return", rest[:1]
    if (rest[0] in ("set", "put") and rest[-2:] == ["on", "fire"]) or (rest[0] == "set" and rest[-1] in ("alight", "ablaze")):
        return "burn", rest[: -2 if rest[-1] == "fire" else -1]
    return verb, rest


def _split(rest: list[str]) -> list[tuple[str, list[str]]]:
    """The words after the verb, by the prepositions that lead them; what stands before any comes first."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for word in rest:
        if word in PREPOSITIONS:
            parts.append((word, []))
        else:
            parts[-1][1].append(word)
    return parts


def _indirect(target: str) -> tuple[str | None, str | None]:
    """``anna the ring`` -> (``anna``, ``the ring``): the receiver before the thing."""
    tokens = words(target)
    if len(tokens) > 1 and tokens[0].capitalize() in NAMES:
        return tokens[0], " ".join(tokens[1:])
    if len(tokens) > 1 and tokens[0] in ("him", "her", "them", "me", "us") and tokens[1] not in DETERMINERS:
        return tokens[0], " ".join(tokens[1:])
    for at, word in enumerate(tokens[1:], start=1):
        if word in DETERMINERS:
            return " ".join(tokens[:at]), " ".join(tokens[at:])
    return None, target


def _coloured(phrase: str, target: str | None, said: list[str]) -> tuple[str | None, str | None]:
    """The thing to be coloured, and the colour that stands behind it: ``the house black``."""
    tokens = words(target or "")
    if said and lexicon.colour_in(said[0]):
        return target, lexicon.colour_in(said[0])
    if tokens and tokens[-1] in lexicon.COLOURS and len(tokens) > 1:
        return " ".join(tokens[:-1]), lexicon.COLOURS[tokens[-1]]
    return target, None
