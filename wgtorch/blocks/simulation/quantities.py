"""Actions on several things: one for each that is named or counted."""

from __future__ import annotations

import re
from dataclasses import replace

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import IMPOSSIBLE_VERB, Action
from wgtorch.blocks.simulation.lexicon import DETERMINERS, named_in, words

_THINGS = {**lexicon.OBJECTS, **lexicon.LANDMARKS}
MOST_ACTIONS = 3
"""Actions of a line, and things that one makes or handles in a pass."""
_ON_EACH = frozenset(
    ("build craft cook gather repair destroy burn colour plant light extinguish take give drop steal eat open lock read throw look").split()
)
_NUMBERS = {
    "two": 2,
    "both": 2,
    "couple": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "dozen": 12,
}
_COUNTED = re.compile(
    rf"^(?:(?:the|all|some|a(?= (?:{'|'.join(_NUMBERS)}|hundred|thousand|million))) )*(?:(?P<count>\d+|{'|'.join(_NUMBERS)})|(?P<many>hundreds?|thousands?|millions?|a hundred|endless|infinite|half)) (?:of )?(?:the |a |an )?(?P<what>.+)$"
)
_ALL_OF = re.compile(r"^(?:all|most|half|some|the rest|what is left)(?: of)? (?:the |my |these |those )(?P<what>.+)$")


def _counted(action: Action) -> list[Action]:
    """An action for each of so many things: ``build two houses``; for more than a person can do in a pass, one that cannot be done."""
    target = _ALL_OF.sub(r"the \g<what>", action.target or "")
    found = _COUNTED.match(target)
    if action.verb not in _ON_EACH or found is None:
        return [replace(action, target=target or None) if target != (action.target or "") else action]
    count = _NUMBERS.get(found["count"] or "", 0) or int((found["count"] or "0")[:9])
    if not 1 <= count <= MOST_ACTIONS:
        return [replace(action, verb=IMPOSSIBLE_VERB, manner=f"{action.verb} {target}", target=None)]
    what = found["what"][:-1] if found["what"].endswith("s") and found["what"][:-1] in _THINGS else found["what"]
    return [
        replace(
            action,
            target=f"the {what}" if action.verb not in ("build", "craft", "cook", "plant") else what,
            words=action.words if not index else "",
        )
        for index in range(count)
    ]


def _for_each_thing(action: Action) -> list[Action]:
    """An action for each of the things that one names: ``take the lamp and the sword``."""
    parts = re.split(r",? and |, ", action.target or "")
    named = all(words(part)[:1] and (words(part)[0] in DETERMINERS or named_in(part, _THINGS)) for part in parts)
    if action.verb not in _ON_EACH or len(parts) < 2 or not named:
        return [action]
    first, *others = parts
    said = [" ".join(filter(None, (action.verb, part, action.manner))) for part in others]
    return [replace(action, target=first)] + [replace(action, target=part, words=text) for part, text in zip(others, said, strict=True)]


def for_each(action: Action) -> list[Action]:
    """An action for each of the things that one names, and for each of so many.

    >>> [single.target for single in for_each(Action("build", target="a house and two towers"))]
    ['a house', 'tower', 'tower']
    """
    return [single for thing in _for_each_thing(action) for single in _counted(thing)]
