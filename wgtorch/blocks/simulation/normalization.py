"""A typed line in the words that the rules read: written out, misspelled words mended, passive voice made active."""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_lowercase

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.blocks.simulation.inflection import IRREGULAR, forms
from wgtorch.blocks.simulation.leads import FIRSTS, LEADING
from wgtorch.blocks.simulation.phrases import PHRASES, PREPOSITIONS

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
        "abide abort accent adapt adventure adventures advice aide alright among angle apologies atone attach awake banker barber baron "
        "batch bead beak belle below beta bets biker billy birth blank bleach bleak bliss block bloke blond boar boast booth borne "
        "brace brake bravery bravo breach bred breed broad broom brow brunch bull bunch burst butt camel cancer cane cant cattle "
        "certainty chain chamber champ chapter charge cheap chili choose chord chunk clam clause closet clot cock coke colon comet "
        "commando commend compete complaint cone cons cost couch course coven covert cramp crank crash crate crave crest criticism "
        "crook crops crotch crust cunt curry curtain curve dairy danger decade decode depend deport descent dessert determine "
        "determines detour devout ding dong donor dose doses doves draft drain drone drove dudes dues dunk ease eject elect engage "
        "envoy exist farther feat fella fellow filed filing finnish fits flair flat flatter flavor flowed flown flung folds fond "
        "forgave form forth frail frat fright gallon gaps gentle glide glove gown graceful graft grave groove guise hans hardest harry "
        "haste hatched haunt haunting heist hell herds herr honesty honor hoop host hover hypnotize ideal identity imaging insect "
        "insure intent invention inventions inventor invest jingle joint kinda knack knee knees latex latter launch leapt learnt lease "
        "ledge lever lonely loose lynch marks mash massage match meant medal merry metal midst mil mince minus moaning moans mon monkey "
        "moron motor niece ounce packet pains panty pasta paste path per perks picket plea pop porter posture powder pranks prick pride "
        "prime prize probable product project prone protest puck purse quote raiding rally rave react rebuilt recipe reeks refuge reins "
        "relay repaid repent resent resort retard retract ricky ridge rise risk rodeo sacred sale satin scalp scar scarce scarf scarred "
        "scatter scent scored scott scour scroll seats semen serum shack shaft shallow shalt shark sharp shelf shit shook shrewd shrink "
        "sight simple sinner sire size skill skimming slack slave slender slice slick slime sling slit smelt smoke snag snail snoop "
        "snoring snuck solar sole solid sonar sorely spared spark spatter speck spent spilt spine spite splash stack stage stake stark "
        "starve state stature statute steam steep stems sting stink stock stool stoop strain strand strange strap stray streak strut "
        "stuck stud stung sturdy style submit sully super suppose surge swarm swell swells swift swing swoop swung tablet tack tank "
        "tanker tanks tense tenth thee theme thorn thorough thrash thrust thuds thugs tick til ting tire tires tough towel trail tramp "
        "trance trend truce tying unite unkind violent waist waive walter weed wheat whomever whore width withdrew wong woven wreak "
        "wring writ "
    ).split()
)
"""Words that stand near another by their spelling and are meant as they are."""
_PASSIVE = re.compile(
    r"^(?:let |may |might |please |i want |have |i order |i demand |now )*(?P<what>(?!to\b|i\b(?! (?:want|wish|would|ought|must|should|have|need))).+?)\s*"
    r"(?P<modal>should|must|has to|have to|ought to|needs to|need to|shall|is to|are to|will|can|may|)"
    r"(?P<no> not| never)? ?\bbe (?P<done>\w+)(?P<rest>.*)$"
)
_AGENT = re.compile(r" by (?:me|us|you|somebody|someone|anybody|people|them|him|her)\b")
_SELF = re.compile(r"^(?:i|we|me|us)(?: (?:want|wish|would like|ought|need|have|would love))?(?: to)?$")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SAID_SHORT = {
    "i'm": "i am", "im": "i am", "let's": "let us", "lets": "let us", "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not",
    "ain't": "am not", "gonna": "going to", "wanna": "want to", "gotta": "have to", "lemme": "let me", "gimme": "give me", "hafta": "have to", "imma": "i will",
    "ima": "i will", "u": "you", "ur": "your", "pls": "please", "plz": "please", "plox": "please", "thx": "thanks", "smth": "something", "sth": "something",
    "smb": "somebody", "dunno": "do not know", "c'mon": "come on", "cuz": "because", "coz": "because", "cos": "because", "'cause": "because",
    "b4": "before", "wont": "will not", "cant": "can not", "'em": "them", "em": "them", "ya": "you", "y'all": "you", "tryna": "trying to", "outta": "out of", "goin": "going",
    "oughta": "ought to", "shoulda": "should have", "w/": "with", "bout": "about", "teh": "the", "d'you": "do you", "idk": "i do not know", "rn": "now", "asap": "now",
    "alot": "a lot", "b/c": "because", "abt": "about", "ppl": "people", "dat": "that", "da": "the", "yur": "your", "wat": "what", "wut": "what", "wheres": "where is",
    "whats": "what is", "whos": "who is", "hows": "how is", "theres": "there is", "thats": "that is", "ive": "i have", "youre": "you are", "go2": "go to",
    "lookat": "look at", "talkto": "talk to", "pickup": "pick up", "putdown": "put down", "shud": "should", "shuld": "should", "cud": "could", "culd": "could",
    "wud": "would", "wuld": "would", "hav": "have", "nvm": "never mind", "jk": "just kidding", "2morrow": "tomorrow", "tmrw": "tomorrow", "2nite": "tonight",
    "2day": "today", "thier": "their", "becuz": "because", "rly": "really", "srsly": "seriously", "prolly": "probably", "def": "definitely",
}  # fmt: skip
"""How people write in haste, and the words that it stands for."""
_HASTE = re.compile(rf"(?<![\w'])(?:{'|'.join(sorted(map(re.escape, _SAID_SHORT), key=len, reverse=True))})(?![\w'/])", re.IGNORECASE)
_JOINED = tuple(
    (re.compile(rf"(?i)\b{found}\b"), put)
    for found, put in (
        (r"(do|did|is|are|was|were|does|should|would|could|must|have|has|had|need|might)n'?t", r"\1 not"), (r"(\w+)'ll", r"\1 will"), (r"(\w+)'re", r"\1 are"),
        (r"(\w+)'ve", r"\1 have"), (r"(?:^|(?<=[,.!?;] )|(?<=\bso )|(?<=\band )|(?<=\bor )|(?<=\bok )|(?<=\bfine ))ill(?= \w)", "i will"),
        (r"(?<=[a-z] )2(?= (?:the|a|an|my|your|his|her|him|them|me|go|do|be|see|get|eat|sleep|talk|take|find|you)\b)", "to"),
        (r"(?<=[a-z] )4(?= (?:the|my|your|his|her|him|them|me|you)\b)", "for"), (r"(?<=[a-z]) ?[+&] ?(?=[a-z])", " and then "), (r"(i|we|you|he|she|they)'d", r"\1 would"), (r"(it|that|there|here|what|where|who|how|he|she|when|everything)'s", r"\1 is"),
    )
)  # fmt: skip
_STRETCHED = re.compile(r"(?i)\b(?=[a-z]*([a-z])(?!\1)[a-z])[a-z]*?([a-z])\2{2,}[a-z]*\b")
_SLANG = r"(?:bruh|bro|dude|yo|ugh|omf?g|lol|lmao|haha+|tbh|ngl|um+|uh+|ew+|meh|lowkey|brb|gosh|jeez)"
_CHATTER = re.compile(rf"(?i)^(?:{_SLANG}\b[\s,.!]*)+(?=\w)|(?<=\w)(?:[\s,.!]+(?:{_SLANG}|xd))+(?=\W*$)|\b(?:lowkey|kinda|sorta)\b ")
_AS_HEARD = {"too the see": "to the sea", "too the": "to the", "too a": "to a", "the see": "the sea", "threw the": "through the", "their is": "there is",
             "take a step": "step", "take one step": "step"}  # fmt: skip
_HEARD = re.compile(rf"\b(?:{'|'.join(_AS_HEARD)})\b", re.IGNORECASE)


def normalized(text: str) -> str:
    """The line as the rules read it: written out, and spelled rightly.

    >>> normalized("i wanna paitn the hosue, don't i")
    'i want to paint the house, do not i'
    """
    return mended(_HEARD.sub(lambda found: _AS_HEARD[found[0].lower()], written_out(text.strip())))


def written_out(text: str) -> str:
    """The line without short forms: ``don't`` is ``do not``, ``gonna`` is ``going to``."""
    said = _CHATTER.sub("", _STRETCHED.sub(_unstretched, text.replace("’", "'")))
    said = _HASTE.sub(lambda found: _SAID_SHORT[found[0].lower()], said)
    for found, put in _JOINED:
        said = found.sub(put, said)
    return said


def _unstretched(found: re.Match[str]) -> str:
    """``sooo`` is ``so``, ``gooood`` is ``good``: with each run of letters once or twice, whichever is a word."""
    once, twice = (re.sub(r"(?i)([a-z])\1{2,}", put, found[0]) for put in (r"\1", r"\1\1"))
    return twice if twice.lower() in vocabulary()[0] and once.lower() not in vocabulary()[0] else once


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
    if " be " not in text or (text.rstrip().endswith("?") is False and text.lower().startswith("i will")):
        return text
    found = _PASSIVE.match(text.rstrip(" .!?"))
    if found is None or (verb := _base(found["done"].lower())) is None:
        return text
    if not found["modal"] and not re.match(r"(?i)(?:let|may|might|i want|i order|i demand|have|i wish|i would|i ought|i need|we )", text):
        return text
    what = found["what"].strip()
    what = "me" if _SELF.match(what.lower()) else what
    rest = _AGENT.sub("", found["rest"].lower() if found["rest"].isupper() else found["rest"])
    nobody = re.match(r"(?i)(?:nothing|nobody|no one|no )\s*", what)
    denied = bool(found["no"]) or nobody is not None
    what = what[nobody.end() :] or "anything" if nobody else what
    return f"{'do not ' if denied else ''}{verb} {what}{rest}"


def _base(participle: str) -> str | None:
    """The verb of a participle, where the rules know it."""
    if participle in IRREGULAR:
        return IRREGULAR[participle] if IRREGULAR[participle] in FIRSTS else None
    return next((base for base, form in forms(participle) if form == "past" and base in FIRSTS), None)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Every word that is known to be one, and those of them that the rules read something in."""
    tables = (lexicon.LANDMARKS, lexicon.OBJECTS, lexicon.TERRAINS, lexicon.WEATHERS, lexicon.COLOURS, lexicon.BEASTS, lexicon.DIRECTIONS, lexicon.HOURS,
              PHRASES)  # fmt: skip
    spoken = (
        *ROLES,
        *IRREGULAR,
        *lexicon.MATERIALS,
        *lexicon.SKY_THINGS,
        *lexicon.DETERMINERS,
        *lexicon.MANNERS,
        *lexicon.ANYBODY,
        *PREPOSITIONS,
    )
    read = {
        *(word for table in tables for phrase in table for word in phrase.split()),
        *LEADING,
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
    if len(word) < 3 or word in known or f"{word}s" in known or word.capitalize() in NAMES or not word.isascii() or _bent(word, known):
        return None
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
