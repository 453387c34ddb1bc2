"""Forms of English verbs: which verb a word may be a form of."""

from __future__ import annotations

import re
from functools import lru_cache

_PARTICIPLES = (
    "build built|give given gave|lead led|take taken took|burn burnt|break broken broke|tear torn tore|dig dug|eat eaten ate|sing sung sang|light lit|tell told|"
    "bring brought|find found|make made|put put|cut cut|set set|sell sold|buy bought|throw thrown threw|hide hidden hid|catch caught|read read|shut shut|hold held|keep kept|leave left|"
    "meet met|see seen saw|show shown|teach taught|write written wrote|wear worn wore|wake woken woke|steal stolen stole|swim swum swam|drink drunk drank|feed fed|blow blown blew|grow grown grew|"
    "send sent|pay paid|fight fought|hit hit|hang hung|slay slain slew|go gone went|come came|run ran|sleep slept|sit sat|stand stood|ride rode ridden|speak spoke spoken|say said|"
    "get got|do did done|think thought|fly flew|flee fled|begin began begun|climb climbed|swear swore|lie lay|lose lost|choose chose chosen|forget forgot forgotten|forbid forbade|fall fell fallen|awake awoke|freeze froze|ring rang|sink sank|shoot shot|strike struck|draw drew drawn|hear heard|buy bought|win won|kneel knelt|spend spent|lend lent|weep wept|creep crept|sweep swept|slide slid|swing swung|fling flung|bend bent|bind bound|wind wound|bite bitten bit|shake shaken shook|rise risen rose|lay laid|dream dreamt|leap leapt|spring sprung sprang|sling slung|spit spat|stick stuck|feel felt|stride strode|tread trod|split split|let let|hurt hurt|rid rid|shed shed|burst burst|cast cast|weave woven wove|drive driven drove|quit quit|stand stood|hold held|seek sought|grind ground|mean meant|smite smitten smote|shrink shrunk shrank|slink slunk|steal stolen stole"
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


_BENT = {"be": {"i": "being", "d": "was", "p": "been", "s": "is"}, "have": {"i": "having", "d": "had", "p": "had", "s": "has"}, "do": {"i": "doing", "d": "did", "p": "done", "s": "does"},
         "lie": {"i": "lying", "d": "lay", "p": "lain", "s": "lies"}, "die": {"i": "dying", "d": "died", "p": "died", "s": "dies"}, "tie": {"i": "tying", "d": "tied", "p": "tied", "s": "ties"}}  # fmt: skip
_PAST = {
    base: [forms[0], *(form for form in forms if not form.endswith(("n", "ne")))][-1]
    for base, *forms in map(str.split, _PARTICIPLES.split("|"))
}
_PAST["show"] = "showed"
_DONE = {
    base: next((form for form in forms if form.endswith(("n", "ne"))), forms[0]) for base, *forms in map(str.split, _PARTICIPLES.split("|"))
}


def inflected(verb: str, form: str) -> str:
    """A verb in a form: ``b`` as it is, ``i`` with -ing, ``d`` in the past, ``p`` its participle, ``s`` of one who acts.

    >>> inflected("carry", "d"), inflected("run", "i"), inflected("go", "s"), inflected("take", "d")
    ('carried', 'running', 'goes', 'took')
    """
    if form == "b" or not verb.isalpha():
        return verb
    if verb in _BENT:
        return _BENT[verb][form]
    if form == "p" and verb in _DONE:
        return _DONE[verb]
    if form == "d" and verb in _PAST:
        return _PAST[verb]
    if form == "s":
        return (
            f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}es" if re.search(r"(?:s|x|z|ch|sh|o)$", verb) else f"{verb}s"
        )
    doubled = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]|(?:for|ad)get|be[dg]in|admit|commit|refer", verb) or verb in ("quit",)
    stem = f"{verb}{verb[-1]}" if doubled else verb
    if form == "i":
        return f"{verb[:-1]}ing" if re.search(r"[^eoy]e$", verb) else f"{stem}ing"
    return f"{verb[:-1]}ied" if re.search(r"[^aeiou]y$", verb) else f"{verb}d" if verb.endswith("e") else f"{stem}ed"
