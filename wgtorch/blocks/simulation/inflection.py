"""Forms of English verbs: which verb a word may be a form of."""

from __future__ import annotations

from functools import lru_cache

_PARTICIPLES = (
    "build built|give given gave|lead led|take taken took|burn burnt|break broken broke|tear torn tore|dig dug|eat eaten ate|sing sung sang|light lit|tell told|"
    "bring brought|find found|make made|put put|cut cut|set set|sell sold|buy bought|throw thrown threw|hide hidden hid|catch caught|read read|shut shut|hold held|keep kept|leave left|"
    "meet met|see seen saw|show shown|teach taught|write written wrote|wear worn wore|wake woken woke|steal stolen stole|swim swum swam|drink drunk drank|feed fed|blow blown blew|grow grown grew|"
    "send sent|pay paid|fight fought|hit hit|hang hung|slay slain slew|go gone went|come came|run ran|sleep slept|sit sat|stand stood|ride rode ridden|speak spoke spoken|say said|"
    "get got|do did done|think thought|fly flew|flee fled|begin began begun|climb climbed|swear swore|lie lay|lose lost|choose chose chosen|forget forgot forgotten|forbid forbade|fall fell fallen|awake awoke|freeze froze|ring rang|sink sank|shoot shot|strike struck|draw drew drawn|hear heard|buy bought|win won"
)
IRREGULAR = {form: base for base, *forms in (entry.split() for entry in _PARTICIPLES.split("|")) for form in forms}


@lru_cache(maxsize=4096)
def forms(word: str) -> tuple[tuple[str, str], ...]:
    """What a word may be a form of, and which: ``ing``, ``s`` or ``past``.

    >>> forms("running")[:1], forms("carries"), forms("took")
    ((('runn', 'ing'),), (('carry', 's'), ('carri', 's'), ('carrie', 's')), (('take', 'past'),))
    """
    if word in IRREGULAR and IRREGULAR[word] != word:
        return ((IRREGULAR[word], "past"),)
    found = []
    for end, form in (("ing", "ing"), ("ied", "past"), ("ed", "past"), ("ies", "s"), ("es", "s"), ("s", "s")):
        stem = word.removesuffix(end)
        if stem != word and len(stem) > 1:
            ends = ("y",) if end[0] == "i" and end != "ing" else ("",) if form == "s" else ("", "e")
            found += [(f"{stem}{put}", form) for put in ends]
            if form != "s" and len(stem) > 2 and stem[-1] == stem[-2]:
                found.append((stem[:-1], form))
    return tuple(dict.fromkeys(found))
