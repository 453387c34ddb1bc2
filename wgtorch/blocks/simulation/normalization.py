"""A typed line in the words that the rules read: misspelled words mended, passive voice made active, politeness at its ends left out."""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_lowercase

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.blocks.simulation.phrases import PHRASES, POLITE, PREPOSITIONS

_SMALL = (
    "and or but then than here there it he she we you they i me us him her them his our your their its zero six seven eight nine ten eleven "
    "twelve twenty thirty fifty hundred thousand million dozen what where who whom whose why when which how is are am was were be been do "
    "does did has have had will would can could shall should may might must not never no nobody nothing nowhere everybody everyone "
    "everything somebody someone something anybody anyone anything if unless while because so too very much many more most all both first "
    "second third again once today tomorrow yesterday soon later now hour hours night nights week minute minutes mile miles friend mother "
    "father brother sister king queen guard story back home away people old new big small little one two three four five name names person "
    "child children boy girl man men woman women son daughter wife husband baby family life death body hand hands face eye eyes head hair "
    "foot feet arm leg voice word words idea thing things way ways day days year years month part side end top bottom line point case fact "
    "group number problem question answer work job game party war peace power money law truth lie joke news reason secret care sure true "
    "false good better best bad worse worst great long short high low early late young strong weak rich poor happy sad angry hungry thirsty "
    "tired sick ill well hot cold warm wet dry dark loud soft hard easy fast slow full empty clean dirty ready busy free safe nice kind mad "
    "crazy funny pretty ugly know think see come want use find tell ask seem feel try leave call became become keep let begin began show "
    "hear play move live believe bring happen write provide sit stand lose pay meet include continue set learn change lead understand watch "
    "follow stop create speak read allow add spend grow open walk win offer remember love consider appear buy wait serve die send expect "
    "build stay fall cut reach kill remain suggest raise pass sell require report decide pull left right said went gone got gave took made "
    "came saw done seen given going doing being having ago ever always often usually sometimes maybe perhaps really only just even still "
    "also yet already almost enough quite rather next last same other such own another each every few less least half whole nearly up down "
    "out off over under further car road street room floor wall window kitchen school office phone music movie picture color paper pen cup "
    "glass bottle plate bowl spoon fork meat milk tea coffee wine beer salt sugar rice shirt shoe shoes boot boots dress ship train plane "
    "horse bird cow lion tiger snake spider rat bat bee ant ghost witch giant elf dwarf troll devil angel god lord lady prince knight thief "
    "pirate soldier doctor teacher stranger enemy neighbour hero traveller villain crowd town city village country land island earth ground "
    "air sky space nature season spring summer autumn winter monday sunday date hope fear dream wish luck magic spell hotel peach stairs "
    "flood flesh clock frown clown brown crow peas beans cheek chess choir chair potion weapon armor armour shield gun spear arrow trap "
    "prison cell dungeon throne crown gem jewel pearl silver"
).split()
_REAL = frozenset(
    (
        "form clam trial angel quite sacred beard monkey money store mouse lion loin palm calf born barren wolfram cracker cart card hair hare "
        "heart earth hearth bread broad breath breathe board bored boar bone bony fist first mist list lost last past paste taste waste worse "
        "horse hose hoses sale seal meal deal dead deaf head heal hell help self cloud could would world sword swore word works start stars "
        "stare storey restart rest nest vest west best guest quest request pirate private plate plane place palace planet plant plan stead "
        "steed seed need feed weed deed tool toll tall tale tail trail train brain rain drain grain bridge bride pride prince princess price "
        "piece peace pear peer beer bear wear where were tear dear deer lover love glove clove cave carve curve crave grave brave bravery slave "
        "save march marsh harsh mash fish dish wish wash watch match catch patch witch which switch ditch winter wander wonder desert dessert "
        "garden guardian warden harden hidden forget forge force cross moss boss loss toss dress press spring string strong song throne thorn "
        "stone tone alone along among honey hockey donkey turkey turtle castle cattle kettle bottle battle little letter better butter matter "
        "water waiter later lather ladder leather feather father mother brother sister person prison poison wife life knife knight night light "
        "fight right might tight sight eight weight"
    ).split()
)
"""Words that stand near another by their spelling and are meant as they are."""
_PASSIVE = re.compile(
    r"^(?:let |may |might |please |i want |have |i order |i demand |now )*(?P<what>(?!to\b|i\b(?! (?:want|wish|would|ought|must|should|have|need))).+?)\s*"
    r"(?P<modal>should|must|has to|have to|ought to|needs to|need to|shall|is to|are to|will|can|may|shouldn't|mustn't|won't|)"
    r"(?P<no> not| never)? ?\bbe (?P<done>\w+)(?P<rest>.*)$"
)
_AGENT = re.compile(r" by (?:me|us|you|somebody|someone|anybody|people|them|him|her)\b")
_SELF = re.compile(
    r"^(?:i|we|me|us)(?: (?:want|wish|would like|ought|need|have|'d like|would love))?(?: to)?$|^(?:i'd|we'd) (?:like|love)(?: to)?$"
)
_UNASKED = re.compile(r"[\s,]+(?:if (?:you|i|we) (?:please|can|could|may|might|like|will|would|want|don't mind|wouldn't mind)|if possible|if (?:it|that) (?:is|isn't|'s)"
                      r"(?: not)? (?:too much |any |a |possible|all right|okay|ok)?(?:trouble|bother)?|will you|would you|thank you(?: very much)?|thanks(?: a lot)?)\s*(?=[.!?]*$)",
                      re.IGNORECASE)  # fmt: skip
_KIND = re.compile(
    r"^(?:pretty please|be (?:a dear|an angel|a good \w+|nice|kind) and|if (?:it's|it is|that's|that is) (?:all right|okay|ok|fine)(?: with you)?|if you (?:don't mind|please|like)|(?:would|could|will|can) you (?:be so (?:kind|good)(?: as)?|be kind enough|mind)|be so (?:kind|good)(?: as)?|i beg you|do me a favour|would it be possible|is it possible|"
    r"i would be (?:grateful|glad)|might i|excuse me|pardon me|sorry)(?: to| and)?[\s,]+",
    re.IGNORECASE,
)
_FIRST = re.compile(
    r"(^|, |; |and )(?:first of all|first|firstly|to begin with|secondly|finally|at last|lastly|next)(?:,\s*|\s+)(?=[a-z])", re.IGNORECASE
)
_AFTER = re.compile(r"^(?:after|having|once i have|once i've) (?P<what>\w+(?:ing|ed)\b[^,]*),\s*(?:then )?", re.IGNORECASE)
_BEFORE = re.compile(r"^before (?P<what>\w+ing\b[^,]*),\s*(?P<first>.+)$", re.IGNORECASE)
_WITHOUT = re.compile(
    r"^(?:(?:without|instead of) \w+ing\b|rather than \w+|not (?:the |to the )?(?!(?:to|me|yet|now)\b)\w+(?=,))[^,]*,\s*(?=\w)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r",?\s+(?:under|in|on|by|at) any (?:circumstances?|account|condition|means|case|price)\b,?\s*|,\s+whatever (?:happens|you do),\s*",
    re.IGNORECASE,
)
_IN_NO_WAY = re.compile(
    r"^(?:(?:on|under|in|at|by) (?:no|not any) (?:account|circumstances?|condition|way|case|time|event|means)|not (?:on|under) any \w+|(?:do not|don't) (?:even |you )*(?:think|dream) (?:of|about)|"
    r"i have no (?:intention|wish|desire|plans?) (?:of|to)|(?:there is |there's )?no need (?:to|for)|no more|no longer|hands off(?= )|i am done|(?:make sure|be careful|be sure|take care|try|promise|swear|mind|see to it)(?: that)? (?:not|never) to|"
    r"let (?:nobody|no one)|(?:forbid|order|tell) \w+ not to|forbid \w+ to|(?:forget|fail|pretend) to|(?:prevent|stop|keep) \w+ from)\s+(?:may |should |must |will )?(?:i |you |we |anybody )?",
    re.IGNORECASE,
)
_AS_HEARD = {
    "too the see": "to the sea",
    "too the": "to the",
    "too a": "to a",
    "the see": "the sea",
    "threw the": "through the",
    "their is": "there is",
    "take a step": "step",
    "take one step": "step",
    "dont": "don't",
    "cant": "can't",
}
_HEARD = re.compile(rf"\b(?:{'|'.join(_AS_HEARD)})\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_IRREGULAR = {
    "built": "build", "given": "give", "led": "lead", "taken": "take", "burnt": "burn", "broken": "break", "torn": "tear", "dug": "dig", "eaten": "eat",
    "sung": "sing", "lit": "light", "told": "tell", "brought": "bring", "found": "find", "made": "make", "put": "put", "cut": "cut", "set": "set", "sold": "sell",
    "bought": "buy", "thrown": "throw", "hidden": "hide", "caught": "catch", "read": "read", "shut": "shut", "held": "hold", "kept": "keep", "left": "leave",
    "met": "meet", "seen": "see", "shown": "show", "taught": "teach", "written": "write", "worn": "wear", "woken": "wake", "stolen": "steal", "swum": "swim",
    "drunk": "drink", "fed": "feed", "blown": "blow", "grown": "grow", "sent": "send", "paid": "pay", "fought": "fight", "hit": "hit", "hung": "hang", "slain": "slay",
}  # fmt: skip


def normalized(text: str) -> str:
    """The line as the rules read it.

    >>> normalized("the hosue should be paitned red, if you please")
    'paint the house red'
    """
    said = _UNASKED.sub("", _KIND.sub("", text.strip())) or text.strip()
    said = _AFTER.sub(r"\g<what>, then ", _BEFORE.sub(r"\g<first>, then \g<what>", _FIRST.sub(r"\1", said)))
    if text.rstrip().endswith("?") and not said.rstrip().endswith("?") and said != text.strip():
        said += "?"
    said = _WITHOUT.sub("", _HEARD.sub(lambda found: _AS_HEARD[found[0].lower()], said)) or said
    said = mended(said)
    said = re.sub(r"^(?:do not|don't|never) (?:forget|fail|hesitate|be afraid) to ", "", said, flags=re.IGNORECASE)
    said = _BETWEEN.sub(" ", re.sub(r"\bnever ever\b", "never", said))
    said = _IN_NO_WAY.sub("do not ", said)
    said = re.sub(r"^(?:nobody|no one|none of us) (?:should|must|may|shall|is to) ", "do not ", said, flags=re.IGNORECASE)
    return active(said)


def mended(text: str) -> str:
    """The line with its misspelled words mended; one of which most words are no English stays as it is.

    >>> mended("wlak to teh forest"), mended("sali sulla torre")
    ('walk to the forest', 'sali sulla torre')
    """
    found = [word.lower() for word in _WORD.findall(text)]
    english = sum(word in vocabulary()[0] or nearest(word) is not None or _bent(word, vocabulary()[0]) for word in found)
    return _WORD.sub(lambda match: _mended(match, text), text) if english >= 0.6 * len(found) else text


def active(text: str) -> str:
    """A line in the passive voice as the order that it is; others as they are.

    >>> active("a bridge has to be built over the river")
    'build a bridge over the river'
    """
    if " be " not in text or (text.rstrip().endswith("?") is False and text.lower().startswith(("i will", "i'll"))):
        return text
    found = _PASSIVE.match(text.rstrip(" .!?"))
    if found is None or (verb := _base(found["done"].lower())) is None:
        return text
    if not found["modal"] and not re.match(
        r"(?i)(?:let|may|might|i want|i order|i demand|have|i wish|i would|i'd|i ought|i need|we )", text
    ):
        return text
    what = found["what"].strip()
    what = "me" if _SELF.match(what.lower()) else what
    rest = _AGENT.sub("", found["rest"].lower() if found["rest"].isupper() else found["rest"])
    nobody = re.match(r"(?i)(?:nothing|nobody|no one|no )\s*", what)
    denied = bool(found["no"]) or found["modal"].endswith("n't") or nobody is not None
    what = what[nobody.end() :] or "anything" if nobody else what
    return f"{'do not ' if denied else ''}{verb} {what}{rest}"


def _base(participle: str) -> str | None:
    """The verb of a participle, where the rules know it."""
    stem = participle.removesuffix("ed")
    forms = (
        _IRREGULAR.get(participle, ""),
        stem,
        participle.removesuffix("d"),
        stem[:-1] if stem[-2:-1] == stem[-1:] else "",
        f"{stem[:-1]}y",
    )
    firsts = _firsts()
    if participle not in _IRREGULAR and not participle.endswith("ed"):
        return None
    return next((form for form in forms if form and form in firsts), None)


@lru_cache(maxsize=1)
def _firsts() -> frozenset[str]:
    return frozenset(phrase.split()[0] for phrase in PHRASES)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Every word that is known to be one, and those of them that the rules read something in."""
    tables = (lexicon.LANDMARKS, lexicon.OBJECTS, lexicon.TERRAINS, lexicon.WEATHERS, lexicon.COLOURS, lexicon.BEASTS, lexicon.DIRECTIONS, lexicon.HOURS,
              PHRASES)  # fmt: skip
    spoken = (
        *ROLES,
        *_IRREGULAR,
        *lexicon.MATERIALS,
        *lexicon.SKY_THINGS,
        *lexicon.DETERMINERS,
        *lexicon.MANNERS,
        *lexicon.ANYBODY,
        *PREPOSITIONS,
    )
    read = {
        *(word for table in tables for phrase in table for word in phrase.split()),
        *(word for phrase in POLITE for word in phrase),
        *spoken,
    }
    return frozenset((*read, *_SMALL, *_REAL)), frozenset(read)


def _mended(found: re.Match[str], line: str) -> str:
    """A word of a line, mended where it is misspelled; what is written with a capital inside a line is a name."""
    word = found[0]
    if word[:1].isupper() and (found.start() > 0 or line[: found.start()].strip()):
        return word
    return nearest(word.lower()) or word


@lru_cache(maxsize=4096)
def nearest(word: str) -> str | None:
    """The one known word that a misspelled one is meant for: letters swapped, doubled, missing, too many or, in longer words, wrong.

    None for words that are known, or that stand near none or several; the first letter is never wrong.

    >>> nearest("tkae"), nearest("hosue"), nearest("sleeep"), nearest("mouse"), nearest("house")
    ('take', 'house', 'sleep', None, None)
    """
    known, meant = vocabulary()
    if len(word) < 3 or word in known or word.capitalize() in NAMES or not word.isascii() or _bent(word, known):
        return None
    if word == "teh":
        return "the"
    for ways in (_swapped, _doubled, _missing, _wrong):
        if hits := {near for near in ways(word) if near in meant and near[0] == word[0] and len(near) > 2}:
            return hits.pop() if len(hits) == 1 else None
    return None


def _bent(word: str, known: frozenset[str]) -> bool:
    """True for another form of a known word: towers, walked, building, miller's."""
    stem = word.split("'")[0]
    ends = ("s", "es", "ed", "d", "ing", "er", "ly", "y", "n", "en")
    stems = {stem, *(stem.removesuffix(end) for end in ends)}
    stems |= (
        {f"{cut}e" for cut in stems}
        | {cut[:-1] for cut in stems if len(cut) > 3 and cut[-1] == cut[-2]}
        | {f"{cut[:-1]}y" for cut in stems if cut}
    )
    return "'" in word or (any(len(cut) > 2 and cut in known for cut in stems if cut != word) and word.endswith(ends))


def _swapped(word: str) -> set[str]:
    return {word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)} if len(word) > 3 else set()


def _doubled(word: str) -> set[str]:
    """With one of two equal letters less, or one letter twice: ``restt``, ``hil``."""
    less = {word[:at] + word[at + 1 :] for at in range(1, len(word)) if word[at] == word[at - 1]}
    return less | {word[:at] + word[at] + word[at:] for at in range(1, len(word))}


def _missing(word: str) -> set[str]:
    if len(word) < 4:
        return set()
    return {word[:at] + letter + word[at:] for at in range(1, len(word) + 1) for letter in ascii_lowercase} | {
        word[:at] + word[at + 1 :] for at in range(1, len(word)) if len(word) > 4
    }


def _wrong(word: str) -> set[str]:
    if len(word) < 5:
        return set()
    return {word[:at] + letter + word[at + 1 :] for at in range(1, len(word)) for letter in ascii_lowercase}
